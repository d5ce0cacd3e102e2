//! The file layer: names, open files, mounts. It names no concrete file system.
//!
//! ```text
//! descriptor -> OpenFile (offset, flags) -> File (what can be read, written, polled)
//!                  |                          |
//!               Path (mount, dentry) ------> Inode (what a file system stores)
//! ```
//! - [`inode`], [`file`]: the two traits that file systems and file kinds implement
//! - [`dentry`], [`mount`], [`mounts`], [`walk`]: names, and how a path finds its file; [`access`]: who may
//! - [`anonymous`]: how a file without a name is reached through /proc/PID/fd
//! - [`create`]: open(2); [`names`]: how names are made, moved and removed
//! - [`context`]: root, working directory and umask of a process
//! - [`open`]: open file descriptions; [`table`]: descriptors; [`locks`]: record locks
//! - [`busy`]: programs that run are not written; [`sigio`]: signals about readiness
//! - [`transfer`]: where read data goes and written data comes from, user memory first of all
//! - [`mapping`]: files in memory; [`size_limit`]: RLIMIT_FSIZE
//! - [`inotify`]: who watches what happens to files
//! - [`poll`]: readiness; [`epoll`], [`eventfd`], [`timerfd`]: files without a file system; [`ring`], [`pipe`]: pipes and FIFOs; [`special`]: opening FIFOs and device nodes
//!
//! Life cycle of an open file: `open` walks the path, asks the inode for its [`File`], wraps it in an
//! [`OpenFile`]; descriptors share it (dup, fork); the last reference closes it (`Drop`).
//!
//! Lock order: an open file's offset, then a directory's `changes` lock (parents before children, else
//! by address), then locks inside file systems; the locks of `FileTable`, `FsContext`, dentry
//! children, the mount table and poll lists are leaf spin locks. Copies to and from user memory under a lock
//! never resolve faults: they pause (see [`transfer`]), so a file lock is never held while `mm` works.

pub mod access;
pub mod anonymous;
pub mod busy;
pub mod context;
pub mod create;
pub mod dentry;
pub mod epoll;
pub mod eventfd;
pub mod file;
pub mod flags;
pub mod inode;
pub mod inotify;
pub mod locks;
pub mod mapping;
pub mod mount;
pub mod mounts;
pub mod names;
pub mod open;
pub mod pipe;
pub mod poll;
pub mod ring;
pub mod size_limit;
pub mod sigio;
pub mod special;
pub mod table;
pub mod timerfd;
pub mod transfer;
pub mod walk;

pub use access::Identity;
pub use context::FsContext;
pub use dentry::Dentry;
pub use file::File;
pub use inode::{Attr, Inode, InodeRef, Kind};
pub use mount::{FileSystem, Mount, Path};
pub use open::OpenFile;
pub use poll::Events;
pub use table::FileTable;
pub use transfer::{Sink, Source};
