//! /dev: a file system in memory with device nodes, and what the devices do.

use alloc::string::String;
use alloc::sync::Arc;

use super::console;
use super::pty;
use super::ramfs::RamFs;
use crate::error::{Errno, Result, err};
use crate::random;
use crate::user::{self, UserAddr};
use crate::vfs::file::{File, Wait};
use crate::vfs::inode::{Attr, InodeRef, NewContent, NewNode, Position};
use crate::vfs::mount::FileSystem;
use crate::vfs::special::{self, makedev};
use crate::vfs::{Sink, Source};

/// Device nodes: name, major, minor.
const NODES: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("ptmx", 5, 2),
];

/// Links: name, target.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// A /dev of at most `limit` bytes of files that programs make in it.
pub fn new(limit: u64) -> Result<Arc<RamFs>> {
    register_devices();
    let fs = RamFs::new(limit, 0o755)?;
    let root = fs.root()?;
    for (name, major, minor) in NODES {
        make(&root, name, NewContent::CharDevice(makedev(major, minor)), 0o666)?;
    }
    for (name, target) in LINKS {
        make(&root, name, NewContent::Symlink(target.as_bytes()), 0o777)?;
    }
    for name in ["shm", "pts", "mqueue"] {
        make(&root, name, NewContent::Directory, 0o1777)?;
    }
    Ok(fs)
}

fn make(root: &InodeRef, name: &str, content: NewContent<'_>, mode: u32) -> Result<()> {
    root.create(name.as_bytes(), &NewNode { content, mode, uid: 0, gid: 0 }).map(drop)
}

fn register_devices() {
    special::register_char_device(makedev(1, 3), |node, _| Ok(Device::new(node, Kind::Null)));
    special::register_char_device(makedev(1, 5), |node, _| Ok(Device::new(node, Kind::Zero)));
    special::register_char_device(makedev(1, 7), |node, _| Ok(Device::new(node, Kind::Full)));
    special::register_char_device(makedev(1, 8), |node, _| Ok(Device::new(node, Kind::Random)));
    special::register_char_device(makedev(1, 9), |node, _| Ok(Device::new(node, Kind::Random)));
    pty::register();
    special::register_char_device(makedev(5, 0), |_, _| match (pty::open_controlling(), console::controlling()) {
        (Some(terminal), _) => Ok(terminal),
        (None, Some(terminal)) => Ok(terminal),
        (None, None) => err(Errno::ENXIO, "no controlling terminal"),
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

/// One of the memory devices of mem(4), null(4), full(4), random(4).
struct Device {
    node: InodeRef,
    kind: Kind,
}

impl Device {
    fn new(node: InodeRef, kind: Kind) -> Arc<Device> {
        Arc::new(Device { node, kind })
    }
}

impl File for Device {
    fn attr(&self) -> Result<Attr> {
        self.node.attr()
    }

    fn label(&self) -> String {
        String::from("/dev")
    }

    fn inode(&self) -> Option<&InodeRef> {
        Some(&self.node)
    }

    /// Any offset does.
    fn is_seekable(&self) -> bool {
        true
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, _wait: Wait) -> Result<()> {
        match self.kind {
            Kind::Null => {}
            Kind::Zero | Kind::Full => {
                sink.put_zeros(sink.room());
            }
            Kind::Random => read_random(sink),
        }
        Ok(())
    }

    fn write(&self, at: Position, source: &mut Source<'_>, _wait: Wait) -> Result<u64> {
        if self.kind == Kind::Full && source.left() > 0 {
            return err(Errno::ENOSPC, "/dev/full");
        }
        // Not looked at, as on Linux: a bad address is no error.
        source.skip_all();
        match at {
            Position::At(offset) => Ok(offset.saturating_add(source.done() as u64)),
            Position::End => Ok(source.done() as u64),
        }
    }

    fn ioctl(&self, request: u32, arg: UserAddr) -> Result<usize> {
        const RNDGETENTCNT: u32 = 0x8004_5200;
        match (self.kind, request) {
            (Kind::Random, RNDGETENTCNT) => {
                user::write(arg, &256i32)?;
                Ok(0)
            }
            _ => err(Errno::ENOTTY, "no such request"),
        }
    }

    fn is_pollable(&self) -> bool {
        self.kind == Kind::Random
    }

    fn sync(&self) -> Result<()> {
        err(Errno::EINVAL, "a device")
    }
}

/// Fills the sink with random bytes.
pub fn read_random(sink: &mut Sink<'_>) {
    let mut buf = [0; 512];
    while sink.room() > 0 {
        let size = sink.room().min(buf.len());
        random::fill(&mut buf[..size]);
        if sink.put(&buf[..size]) < size {
            break;
        }
    }
    // What was not delivered must not stay on the stack.
    buf.fill(0);
}
