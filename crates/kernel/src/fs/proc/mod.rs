//! /proc: what the kernel tells programs about itself and about them, proc(5).
//!
//! Everything is made when it is asked for: directories from tables, file contents when a file is opened
//! (a snapshot, so that a reader sees one state). Names come and go with processes, so they are never cached.
//!
//! - [`system`]: files about the whole system, /proc/sys among them
//! - [`process`]: files about one process or thread
//!   ([`stat`]: in numbers; [`maps`]: its memory)
//! - [`sysfs`]: /sys, made of the same
//! - [`descriptors`]: fd/ and fdinfo/

mod descriptors;
mod maps;
mod process;
mod stat;
pub mod sysfs;
mod system;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Errno, Error, Result, err};
use crate::process as processes;
use crate::process::Thread;
use crate::sched::SpinLock;
use crate::vfs::file::{File, Wait};
use crate::vfs::flags::{O_ACCMODE, O_RDONLY};
use crate::vfs::inode::*;
use crate::vfs::mount::{FileSystem, StatFs};
use crate::vfs::{Sink, Source};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// `st_dev` of every /proc.
const DEV: u64 = 0x1e;

pub struct ProcFs;

impl FileSystem for ProcFs {
    fn name(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(ProcInode::new(Node::Root))
    }

    fn stat(&self) -> Result<StatFs> {
        Ok(StatFs { magic: PROC_SUPER_MAGIC, block_size: 4096, ..StatFs::default() })
    }
}

/// What an object of /proc is.
#[derive(Clone)]
enum Node {
    Root,
    System(&'static system::Entry),
    /// A process's own directory, or a thread's below `task`.
    Process(Scope),
    Entry(Scope, &'static process::Entry),
    /// `fd/N` and `fdinfo/N`.
    Descriptor(Scope, i32),
    DescriptorInfo(Scope, i32),
}

/// Whose information: a process's, or one thread's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scope {
    pid: u32,
    tid: u32,
    is_thread: bool,
}

impl Scope {
    /// The thread to ask; ESRCH when it has ended.
    fn thread(&self) -> Result<Arc<Thread>> {
        let found = if self.is_thread {
            processes::find_thread(self.tid)
        } else {
            processes::find_process(self.pid).and_then(|process| process.main_thread())
        };
        found.ok_or(Error::new(Errno::ESRCH, "the process has ended"))
    }

    fn exists(&self) -> bool {
        match self.is_thread {
            true => processes::find_thread(self.tid).is_some_and(|t| t.process().pid() == self.pid),
            false => processes::find_process(self.pid).is_some(),
        }
    }
}

/// Contents made at open, or a change at write.
enum Content {
    Text(Vec<u8>),
    Link(Link),
    Directory,
}

struct ProcInode {
    node: Node,
}

impl ProcInode {
    fn new(node: Node) -> Arc<ProcInode> {
        Arc::new(ProcInode { node })
    }

    fn permissions(&self) -> u32 {
        match &self.node {
            Node::Root | Node::Process(_) => 0o555,
            Node::System(entry) => entry.mode,
            Node::Entry(_, entry) => entry.mode,
            Node::Descriptor(scope, fd) => descriptors::link_mode(*scope, *fd),
            Node::DescriptorInfo(..) => 0o444,
        }
    }

    /// Numbers differ between objects and stay the same for one; nothing else is promised.
    fn ino(&self) -> u64 {
        let scope_base = |scope: &Scope| {
            u64::from(if scope.is_thread { scope.tid } else { scope.pid }) << 24
                | u64::from(scope.is_thread) << 56
        };
        match &self.node {
            Node::Root => 1,
            Node::System(entry) => 0x1000 + core::ptr::from_ref(*entry) as u64 % 0xf_ffff,
            Node::Process(scope) => scope_base(scope) | 2,
            Node::Entry(scope, entry) => scope_base(scope) | 0x100 | process::index_of(entry),
            Node::Descriptor(scope, fd) => scope_base(scope) | 0x10_0000 | *fd as u64 & 0x7_ffff,
            Node::DescriptorInfo(scope, fd) => scope_base(scope) | 0x80_0000 | *fd as u64 & 0x7_ffff,
        }
    }

