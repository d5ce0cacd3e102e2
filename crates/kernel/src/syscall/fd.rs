//! Descriptors: dup, fcntl, ioctl, pipes, locks.

use alloc::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::process::clone;
use crate::process::credentials::Capability;
use crate::signal::Signal;
use crate::user::{self, UserAddr};
use crate::vfs::file::Wait;
use crate::vfs::flags::*;
use crate::vfs::locks::{self, Family, Lock, Mode, Owner};
use crate::vfs::pipe::{self, PipeEnd};
use crate::vfs::table::OnExec;
use crate::vfs::{OpenFile, sigio};

use Arg::{Fd, Hex, Int, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(16, "ioctl", &[Fd, Hex, Hex], sys_ioctl).but("terminals, network interfaces, FIONREAD, FIONBIO, FIOCLEX"),
    Syscall::full(22, "pipe", &[Ptr], sys_pipe),
    Syscall::full(32, "dup", &[Fd], sys_dup),
    Syscall::full(33, "dup2", &[Fd, Fd], sys_dup2),
    Syscall::full(72, "fcntl", &[Fd, Int, Hex], sys_fcntl).but("no F_NOTIFY, no leases"),
    Syscall::full(73, "flock", &[Fd, Int], sys_flock),
    Syscall::full(292, "dup3", &[Fd, Fd, Hex], sys_dup3),
    Syscall::full(293, "pipe2", &[Ptr, Hex], sys_pipe2),
    Syscall::full(436, "close_range", &[Uint, Uint, Hex], sys_close_range),
];

fn sys_dup(call: &mut Call<'_>) -> Result<usize> {
    let file = call.thread.files().get(call.int(0))?;
    Ok(call.thread.files().insert(file, OnExec::Keep)? as usize)
}

fn sys_dup2(call: &mut Call<'_>) -> Result<usize> {
    let files = call.thread.files();
    let (old, new) = (call.int(0), call.int(1));
    let file = files.get(old)?;
    if old != new {
        files.replace(new, file, OnExec::Keep)?;
    }
    Ok(new as usize)
}

fn sys_dup3(call: &mut Call<'_>) -> Result<usize> {
    let (old, new, flags) = (call.int(0), call.int(1), call.uint(2));
    if flags & !O_CLOEXEC != 0 || old == new {
        return err(Errno::EINVAL, "flags, or the same descriptor twice");
    }
    let files = call.thread.files();
    let file = files.get(old)?;
    files.replace(new, file, OnExec::when(flags & O_CLOEXEC != 0))?;
    Ok(new as usize)
}

fn sys_close_range(call: &mut Call<'_>) -> Result<usize> {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    let (first, last, flags) = (call.uint(0) as usize, call.uint(1) as usize, call.uint(2));
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        return err(Errno::EINVAL, "flags or range");
    }
    let is_shared = Arc::strong_count(call.thread.files()) > 1;
    let own = (flags & UNSHARE != 0 && is_shared).then(|| Arc::new(call.thread.files().copy()));
    let files = own.as_ref().unwrap_or(call.thread.files());
    if flags & CLOEXEC != 0 {
        files.close_range_on_exec(first, last);
    } else {
        files.close_range(first, last);
    }
    if let Some(own) = own {
        clone::use_files(call.thread, own);
    }
    Ok(0)
}

fn sys_pipe(call: &mut Call<'_>) -> Result<usize> {
    make_pipe(call, 0)
}

fn sys_pipe2(call: &mut Call<'_>) -> Result<usize> {
    make_pipe(call, call.uint(1))
}

fn make_pipe(call: &Call<'_>, flags: u32) -> Result<usize> {
    if flags & !(O_CLOEXEC | O_NONBLOCK | O_DIRECT) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let (reader, writer) = pipe::new();
    writer.set_packets(flags & O_DIRECT != 0);
    let reader = OpenFile::new(reader, O_RDONLY | flags);
    let writer = OpenFile::new(writer, O_WRONLY | flags);
    give_pair(call, reader, writer, OnExec::when(flags & O_CLOEXEC != 0), call.addr(0))
}

/// Two new descriptors, written to the program as `int[2]`; none is left open on failure.
pub(super) fn give_pair(
    call: &Call<'_>,
    first: Arc<OpenFile>,
    second: Arc<OpenFile>,
    on_exec: OnExec,
    addr: UserAddr,
) -> Result<usize> {
    let files = call.thread.files();
    let first = files.insert(first, on_exec)?;
    let second = match files.insert(second, on_exec) {
        Ok(second) => second,
        Err(error) => {
            files.close(first)?;
            return Err(error);
        }
    };
    if let Err(error) = user::write(addr, &[first, second]) {
        files.close(first)?;
        files.close(second)?;
        return Err(error);
    }
    Ok(0)
}

