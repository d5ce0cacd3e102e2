//! Opening inodes that stand for something else: FIFOs and device nodes.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::file::File;
use super::inode::{InodeRef, Kind};
use super::pipe;
use crate::error::{Errno, Result, err};
use crate::sched::SpinLock;

/// Opens a device; `flags` as open(2).
pub type OpenDevice = fn(node: InodeRef, flags: u32) -> Result<Arc<dyn File>>;

static CHAR_DEVICES: SpinLock<BTreeMap<u64, OpenDevice>> = SpinLock::new(BTreeMap::new());

/// Device number as in `st_rdev` (makedev(3)).
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & !0xff) << 12
}

/// Names what the character device `rdev` does when it is opened.
pub fn register_char_device(rdev: u64, open: OpenDevice) {
    CHAR_DEVICES.lock().insert(rdev, open);
}

/// What is behind a FIFO or a device node.
pub fn open(inode: InodeRef, flags: u32) -> Result<Arc<dyn File>> {
    match inode.kind() {
        Kind::Fifo => pipe::open_fifo(inode, flags),
        Kind::CharDevice => {
            let rdev = inode.attr()?.rdev;
            let device = CHAR_DEVICES.lock().get(&rdev).copied();
            match device {
                Some(open) => open(inode, flags),
                None => err(Errno::ENXIO, "no such device"),
            }
        }
        _ => err(Errno::ENXIO, "no such device"),
    }
}
