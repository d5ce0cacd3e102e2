//! Attributes of a node, as they are now: the store's, with what is newer in memory.

use occlum_storage::store::{Stat, Time};

use crate::vfs::inode::{Attr, Timestamp};

/// What stat(2) shows, without the size of a regular file, which its data knows.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u64,
    /// Of a directory or symlink.
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// Times are newer than the store's.
    pub is_dirty: bool,
}

impl From<&Stat> for Meta {
    fn from(stat: &Stat) -> Meta {
        Meta {
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            nlink: stat.nlink,
            rdev: stat.rdev,
            size: stat.size,
            blocks: stat.blocks * 8,
            atime: from_time(stat.atime),
            mtime: from_time(stat.mtime),
            ctime: from_time(stat.ctime),
            is_dirty: false,
        }
    }
}

impl From<&Attr> for Meta {
    fn from(attr: &Attr) -> Meta {
        Meta {
            mode: attr.mode & 0o7777,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            rdev: attr.rdev,
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            is_dirty: false,
        }
    }
}

pub fn now() -> Time {
    to_time(Timestamp::now())
}

pub fn to_time(time: Timestamp) -> Time {
    Time { s: time.s, ns: time.ns }
}

fn from_time(time: Time) -> Timestamp {
    Timestamp { s: time.s, ns: time.ns }
}
