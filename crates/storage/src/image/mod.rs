//! The hashed read-only file-system image; every byte of it is in `docs/format/image.md`.
//!
//! ```text
//! root hash -> superblock -> root node -> ... -> level 0 node -> leaf block
//!                                                                (inodes, directories, data)
//! ```
//!
//! Layers, top to bottom; each uses only those below it:
//!
//! - `reader`: [`Image`], the file system: inodes, lookup, reading data
//! - `directory`: entries and names of one directory
//! - `leafspace`: reads of any range of the leaf space
//! - `blocks`: fetches a block and checks it against the tree; `cache` keeps what was checked
//! - `tree`: the shape of the tree, where its nodes stand
//! - `record`: superblock, inode, extent, directory entry as bytes
//! - `hash`: `UnverifiedBlock` becomes `Block`
//!
//! The source of the bytes is hostile: it may answer anything, and something else each time. Each
//! block is copied in once and only the checked copy is used. The image itself is the builder's and
//! authentic once checked, but its fields are still held against their bounds, so that a broken
//! writer costs an error and not the enclave.
//!
//! Locks: each of the two caches has one spin lock, held for a map operation and never while
//! another is taken, while the source is read or while a hash is computed.

mod blocks;
mod cache;
mod directory;
mod error;
mod hash;
mod leafspace;
mod reader;
mod record;
mod source;
mod tree;
#[cfg(feature = "writer")]
pub mod writer;

pub use cache::CacheLimits;
pub use directory::DirEntry;
pub use error::{ImageError, Malformed};
pub use hash::Hash;
pub use reader::{Image, ImageStat, Inode, claimed_root_hash};
pub use record::{FileKind, Ino, LEAF_SIZE, MAX_SITES_SIZE};
pub use source::{ImageSource, SourceError};
