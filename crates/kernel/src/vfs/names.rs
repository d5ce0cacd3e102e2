//! Changes of names: mkdir, mknod, symlink, link, unlink, rmdir, rename, with Linux's order of checks.

use alloc::sync::Arc;

use super::access::{self, Identity};
use super::create::{self, Mode};
use super::dentry::Dentry;
use super::inode::{InodeRef, Kind, NewContent, Rename};
use super::inotify::{self, IN_ATTRIB, IN_CREATE, IN_DELETE};
use super::mount::Path;
use super::walk::Parent;
use crate::error::{Errno, Result, err};
use crate::sched::Mutex;

/// Held while a name moves from one directory to another, so that no two moves make a circle.
static MOVES: Mutex<()> = Mutex::new(());

/// Makes a directory, link, device node, FIFO, socket or regular file.
pub fn make(parent: &Parent, who: &Identity, content: NewContent<'_>, mode: Mode) -> Result<()> {
    let dir = &parent.dir;
    let _changes = dir.dentry.changes.lock();
    check_absent(parent, matches!(content, NewContent::Directory))?;
    let new = create::new_node(dir, who, content, mode)?;
    let inode = dir.inode().create(&parent.name, &new)?;
    let made = dir.dentry.adopt(&parent.name, inode);
    inotify::entry_changed(&dir.dentry, &parent.name, made.inode(), IN_CREATE);
    Ok(())
}

/// Gives `target` one more name.
pub fn link(parent: &Parent, who: &Identity, target: &Path) -> Result<()> {
    let dir = &parent.dir;
    let _changes = dir.dentry.changes.lock();
    check_absent(parent, false)?;
    if !Arc::ptr_eq(&dir.mount, &target.mount) {
        return err(Errno::EXDEV, "link to another mount");
    }
    create::check_can_add(dir, who)?;
    if target.dentry.is_dir() {
        return err(Errno::EPERM, "hard link to a directory");
    }
    dir.inode().link(&parent.name, target.inode())?;
    dir.dentry.adopt(&parent.name, target.inode().clone());
    inotify::changed_inode(target.inode(), IN_ATTRIB);
    inotify::entry_changed(&dir.dentry, &parent.name, target.inode(), IN_CREATE);
    Ok(())
}

