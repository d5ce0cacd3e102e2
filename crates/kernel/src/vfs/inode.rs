//! What a file system stores: [`Inode`], its attributes, and the entries of directories.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ops::ControlFlow;

use occlum_enclave::time;

use super::file::File;
use super::mount::Path;
use super::transfer::{Sink, Source};
use crate::error::{Errno, Result, err};
use crate::mm::SharedSlot;

pub type InodeRef = Arc<dyn Inode>;

/// The file types of stat(2); the value is `S_IFMT >> 12`, which is also `d_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Fifo = 1,
    CharDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    Symlink = 10,
    Socket = 12,
}

impl Kind {
    /// The type bits of `st_mode`.
    pub fn mode(self) -> u32 {
        u32::from(self as u8) << 12
    }

    pub fn from_mode(mode: u32) -> Option<Kind> {
        match mode >> 12 {
            1 => Some(Kind::Fifo),
            2 => Some(Kind::CharDevice),
            4 => Some(Kind::Directory),
            6 => Some(Kind::BlockDevice),
            8 => Some(Kind::Regular),
            10 => Some(Kind::Symlink),
            12 => Some(Kind::Socket),
            _ => None,
        }
    }
}

/// Seconds since 1970 and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    pub s: i64,
    pub ns: u32,
}

impl Timestamp {
    pub fn now() -> Timestamp {
        Timestamp::from_ns(time::realtime_ns())
    }

    pub fn from_ns(ns: u64) -> Timestamp {
        Timestamp { s: (ns / 1_000_000_000) as i64, ns: (ns % 1_000_000_000) as u32 }
    }
}

/// As stat(2).
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    pub dev: u64,
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Preferred I/O size in bytes.
    pub block_size: u32,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

impl Attr {
    /// Attributes of something that is in no file system, owned by root.
    pub fn anonymous(ino: u64, kind: Kind, permissions: u32) -> Attr {
        Attr {
            dev: ANONYMOUS_DEV,
            ino,
            mode: kind.mode() | permissions,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            block_size: 4096,
            blocks: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
        }
    }
}

/// `st_dev` of pipes, sockets and the like.
pub const ANONYMOUS_DEV: u64 = 0x0d;

/// What chmod, chown and utimensat change; the inode also sets ctime.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<Timestamp>,
    pub mtime: Option<Timestamp>,
}

/// What a new directory entry is.
#[derive(Clone, Copy, Debug)]
pub struct NewNode<'a> {
    pub content: NewContent<'a>,
    /// Permission bits, umask applied.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum NewContent<'a> {
    Regular,
    Directory,
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    CharDevice(u64),
    BlockDevice(u64),
}

/// renameat2(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

/// One entry as `read_dir` shows it.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    pub name: &'a [u8],
    pub ino: u64,
    pub kind: Kind,
    /// Where a later `read_dir` goes on behind this entry.
    pub next: u64,
}

pub type Visit<'a> = dyn FnMut(DirEntry<'_>) -> ControlFlow<()> + 'a;

/// What a symbolic link leads to.
pub enum Link {
    Text(Vec<u8>),
    /// A link of /proc that leads to an object, whatever its name is now.
    Object(Path),
}

/// Where a write starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    At(u64),
    /// O_APPEND: the end of the file, found under the file's lock.
    End,
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

/// fallocate(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    Extend,
    KeepSize,
    PunchHole,
    ZeroRange,
    ZeroRangeKeepSize,
    /// Takes the range out; what follows moves up.
    Collapse,
    /// Makes room; what follows moves down.
    Insert,
}

/// A file, directory or other object of a file system. Names and permissions are the caller's
/// business; an inode only keeps its own state consistent. Nothing here may park while it copies.
///
/// The defaults answer what Linux answers for objects without the operation.
pub trait Inode: Send + Sync + Any {
    fn attr(&self) -> Result<Attr>;

    fn kind(&self) -> Kind;

    fn set_attr(&self, _change: &SetAttr) -> Result<()> {
        err(Errno::EPERM, "attributes are fixed")
    }

    // Directories.

    /// The object called `name`; ENOENT if there is none. Never asked for `.` and `..`.
    fn lookup(&self, _name: &[u8]) -> Result<InodeRef> {
        err(Errno::ENOTDIR, "not a directory")
    }

    /// False if names come and go without the kernel's doing: they are then looked up each time.
    fn has_stable_names(&self) -> bool {
        true
    }

    fn create(&self, _name: &[u8], _new: &NewNode<'_>) -> Result<InodeRef> {
        err(Errno::EPERM, "nothing can be created here")
    }

