//! Files that are no files: eventfd, timerfd, memfd; and random bytes.

use alloc::sync::Arc;
use core::any::Any;

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::fs::dev;
use crate::fs::ramfs::{Node, RamFs};
use crate::mm;
use crate::time::value::TimeSpec;
use crate::user;
use crate::vfs::create;
use crate::vfs::eventfd::{EventFd, Take};
use crate::vfs::flags::{O_CLOEXEC, O_NONBLOCK, O_RDWR};
use crate::vfs::table::OnExec;
use crate::vfs::timerfd::{Base, Setting, TimerFd};
use crate::vfs::transfer::MAX_TRANSFER;
use crate::vfs::{File, OpenFile, Sink};

use Arg::{Fd, Hex, Int, Path, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(283, "timerfd_create", &[Int, Hex], sys_timerfd_create)
        .but("TFD_TIMER_CANCEL_ON_SET does nothing: the clock is never set inside"),
    Syscall::full(284, "eventfd", &[Uint], sys_eventfd),
    Syscall::full(286, "timerfd_settime", &[Fd, Hex, Ptr, Ptr], sys_timerfd_settime),
    Syscall::full(287, "timerfd_gettime", &[Fd, Ptr], sys_timerfd_gettime),
    Syscall::full(290, "eventfd2", &[Uint, Hex], sys_eventfd2),
    Syscall::full(318, "getrandom", &[Ptr, Uint, Hex], sys_getrandom),
    Syscall::full(319, "memfd_create", &[Path, Hex], sys_memfd_create).but("no huge pages"),
];

/// Gives a new descriptor for `file`; `flags` are O_CLOEXEC and O_NONBLOCK.
fn give(call: &Call<'_>, file: Arc<dyn File>, flags: u32) -> Result<usize> {
    let file = OpenFile::new(file, O_RDWR | flags & O_NONBLOCK);
    let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
    Ok(call.thread.files().insert(file, on_exec)? as usize)
}

fn sys_eventfd(call: &mut Call<'_>) -> Result<usize> {
    give(call, EventFd::new(u64::from(call.uint(0)), Take::All), 0)
}

fn sys_eventfd2(call: &mut Call<'_>) -> Result<usize> {
    const EFD_SEMAPHORE: u32 = 1;
    let flags = call.uint(1);
    if flags & !(EFD_SEMAPHORE | O_CLOEXEC | O_NONBLOCK) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let take = if flags & EFD_SEMAPHORE != 0 { Take::One } else { Take::All };
    give(call, EventFd::new(u64::from(call.uint(0)), take), flags)
}

fn sys_timerfd_create(call: &mut Call<'_>) -> Result<usize> {
    let base = match call.int(0) {
        0 | 8 => Base::Realtime,
        1 | 7 | 9 => Base::Monotonic,
        _ => return err(Errno::EINVAL, "clock"),
    };
    let flags = call.uint(1);
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    give(call, TimerFd::new(base), flags)
}

fn timer(call: &Call<'_>) -> Result<Arc<TimerFd>> {
    let file = call.thread.files().get_content(call.int(0))?;
    let any: Arc<dyn Any + Send + Sync> = file.file().clone();
    match any.downcast::<TimerFd>() {
        Ok(timer) => Ok(timer),
        Err(_) => err(Errno::EINVAL, "not a timer"),
    }
}

fn sys_timerfd_settime(call: &mut Call<'_>) -> Result<usize> {
    const TFD_TIMER_ABSTIME: u32 = 1;
    const TFD_TIMER_CANCEL_ON_SET: u32 = 2;
    let flags = call.uint(1);
    if flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let [interval, value] = user::read::<[TimeSpec; 2]>(call.addr(2))?;
    let setting = Setting { value_ns: value.to_ns()?, interval_ns: interval.to_ns()? };
    let timer = timer(call)?;
    let old = if flags & TFD_TIMER_ABSTIME != 0 { timer.set_absolute(setting) } else { timer.set(setting) };
    if !call.addr(3).is_null() {
        user::write(call.addr(3), &shown(old))?;
    }
    Ok(0)
}

fn sys_timerfd_gettime(call: &mut Call<'_>) -> Result<usize> {
    let setting = timer(call)?.get();
    user::write(call.addr(1), &shown(setting))?;
    Ok(0)
}

/// `struct itimerspec`.
fn shown(setting: Setting) -> [TimeSpec; 2] {
    [TimeSpec::from_ns(setting.interval_ns), TimeSpec::from_ns(setting.value_ns)]
}

fn sys_memfd_create(call: &mut Call<'_>) -> Result<usize> {
    const MFD_CLOEXEC: u32 = 1;
    const MFD_ALLOW_SEALING: u32 = 2;
    const MFD_NOEXEC_SEAL: u32 = 8;
    const MFD_EXEC: u32 = 16;
    const NAME_MAX: usize = 249;
    let flags = call.uint(1);
    if flags & !(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let name = user::read_c_string(call.addr(0), NAME_MAX, Errno::EINVAL)?;
    let mode = if flags & MFD_NOEXEC_SEAL != 0 { 0o666 } else { 0o777 };
    let node = RamFs::nameless_file(mm::Usage::now().limit as u64, mode)?;
    if flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL) != 0 {
        node.allow_seals();
    }
    let shown = [b"/memfd:", &name[..], b" (deleted)"].concat();
    let file = create::open_unnamed(node, &shown, O_RDWR)?;
    let on_exec = OnExec::when(flags & MFD_CLOEXEC != 0);
    Ok(call.thread.files().insert(file, on_exec)? as usize)
}

/// fcntl's F_GET_SEALS and F_ADD_SEALS (`Some(seals)`).
pub(super) fn seals(file: &OpenFile, add: Option<u32>) -> Result<usize> {
    let node = file.inode().cloned().and_then(|inode| {
        let any: Arc<dyn Any + Send + Sync> = inode;
        any.downcast::<Node>().ok()
    });
    let Some(node) = node.filter(|node| node.is_nameless_file()) else {
        return err(Errno::EINVAL, "not a memfd");
    };
    match add {
        None => Ok(node.seals() as usize),
        Some(_) if !file.is_writable() => err(Errno::EPERM, "not open for writing"),
        Some(seals) => node.add_seals(seals).map(|()| 0),
    }
}

fn sys_getrandom(call: &mut Call<'_>) -> Result<usize> {
    const GRND_RANDOM: u32 = 2;
    const GRND_INSECURE: u32 = 4;
    let flags = call.uint(2);
    if flags > 7 || flags & (GRND_RANDOM | GRND_INSECURE) == GRND_RANDOM | GRND_INSECURE {
        return err(Errno::EINVAL, "flags");
    }
    let size = call.size(1).min(MAX_TRANSFER);
    Sink::user(call.addr(0), size).drive(|sink| {
        dev::read_random(sink);
        Ok(())
    })
}