const F_DUPFD: u32 = 0;
const F_GETFD: u32 = 1;
const F_SETFD: u32 = 2;
const F_GETFL: u32 = 3;
const F_SETFL: u32 = 4;
const F_GETLK: u32 = 5;
const F_SETLK: u32 = 6;
const F_SETLKW: u32 = 7;
const F_SETOWN: u32 = 8;
const F_GETOWN: u32 = 9;
const F_SETSIG: u32 = 10;
const F_GETSIG: u32 = 11;
const F_SETOWN_EX: u32 = 15;
const F_GETOWN_EX: u32 = 16;
const F_GETOWNER_UIDS: u32 = 17;
const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
const F_OFD_SETLKW: u32 = 38;
const F_DUPFD_CLOEXEC: u32 = 1030;
const F_SETPIPE_SZ: u32 = 1031;
const F_GETPIPE_SZ: u32 = 1032;
const F_ADD_SEALS: u32 = 1033;
const F_GET_SEALS: u32 = 1034;
const FD_CLOEXEC: u32 = 1;

fn sys_fcntl(call: &mut Call<'_>) -> Result<usize> {
    let files = call.thread.files();
    let (fd, command) = (call.int(0), call.uint(1));
    let file = files.get(fd)?;
    if file.is_path_only()
        && !matches!(command, F_DUPFD | F_DUPFD_CLOEXEC | F_GETFD | F_SETFD | F_GETFL)
    {
        return err(Errno::EBADF, "O_PATH descriptor");
    }
    match command {
        F_DUPFD => dup_from(call, file, OnExec::Keep),
        F_DUPFD_CLOEXEC => dup_from(call, file, OnExec::Close),
        F_GETFD => Ok(usize::from(files.on_exec(fd)? == OnExec::Close)),
        F_SETFD => {
            files.set_on_exec(fd, OnExec::when(call.uint(2) & FD_CLOEXEC != 0))?;
            Ok(0)
        }
        F_GETFL => Ok(file.flags() as usize),
        F_SETFL => {
            set_flags(&file, call.uint(2))?;
            Ok(0)
        }
        F_GETLK | F_OFD_GETLK => get_lock(call, &file),
        F_SETLK | F_OFD_SETLK => set_lock(call, &file, Wait::Never),
        F_SETLKW | F_OFD_SETLKW => set_lock(call, &file, Wait::Allowed),
        F_GETOWN => Ok(owner_number(&file) as usize),
        F_SETOWN => set_owner(&file, call.int(2), fd),
        F_GETOWN_EX => get_owner_ex(call, &file),
        F_SETOWN_EX => set_owner_ex(call, &file),
        F_GETOWNER_UIDS => get_owner_uids(call, &file),
        F_GETSIG => Ok(file.asynchronous().signal() as usize),
        F_SETSIG => set_signal(&file, call.int(2)),
        F_GETPIPE_SZ => Ok(pipe_of(&file)?.capacity()),
        F_SETPIPE_SZ => pipe_of(&file)?
            .set_capacity(call.uint(2) as usize, call.thread.credentials().has(Capability::SysResource)),
        F_GET_SEALS => super::event::seals(&file, None),
        F_ADD_SEALS => super::event::seals(&file, Some(call.uint(2))),
        _ => err(Errno::EINVAL, "unknown command"),
    }
}

/// F_SETFL. A pipe's end makes packets while it has O_DIRECT; other files have no use for that flag.
fn set_flags(file: &Arc<OpenFile>, flags: u32) -> Result<()> {
    match pipe_of(file) {
        Ok(pipe) => pipe.set_packets(flags & O_DIRECT != 0),
        Err(_) if flags & O_DIRECT != 0 && file.inode().is_none() => {
            return err(Errno::EINVAL, "O_DIRECT of what has no storage");
        }
        Err(_) => {}
    }
    file.set_flags(flags);
    Ok(())
}

fn sigio_owner(number: i32) -> Option<sigio::Owner> {
    match number {
        0 => None,
        pid if pid > 0 => Some(sigio::Owner::Process(pid.unsigned_abs())),
        group => Some(sigio::Owner::Group(group.unsigned_abs())),
    }
}

/// As F_GETOWN: groups are negative. A thread counts as nobody, as on Linux.
fn owner_number(file: &OpenFile) -> i32 {
    match file.asynchronous().owner() {
        None | Some(sigio::Owner::Thread(_)) => 0,
        Some(sigio::Owner::Process(pid)) => pid as i32,
        Some(sigio::Owner::Group(group)) => -(group as i32),
    }
}

