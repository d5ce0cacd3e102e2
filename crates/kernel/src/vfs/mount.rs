//! Mounts: file systems joined into one tree of names.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Once;

use super::dentry::Dentry;
use super::inode::InodeRef;
use crate::error::{Errno, Result, err};
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

/// A file system at its place in the tree.
pub struct Mount {
    pub id: u32,
    pub fs: Arc<dyn FileSystem>,
    pub root: Arc<Dentry>,
    /// What it covers; `None` for the root of everything.
    pub on: Option<Path>,
    /// As shown in /proc/mounts.
    pub source: String,
    pub is_read_only: bool,
}

/// A place in the tree: the same file may be reached through several.
#[derive(Clone)]
pub struct Path {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

static MOUNTS: SpinLock<Vec<Arc<Mount>>> = SpinLock::new(Vec::new());
static ROOT: Once<Path> = Once::new();
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

/// Mounts the root of everything; called once.
pub fn mount_root(fs: Arc<dyn FileSystem>, source: String) -> Result<Path> {
    let mount = new_mount(fs, None, source)?;
    let path = Path { dentry: mount.root.clone(), mount: mount.clone() };
    MOUNTS.lock().push(mount);
    Ok(ROOT.call_once(|| path).clone())
}

/// The root of everything.
///
/// # Panics
/// Before `mount_root`.
pub fn root() -> Path {
    ROOT.get().expect("boot mounts the root before it starts a process").clone()
}

/// Mounts `fs` over the directory `on`.
pub fn mount(fs: Arc<dyn FileSystem>, on: Path, source: String) -> Result<()> {
    if !on.dentry.is_dir() {
        return err(Errno::ENOTDIR, "mount point is not a directory");
    }
    let dentry = on.dentry.clone();
    let mount = new_mount(fs, Some(on), source)?;
    MOUNTS.lock().push(mount);
    dentry.set_mountpoint(true);
    Ok(())
}

/// umount2(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    IfUnused,
    /// MNT_DETACH: who is in it may stay.
    Lazy,
}

/// Removes the mount whose root is `path`; EBUSY while something in it is open.
pub fn unmount(path: &Path, how: Unmount) -> Result<()> {
    let Some(on) = path.mount.on.clone() else { return err(Errno::EBUSY, "the root stays") };
    if !Arc::ptr_eq(&path.mount.root, &path.dentry) {
        return err(Errno::EINVAL, "not a mount point");
    }
    let mut mounts = MOUNTS.lock();
    let has_children = mounts.iter().any(|other| {
        other.on.as_ref().is_some_and(|place| Arc::ptr_eq(&place.mount, &path.mount))
    });
    // The table and the caller's path hold one reference each.
    if has_children || (how == Unmount::IfUnused && Arc::strong_count(&path.mount) > 2) {
        return err(Errno::EBUSY, "mount in use");
    }
    mounts.retain(|mount| !Arc::ptr_eq(mount, &path.mount));
    let is_still_covered = mounts.iter().any(|mount| mount.covers(&on));
    on.dentry.set_mountpoint(is_still_covered);
    Ok(())
}

fn new_mount(fs: Arc<dyn FileSystem>, on: Option<Path>, source: String) -> Result<Arc<Mount>> {
    let root = Dentry::root(fs.root()?);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    Ok(Arc::new(Mount { id, fs, root, on, source, is_read_only: false }))
}

/// All mounts, oldest first.
pub fn all() -> Vec<Arc<Mount>> {
    MOUNTS.lock().clone()
}

/// The roots of all mounts.
pub(super) fn roots() -> Vec<Arc<Dentry>> {
    MOUNTS.lock().iter().map(|mount| mount.root.clone()).collect()
}

impl Mount {
    fn covers(&self, path: &Path) -> bool {
        self.on.as_ref().is_some_and(|on| on.is_same(path))
    }
}

impl Path {
    pub fn inode(&self) -> &InodeRef {
        self.dentry.inode()
    }

    pub fn is_same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// Another place in the same mount.
    pub fn with(&self, dentry: Arc<Dentry>) -> Path {
        Path { mount: self.mount.clone(), dentry }
    }

    /// The root of what is mounted here, or itself.
    pub fn enter_mounts(mut self) -> Path {
        while self.dentry.is_mountpoint() {
            let top = MOUNTS.lock().iter().rfind(|mount| mount.covers(&self)).cloned();
            let Some(mount) = top else { break };
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
            if let Some(parent) = at.dentry.parent() {
                return at.with(parent).enter_mounts();
            }
            match at.mount.on.clone() {
                Some(on) => at = on,
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
            match (at.dentry.parent(), at.mount.on.clone()) {
                (Some(parent), _) => {
                    names.push(at.dentry.name());
                    at = at.with(parent);
                }
                (None, Some(on)) => at = on,
                (None, None) => break false,
            }
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
