//! inotify(7): events of files, for those who watch them.
//!
//! [`Inotify`] is the descriptor with its watches and its queue; [`WATCHED`] finds the watches of an inode.
//! The file layer calls [`changed`] and its kin after it did something; while
//! nobody watches anything that is one load.
//!
//! Lock order: `WATCHED` and an instance's state are leaf spin locks, never held together.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::dentry::Dentry;
use super::file::{File, Wait};
use super::inode::{Attr, InodeRef, Kind};
use super::pipe::anonymous_ino;
use super::poll::{Events, Readiness};
use super::transfer::Sink;
use crate::error::{Errno, Result, err};
use crate::sched::{SpinLock, Wake};

pub const IN_ACCESS: u32 = 0x1;
pub const IN_MODIFY: u32 = 0x2;
pub const IN_ATTRIB: u32 = 0x4;
pub const IN_CLOSE_WRITE: u32 = 0x8;
pub const IN_CLOSE_NOWRITE: u32 = 0x10;
pub const IN_OPEN: u32 = 0x20;
pub const IN_MOVED_FROM: u32 = 0x40;
pub const IN_MOVED_TO: u32 = 0x80;
pub const IN_CREATE: u32 = 0x100;
pub const IN_DELETE: u32 = 0x200;
pub const IN_DELETE_SELF: u32 = 0x400;
pub const IN_MOVE_SELF: u32 = 0x800;
pub const IN_ALL_EVENTS: u32 = 0xfff;
const IN_Q_OVERFLOW: u32 = 0x4000;
const IN_IGNORED: u32 = 0x8000;
pub const IN_MASK_CREATE: u32 = 0x1000_0000;
pub const IN_MASK_ADD: u32 = 0x2000_0000;
const IN_ISDIR: u32 = 0x4000_0000;
pub const IN_ONESHOT: u32 = 0x8000_0000;

/// fs.inotify.max_queued_events
const QUEUE_MAX: usize = 16384;
/// fs.inotify.max_user_watches, for each instance.
const WATCHES_MAX: usize = 65536;
/// `struct inotify_event` without the name; names are padded to a multiple of it.
const HEADER_SIZE: usize = 16;

/// Device and inode number.
type Key = (u64, u64);

/// Who watches an inode.
static WATCHED: SpinLock<BTreeMap<Key, Vec<(Weak<Inotify>, i32)>>> = SpinLock::new(BTreeMap::new());
static WATCH_COUNT: AtomicUsize = AtomicUsize::new(0);
static NEXT_COOKIE: AtomicU32 = AtomicU32::new(1);

pub struct Inotify {
    state: SpinLock<State>,
    readiness: Readiness,
    ino: u64,
}

#[derive(Default)]
struct State {
    last: i32,
    watches: BTreeMap<i32, Watch>,
    queue: VecDeque<Event>,
}

struct Watch {
    key: Key,
    mask: u32,
    /// Keeps the inode number from meaning another file.
    _inode: InodeRef,
}

#[derive(Clone, PartialEq, Eq)]
struct Event {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

/// Something happened to the object behind `dentry`: tells its watches and those of its directory.
pub fn changed(dentry: &Dentry, mask: u32) {
    if is_idle() {
        return;
    }
    if let Some(parent) = dentry.parent() {
        publish(parent.inode(), with_dir(mask, dentry.inode()), 0, &dentry.name());
    }
    publish(dentry.inode(), with_dir(mask, dentry.inode()), 0, b"");
}

/// The entry `name` of a directory, which is `inode`, came or went.
pub fn entry_changed(dir: &Dentry, name: &[u8], inode: &InodeRef, mask: u32) {
    if !is_idle() {
        publish(dir.inode(), with_dir(mask, inode), 0, name);
    }
}

/// The same for an inode whose name does not matter.
pub fn changed_inode(inode: &InodeRef, mask: u32) {
    if !is_idle() {
        publish(inode, with_dir(mask, inode), 0, b"");
    }
}

/// An inode lost a name. Directories have no links to count.
pub fn links_changed(inode: &InodeRef) {
    if !is_idle() && inode.kind() != Kind::Directory {
        publish(inode, IN_ATTRIB, 0, b"");
    }
}

/// An inode lost a name: it may be gone.
pub fn removed(inode: &InodeRef) {
    if is_idle() {
        return;
    }
    let is_gone = inode.kind() == Kind::Directory || inode.attr().is_ok_and(|attr| attr.nlink == 0);
    if is_gone {
        publish(inode, IN_DELETE_SELF, 0, b"");
        forget(inode);
    }
}

/// `inode` moved from one name to another.
pub fn moved(inode: &InodeRef, from: (&Dentry, &[u8]), to: (&Dentry, &[u8])) {
    if is_idle() {
        return;
    }
    let cookie = NEXT_COOKIE.fetch_add(1, Ordering::Relaxed);
    publish(from.0.inode(), with_dir(IN_MOVED_FROM, inode), cookie, from.1);
    publish(to.0.inode(), with_dir(IN_MOVED_TO, inode), cookie, to.1);
    publish(inode, IN_MOVE_SELF, 0, b"");
}

fn is_idle() -> bool {
    WATCH_COUNT.load(Ordering::Relaxed) == 0
}

fn with_dir(mask: u32, inode: &InodeRef) -> u32 {
    if inode.kind() == Kind::Directory { mask | IN_ISDIR } else { mask }
}

fn key_of(inode: &InodeRef) -> Option<Key> {
    inode.attr().ok().map(|attr| (attr.dev, attr.ino))
}

fn watches_of(inode: &InodeRef) -> Vec<(Weak<Inotify>, i32)> {
    let Some(key) = key_of(inode) else { return Vec::new() };
    WATCHED.lock().get(&key).cloned().unwrap_or_default()
}

fn publish(inode: &InodeRef, mask: u32, cookie: u32, name: &[u8]) {
    for (instance, watch) in watches_of(inode) {
        if let Some(instance) = instance.upgrade() {
            instance.deliver(watch, mask, cookie, name);
        }
    }
}

/// The inode is gone: its watches end.
fn forget(inode: &InodeRef) {
    for (instance, watch) in watches_of(inode) {
        if let Some(instance) = instance.upgrade() {
            // Somebody else may have removed it in between.
            let _ = instance.remove(watch);
        }
    }
}

impl Inotify {
    pub fn new() -> Arc<Inotify> {
        let (state, readiness) = (SpinLock::new(State::default()), Readiness::new());
        Arc::new(Inotify { state, readiness, ino: anonymous_ino() })
    }