fn set_owner(file: &OpenFile, number: i32, fd: i32) -> Result<usize> {
    if number == i32::MIN {
        return err(Errno::EINVAL, "no such group");
    }
    file.set_owner(sigio_owner(number), fd).map(|()| 0)
}

const F_OWNER_TID: i32 = 0;
const F_OWNER_PID: i32 = 1;
const F_OWNER_PGRP: i32 = 2;

/// `struct f_owner_ex` is two ints: kind and id.
fn set_owner_ex(call: &Call<'_>, file: &OpenFile) -> Result<usize> {
    let [kind, id] = user::read::<[i32; 2]>(call.addr(2))?;
    let owner = match (kind, u32::try_from(id)) {
        (F_OWNER_TID..=F_OWNER_PGRP, Ok(0)) => None,
        (F_OWNER_TID, Ok(id)) => Some(sigio::Owner::Thread(id)),
        (F_OWNER_PID, Ok(id)) => Some(sigio::Owner::Process(id)),
        (F_OWNER_PGRP, Ok(id)) => Some(sigio::Owner::Group(id)),
        (F_OWNER_TID..=F_OWNER_PGRP, Err(_)) => return err(Errno::ESRCH, "negative id"),
        _ => return err(Errno::EINVAL, "unknown kind of owner"),
    };
    file.set_owner(owner, call.int(0)).map(|()| 0)
}

fn get_owner_ex(call: &Call<'_>, file: &OpenFile) -> Result<usize> {
    let (kind, id) = match file.asynchronous().owner() {
        None => (F_OWNER_PID, 0),
        Some(sigio::Owner::Thread(id)) => (F_OWNER_TID, id),
        Some(sigio::Owner::Process(id)) => (F_OWNER_PID, id),
        Some(sigio::Owner::Group(id)) => (F_OWNER_PGRP, id),
    };
    user::write(call.addr(2), &[kind, id as i32])?;
    Ok(0)
}

/// Real and effective user of who set the owner.
fn get_owner_uids(call: &Call<'_>, file: &OpenFile) -> Result<usize> {
    let uids = file.asynchronous().set_by().map_or([0; 2], |who| [who.user.real, who.user.effective]);
    user::write(call.addr(2), &uids)?;
    Ok(0)
}

fn set_signal(file: &OpenFile, number: i32) -> Result<usize> {
    let signal = match number {
        0 => None,
        number => Some(Signal::new(number).ok_or(Error::new(Errno::EINVAL, "no such signal"))?),
    };
    file.set_signal(signal);
    Ok(0)
}

fn dup_from(call: &Call<'_>, file: Arc<OpenFile>, on_exec: OnExec) -> Result<usize> {
    let min = call.args[2];
    let files = call.thread.files();
    if min >= files.limit() as u64 {
        return err(Errno::EINVAL, "beyond RLIMIT_NOFILE");
    }
    Ok(files.insert_from(min as usize, file, on_exec)? as usize)
}

fn pipe_of(file: &OpenFile) -> Result<Arc<PipeEnd>> {
    let any: Arc<dyn core::any::Any + Send + Sync> = file.file().clone();
    match any.downcast::<PipeEnd>() {
        Ok(pipe) => Ok(pipe),
        Err(_) => err(Errno::EBADF, "not a pipe"),
    }
}

/// `struct flock` of x86-64.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Flock {
    kind: i16,
    whence: i16,
    pad: i32,
    start: i64,
    size: i64,
    pid: i32,
    pad2: i32,
}

const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;

fn is_ofd(command: u32) -> bool {
    matches!(command, F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW)
}

/// The lock a `struct flock` asks for.
fn requested(call: &Call<'_>, file: &Arc<OpenFile>, flock: &Flock) -> Result<Lock> {
    let owner = if is_ofd(call.uint(1)) {
        if flock.pid != 0 {
            return err(Errno::EINVAL, "l_pid of an OFD lock");
        }
        Owner::of_open(file)
    } else {
        Owner::Process { table: call.thread.files().id(), pid: call.thread.process().pid() }
    };
    let base = match flock.whence {
        0 => 0,
        1 => file.offset() as i64,
        2 => file.file().attr()?.size as i64,
        _ => return err(Errno::EINVAL, "l_whence"),
    };
    let Some(from) = base.checked_add(flock.start) else {
        return err(Errno::EOVERFLOW, "l_start");
    };
    let (start, end) = match flock.size {
        0 => (from, i64::MAX),
        size if size > 0 => match from.checked_add(size - 1) {
            Some(last) => (from, last.saturating_add(1)),
            None => return err(Errno::EOVERFLOW, "l_len"),
        },
        size => (from.saturating_add(size), from),
    };
    if start < 0 {
        return err(Errno::EINVAL, "lock before the start of the file");
    }
    let mode = match flock.kind {
        F_RDLCK | F_UNLCK => Mode::Shared,
        F_WRLCK => Mode::Exclusive,
        _ => return err(Errno::EINVAL, "l_type"),
    };
    let end = if end == i64::MAX { u64::MAX } else { end as u64 };
    Ok(Lock { family: Family::Record, owner, mode, start: start as u64, end })
}