    fn content(&self) -> Result<Content> {
        match &self.node {
            Node::Root | Node::Process(_) => Ok(Content::Directory),
            Node::System(entry) => entry.content(),
            Node::Entry(scope, entry) => entry.content(*scope),
            Node::Descriptor(scope, fd) => Ok(Content::Link(descriptors::link(*scope, *fd)?)),
            Node::DescriptorInfo(scope, fd) => {
                Ok(Content::Text(descriptors::info(*scope, *fd)?.into_bytes()))
            }
        }
    }

    fn owner(&self) -> (u32, u32) {
        let scope = match &self.node {
            Node::Root | Node::System(_) => return (0, 0),
            Node::Process(scope) | Node::Entry(scope, _) => scope,
            Node::Descriptor(scope, _) | Node::DescriptorInfo(scope, _) => scope,
        };
        scope.thread().map_or((0, 0), |thread| {
            let credentials = thread.credentials();
            (credentials.euid(), credentials.egid())
        })
    }

    fn write(&self, text: &[u8]) -> Result<()> {
        match &self.node {
            Node::System(entry) => entry.write(text),
            Node::Entry(scope, entry) => entry.write(*scope, text),
            _ => err(Errno::EACCES, "read-only"),
        }
    }
}

impl Inode for ProcInode {
    fn attr(&self) -> Result<Attr> {
        let mut attr = Attr::anonymous(self.ino(), self.kind(), self.permissions());
        let now = Timestamp::now();
        (attr.atime, attr.mtime, attr.ctime) = (now, now, now);
        (attr.uid, attr.gid) = self.owner();
        attr.dev = DEV;
        if self.kind() == Kind::Directory {
            attr.nlink = 2;
        }
        if self.kind() == Kind::Symlink {
            attr.size = 64;
        }
        Ok(attr)
    }

    fn kind(&self) -> Kind {
        match &self.node {
            Node::Root | Node::Process(_) => Kind::Directory,
            Node::System(entry) => entry.kind(),
            Node::Entry(_, entry) => entry.kind(),
            Node::Descriptor(..) => Kind::Symlink,
            Node::DescriptorInfo(..) => Kind::Regular,
        }
    }

    fn has_stable_names(&self) -> bool {
        false
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let found = match &self.node {
            Node::Root => match number(name) {
                Some(pid) => {
                    // Linux finds every thread here, though it lists processes only.
                    let process = processes::find_process(pid).map(|process| process.pid());
                    let owner = || processes::find_thread(pid).map(|t| t.process().pid());
                    process.or_else(owner).map(|pid| Node::Process(Scope { pid, tid: pid, is_thread: false }))
                }
                None => system::ROOT.iter().find(|entry| entry.name.as_bytes() == name).map(Node::System),
            },
            Node::System(entry) => {
                let is_meant = |entry: &&system::Entry| entry.name.as_bytes() == name && sysfs::is_there(entry);
                entry.children().iter().find(is_meant).map(Node::System)
            }
            Node::Process(scope) => process::find(*scope, name).map(|entry| Node::Entry(*scope, entry)),
            Node::Entry(scope, entry) => entry.lookup(*scope, name),
            _ => return err(Errno::ENOTDIR, "not a directory"),
        };
        match found {
            Some(node) => Ok(ProcInode::new(node)),
            None => err(Errno::ENOENT, "no such name in /proc"),
        }
    }

    /// As on Linux: a name that is not there can't be made, because it can't be looked up.
    fn create(&self, _name: &[u8], _new: &NewNode<'_>) -> Result<InodeRef> {
        err(Errno::ENOENT, "nothing can be made in /proc")
    }

