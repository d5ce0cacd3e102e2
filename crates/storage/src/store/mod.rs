//! The encrypted read-write store; every byte of it is in `docs/format/store.md`, why it is so in
//! `docs/design/store.md`.
//!
//! ```text
//! superblock -> root node -> ... -> leaf -> items: inodes, names, chunks (-> data), space maps
//!      `-----> log: items that changed since
//! ```
//!
//! Layers, top to bottom; each uses only those below it:
//!
//! - `names`, `data`, `attributes`, `xattr`, `verify`: the operations of a [`Store`]
//! - `commit`: sync, checkpoint, room for both; `opened`: create, open, replay
//! - `tree`: all items, as far as they are in memory; `node`: a node as bytes
//! - `space`: free blocks; `staging`: data on its way to the disk
//! - `superblock`, `log`, `item`, `inode`, `chunk`, `wire`: records as bytes
//! - `vault`: the disk and its keys; `seal`: `UnverifiedBlock` becomes bytes to be believed
//!
//! The disk is hostile: it may answer anything, and something else each time. Whatever verifies was
//! written by a holder of the key; its fields are still held against their bounds, so that a broken
//! writer costs an error and not the enclave.
//!
//! Locks: none. Every operation takes `&mut self`; who shares a store holds a lock around each
//! call, one that may be held while the disk is read and written.

mod attributes;
mod chunk;
mod commit;
mod copy;
mod data;
mod disk;
mod error;
#[cfg(feature = "writer")]
mod file;
mod inode;
mod item;
mod log;
mod names;
mod node;
mod opened;
#[doc(hidden)]
pub mod parsers;
mod pin;
mod pointer;
mod seal;
mod siphash;
mod space;
mod staging;
mod superblock;
mod tree;
mod vault;
mod verify;
mod wire;
mod xattr;

pub use attributes::{NewInode, StoreStat};
pub use disk::{Disk, DiskError};
pub use error::{Result, StoreError};
#[cfg(feature = "writer")]
pub use file::FileDisk;
pub use inode::{FileKind, ROOT, SetAttr, Stat, Time};
pub use names::{DirEntry, Entry, EntryKind, Leave, Name, Removed, Rename};
pub use opened::{Limits, Options, Seed, Store};
pub use pin::Pin;
pub use pointer::BLOCK;
pub use seal::KEY_SIZE;
pub use xattr::XattrMode;