fn set_lock(call: &Call<'_>, file: &Arc<OpenFile>, wait: Wait) -> Result<usize> {
    let flock: Flock = user::read(call.addr(2))?;
    let wanted = requested(call, file, &flock)?;
    match flock.kind {
        F_RDLCK => file.check_readable()?,
        F_WRLCK => file.check_writable()?,
        _ => {
            locks::release(file, &wanted)?;
            return Ok(0);
        }
    }
    locks::acquire(file, wanted, wait)?;
    Ok(0)
}

fn get_lock(call: &Call<'_>, file: &Arc<OpenFile>) -> Result<usize> {
    let mut flock: Flock = user::read(call.addr(2))?;
    if flock.kind == F_UNLCK {
        return err(Errno::EINVAL, "l_type");
    }
    let wanted = requested(call, file, &flock)?;
    match locks::conflict(file, &wanted)? {
        None => flock.kind = F_UNLCK,
        Some(held) => {
            flock.kind = if held.mode == Mode::Shared { F_RDLCK } else { F_WRLCK };
            flock.whence = 0;
            flock.start = held.start as i64;
            flock.size = if held.end == u64::MAX { 0 } else { (held.end - held.start) as i64 };
            flock.pid = match held.owner {
                Owner::Process { pid, .. } => pid as i32,
                Owner::Open(_) => -1,
            };
        }
    }
    user::write(call.addr(2), &flock)?;
    Ok(0)
}

fn sys_flock(call: &mut Call<'_>) -> Result<usize> {
    const LOCK_SH: u32 = 1;
    const LOCK_EX: u32 = 2;
    const LOCK_NB: u32 = 4;
    const LOCK_UN: u32 = 8;
    let file = super::file::content(call, 0)?;
    let command = call.uint(1);
    let mode = match command & !LOCK_NB {
        LOCK_SH => Mode::Shared,
        LOCK_EX => Mode::Exclusive,
        LOCK_UN => Mode::Shared,
        _ => return err(Errno::EINVAL, "flock operation"),
    };
    let owner = Owner::of_open(&file);
    let lock = Lock { family: Family::Flock, owner, mode, start: 0, end: u64::MAX };
    if command & !LOCK_NB == LOCK_UN {
        locks::release(&file, &lock)?;
        return Ok(0);
    }
    let wait = if command & LOCK_NB != 0 { Wait::Never } else { Wait::Allowed };
    locks::acquire(&file, lock, wait)?;
    Ok(0)
}

const FIONCLEX: u32 = 0x5450;
const FIOCLEX: u32 = 0x5451;
const FIONBIO: u32 = 0x5421;
const FIOASYNC: u32 = 0x5452;
const FIONREAD: u32 = 0x541b;

fn sys_ioctl(call: &mut Call<'_>) -> Result<usize> {
    let files = call.thread.files();
    let (fd, request, arg) = (call.int(0), call.uint(1), call.addr(2));
    let file = files.get_content(fd)?;
    match request {
        FIOCLEX => files.set_on_exec(fd, OnExec::Close)?,
        FIONCLEX => files.set_on_exec(fd, OnExec::Keep)?,
        FIONBIO => {
            let is_on = user::read::<i32>(arg)? != 0;
            file.set_nonblocking(if is_on { Wait::Never } else { Wait::Allowed });
        }
        FIOASYNC => {
            let is_on = user::read::<i32>(arg)? != 0;
            if is_on && !file.file().can_signal() {
                return err(Errno::ENOTTY, "no signals about this file");
            }
            file.set_flags(if is_on { file.flags() | O_ASYNC } else { file.flags() & !O_ASYNC });
        }
        FIONREAD => {
            let size = file.file().readable_bytes()?;
            let unread = if file.file().is_seekable() {
                (size as u64).saturating_sub(file.offset())
            } else {
                size as u64
            };
            user::write(arg, &i32::try_from(unread).unwrap_or(i32::MAX))?;
        }
        _ => return file.file().ioctl(request, arg),
    }
    Ok(0)
}