    fn read_dir(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        let names = self.names()?;
        for (index, (name, node)) in names.into_iter().enumerate() {
            let place = place(index, &name);
            if place < cursor {
                continue;
            }
            let inode = ProcInode { node };
            let entry = DirEntry {
                name: name.as_bytes(),
                ino: inode.ino(),
                kind: inode.kind(),
                next: place + 1,
            };
            if visit(entry) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self) -> Result<Link> {
        match self.content()? {
            Content::Link(link) => Ok(link),
            _ => err(Errno::EINVAL, "not a symbolic link"),
        }
    }

    fn open(self: Arc<Self>, flags: u32) -> Result<Option<Arc<dyn File>>> {
        if self.kind() == Kind::Directory {
            return Ok(None);
        }
        // Contents are made now only if they will be read.
        let text = if flags & O_ACCMODE == O_RDONLY {
            match self.content()? {
                Content::Text(text) => Some(text),
                _ => return err(Errno::ELOOP, "a link of /proc"),
            }
        } else {
            None
        };
        Ok(Some(Arc::new(ProcFile { inode: self.clone(), shown: self, text: SpinLock::new(text.map(Arc::new)), is_fresh: AtomicBool::new(true) })))
    }

    fn resize(&self, _size: u64) -> Result<()> {
        Ok(())
    }
}

impl ProcInode {
    /// The names of a directory.
    fn names(&self) -> Result<Vec<(String, Node)>> {
        let named = |entry: &'static system::Entry| (String::from(entry.name), Node::System(entry));
        match &self.node {
            Node::Root => {
                let mut names: Vec<_> = system::ROOT.iter().map(named).collect();
                for process in processes::processes() {
                    let pid = process.pid();
                    let node = Node::Process(Scope { pid, tid: pid, is_thread: false });
                    names.push((format!("{pid}"), node));
                }
                Ok(names)
            }
            Node::System(entry) => {
                Ok(entry.children().iter().filter(|entry| sysfs::is_there(entry)).map(named).collect())
            }
            Node::Process(scope) => {
                let entries = process::entries(*scope);
                Ok(entries.map(|entry| (String::from(entry.name), Node::Entry(*scope, entry))).collect())
            }
            Node::Entry(scope, entry) => entry.names(*scope),
            _ => err(Errno::ENOTDIR, "not a directory"),
        }
    }
}

/// Where an entry stands in its directory. Numbers stand at themselves: when a descriptor is closed or a
/// process ends while somebody reads, no other moves.
fn place(index: usize, name: &str) -> u64 {
    const NUMBERS: u64 = 1 << 16;
    number(name.as_bytes()).map_or(index as u64, |number| NUMBERS + u64::from(number))
}

/// A decimal number without leading zeros.
fn number(name: &[u8]) -> Option<u32> {
    if name.first() == Some(&b'0') && name.len() > 1 {
        return None;
    }
    core::str::from_utf8(name).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// An open file of /proc: its contents as they were when it was opened.
struct ProcFile {
    inode: Arc<ProcInode>,
    shown: InodeRef,
    text: SpinLock<Option<Arc<Vec<u8>>>>,
    /// Nothing of the text was read yet.
    is_fresh: AtomicBool,
}

impl ProcFile {
    fn text(&self) -> Result<Arc<Vec<u8>>> {
        if let Some(text) = self.text.lock().clone() {
            return Ok(text);
        }
        let Content::Text(text) = self.inode.content()? else {
            return err(Errno::EINVAL, "no text");
        };
        let text = Arc::new(text);
        *self.text.lock() = Some(text.clone());
        Ok(text)
    }
}

impl File for ProcFile {
    fn attr(&self) -> Result<Attr> {
        self.inode.attr()
    }

    fn inode(&self) -> Option<&InodeRef> {
        Some(&self.shown)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, sink: &mut Sink<'_>, _wait: Wait) -> Result<()> {
        // Reading from the start again shows the present. A copy that paused before its first byte goes on with
        // what was made for it: making it anew could pause it for ever.
        if offset == 0 && sink.done() == 0 && !self.is_fresh.swap(true, Ordering::Relaxed) {
            *self.text.lock() = None;
        }
        let text = self.text()?;
        let start = usize::try_from(offset).map_or(text.len(), |offset| offset.min(text.len()));
        if sink.put(&text[start..]) > 0 || text.is_empty() {
            self.is_fresh.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, at: Position, source: &mut Source<'_>, _wait: Wait) -> Result<u64> {
        let mut text = [0; 256];
        let size = source.left().min(text.len());
        let taken = source.take(&mut text[..size]);
        if taken == size && size > 0 {
            self.inode.write(&text[..taken])?;
        }
        match at {
            Position::At(offset) => Ok(offset + taken as u64),
            Position::End => Ok(taken as u64),
        }
    }

    fn is_pollable(&self) -> bool {
        false
    }
}