    /// A nameless regular file of this directory's file system (O_TMPFILE).
    fn create_nameless(&self, _mode: u32, _uid: u32, _gid: u32) -> Result<InodeRef> {
        err(Errno::EOPNOTSUPP, "no nameless files here")
    }

    fn link(&self, _name: &[u8], _inode: &InodeRef) -> Result<()> {
        err(Errno::EPERM, "no hard links here")
    }

    fn unlink(&self, _name: &[u8]) -> Result<()> {
        err(Errno::EPERM, "nothing can be removed here")
    }

    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        err(Errno::EPERM, "nothing can be removed here")
    }

    /// Moves `name` to `to_name` in `to`, a directory of the same file system. The caller holds both
    /// directories' locks and has checked that no directory moves below itself.
    fn rename(&self, _name: &[u8], _to: &InodeRef, _to_name: &[u8], _how: Rename) -> Result<()> {
        err(Errno::EPERM, "nothing can be renamed here")
    }

    /// Shows the entries without `.` and `..` from `cursor` on (0 at first) until `visit` breaks.
    fn read_dir(&self, _cursor: u64, _visit: &mut Visit<'_>) -> Result<()> {
        err(Errno::ENOTDIR, "not a directory")
    }

    // Symbolic links.

    fn read_link(&self) -> Result<Link> {
        err(Errno::EINVAL, "not a symbolic link")
    }

    // Data.

    /// The object behind an open descriptor, if it is more than this inode's data. `flags` as open(2). May
    /// wait (a FIFO for its other end).
    fn open(self: Arc<Self>, _flags: u32) -> Result<Option<Arc<dyn File>>> {
        Ok(None)
    }

    /// Puts data from `offset` on into `sink`; nothing at or behind the end.
    fn read_at(&self, _offset: u64, _sink: &mut Sink<'_>) -> Result<()> {
        err(Errno::EINVAL, "no data")
    }

    /// Takes data from `source`; gives the offset behind the last byte.
    fn write_at(&self, _position: Position, _source: &mut Source<'_>) -> Result<u64> {
        err(Errno::EINVAL, "no data")
    }

    fn resize(&self, _size: u64) -> Result<()> {
        err(Errno::EINVAL, "no data")
    }

    fn allocate(&self, _how: Allocate, _offset: u64, _size: u64) -> Result<()> {
        err(Errno::EOPNOTSUPP, "no allocation here")
    }

    /// Offset of the next data or hole at or behind `offset`; ENXIO beyond the end.
    fn seek(&self, what: Seek, offset: u64) -> Result<u64> {
        let size = self.attr()?.size;
        if offset >= size {
            return err(Errno::ENXIO, "offset beyond the end");
        }
        Ok(if what == Seek::Data { offset } else { size })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// What it holds was read: sets the access time if `rule` says so.
    fn accessed(&self, _rule: Atime) {}

    // Extended attributes.

    fn xattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        err(Errno::EOPNOTSUPP, "no extended attributes here")
    }

    fn set_xattr(&self, _name: &[u8], _value: &[u8], _how: XattrMode) -> Result<()> {
        err(Errno::EOPNOTSUPP, "no extended attributes here")
    }

    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        err(Errno::EOPNOTSUPP, "no extended attributes here")
    }

    fn xattr_names(&self) -> Result<Vec<Box<[u8]>>> {
        Ok(Vec::new())
    }

    /// Where a shared mapping of this file is registered; files that can be mapped shared and
    /// written have one. Their data is read and written through [`super::mapping`].
    fn shared_slot(&self) -> Option<&SharedSlot> {
        None
    }

    /// Whether the data is, and as long as this says true will be, the same whenever it is read: it
    /// comes from the verified image. Memory that shows it may then be used again.
    fn is_unchanging(&self) -> bool {
        false
    }

    /// The table of system-call sites of an ELF file, if the image has one.
    fn sites(&self) -> Option<Arc<[u8]>> {
        None
    }
}

/// When reading changes the access time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atime {
    Always,
    /// If it is not newer than the last change, or a day old (`relatime`).
    Relative,
}

impl Atime {
    /// The new access time of an inode with these times, if it changes.
    pub fn update(self, atime: Timestamp, mtime: Timestamp, ctime: Timestamp) -> Option<Timestamp> {
        const DAY_S: i64 = 24 * 60 * 60;
        let now = Timestamp::now();
        let is_due = self == Atime::Always
            || atime <= mtime
            || atime <= ctime
            || now.s.saturating_sub(atime.s) >= DAY_S;
        is_due.then_some(now)
    }
}

/// setxattr(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    Any,
    Create,
    Replace,
}
