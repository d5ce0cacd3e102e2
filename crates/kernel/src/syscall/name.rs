//! Making, moving and removing names.

use alloc::vec::Vec;

use super::path::{self, AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW};
use super::{Arg, Call, Syscall};
use crate::process::credentials::Capability;
use crate::error::{Errno, Result, err};
use crate::user;
use crate::vfs::create::Mode;
use crate::vfs::inode::{Kind, Link, NewContent, Rename};
use crate::vfs::names;
use crate::vfs::walk::LastLink;

use Arg::{Fd, Hex, Octal, Path, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(82, "rename", &[Path, Path], sys_rename),
    Syscall::full(83, "mkdir", &[Path, Octal], sys_mkdir),
    Syscall::full(84, "rmdir", &[Path], sys_rmdir),
    Syscall::full(86, "link", &[Path, Path], sys_link),
    Syscall::full(87, "unlink", &[Path], sys_unlink),
    Syscall::full(88, "symlink", &[Path, Path], sys_symlink),
    Syscall::full(89, "readlink", &[Path, Ptr, Uint], sys_readlink),
    Syscall::full(133, "mknod", &[Path, Octal, Hex], sys_mknod),
    Syscall::full(258, "mkdirat", &[Fd, Path, Octal], sys_mkdirat),
    Syscall::full(259, "mknodat", &[Fd, Path, Octal, Hex], sys_mknodat),
    Syscall::full(263, "unlinkat", &[Fd, Path, Hex], sys_unlinkat),
    Syscall::full(264, "renameat", &[Fd, Path, Fd, Path], sys_renameat),
    Syscall::full(265, "linkat", &[Fd, Path, Fd, Path, Hex], sys_linkat),
    Syscall::full(266, "symlinkat", &[Path, Fd, Path], sys_symlinkat),
    Syscall::full(267, "readlinkat", &[Fd, Path, Ptr, Uint], sys_readlinkat),
    Syscall::full(316, "renameat2", &[Fd, Path, Fd, Path, Hex], sys_renameat2),
];

fn sys_mkdir(call: &mut Call<'_>) -> Result<usize> {
    make(call, AT_FDCWD, 0, NewContent::Directory, call.uint(1) & 0o1777)
}

fn sys_mkdirat(call: &mut Call<'_>) -> Result<usize> {
    make(call, call.int(0), 1, NewContent::Directory, call.uint(2) & 0o1777)
}

fn sys_mknod(call: &mut Call<'_>) -> Result<usize> {
    mknod_at(call, AT_FDCWD, 0, call.uint(1), call.uint(2))
}

fn sys_mknodat(call: &mut Call<'_>) -> Result<usize> {
    mknod_at(call, call.int(0), 1, call.uint(2), call.uint(3))
}

fn mknod_at(call: &Call<'_>, dirfd: i32, index: usize, mode: u32, dev: u32) -> Result<usize> {
    let content = match Kind::from_mode(mode & 0o170_000) {
        None if mode & 0o170_000 == 0 => NewContent::Regular,
        Some(Kind::Regular) => NewContent::Regular,
        Some(Kind::Fifo) => NewContent::Fifo,
        Some(Kind::Socket) => NewContent::Socket,
        Some(Kind::CharDevice | Kind::BlockDevice) if !call.thread.credentials().has(Capability::Mknod) => {
            return err(Errno::EPERM, "CAP_MKNOD");
        }
        Some(Kind::CharDevice) => NewContent::CharDevice(u64::from(dev)),
        Some(Kind::BlockDevice) => NewContent::BlockDevice(u64::from(dev)),
        Some(Kind::Directory) => return err(Errno::EPERM, "mknod of a directory"),
        _ => return err(Errno::EINVAL, "unknown file type"),
    };
    make(call, dirfd, index, content, mode & 0o7777)
}

fn make(call: &Call<'_>, dirfd: i32, index: usize, content: NewContent<'_>, bits: u32) -> Result<usize> {
    let who = path::identity(call);
    let parent = path::parent(call, &who, dirfd, index)?;
    let umask = call.thread.fs().umask();
    names::make(&parent, &who, content, Mode { bits, umask })?;
    Ok(0)
}

fn sys_symlink(call: &mut Call<'_>) -> Result<usize> {
    symlink_at(call, AT_FDCWD, 1)
}

fn sys_symlinkat(call: &mut Call<'_>) -> Result<usize> {
    symlink_at(call, call.int(1), 2)
}

fn symlink_at(call: &Call<'_>, dirfd: i32, index: usize) -> Result<usize> {
    let target = path::read(call, 0)?;
    if target.is_empty() {
        return err(Errno::ENOENT, "empty target");
    }
    let who = path::identity(call);
    let parent = path::parent(call, &who, dirfd, index)?;
    names::make(&parent, &who, NewContent::Symlink(&target), Mode { bits: 0o777, umask: 0 })?;
    Ok(0)
}

fn sys_link(call: &mut Call<'_>) -> Result<usize> {
    link_at(call, (AT_FDCWD, 0), (AT_FDCWD, 1), 0)
}

fn sys_linkat(call: &mut Call<'_>) -> Result<usize> {
    link_at(call, (call.int(0), 1), (call.int(2), 3), call.uint(4))
}

