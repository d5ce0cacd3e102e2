//! The table of mounts and what mount(2) and umount2(2) do to it.
//!
//! A bind mount is one more [`Mount`] of the same file system with a root of its own. There is one table for
//! all processes (no namespaces), so propagation between mounts has nothing to do.
//!
//! The table's lock is a leaf; mounts that go away are dropped outside it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use occlum_enclave::log;
use spin::Once;

use super::dentry::Dentry;
use super::mount::{FileSystem, MS_RDONLY, MS_RELATIME, Mount, Path};
use crate::error::{Errno, Result, err};
use crate::sched::SpinLock;

static MOUNTS: SpinLock<Vec<Arc<Mount>>> = SpinLock::new(Vec::new());
static ROOT: Once<Path> = Once::new();

/// Mounts the root of everything; called once.
pub fn mount_root(fs: Arc<dyn FileSystem>, source: String) -> Result<Path> {
    let root = Dentry::root(fs.root()?);
    let mount = Mount::new(fs, root, None, source, MS_RELATIME);
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

/// All mounts, oldest first.
pub fn all() -> Vec<Arc<Mount>> {
    MOUNTS.lock().clone()
}

/// Brings everything written to where it lasts; what fails is in the log.
pub fn sync_all() {
    for mount in all() {
        if let Err(error) = mount.fs.sync() {
            log!(Error, "{} could not be synced: {error:?}", mount.source);
        }
    }
}

/// The roots of all mounts.
pub(super) fn roots() -> Vec<Arc<Dentry>> {
    MOUNTS.lock().iter().map(|mount| mount.root.clone()).collect()
}

/// The newest mount on `path`.
pub(super) fn covering(path: &Path) -> Option<Arc<Mount>> {
    MOUNTS.lock().iter().rfind(|mount| mount.covers(path)).cloned()
}

/// Mounts `fs` over the directory `on`.
pub fn mount(fs: Arc<dyn FileSystem>, on: Path, source: String, flags: u32) -> Result<()> {
    if !on.dentry.is_dir() {
        return err(Errno::ENOTDIR, "mount point is not a directory");
    }
    let root = Dentry::root(fs.root()?);
    attach(Mount::new(fs, root, Some(on.clone()), source, flags), &on)
}

/// How much of what is below the source a bind mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    One,
    /// MS_REC: mounts below it too.
    All,
}

/// Makes what is at `from` appear at `on` too (MS_BIND).
pub fn bind(from: &Path, on: Path, depth: Depth) -> Result<()> {
    if from.dentry.is_dir() != on.dentry.is_dir() {
        return err(Errno::ENOTDIR, "a directory over a file or the other way round");
    }
    let inner = if depth == Depth::All { mounts_below(from) } else { Vec::new() };
    let top = copy_of(&from.mount, from.dentry.clone(), on.clone());
    attach(top.clone(), &on)?;
    let mut copies = alloc::vec![(from.mount.clone(), top)];
    for mount in inner {
        let Some(place) = mount.on() else { continue };
        let parent = copies.iter().find(|(old, _)| Arc::ptr_eq(old, &place.mount));
        let Some((_, parent)) = parent else { continue };
        let place = Path { mount: parent.clone(), dentry: place.dentry };
        let copy = copy_of(&mount, mount.root.clone(), place.clone());
        attach(copy.clone(), &place)?;
        copies.push((mount, copy));
    }
    Ok(())
}

fn copy_of(mount: &Mount, root: Arc<Dentry>, on: Path) -> Arc<Mount> {
    Mount::new(mount.fs.clone(), root, Some(on), mount.source.clone(), mount.flags())
}

/// Mounts on something below `path`, parents first.
fn mounts_below(path: &Path) -> Vec<Arc<Mount>> {
    let mut found: Vec<Arc<Mount>> = Vec::new();
    for mount in all() {
        let Some(on) = mount.on() else { continue };
        let is_here = Arc::ptr_eq(&on.mount, &path.mount) && path.dentry.is_above(&on.dentry);
        if is_here || found.iter().any(|other| Arc::ptr_eq(other, &on.mount)) {
            found.push(mount);
        }
    }
    found
}

fn attach(mount: Arc<Mount>, on: &Path) -> Result<()> {
    if on.dentry.is_deleted() {
        return err(Errno::ENOENT, "the mount point was removed");
    }
    MOUNTS.lock().push(mount);
    on.dentry.set_mountpoint(true);
    Ok(())
}

