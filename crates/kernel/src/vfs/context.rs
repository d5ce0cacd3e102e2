//! Root, working directory and umask of a process.

use core::sync::atomic::{AtomicU32, Ordering};

use super::mount::Path;
use super::mounts;
use crate::sched::SpinLock;

/// What CLONE_FS shares.
pub struct FsContext {
    places: SpinLock<Places>,
    umask: AtomicU32,
}

#[derive(Clone)]
struct Places {
    root: Path,
    cwd: Path,
}

impl FsContext {
    /// For the first process: everything at the root of the mounts, umask 022.
    ///
    /// # Panics
    /// Before the root is mounted.
    pub fn new() -> FsContext {
        let root = mounts::root();
        let places = Places { root: root.clone(), cwd: root };
        FsContext { places: SpinLock::new(places), umask: AtomicU32::new(0o022) }
    }

    /// A copy for a new process (clone without CLONE_FS).
    pub fn copy(&self) -> FsContext {
        let places = self.places.lock().clone();
        FsContext { places: SpinLock::new(places), umask: AtomicU32::new(self.umask()) }
    }

    pub fn root(&self) -> Path {
        self.places.lock().root.clone()
    }

    pub fn cwd(&self) -> Path {
        self.places.lock().cwd.clone()
    }

    pub fn set_root(&self, path: Path) {
        let old = core::mem::replace(&mut self.places.lock().root, path);
        drop(old);
    }

    pub fn set_cwd(&self, path: Path) {
        let old = core::mem::replace(&mut self.places.lock().cwd, path);
        drop(old);
    }

    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Sets the permission bits of `mask` and gives the old ones.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}

impl Default for FsContext {
    fn default() -> FsContext {
        FsContext::new()
    }
}
