//! /dev/pts: a node for each pseudo-terminal whose master is open.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::ends;
use super::pair::{self, Pair};
use crate::error::{Errno, Result, err};
use crate::sched::SpinLock;
use crate::vfs::file::File;
use crate::vfs::inode::{Attr, DirEntry, Inode, InodeRef, Kind, SetAttr, Timestamp, Visit};
use crate::vfs::mount::{FileSystem, StatFs};
use crate::vfs::special::makedev;

const DEVPTS_MAGIC: u64 = 0x1cd1;
const DEV: u64 = 0x16;
const SLAVE_MAJOR: u32 = 136;
/// Group `tty`.
const TTY_GROUP: u32 = 5;
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
const FIRST_SLAVE_INO: u64 = 3;

pub struct DevPts;

impl FileSystem for DevPts {
    fn name(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(Arc::new(Root))
    }

    fn stat(&self) -> Result<StatFs> {
        Ok(StatFs { magic: DEVPTS_MAGIC, block_size: 4096, ..StatFs::default() })
    }
}

struct Root;

impl Inode for Root {
    fn attr(&self) -> Result<Attr> {
        Ok(attr(ROOT_INO, Kind::Directory.mode() | 0o755, (0, 0), 0))
    }

    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn has_stable_names(&self) -> bool {
        false
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        if name == b"ptmx" {
            return Ok(Arc::new(Ptmx));
        }
        let text = core::str::from_utf8(name).unwrap_or_default();
        let is_plain = text == "0" || !text.starts_with(['0', '+']);
        let index = text.parse().ok().filter(|_| is_plain);
        match index.and_then(pair::find) {
            Some(pair) => Ok(node(pair)),
            None => err(Errno::ENOENT, "no such pseudo-terminal"),
        }
    }

    fn read_dir(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        let kind = Kind::CharDevice;
        if cursor == 0 && visit(DirEntry { name: b"ptmx", ino: PTMX_INO, kind, next: 1 }).is_break() {
            return Ok(());
        }
        let first = u32::try_from(cursor.saturating_sub(1)).unwrap_or(u32::MAX);
        for index in pair::indices(first) {
            let name = format!("{index}");
            let ino = FIRST_SLAVE_INO + u64::from(index);
            let entry = DirEntry { name: name.as_bytes(), ino, kind, next: u64::from(index) + 2 };
            if visit(entry).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// /dev/pts/ptmx.
struct Ptmx;

impl Inode for Ptmx {
    fn attr(&self) -> Result<Attr> {
        Ok(attr(PTMX_INO, Kind::CharDevice.mode() | 0o666, (0, 0), makedev(5, 2)))
    }

    fn kind(&self) -> Kind {
        Kind::CharDevice
    }

    fn open(self: Arc<Self>, _flags: u32) -> Result<Option<Arc<dyn File>>> {
        ends::open_master(self).map(Some)
    }
}

/// /dev/pts/N.
struct Node {
    pair: Arc<Pair>,
    mode: AtomicU32,
    owner: SpinLock<(u32, u32)>,
}

/// The node of a pair; a new one for each walk, so changes of mode and owner do not last.
pub fn node(pair: Arc<Pair>) -> InodeRef {
    let owner = SpinLock::new((pair.owner.0, TTY_GROUP));
    Arc::new(Node { pair, mode: AtomicU32::new(0o620), owner })
}

impl Inode for Node {
    fn attr(&self) -> Result<Attr> {
        let index = self.pair.index;
        let mode = Kind::CharDevice.mode() | self.mode.load(Ordering::Relaxed);
        let ino = FIRST_SLAVE_INO + u64::from(index);
        Ok(attr(ino, mode, *self.owner.lock(), makedev(SLAVE_MAJOR, index)))
    }

    fn kind(&self) -> Kind {
        Kind::CharDevice
    }

    /// Accepted, because login programs insist: terminals have no other users to be kept from.
    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        if let Some(mode) = change.mode {
            self.mode.store(mode & 0o7777, Ordering::Relaxed);
        }
        let mut owner = self.owner.lock();
        *owner = (change.uid.unwrap_or(owner.0), change.gid.unwrap_or(owner.1));
        Ok(())
    }

    fn open(self: Arc<Self>, flags: u32) -> Result<Option<Arc<dyn File>>> {
        ends::open_slave(self.pair.clone(), self, flags).map(Some)
    }
}

fn attr(ino: u64, mode: u32, owner: (u32, u32), rdev: u64) -> Attr {
    let now = Timestamp::now();
    Attr {
        dev: DEV,
        ino,
        mode,
        nlink: if ino == ROOT_INO { 2 } else { 1 },
        uid: owner.0,
        gid: owner.1,
        rdev,
        size: 0,
        block_size: 1024,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
    }
}