/// A directory descriptor and the index of a path argument.
type At = (i32, usize);

fn link_at(call: &Call<'_>, old: At, new: At, flags: u32) -> Result<usize> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    let who = path::identity(call);
    let nofollow = if flags & AT_SYMLINK_FOLLOW != 0 { 0 } else { AT_SYMLINK_NOFOLLOW };
    let target = path::target(call, &who, old.0, old.1, flags & AT_EMPTY_PATH | nofollow)?;
    let parent = path::parent(call, &who, new.0, new.1)?;
    match target.path() {
        Some(path) => names::link(&parent, &who, path)?,
        None => return err(Errno::EXDEV, "not in a file system"),
    }
    Ok(0)
}

fn sys_unlink(call: &mut Call<'_>) -> Result<usize> {
    let who = path::identity(call);
    names::unlink(&path::parent(call, &who, AT_FDCWD, 0)?, &who)?;
    Ok(0)
}

fn sys_rmdir(call: &mut Call<'_>) -> Result<usize> {
    let who = path::identity(call);
    names::rmdir(&path::parent(call, &who, AT_FDCWD, 0)?, &who)?;
    Ok(0)
}

fn sys_unlinkat(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(2);
    if flags & !AT_REMOVEDIR != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    let who = path::identity(call);
    let parent = path::parent(call, &who, call.int(0), 1)?;
    if flags & AT_REMOVEDIR != 0 {
        names::rmdir(&parent, &who)?;
    } else {
        names::unlink(&parent, &who)?;
    }
    Ok(0)
}

fn sys_rename(call: &mut Call<'_>) -> Result<usize> {
    rename_at(call, (AT_FDCWD, 0), (AT_FDCWD, 1), Rename::Replace)
}

fn sys_renameat(call: &mut Call<'_>) -> Result<usize> {
    rename_at(call, (call.int(0), 1), (call.int(2), 3), Rename::Replace)
}

fn sys_renameat2(call: &mut Call<'_>) -> Result<usize> {
    let how = match call.uint(4) {
        0 => Rename::Replace,
        1 => Rename::NoReplace,
        2 => Rename::Exchange,
        RENAME_WHITEOUT | RENAME_WHITEOUT_NOREPLACE => return rename_leaving_whiteout(call),
        _ => return err(Errno::EINVAL, "flags"),
    };
    rename_at(call, (call.int(0), 1), (call.int(2), 3), how)
}

const RENAME_WHITEOUT: u32 = 4;
const RENAME_WHITEOUT_NOREPLACE: u32 = 5;

/// A character device 0:0 takes the old name, as overlay file systems want it.
fn rename_leaving_whiteout(call: &Call<'_>) -> Result<usize> {
    if !call.thread.credentials().has(Capability::Mknod) {
        return err(Errno::EPERM, "CAP_MKNOD");
    }
    let how = if call.uint(4) == RENAME_WHITEOUT { Rename::Replace } else { Rename::NoReplace };
    let who = path::identity(call);
    let from = path::parent(call, &who, call.int(0), 1)?;
    let to = path::parent(call, &who, call.int(2), 3)?;
    names::rename(&from, &to, &who, how)?;
    names::make(&from, &who, NewContent::CharDevice(0), Mode { bits: 0, umask: 0 })?;
    Ok(0)
}

fn rename_at(call: &Call<'_>, old: At, new: At, how: Rename) -> Result<usize> {
    let who = path::identity(call);
    let from = path::parent(call, &who, old.0, old.1)?;
    let to = path::parent(call, &who, new.0, new.1)?;
    names::rename(&from, &to, &who, how)?;
    Ok(0)
}

fn sys_readlink(call: &mut Call<'_>) -> Result<usize> {
    read_link_at(call, AT_FDCWD, 0)
}

fn sys_readlinkat(call: &mut Call<'_>) -> Result<usize> {
    read_link_at(call, call.int(0), 1)
}

fn read_link_at(call: &Call<'_>, dirfd: i32, index: usize) -> Result<usize> {
    let size = call.int(index + 2);
    if size <= 0 {
        return err(Errno::EINVAL, "no buffer");
    }
    let who = path::identity(call);
    let name = path::read(call, index)?;
    let inode = if name.is_empty() {
        // readlinkat(fd, "") reads the link that an O_PATH descriptor stands for.
        let file = call.thread.files().get(dirfd)?;
        match file.inode() {
            Some(inode) if inode.kind() == Kind::Symlink => inode.clone(),
            _ => return err(Errno::ENOENT, "empty path"),
        }
    } else {
        let path = path::walker(call, &who, dirfd, name)?.walk(LastLink::Keep)?;
        path.accessed();
        path.inode().clone()
    };
    let target = target_text(call, inode.read_link()?);
    let count = target.len().min(size as usize);
    user::write_bytes(call.addr(index + 1), &target[..count])?;
    Ok(count)
}

/// What readlink shows.
fn target_text(call: &Call<'_>, link: Link) -> Vec<u8> {
    match link {
        Link::Text(text) => text,
        Link::Object(path) => {
            let mut name = path.name(&call.thread.fs().root());
            if name.is_deleted {
                name.text.extend_from_slice(b" (deleted)");
            }
            name.text
        }
    }
}
