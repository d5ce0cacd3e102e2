//! POSIX message queues.

use alloc::sync::Arc;
use core::any::Any;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall, path};
use crate::error::{Errno, Result, err};
use crate::ipc::posix::{self, Bounds, Create, Open, PRIORITY_MAX, QueueFile};
use crate::process::Resource;
use crate::process::credentials::Capability;
use crate::signal::Signal;
use crate::time::clock::Clock;
use crate::time::value::TimeSpec;
use crate::user::{self, UserSlice};
use crate::vfs::OpenFile;
use crate::vfs::file::Wait;
use crate::vfs::flags::{O_ACCMODE, O_CLOEXEC, O_CREAT, O_EXCL, O_NONBLOCK};
use crate::vfs::table::OnExec;

use Arg::{Fd, Hex, Octal, Path, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(240, "mq_open", &[Path, Hex, Octal, Ptr], sys_mq_open)
        .but("RLIMIT_MSGQUEUE bounds each queue, not their sum"),
    Syscall::full(241, "mq_unlink", &[Path], sys_mq_unlink),
    Syscall::full(242, "mq_timedsend", &[Fd, Ptr, Uint, Uint, Ptr], sys_mq_timedsend),
    Syscall::full(243, "mq_timedreceive", &[Fd, Ptr, Uint, Ptr, Ptr], sys_mq_timedreceive),
    Syscall::full(244, "mq_notify", &[Fd, Ptr], sys_mq_notify).but("no SIGEV_THREAD"),
    Syscall::full(245, "mq_getsetattr", &[Fd, Ptr, Ptr], sys_mq_getsetattr),
];

/// `struct mq_attr`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct QueueAttr {
    flags: i64,
    count: i64,
    size: i64,
    current: i64,
    reserved: [i64; 4],
}

/// `struct sigevent`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, Default)]
#[repr(C)]
struct SigEvent {
    value: u64,
    signal: i32,
    notify: i32,
    rest: [u64; 6],
}

const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;

fn sys_mq_open(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(1);
    let bounds = match call.addr(3) {
        addr if addr.is_null() || flags & O_CREAT == 0 => None,
        addr => Some(bounds(&user::read(addr)?)),
    };
    let name = path::read(call, 0)?;
    let credentials = call.thread.credentials();
    let create = (flags & O_CREAT != 0).then(|| Create {
        mode: call.uint(2) & 0o777 & !call.thread.fs().umask(),
        is_exclusive: flags & O_EXCL != 0,
        bounds,
        is_privileged: credentials.has(Capability::SysResource),
        limit: call.thread.process().limit(Resource::MSGQUEUE).soft,
    });
    let who = path::identity(call);
    let access = posix::access_bits(flags & O_ACCMODE)?;
    let queue = posix::open(Open { name, who: &who, access, create })?;
    let file = OpenFile::new(queue, flags & (O_ACCMODE | O_NONBLOCK));
    Ok(call.thread.files().insert(file, OnExec::when(flags & O_CLOEXEC != 0))? as usize)
}

/// What is no count or size is refused like 0.
fn bounds(attr: &QueueAttr) -> Bounds {
    let positive = |value| usize::try_from(value).unwrap_or(0);
    Bounds { count: positive(attr.count), size: positive(attr.size) }
}

fn sys_mq_unlink(call: &mut Call<'_>) -> Result<usize> {
    let name = path::read(call, 0)?;
    posix::unlink(&name, &path::identity(call)).map(|()| 0)
}

/// The open file and the queue behind descriptor 0; EBADF for what is no queue.
fn queue(call: &Call<'_>) -> Result<(Arc<OpenFile>, Arc<QueueFile>)> {
    let file = call.thread.files().get_content(call.int(0))?;
    let any: Arc<dyn Any + Send + Sync> = file.file().clone();
    match any.downcast::<QueueFile>() {
        Ok(queue) => Ok((file, queue)),
        Err(_) => err(Errno::EBADF, "not a message queue"),
    }
}

/// The absolute time in argument 4, on CLOCK_MONOTONIC.
fn deadline(call: &Call<'_>) -> Result<Option<u64>> {
    let time = TimeSpec::read_optional(call.addr(4))?.map(TimeSpec::to_ns).transpose()?;
    Ok(time.map(|at| Clock::Realtime.to_monotonic(at)))
}

fn sys_mq_timedsend(call: &mut Call<'_>) -> Result<usize> {
    let deadline = deadline(call)?;
    let priority = call.uint(3);
    if priority >= PRIORITY_MAX {
        return err(Errno::EINVAL, "priority");
    }
    let (file, queue) = queue(call)?;
    file.check_writable()?;
    if call.size(2) > queue.bounds().size {
        return err(Errno::EMSGSIZE, "longer than the queue's messages");
    }
    let data = UserSlice::<u8>::new(call.addr(1), call.size(2)).copy_in()?;
    queue.send(data, priority, file.wait(), deadline).map(|()| 0)
}

fn sys_mq_timedreceive(call: &mut Call<'_>) -> Result<usize> {
    let deadline = deadline(call)?;
    let (file, queue) = queue(call)?;
    file.check_readable()?;
    let (data, priority) = queue.receive(call.size(2), file.wait(), deadline)?;
    if !call.addr(3).is_null() {
        user::write(call.addr(3), &priority)?;
    }
    user::write_bytes(call.addr(1), &data)?;
    Ok(data.len())
}

fn sys_mq_notify(call: &mut Call<'_>) -> Result<usize> {
    let pid = call.thread.process().pid();
    if call.addr(1).is_null() {
        queue(call)?.1.forget_notification(pid);
        return Ok(0);
    }
    let event: SigEvent = user::read(call.addr(1))?;
    let signal = match (event.notify, Signal::new(event.signal)) {
        (SIGEV_NONE, _) => None,
        (SIGEV_SIGNAL, Some(signal)) => Some((signal, event.value)),
        _ => return err(Errno::EINVAL, "kind of notification, or signal"),
    };
    queue(call)?.1.notify(pid, signal).map(|()| 0)
}

fn sys_mq_getsetattr(call: &mut Call<'_>) -> Result<usize> {
    let new: Option<QueueAttr> = match call.addr(1) {
        addr if addr.is_null() => None,
        addr => Some(user::read(addr)?),
    };
    if new.is_some_and(|new| new.flags & !i64::from(O_NONBLOCK) != 0) {
        return err(Errno::EINVAL, "flags");
    }
    let (file, queue) = queue(call)?;
    let old = QueueAttr {
        flags: i64::from(file.flags() & O_NONBLOCK),
        count: queue.bounds().count as i64,
        size: queue.bounds().size as i64,
        current: queue.len() as i64,
        ..QueueAttr::default()
    };
    if let Some(new) = new {
        file.set_nonblocking(if new.flags != 0 { Wait::Never } else { Wait::Allowed });
    }
    if !call.addr(2).is_null() {
        user::write(call.addr(2), &old)?;
    }
    Ok(0)
}
