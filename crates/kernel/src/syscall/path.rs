//! Path arguments of system calls: the `*at` rules of openat(2).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Call;
use crate::error::{Errno, Result, err};
use crate::user;
use crate::vfs::mount::Path;
use crate::vfs::walk::{LastLink, PATH_MAX, Parent, Resolve, Walker};
use crate::vfs::{Attr, Identity, InodeRef, OpenFile};

pub(super) const AT_FDCWD: i32 = -100;
pub(super) const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub(super) const AT_REMOVEDIR: u32 = 0x200;
pub(super) const AT_EACCESS: u32 = 0x200;
pub(super) const AT_SYMLINK_FOLLOW: u32 = 0x400;
pub(super) const AT_NO_AUTOMOUNT: u32 = 0x800;
pub(super) const AT_EMPTY_PATH: u32 = 0x1000;

/// Who the calling thread is for files.
pub(super) fn identity(call: &Call<'_>) -> Identity {
    Identity::from(&*call.thread.credentials())
}

/// The path argument `index`; EFAULT, ENAMETOOLONG.
pub(super) fn read(call: &Call<'_>, index: usize) -> Result<Vec<u8>> {
    user::read_c_string(call.addr(index), PATH_MAX - 1, Errno::ENAMETOOLONG)
}

/// A walk of `path`, relative to the directory descriptor `dirfd`.
pub(super) fn walker<'a>(
    call: &Call<'_>,
    who: &'a Identity,
    dirfd: i32,
    path: Vec<u8>,
) -> Result<Walker<'a>> {
    let fs = call.thread.fs();
    let start = match path.first() {
        Some(b'/') => fs.root(),
        // The empty path is refused before its directory is looked at.
        None => fs.root(),
        Some(_) => directory(call, dirfd)?,
    };
    Walker::new(fs, who, start, path)
}

/// The same within bounds (openat2); with RESOLVE_IN_ROOT the directory is the root too.
pub(super) fn walker_within<'a>(
    call: &Call<'_>,
    who: &'a Identity,
    dirfd: i32,
    path: Vec<u8>,
    resolve: Resolve,
) -> Result<Walker<'a>> {
    let is_relative = resolve.is_scoped() || path.first().is_some_and(|&byte| byte != b'/');
    let start = if is_relative { directory(call, dirfd)? } else { call.thread.fs().root() };
    Walker::within(call.thread.fs(), who, start, path, resolve)
}

/// The directory that relative paths start at.
fn directory(call: &Call<'_>, dirfd: i32) -> Result<Path> {
    if dirfd == AT_FDCWD {
        return Ok(call.thread.fs().cwd());
    }
    let file = call.thread.files().get(dirfd)?;
    match file.path() {
        Some(path) if path.dentry.is_dir() => Ok(path.clone()),
        _ => err(Errno::ENOTDIR, "directory descriptor is not one"),
    }
}

/// The object that the path argument `index` names.
pub(super) fn object(
    call: &Call<'_>,
    who: &Identity,
    dirfd: i32,
    index: usize,
    last: LastLink,
) -> Result<Path> {
    walker(call, who, dirfd, read(call, index)?)?.walk(last)
}

/// The directory of the last name of the path argument `index`.
pub(super) fn parent(call: &Call<'_>, who: &Identity, dirfd: i32, index: usize) -> Result<Parent> {
    walker(call, who, dirfd, read(call, index)?)?.parent()
}

/// What a call that knows AT_EMPTY_PATH acts on.
pub(super) enum Target {
    Path(Path),
    Open(Arc<OpenFile>),
}

impl Target {
    pub fn attr(&self) -> Result<Attr> {
        match self {
            Target::Path(path) => path.inode().attr(),
            Target::Open(file) => file.file().attr(),
        }
    }

    /// EBADF for pipes and the like, which have no inode that could be changed.
    pub fn inode(&self) -> Result<&InodeRef> {
        match self {
            Target::Path(path) => Ok(path.inode()),
            Target::Open(file) => match file.inode() {
                Some(inode) => Ok(inode),
                None => err(Errno::EPERM, "not in a file system"),
            },
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Target::Path(path) => Some(path),
            Target::Open(file) => file.path(),
        }
    }
}

/// The object that the path argument `index` names; with AT_EMPTY_PATH in `flags` and an empty path the
/// one behind `dirfd` itself. AT_SYMLINK_NOFOLLOW keeps a last link.
pub(super) fn target(
    call: &Call<'_>,
    who: &Identity,
    dirfd: i32,
    index: usize,
    flags: u32,
) -> Result<Target> {
    let may_be_empty = flags & AT_EMPTY_PATH != 0;
    // Since Linux 6.11 a null pointer is an empty path too.
    let path = if may_be_empty && call.addr(index).is_null() { Vec::new() } else { read(call, index)? };
    if path.is_empty() && may_be_empty {
        return match dirfd {
            AT_FDCWD => Ok(Target::Path(call.thread.fs().cwd())),
            fd => Ok(Target::Open(call.thread.files().get(fd)?)),
        };
    }
    let last = if flags & AT_SYMLINK_NOFOLLOW != 0 { LastLink::Keep } else { LastLink::Follow };
    Ok(Target::Path(walker(call, who, dirfd, path)?.walk(last)?))
}
