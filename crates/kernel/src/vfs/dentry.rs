//! The name cache: which inode a name in a directory leads to, so that walking a path that was walked
//! before asks no file system.
//!
//! A dentry is one (parent, name) with its inode. A directory's dentry keeps its children, also names
//! that are known not to exist. Children keep their parent alive and parents their children; the circle is cut
//! when a name is removed and by [`prune`], which forgets what nobody uses once there are too many.
//!
//! Names of inodes without stable names (host files, /proc) are never kept: each walk makes new dentries.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use occlum_enclave::HeapUsage;

use super::inode::{InodeRef, Kind};
use super::mounts;
use crate::error::{Errno, Result, err};
use crate::sched::{Mutex, SpinLock};

/// Kernel heap for one name with what hangs on it; a quarter of the heap may go to names.
const COST: usize = 1024;

/// Names kept before the unused ones are forgotten.
fn limit() -> usize {
    HeapUsage::now().limit / 4 / COST
}

/// Names kept now, known-absent ones included.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A name and what it leads to.
pub struct Dentry {
    inode: InodeRef,
    place: SpinLock<Place>,
    children: SpinLock<Children>,
    /// Held while names of this directory are looked up in the file system or changed.
    pub changes: Mutex<()>,
    is_mountpoint: AtomicBool,
}

/// `None`: known not to exist.
type Children = BTreeMap<Box<[u8]>, Option<Arc<Dentry>>>;

struct Place {
    /// `None` for the root of a mount.
    parent: Option<Arc<Dentry>>,
    name: Box<[u8]>,
    is_deleted: bool,
    /// The name is only shown: nothing is found by it.
    is_nameless: bool,
}

impl Dentry {
    /// The root of a mount.
    pub fn root(inode: InodeRef) -> Arc<Dentry> {
        Dentry::new(inode, None, Box::default())
    }

    /// An object without a name (a pipe, O_TMPFILE, memfd); `shown` is what /proc/PID/fd says.
    pub fn nameless(inode: InodeRef, shown: &[u8]) -> Arc<Dentry> {
        let dentry = Dentry::new(inode, None, shown.into());
        dentry.place.lock().is_nameless = true;
        dentry
    }

    fn new(inode: InodeRef, parent: Option<Arc<Dentry>>, name: Box<[u8]>) -> Arc<Dentry> {
        Arc::new(Dentry {
            inode,
            place: SpinLock::new(Place {
                parent,
                name,
                is_deleted: false,
                is_nameless: false,
            }),
            children: SpinLock::new(BTreeMap::new()),
            changes: Mutex::new(()),
            is_mountpoint: AtomicBool::new(false),
        })
    }

    pub fn inode(&self) -> &InodeRef {
        &self.inode
    }

    pub fn kind(&self) -> Kind {
        self.inode.kind()
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == Kind::Directory
    }

