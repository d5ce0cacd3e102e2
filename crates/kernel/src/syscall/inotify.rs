//! inotify(7): watching files.

use alloc::sync::Arc;
use core::any::Any;

use super::{Arg, Call, Syscall, path};
use crate::error::{Errno, Result, err};
use crate::vfs::access::{self, MAY_READ};
use crate::vfs::flags::{O_CLOEXEC, O_NONBLOCK, O_RDONLY};
use crate::vfs::inotify::{IN_ALL_EVENTS, IN_MASK_ADD, IN_MASK_CREATE, IN_ONESHOT, Inotify};
use crate::vfs::table::OnExec;
use crate::vfs::walk::LastLink;
use crate::vfs::OpenFile;

use Arg::{Fd, Hex, Int, Path};

const MISSING: &str = "IN_DELETE_SELF comes with the last name, not with the last descriptor; no IN_UNMOUNT; \
    IN_EXCL_UNLINK is ignored";

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(253, "inotify_init", &[], sys_inotify_init),
    Syscall::full(254, "inotify_add_watch", &[Fd, Path, Hex], sys_inotify_add_watch).but(MISSING),
    Syscall::full(255, "inotify_rm_watch", &[Fd, Int], sys_inotify_rm_watch),
    Syscall::full(294, "inotify_init1", &[Hex], sys_inotify_init1),
];

const IN_ONLYDIR: u32 = 0x0100_0000;
const IN_DONT_FOLLOW: u32 = 0x0200_0000;
const IN_EXCL_UNLINK: u32 = 0x0400_0000;

fn sys_inotify_init(call: &mut Call<'_>) -> Result<usize> {
    give(call, 0)
}

fn sys_inotify_init1(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(0);
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    give(call, flags)
}

fn give(call: &Call<'_>, flags: u32) -> Result<usize> {
    let file = OpenFile::new(Inotify::new(), O_RDONLY | flags & O_NONBLOCK);
    Ok(call.thread.files().insert(file, OnExec::when(flags & O_CLOEXEC != 0))? as usize)
}

fn instance(call: &Call<'_>) -> Result<Arc<Inotify>> {
    let file = call.thread.files().get_content(call.int(0))?;
    let any: Arc<dyn Any + Send + Sync> = file.file().clone();
    match any.downcast::<Inotify>() {
        Ok(instance) => Ok(instance),
        Err(_) => err(Errno::EINVAL, "not an inotify instance"),
    }
}

fn sys_inotify_add_watch(call: &mut Call<'_>) -> Result<usize> {
    let mask = call.uint(2);
    let options = IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_ADD | IN_MASK_CREATE | IN_ONESHOT;
    // IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED and IN_ISDIR are let pass, as in Linux.
    if mask & (options | IN_ALL_EVENTS | 0x4000_e000) == 0 {
        return err(Errno::EINVAL, "no event");
    }
    if mask & IN_MASK_ADD != 0 && mask & IN_MASK_CREATE != 0 {
        return err(Errno::EINVAL, "IN_MASK_ADD with IN_MASK_CREATE");
    }
    let instance = instance(call)?;
    let who = path::identity(call);
    let last = if mask & IN_DONT_FOLLOW != 0 { LastLink::Keep } else { LastLink::Follow };
    let target = path::object(call, &who, path::AT_FDCWD, 1, last)?;
    if mask & IN_ONLYDIR != 0 && !target.dentry.is_dir() {
        return err(Errno::ENOTDIR, "IN_ONLYDIR");
    }
    access::check(&**target.inode(), &who, MAY_READ)?;
    Ok(instance.add(target.inode(), mask)? as usize)
}

fn sys_inotify_rm_watch(call: &mut Call<'_>) -> Result<usize> {
    instance(call)?.remove(call.int(1)).map(|()| 0)
}