    /// inotify_add_watch(2); gives the watch descriptor.
    pub fn add(self: &Arc<Inotify>, inode: &InodeRef, mask: u32) -> Result<i32> {
        let attr = inode.attr()?;
        let key = (attr.dev, attr.ino);
        let mut state = self.state.lock();
        if let Some((&id, watch)) = state.watches.iter_mut().find(|(_, watch)| watch.key == key) {
            if mask & IN_MASK_CREATE != 0 {
                return err(Errno::EEXIST, "watched already");
            }
            watch.mask = if mask & IN_MASK_ADD != 0 { watch.mask | mask } else { mask };
            return Ok(id);
        }
        if state.watches.len() >= WATCHES_MAX {
            return err(Errno::ENOSPC, "too many watches");
        }
        state.last += 1;
        let id = state.last;
        state.watches.insert(id, Watch { key, mask, _inode: inode.clone() });
        drop(state);
        WATCHED.lock().entry(key).or_default().push((Arc::downgrade(self), id));
        WATCH_COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(id)
    }

    /// inotify_rm_watch(2).
    pub fn remove(&self, id: i32) -> Result<()> {
        let gone = {
            let mut state = self.state.lock();
            let Some(gone) = state.watches.remove(&id) else { return err(Errno::EINVAL, "no such watch") };
            state.push(Event { watch: id, mask: IN_IGNORED, cookie: 0, name: Vec::new() });
            gone
        };
        self.unlist(id, &gone);
        self.readiness.notify();
        Ok(())
    }

    fn unlist(&self, id: i32, gone: &Watch) {
        let mut watched = WATCHED.lock();
        if let Some(list) = watched.get_mut(&gone.key) {
            list.retain(|(instance, other)| *other != id || !core::ptr::eq(instance.as_ptr(), self));
            if list.is_empty() {
                watched.remove(&gone.key);
            }
        }
        WATCH_COUNT.fetch_sub(1, Ordering::Relaxed);
    }

    fn deliver(&self, id: i32, mask: u32, cookie: u32, name: &[u8]) {
        let is_once = {
            let mut state = self.state.lock();
            let Some(watch) = state.watches.get(&id).filter(|watch| watch.mask & mask & IN_ALL_EVENTS != 0) else {
                return;
            };
            let is_once = watch.mask & IN_ONESHOT != 0;
            state.push(Event { watch: id, mask, cookie, name: name.to_vec() });
            is_once
        };
        self.readiness.notify();
        if is_once {
            // Somebody else may have removed it in between.
            let _ = self.remove(id);
        }
    }

    fn try_read(&self, sink: &mut Sink<'_>) -> Option<Result<()>> {
        let mut state = self.state.lock();
        state.queue.front()?;
        let before = sink.done();
        while let Some(bytes) = state.queue.front().map(Event::to_bytes) {
            if sink.room() < bytes.len() {
                break;
            }
            // A fault comes back here once it is resolved.
            if !sink.put_all(&bytes) {
                return Some(Ok(()));
            }
            state.queue.pop_front();
        }
        if sink.done() == before {
            return Some(err(Errno::EINVAL, "no room for the next event"));
        }
        Some(Ok(()))
    }
}

impl State {
    /// Adds an event; what equals the last one adds nothing.
    fn push(&mut self, event: Event) {
        if self.queue.back() == Some(&event) {
            return;
        }
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(event);
        } else if self.queue.len() == QUEUE_MAX {
            self.queue.push_back(Event { watch: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: Vec::new() });
        }
    }
}

impl Event {
    fn size(&self) -> usize {
        let name_size = if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER_SIZE) };
        HEADER_SIZE + name_size
    }

    /// `struct inotify_event`: wd, mask, cookie, len, name with its padding of NULs.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend(self.watch.to_le_bytes());
        bytes.extend(self.mask.to_le_bytes());
        bytes.extend(self.cookie.to_le_bytes());
        bytes.extend(((self.size() - HEADER_SIZE) as u32).to_le_bytes());
        bytes.extend(&self.name);
        bytes.resize(self.size(), 0);
        bytes
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let watches = core::mem::take(&mut self.state.get_mut().watches);
        for (id, watch) in &watches {
            self.unlist(*id, watch);
        }
    }
}

impl File for Inotify {
    fn can_signal(&self) -> bool {
        true
    }

    fn attr(&self) -> Result<Attr> {
        Ok(Attr::anonymous(self.ino, Kind::Regular, 0o600))
    }

    fn label(&self) -> String {
        String::from("anon_inode:inotify")
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        self.readiness.wait(wait, || self.try_read(sink))?
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.readiness.add(waker);
        }
        if self.state.lock().queue.is_empty() { Events::NONE } else { Events::IN }
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.readiness.remove(waker);
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.state.lock().queue.iter().map(Event::size).sum())
    }
}
