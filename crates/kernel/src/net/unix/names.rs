//! The names of AF_UNIX sockets.
//!
//! A name in the file tree is an inode of type socket; the inode finds the socket, so links and renames
//! work. An abstract name belongs to one type of socket. A name lives as long as its socket is open;
//! the inode stays until it is unlinked.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Once;

use super::super::mailbox::Mailbox;
use super::super::{Kind, UnixName};
use super::stream::Listener;
use crate::error::{Errno, Error, Result, err};
use crate::process::{self, Thread};
use crate::sched::SpinLock;
use crate::vfs::access::{self, Identity, MAY_WRITE};
use crate::vfs::create::Mode;
use crate::vfs::inode::{self, NewContent};
use crate::vfs::walk::{self, Walker};
use crate::vfs::{InodeRef, names};

/// A name in use.
pub struct Bound {
    pub name: UnixName,
    key: Key,
    kind: Kind,
    target: Once<Target>,
}

/// What connections and messages to a name reach.
pub enum Target {
    Listener(Arc<Listener>),
    Mailbox(Arc<Mailbox>),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Device and inode number.
    File(u64, u64),
    Abstract(Kind, Arc<[u8]>),
}

static NAMES: SpinLock<BTreeMap<Key, Weak<Bound>>> = SpinLock::new(BTreeMap::new());
static NEXT_AUTOMATIC: AtomicU32 = AtomicU32::new(0);

/// Gives a socket of type `kind` a name. EADDRINUSE.
pub fn bind(name: UnixName, kind: Kind) -> Result<Arc<Bound>> {
    let key = match &name {
        UnixName::Unnamed => return automatic(kind),
        UnixName::Abstract(bytes) => Key::Abstract(kind, bytes.clone()),
        UnixName::Path(path) => make_inode(path)?,
    };
    enter(name, key, kind)
}

/// A fresh abstract name of five hexadecimal digits, as Linux gives.
fn automatic(kind: Kind) -> Result<Arc<Bound>> {
    const COUNT: u32 = 1 << 20;
    for _ in 0..COUNT {
        let number = NEXT_AUTOMATIC.fetch_add(1, Ordering::Relaxed) % COUNT;
        let bytes: Arc<[u8]> = format!("{number:05x}").as_bytes().into();
        let key = Key::Abstract(kind, bytes.clone());
        if let Ok(bound) = enter(UnixName::Abstract(bytes), key, kind) {
            return Ok(bound);
        }
    }
    err(Errno::ENOSPC, "no abstract name left")
}

fn enter(name: UnixName, key: Key, kind: Kind) -> Result<Arc<Bound>> {
    let bound = Arc::new(Bound { name, key: key.clone(), kind, target: Once::new() });
    let mut names = NAMES.lock();
    if names.get(&key).is_some_and(|other| other.strong_count() > 0) {
        return err(Errno::EADDRINUSE, "the name is in use");
    }
    names.insert(key, Arc::downgrade(&bound));
    Ok(bound)
}

fn caller() -> Result<Arc<Thread>> {
    process::current().ok_or(Error::new(Errno::EINVAL, "no calling thread"))
}

/// EADDRINUSE if a name in the file tree is taken: a socket that has a name hears of that first.
pub fn check_free(name: &UnixName) -> Result<()> {
    let UnixName::Path(path) = name else { return Ok(()) };
    let thread = caller()?;
    let who = Identity::from(&*thread.credentials());
    match walk::lookup(thread.fs(), &who, path) {
        Ok(_) => err(Errno::EADDRINUSE, "the file exists"),
        Err(_) => Ok(()),
    }
}

fn make_inode(path: &[u8]) -> Result<Key> {
    let thread = caller()?;
    let (fs, who) = (thread.fs(), Identity::from(&*thread.credentials()));
    let parent = Walker::new(fs, &who, fs.cwd(), path.to_vec())?.parent()?;
    let mode = Mode { bits: 0o777, umask: fs.umask() };
    match names::make(&parent, &who, NewContent::Socket, mode) {
        Err(error) if error.errno == Errno::EEXIST => {
            return err(Errno::EADDRINUSE, "the file exists");
        }
        other => other?,
    }
    key_of(parent.dir.dentry.child(&parent.name)?.inode())
}

fn key_of(inode: &InodeRef) -> Result<Key> {
    let attr = inode.attr()?;
    Ok(Key::File(attr.dev, attr.ino))
}

/// The socket of type `kind` with a name. ECONNREFUSED if nobody has it, EPROTOTYPE if one of another
/// type does.
pub fn find(name: &UnixName, kind: Kind) -> Result<Arc<Bound>> {
    let key = match name {
        UnixName::Unnamed => return err(Errno::ECONNREFUSED, "no name"),
        UnixName::Abstract(bytes) => Key::Abstract(kind, bytes.clone()),
        UnixName::Path(path) => find_inode(path)?,
    };
    let bound = NAMES.lock().get(&key).and_then(Weak::upgrade);
    match bound {
        Some(bound) if bound.kind == kind => Ok(bound),
        Some(_) => err(Errno::EPROTOTYPE, "a socket of another type"),
        None => err(Errno::ECONNREFUSED, "no socket has this name"),
    }
}

fn find_inode(path: &[u8]) -> Result<Key> {
    let thread = caller()?;
    let who = Identity::from(&*thread.credentials());
    let found = walk::lookup(thread.fs(), &who, path)?;
    access::check(&**found.inode(), &who, MAY_WRITE)?;
    if found.inode().kind() != inode::Kind::Socket {
        return err(Errno::ECONNREFUSED, "not a socket");
    }
    key_of(found.inode())
}

impl Bound {
    pub fn set_target(&self, target: Target) {
        self.target.call_once(|| target);
    }

    pub fn target(&self) -> Option<&Target> {
        self.target.get()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut names = NAMES.lock();
        // Somebody else may have taken the name since the last reference went.
        if names.get(&self.key).is_some_and(|entry| entry.strong_count() == 0) {
            names.remove(&self.key);
        }
    }
}