    /// The directory it is in; `None` at the root of a mount.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    pub fn name(&self) -> Box<[u8]> {
        self.place.lock().name.clone()
    }

    /// Whether its name was removed while somebody still holds it.
    pub fn is_deleted(&self) -> bool {
        self.place.lock().is_deleted
    }

    pub fn is_mountpoint(&self) -> bool {
        self.is_mountpoint.load(Ordering::Acquire)
    }

    /// Something is, or is no longer, mounted here. Names that are otherwise looked up each time are kept
    /// from then on, or the mount would not be found again.
    pub(super) fn set_mountpoint(self: &Arc<Dentry>, is: bool) {
        self.is_mountpoint.store(is, Ordering::Release);
        let mut at = self.clone();
        while let Some(parent) = at.parent().filter(|parent| is && !parent.inode.has_stable_names()) {
            parent.keep(&at.name(), Some(at.clone()));
            at = parent;
        }
    }

    /// What is shown of an object without a name.
    pub fn shown_name(&self) -> Option<Box<[u8]>> {
        let place = self.place.lock();
        place.is_nameless.then(|| place.name.clone())
    }

    /// The child called `name`; ENOENT if there is none.
    pub fn child(self: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
        match self.cached(name) {
            Some(found) => found,
            None => {
                let _changes = self.changes.lock();
                self.child_locked(name)
            }
        }
    }

    /// As [`Dentry::child`], for a caller that holds `changes`.
    pub fn child_locked(self: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
        if let Some(found) = self.cached(name) {
            return found;
        }
        match self.inode.lookup(name) {
            Ok(inode) => Ok(self.adopt(name, inode)),
            Err(error) if error.errno == Errno::ENOENT => {
                if self.inode.has_stable_names() && !self.is_deleted() {
                    self.keep(name, None);
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn cached(&self, name: &[u8]) -> Option<Result<Arc<Dentry>>> {
        match self.children.lock().get(name) {
            Some(Some(child)) => Some(Ok(child.clone())),
            Some(None) => Some(err(Errno::ENOENT, "no such name")),
            None => None,
        }
    }

    /// A dentry for `inode`, which the file system has under `name`. The caller holds `changes`.
    pub fn adopt(self: &Arc<Dentry>, name: &[u8], inode: InodeRef) -> Arc<Dentry> {
        let child = Dentry::new(inode, Some(self.clone()), name.into());
        if self.inode.has_stable_names() {
            self.keep(name, Some(child.clone()));
        }
        child
    }

    /// Records that `name` was removed. The caller holds `changes`.
    pub fn forget(&self, name: &[u8]) {
        let removed = self.children.lock().remove(name);
        if let Some(child) = removed {
            COUNT.fetch_sub(1, Ordering::Relaxed);
            if let Some(child) = child {
                child.mark_deleted();
            }
        }
    }

    /// Marks it as having lost its name, and drops the names known in it.
    pub fn mark_deleted(&self) {
        self.place.lock().is_deleted = true;
        let children = core::mem::take(&mut *self.children.lock());
        COUNT.fetch_sub(children.len(), Ordering::Relaxed);
    }

    /// Drops all names known below it, which keep each other alive: the file system goes.
    pub(super) fn forget_tree(&self) {
        let mut todo = alloc::vec![core::mem::take(&mut *self.children.lock())];
        while let Some(children) = todo.pop() {
            COUNT.fetch_sub(children.len(), Ordering::Relaxed);
            for child in children.into_values().flatten() {
                todo.push(core::mem::take(&mut *child.children.lock()));
            }
        }
    }

    /// Records that `child` is now `name` in `to`. The caller holds the `changes` of both.
    pub fn moved(self: &Arc<Dentry>, child: &Arc<Dentry>, to: &Arc<Dentry>, name: &[u8]) {
        let old_name = child.name();
        if self.children.lock().remove(&old_name).is_some() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
        child.set_place(to, name);
        if to.inode.has_stable_names() {
            to.keep(name, Some(child.clone()));
        }
    }

    /// Records that `one` of this directory and `other` of `dir` have changed places.
    pub fn exchanged(self: &Arc<Dentry>, one: &Arc<Dentry>, dir: &Arc<Dentry>, other: &Arc<Dentry>) {
        let (one_name, other_name) = (one.name(), other.name());
        one.set_place(dir, &other_name);
        other.set_place(self, &one_name);
        if self.inode.has_stable_names() {
            self.keep(&one_name, Some(other.clone()));
            dir.keep(&other_name, Some(one.clone()));
        }
    }

    fn set_place(&self, parent: &Arc<Dentry>, name: &[u8]) {
        let old = {
            let mut place = self.place.lock();
            place.name = name.into();
            place.parent.replace(parent.clone())
        };
        drop(old);
    }

    /// Whether `self` is `other` or lies above it.
    pub fn is_above(self: &Arc<Dentry>, other: &Arc<Dentry>) -> bool {
        let mut at = Some(other.clone());
        while let Some(dentry) = at {
            if Arc::ptr_eq(&dentry, self) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    fn keep(&self, name: &[u8], child: Option<Arc<Dentry>>) {
        let old = self.children.lock().insert(name.into(), child);
        if old.is_none() && COUNT.fetch_add(1, Ordering::Relaxed) >= limit() {
            prune();
        }
    }
}

impl Drop for Dentry {
    /// Walks up by hand: dropping a long chain of parents recursively would overflow the kernel stack.
    fn drop(&mut self) {
        let mut parent = self.place.get_mut().parent.take();
        while let Some(dentry) = parent {
            parent = match Arc::into_inner(dentry) {
                Some(mut last) => last.place.get_mut().parent.take(),
                None => None,
            };
        }
    }
}

/// Forgets names that nobody uses, until half of the limit is left or none.
fn prune() {
    for root in mounts::roots() {
        let mut todo = vec![root];
        while let Some(dentry) = todo.pop() {
            let mut dropped = Vec::new();
            dentry.children.lock().retain(|_, child| {
                let is_used = child.as_ref().is_some_and(|child| {
                    Arc::strong_count(child) > 1 || !child.children.lock().is_empty()
                });
                if !is_used {
                    dropped.extend(child.take());
                    COUNT.fetch_sub(1, Ordering::Relaxed);
                }
                is_used
            });
            // Outside the lock: it drops inodes.
            drop(dropped);
            if COUNT.load(Ordering::Relaxed) <= limit() / 2 {
                return;
            }
            todo.extend(dentry.children.lock().values().flatten().filter(|child| child.is_dir()).cloned());
        }
    }
}
