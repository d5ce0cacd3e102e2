//! Directories: reading them, where a process stands.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::path::{self, AT_FDCWD};
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::process::credentials::Capability;
use crate::user;
use crate::vfs::access::{self, MAY_EXEC};
use crate::vfs::inode::DirEntry;
use crate::vfs::mount::Path as Place;
use crate::vfs::mounts;
use crate::vfs::walk::{LastLink, PATH_MAX};
use crate::vfs::{Kind, OpenFile};

use Arg::{Fd, Octal, Path, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(78, "getdents", &[Fd, Ptr, Uint], sys_getdents),
    Syscall::full(79, "getcwd", &[Ptr, Uint], sys_getcwd),
    Syscall::full(80, "chdir", &[Path], sys_chdir),
    Syscall::full(81, "fchdir", &[Fd], sys_fchdir),
    Syscall::full(95, "umask", &[Octal], sys_umask),
    Syscall::full(161, "chroot", &[Path], sys_chroot),
    Syscall::full(217, "getdents64", &[Fd, Ptr, Uint], sys_getdents64),
];

/// Bytes collected before they are copied to the program.
const BATCH: usize = 32 << 10;

fn sys_getdents64(call: &mut Call<'_>) -> Result<usize> {
    read_entries(call, |entry, buf| {
        append_entry(buf, entry, |buf, size| {
            buf.extend_from_slice(&(size as u16).to_le_bytes());
            buf.push(entry.kind as u8);
            buf.extend_from_slice(entry.name);
            buf.resize(size, 0);
        })
    })
}

fn sys_getdents(call: &mut Call<'_>) -> Result<usize> {
    read_entries(call, |entry, buf| {
        append_entry(buf, entry, |buf, size| {
            buf.extend_from_slice(&(size as u16).to_le_bytes());
            buf.extend_from_slice(entry.name);
            buf.resize(size - 1, 0);
            buf.push(entry.kind as u8);
        })
    })
}

/// ```text
/// getdents64:  0 d_ino 8 | 8 d_off 8 | 16 d_reclen 2 | 18 d_type 1 | 19 name, NUL
/// getdents:    0 d_ino 8 | 8 d_off 8 | 16 d_reclen 2 | 18 name, NUL, padding | last byte d_type
/// ```
fn append_entry(buf: &mut Vec<u8>, entry: &DirEntry<'_>, rest: impl FnOnce(&mut Vec<u8>, usize)) {
    let start = buf.len();
    let size = (19 + entry.name.len() + 1).next_multiple_of(8);
    buf.extend_from_slice(&entry.ino.to_le_bytes());
    buf.extend_from_slice(&entry.next.to_le_bytes());
    let mut tail = Vec::with_capacity(size);
    tail.resize(16, 0);
    rest(&mut tail, size);
    buf.extend_from_slice(&tail[16..]);
    debug_assert!(buf.len() - start == size);
}

/// Collects entries from the descriptor's offset on, as many as fit into the program's buffer.
fn read_entries(
    call: &Call<'_>,
    mut append: impl FnMut(&DirEntry<'_>, &mut Vec<u8>),
) -> Result<usize> {
    let file = super::file::content(call, 0)?;
    let room = (call.uint(2) as usize).min(BATCH);
    let mut buf = Vec::with_capacity(room.min(4096));
    let mut is_too_small = false;
    let next = file.with_offset(|offset| -> Result<u64> {
        let mut next = *offset;
        list(&file, *offset, &mut |entry| {
            let size = (19 + entry.name.len() + 1).next_multiple_of(8);
            if buf.len() + size > room {
                is_too_small = buf.is_empty();
                return ControlFlow::Break(());
            }
            append(&entry, &mut buf);
            next = entry.next;
            ControlFlow::Continue(())
        })?;
        Ok(next)
    })?;
    if is_too_small {
        return err(Errno::EINVAL, "buffer too small for one entry");
    }
    user::write_bytes(call.addr(1), &buf)?;
    file.accessed();
    file.with_offset(|offset| *offset = next);
    Ok(buf.len())
}

/// Offsets 0 and 1 are `.` and `..`; from 2 on they are the file system's cursor plus 2.
fn list(
    file: &OpenFile,
    offset: u64,
    visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let Some(path) = file.path().filter(|path| path.dentry.kind() == Kind::Directory) else {
        return err(Errno::ENOTDIR, "not a directory");
    };
    if path.dentry.is_deleted() {
        return err(Errno::ENOENT, "the directory was removed");
    }
    if offset < 1 {
        let ino = path.inode().attr()?.ino;
        if visit(DirEntry { name: b".", ino, kind: Kind::Directory, next: 1 }).is_break() {
            return Ok(());
        }
    }
    if offset < 2 {
        let ino = path.parent(&mounts::root()).inode().attr()?.ino;
        if visit(DirEntry { name: b"..", ino, kind: Kind::Directory, next: 2 }).is_break() {
            return Ok(());
        }
    }
    let _changes = path.dentry.changes.lock();
    file.file().read_dir(offset.saturating_sub(2), &mut |entry| {
        visit(DirEntry { next: entry.next + 2, ..entry })
    })
}

fn sys_getcwd(call: &mut Call<'_>) -> Result<usize> {
    let fs = call.thread.fs();
    let cwd = fs.cwd();
    if cwd.dentry.is_deleted() {
        return err(Errno::ENOENT, "the working directory was removed");
    }
    let name = cwd.name(&fs.root());
    let mut text = if name.is_reachable { Vec::new() } else { b"(unreachable)".to_vec() };
    text.extend_from_slice(&name.text);
    text.push(0);
    if text.len() > PATH_MAX {
        return err(Errno::ENAMETOOLONG, "working directory");
    }
    if text.len() > call.size(1) {
        return err(Errno::ERANGE, "buffer too small");
    }
    user::write_bytes(call.addr(0), &text)?;
    Ok(text.len())
}

fn sys_chdir(call: &mut Call<'_>) -> Result<usize> {
    let path = enterable(call, 0)?;
    call.thread.fs().set_cwd(path);
    Ok(0)
}

fn sys_fchdir(call: &mut Call<'_>) -> Result<usize> {
    let file = call.thread.files().get(call.int(0))?;
    let Some(path) = file.path().filter(|path| path.dentry.is_dir()) else {
        return err(Errno::ENOTDIR, "not a directory");
    };
    access::check(&**path.inode(), &path::identity(call), MAY_EXEC)?;
    call.thread.fs().set_cwd(path.clone());
    Ok(0)
}

/// The directory that the path argument names, if the caller may enter it.
fn enterable(call: &Call<'_>, index: usize) -> Result<Place> {
    let who = path::identity(call);
    let path = path::object(call, &who, AT_FDCWD, index, LastLink::Follow)?;
    if !path.dentry.is_dir() {
        return err(Errno::ENOTDIR, "not a directory");
    }
    access::check(&**path.inode(), &who, MAY_EXEC)?;
    Ok(path)
}

fn sys_chroot(call: &mut Call<'_>) -> Result<usize> {
    let path = enterable(call, 0)?;
    if !call.thread.credentials().has(Capability::SysChroot) {
        return err(Errno::EPERM, "CAP_SYS_CHROOT");
    }
    call.thread.fs().set_root(path);
    Ok(0)
}

fn sys_umask(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.fs().set_umask(call.uint(0)) as usize)
}
