//! The inode record, and what is seen of it.
//!
//! ```text
//!    0  4  mode      16  8  size      32 12  atime     80  8  rdev     104  4  flags
//!    4  4  nlink     24  8  blocks    44 12  mtime     88  8  parent   108  4  zero
//!    8  4  uid                        56 12  ctime     96  8  origin
//!   12  4  gid                        68 12  btime
//! ```

use alloc::vec::Vec;

use super::error::{Result, StoreError};
use super::wire::Fields;

pub const INODE_SIZE: usize = 112;
pub const ROOT: u64 = 1;

const FLAG_OPAQUE: u32 = 1;
const FLAG_XATTRS: u32 = 2;

/// The file types of stat(2); the value is `S_IFMT >> 12`, which is also `d_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileKind {
    Fifo = 1,
    CharDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    Symlink = 10,
    Socket = 12,
}

impl FileKind {
    pub fn from_mode(mode: u32) -> Option<FileKind> {
        FileKind::from_number(mode >> 12)
    }

    pub fn from_number(number: u32) -> Option<FileKind> {
        Some(match number {
            1 => FileKind::Fifo,
            2 => FileKind::CharDevice,
            4 => FileKind::Directory,
            6 => FileKind::BlockDevice,
            8 => FileKind::Regular,
            10 => FileKind::Symlink,
            12 => FileKind::Socket,
            _ => return None,
        })
    }

    /// The type bits of `st_mode`.
    pub fn mode(self) -> u32 {
        u32::from(self as u8) << 12
    }
}

/// Seconds since 1970 and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub s: i64,
    pub ns: u32,
}

/// As stat(2), and what a layered file system keeps with an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of a file or a symlink's target; entries of a directory.
    pub size: u64,
    /// Blocks of 4096 bytes of data.
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    pub rdev: u64,
    /// The directory of a directory; the root's is itself. Else 0.
    pub parent: u64,
    /// The inode of the layer below, else 0: the layered file system's own business.
    pub origin: u64,
    /// This directory hides the one below.
    pub is_opaque: bool,
    pub has_xattrs: bool,
}

/// What chmod(2), chown(2) and utimensat(2) change; ctime becomes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

impl Stat {
    /// An inode without data or names.
    pub fn new(mode: u32, uid: u32, gid: u32, now: Time) -> Stat {
        Stat {
            mode,
            nlink: 0,
            uid,
            gid,
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            rdev: 0,
            parent: 0,
            origin: 0,
            is_opaque: false,
            has_xattrs: false,
        }
    }

    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode).expect("checked when it was made or parsed")
    }

    pub fn parse(fields: &mut Fields<'_>) -> Result<Stat> {
        let mode = fields.u32()?;
        FileKind::from_mode(mode).ok_or(StoreError::Malformed("a mode has no file type"))?;
        let mut stat = Stat {
            mode,
            nlink: fields.u32()?,
            uid: fields.u32()?,
            gid: fields.u32()?,
            size: fields.u64()?,
            blocks: fields.u64()?,
            atime: time(fields)?,
            mtime: time(fields)?,
            ctime: time(fields)?,
            btime: time(fields)?,
            rdev: fields.u64()?,
            parent: fields.u64()?,
            origin: fields.u64()?,
            is_opaque: false,
            has_xattrs: false,
        };
        let flags = fields.u32()?;
        stat.is_opaque = flags & FLAG_OPAQUE != 0;
        stat.has_xattrs = flags & FLAG_XATTRS != 0;
        fields.u32()?;
        Ok(stat)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        for field in [self.mode, self.nlink, self.uid, self.gid] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            out.extend_from_slice(&time.s.to_le_bytes());
            out.extend_from_slice(&time.ns.to_le_bytes());
        }
        for field in [self.rdev, self.parent, self.origin] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let opaque = if self.is_opaque { FLAG_OPAQUE } else { 0 };
        let xattrs = if self.has_xattrs { FLAG_XATTRS } else { 0 };
        out.extend_from_slice(&(opaque | xattrs).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

fn time(fields: &mut Fields<'_>) -> Result<Time> {
    let time = Time {
        s: fields.i64()?,
        ns: fields.u32()?,
    };
    if time.ns >= 1_000_000_000 {
        return Err(StoreError::Malformed("a time has too many nanoseconds"));
    }
    Ok(time)
}
