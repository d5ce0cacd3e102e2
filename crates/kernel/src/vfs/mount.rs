//! Mounts: file systems joined into one tree of names. What is mounted where is in [`mounts`].

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::dentry::Dentry;
use super::inode::{Atime, InodeRef, Kind};
use super::mounts;
use crate::error::Result;
use crate::sched::SpinLock;

/// A mounted file system's own side.
pub trait FileSystem: Send + Sync {
    /// As in /proc/filesystems.
    fn name(&self) -> &'static str;

    fn root(&self) -> Result<InodeRef>;

    fn stat(&self) -> Result<StatFs>;

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Whether nothing in it can ever be written.
    fn is_read_only(&self) -> bool {
        false
    }

    /// What /proc/mounts shows behind the flags, without a comma before it.
    fn options(&self) -> String {
        String::new()
    }
}

/// statfs(2), without the parts the mount knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatFs {
    /// `f_type`, a magic number of statfs(2).
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub files: u64,
    pub files_free: u64,
}

/// Flags of mount(2) that stay with a mount, with their values.
pub const MS_RDONLY: u32 = 1;
pub const MS_NOSUID: u32 = 2;
pub const MS_NODEV: u32 = 4;
pub const MS_NOEXEC: u32 = 8;
pub const MS_SYNCHRONOUS: u32 = 16;
pub const MS_NOATIME: u32 = 1 << 10;
pub const MS_NODIRATIME: u32 = 1 << 11;
pub const MS_RELATIME: u32 = 1 << 21;
pub const MS_STRICTATIME: u32 = 1 << 24;

/// Those a mount keeps; strict access times are the absence of the other two.
pub const KEPT_FLAGS: u32 = MS_RDONLY
    | MS_NOSUID
    | MS_NODEV
    | MS_NOEXEC
    | MS_SYNCHRONOUS
    | MS_NOATIME
    | MS_NODIRATIME
    | MS_RELATIME;

/// A file system, or a part of one, at its place in the tree.
pub struct Mount {
    pub id: u32,
    pub fs: Arc<dyn FileSystem>,
    /// Not the file system's root if it is a bind mount of a part.
    pub root: Arc<Dentry>,
    /// What it covers; `None` for the root of everything and for what was detached.
    on: SpinLock<Option<Path>>,
    /// As shown in /proc/mounts.
    pub source: String,
    flags: AtomicU32,
    /// Open descriptions that may write.
    writers: AtomicUsize,
}

/// A place in the tree: the same file may be reached through several.
#[derive(Clone)]
pub struct Path {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

impl Mount {
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        root: Arc<Dentry>,
        on: Option<Path>,
        source: String,
        flags: u32,
    ) -> Arc<Mount> {
        static NEXT_ID: AtomicU32 = AtomicU32::new(1);
        Arc::new(Mount {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            fs,
            root,
            on: SpinLock::new(on),
            source,
            flags: AtomicU32::new(flags & KEPT_FLAGS),
            writers: AtomicUsize::new(0),
        })
    }

    /// What it covers now.
    pub fn on(&self) -> Option<Path> {
        self.on.lock().clone()
    }

    pub(super) fn set_on(&self, on: Option<Path>) -> Option<Path> {
        core::mem::replace(&mut *self.on.lock(), on)
    }

    /// MS_* bits.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    pub(super) fn set_flags(&self, flags: u32) {
        self.flags.store(flags & KEPT_FLAGS, Ordering::Relaxed);
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    pub fn is_read_only(&self) -> bool {
        self.has(MS_RDONLY)
    }

    /// What reading through this mount does to access times; `None`: nothing.
    pub fn atime_rule(&self, kind: Kind) -> Option<Atime> {
        let never = if kind == Kind::Directory { MS_RDONLY | MS_NOATIME | MS_NODIRATIME } else { MS_RDONLY | MS_NOATIME };
        match () {
            () if self.has(never) => None,
            () if self.has(MS_RELATIME) => Some(Atime::Relative),
            () => Some(Atime::Always),
        }
    }

    /// Something was opened for writing (1) or closed again (-1).
    pub(super) fn count_writer(&self, change: isize) {
        self.writers.fetch_add(change as usize, Ordering::Relaxed);
    }

    pub(super) fn has_writers(&self) -> bool {
        self.writers.load(Ordering::Relaxed) != 0
    }

    pub(super) fn covers(&self, path: &Path) -> bool {
        self.on.lock().as_ref().is_some_and(|on| on.is_same(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // No other mount shows the same names.
        if Arc::strong_count(&self.fs) == 1 {
            self.root.forget_tree();
        }
    }
}

impl Path {
    pub fn inode(&self) -> &InodeRef {
        self.dentry.inode()
    }

    pub fn is_same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// What is there was read.
    pub fn accessed(&self) {
        let inode = self.inode();
        if let Some(rule) = self.mount.atime_rule(inode.kind()) {
            inode.accessed(rule);
        }
    }

    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }

    /// Another place in the same mount.
    pub fn with(&self, dentry: Arc<Dentry>) -> Path {
        Path { mount: self.mount.clone(), dentry }
    }

    /// The root of what is mounted here, or itself.
    pub fn enter_mounts(mut self) -> Path {
        while self.dentry.is_mountpoint() {
            let Some(mount) = mounts::covering(&self) else { break };
            self = Path { dentry: mount.root.clone(), mount };
        }
        self
    }

    /// `..`: the parent directory, not above `root`.
    pub fn parent(&self, root: &Path) -> Path {
        let mut at = self.clone();
        loop {
            if at.is_same(root) {
                return at.enter_mounts();
            }
            if at.is_mount_root() {
                match at.mount.on() {
                    Some(on) => at = on,
                    None => return at,
                }
                continue;
            }
            match at.dentry.parent() {
                Some(parent) => return at.with(parent).enter_mounts(),
                None => return at,
            }
        }
    }

    /// The absolute name as seen from `root`; says whether it is below it, and whether it still exists.
    pub fn name(&self, root: &Path) -> FullName {
        if let Some(shown) = self.dentry.shown_name() {
            return FullName { text: shown.into_vec(), is_reachable: true, is_deleted: false };
        }
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let mut at = self.clone();
        let is_reachable = loop {
            if at.is_same(root) {
                break true;
            }
            if at.is_mount_root() {
                match at.mount.on() {
                    Some(on) => at = on,
                    None => break false,
                }
                continue;
            }
            let Some(parent) = at.dentry.parent() else { break false };
            names.push(at.dentry.name());
            at = at.with(parent);
        };
        let mut text = Vec::new();
        for name in names.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(name);
        }
        if text.is_empty() {
            text.push(b'/');
        }
        FullName { text, is_reachable, is_deleted: self.dentry.is_deleted() }
    }
}

/// See [`Path::name`].
pub struct FullName {
    pub text: Vec<u8>,
    pub is_reachable: bool,
    pub is_deleted: bool,
}