/// EEXIST if the name is there; ENOENT for a file with a slash behind its name.
fn check_absent(parent: &Parent, is_dir: bool) -> Result<()> {
    if !parent.is_ordinary() {
        return err(Errno::EEXIST, "an existing directory");
    }
    match parent.dir.dentry.child_locked(&parent.name) {
        Ok(_) => err(Errno::EEXIST, "the name exists"),
        Err(error) if error.errno == Errno::ENOENT => {
            if parent.wants_dir && !is_dir {
                return err(Errno::ENOENT, "no such directory");
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

pub fn unlink(parent: &Parent, who: &Identity) -> Result<()> {
    if !parent.is_ordinary() {
        return err(Errno::EISDIR, "unlink of a directory");
    }
    let dir = &parent.dir;
    let _changes = dir.dentry.changes.lock();
    let child = dir.dentry.child_locked(&parent.name)?;
    if parent.wants_dir {
        let errno = if child.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR };
        return err(errno, "unlink with a slash behind the name");
    }
    check_can_remove(dir, &child, who)?;
    if child.is_dir() {
        return err(Errno::EISDIR, "unlink of a directory");
    }
    if child.is_mountpoint() {
        return err(Errno::EBUSY, "a mount point");
    }
    dir.inode().unlink(&parent.name)?;
    remove_name(dir, &parent.name, &child);
    tell_removed(dir, &parent.name, child.inode());
    Ok(())
}

pub fn rmdir(parent: &Parent, who: &Identity) -> Result<()> {
    match &parent.name[..] {
        b"." => return err(Errno::EINVAL, "rmdir of ."),
        b".." => return err(Errno::ENOTEMPTY, "rmdir of .."),
        b"" => return err(Errno::EBUSY, "rmdir of the root"),
        _ => {}
    }
    let dir = &parent.dir;
    let _changes = dir.dentry.changes.lock();
    let child = dir.dentry.child_locked(&parent.name)?;
    check_can_remove(dir, &child, who)?;
    if !child.is_dir() {
        return err(Errno::ENOTDIR, "rmdir of a file");
    }
    if child.is_mountpoint() {
        return err(Errno::EBUSY, "a mount point");
    }
    dir.inode().rmdir(&parent.name)?;
    remove_name(dir, &parent.name, &child);
    tell_removed(dir, &parent.name, child.inode());
    Ok(())
}

fn check_can_remove(dir: &Path, child: &Dentry, who: &Identity) -> Result<()> {
    create::check_writable_mount(dir)?;
    access::check_removal(&**dir.inode(), &**child.inode(), who)
}

fn remove_name(dir: &Path, name: &[u8], child: &Dentry) {
    dir.dentry.forget(name);
    child.mark_deleted();
}

fn tell_removed(dir: &Path, name: &[u8], inode: &InodeRef) {
    inotify::links_changed(inode);
    inotify::removed(inode);
    inotify::entry_changed(&dir.dentry, name, inode, IN_DELETE);
}

pub fn rename(from: &Parent, to: &Parent, who: &Identity, how: Rename) -> Result<()> {
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return err(Errno::EXDEV, "rename to another mount");
    }
    if !from.is_ordinary() || !to.is_ordinary() {
        let errno = if how == Rename::NoReplace { Errno::EEXIST } else { Errno::EBUSY };
        return err(errno, "rename of . or .. or the root");
    }
    let (one, other) = (&from.dir.dentry, &to.dir.dentry);
    if Arc::ptr_eq(one, other) {
        let _changes = one.changes.lock();
        return rename_locked(from, to, who, how);
    }
    let _moves = MOVES.lock();
    // Parents before children, else by address: two directories are locked by nobody else at once.
    let one_first = one.is_above(other) || (!other.is_above(one) && Arc::as_ptr(one) < Arc::as_ptr(other));
    let (first, second) = if one_first { (one, other) } else { (other, one) };
    let _first = first.changes.lock();
    let _second = second.changes.lock();
    rename_locked(from, to, who, how)
}

fn rename_locked(from: &Parent, to: &Parent, who: &Identity, how: Rename) -> Result<()> {
    let (source_dir, target_dir) = (&from.dir.dentry, &to.dir.dentry);
    let moved = source_dir.child_locked(&from.name)?;
    let target = match target_dir.child_locked(&to.name) {
        Ok(target) => Some(target),
        Err(error) if error.errno == Errno::ENOENT => None,
        Err(error) => return Err(error),
    };
    if how == Rename::NoReplace && target.is_some() {
        return err(Errno::EEXIST, "target exists");
    }
    if how == Rename::Exchange && target.is_none() {
        return err(Errno::ENOENT, "nothing to exchange with");
    }
    check_slashes(from, to, &moved, target.as_deref(), how)?;
    if moved.is_above(target_dir) {
        return err(Errno::EINVAL, "a directory can't move below itself");
    }
    if target.as_ref().is_some_and(|target| target.is_above(source_dir)) {
        let errno = if how == Rename::Exchange { Errno::EINVAL } else { Errno::ENOTEMPTY };
        return err(errno, "the target holds the source");
    }
    check_can_remove(&from.dir, &moved, who)?;
    match &target {
        Some(target) => check_can_remove(&to.dir, target, who)?,
        None => create::check_can_add(&to.dir, who)?,
    }
    if let Some(target) = &target {
        check_kinds(&moved, target, how)?;
        if Arc::ptr_eq(moved.inode(), target.inode()) {
            return Ok(());
        }
    }
    if moved.is_mountpoint() || target.as_ref().is_some_and(|target| target.is_mountpoint()) {
        return err(Errno::EBUSY, "a mount point");
    }
    from.dir.inode().rename(&from.name, to.dir.inode(), &to.name, how)?;
    let (source, end) = ((&**source_dir, &from.name[..]), (&**target_dir, &to.name[..]));
    inotify::moved(moved.inode(), source, end);
    match (how, target) {
        (Rename::Exchange, Some(target)) => {
            source_dir.exchanged(&moved, target_dir, &target);
            inotify::moved(target.inode(), end, source);
        }
        (_, target) => {
            if let Some(target) = target {
                remove_name(&to.dir, &to.name, &target);
                inotify::links_changed(target.inode());
                inotify::removed(target.inode());
            }
            source_dir.moved(&moved, target_dir, &to.name);
        }
    }
    Ok(())
}

fn check_slashes(
    from: &Parent,
    to: &Parent,
    moved: &Dentry,
    target: Option<&Dentry>,
    how: Rename,
) -> Result<()> {
    let target_may_be_file = how == Rename::Exchange && target.is_some_and(|target| !target.is_dir());
    if !moved.is_dir() && (from.wants_dir || (to.wants_dir && how != Rename::Exchange)) {
        return err(Errno::ENOTDIR, "a slash behind a file's name");
    }
    if target_may_be_file && to.wants_dir {
        return err(Errno::ENOTDIR, "a slash behind a file's name");
    }
    Ok(())
}

fn check_kinds(moved: &Dentry, target: &Dentry, how: Rename) -> Result<()> {
    if how == Rename::Exchange {
        return Ok(());
    }
    match (moved.kind() == Kind::Directory, target.kind() == Kind::Directory) {
        (true, false) => err(Errno::ENOTDIR, "directory over a file"),
        (false, true) => err(Errno::EISDIR, "file over a directory"),
        _ => Ok(()),
    }
}