/// Moves the mount whose root is `from` to the directory `on` (MS_MOVE).
pub fn move_mount(from: &Path, on: Path) -> Result<()> {
    if !from.is_mount_root() || from.mount.on().is_none() {
        return err(Errno::EINVAL, "not a mount that can move");
    }
    if from.dentry.is_dir() != on.dentry.is_dir() {
        return err(Errno::ENOTDIR, "a directory over a file or the other way round");
    }
    let mut at = Some(on.clone());
    while let Some(place) = at {
        if Arc::ptr_eq(&place.mount, &from.mount) {
            return err(Errno::ELOOP, "a mount can't move below itself");
        }
        at = place.mount.on();
    }
    let old = from.mount.set_on(Some(on.clone()));
    on.dentry.set_mountpoint(true);
    if let Some(old) = old {
        uncover(&old);
    }
    Ok(())
}

/// Whose flags a remount changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// MS_BIND: the mount's only.
    Mount,
    /// Those of every mount of the file system.
    FileSystem,
}

/// MS_REMOUNT of the mount whose root is `path`.
pub fn remount(path: &Path, flags: u32, scope: Scope) -> Result<()> {
    if !path.is_mount_root() {
        return err(Errno::EINVAL, "not a mount point");
    }
    let fs = &path.mount.fs;
    let affected: Vec<Arc<Mount>> = match scope {
        Scope::Mount => alloc::vec![path.mount.clone()],
        Scope::FileSystem => all().into_iter().filter(|mount| Arc::ptr_eq(&mount.fs, fs)).collect(),
    };
    if flags & MS_RDONLY != 0 {
        if affected.iter().any(|mount| !mount.is_read_only() && mount.has_writers()) {
            return err(Errno::EBUSY, "files are open for writing");
        }
        fs.sync()?;
    } else if fs.is_read_only() {
        return err(Errno::EROFS, "the file system can't be written");
    }
    for mount in affected {
        let own = if Arc::ptr_eq(&mount, &path.mount) { flags } else { mount.flags() & !MS_RDONLY | flags & MS_RDONLY };
        mount.set_flags(own);
    }
    Ok(())
}

/// umount2(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    IfUnused,
    /// MNT_DETACH: who is in it may stay; mounts below it go too.
    Lazy,
}

/// Removes the mount whose root is `path`; EBUSY while something in it is open.
pub fn unmount(path: Path, how: Unmount) -> Result<()> {
    if !path.is_mount_root() {
        return err(Errno::EINVAL, "not a mount point");
    }
    let Path { mount, dentry } = path;
    drop(dentry);
    if mount.on().is_none() {
        return err(Errno::EBUSY, "the root stays");
    }
    if how == Unmount::IfUnused {
        // What was written must be safe before it is out of sight.
        mount.fs.sync()?;
    }
    let gone = take_out(&mount, how)?;
    for mount in &gone {
        if let Some(on) = mount.set_on(None) {
            uncover(&on);
        }
    }
    if how == Unmount::Lazy {
        gone.iter().try_for_each(|mount| mount.fs.sync())?;
    }
    Ok(())
}

/// Takes a mount, and lazily those below it, out of the table.
fn take_out(mount: &Arc<Mount>, how: Unmount) -> Result<Vec<Arc<Mount>>> {
    let mut mounts = MOUNTS.lock();
    let mut gone = alloc::vec![mount.clone()];
    for other in mounts.iter() {
        if let Some(on) = other.on()
            && gone.iter().any(|parent| Arc::ptr_eq(parent, &on.mount))
        {
            gone.push(other.clone());
        }
    }
    // The table, the caller and `gone` hold one reference each.
    if how == Unmount::IfUnused && (gone.len() > 1 || Arc::strong_count(mount) > 3) {
        return err(Errno::EBUSY, "mount in use");
    }
    mounts.retain(|other| !gone.iter().any(|mount| Arc::ptr_eq(mount, other)));
    Ok(gone)
}

/// A mount on `on` went away.
fn uncover(on: &Path) {
    let is_covered = |mount: &Arc<Mount>| {
        mount.on().is_some_and(|other| Arc::ptr_eq(&other.dentry, &on.dentry))
    };
    let is_still_covered = MOUNTS.lock().iter().any(is_covered);
    on.dentry.set_mountpoint(is_still_covered);
}
