//! Processes: clone(2), execve(2), wait4(2), exit(2) and their families.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::limits::RUsage;
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::futex::robust;
use crate::process::clone::{self, CLONE_VFORK, CLONE_VM, CSIGNAL};
use crate::process::stack::STRING_MAX;
use crate::process::wait::{
    self, ChildEvent, WALL, WCLONE, WCONTINUED, WEXITED, WNOHANG, WNOTHREAD, WNOWAIT, WSTOPPED,
    WUNTRACED, Which,
};
use crate::process::credentials::Capability;
use crate::process::{Thread, Work, exec, exit, inspect, pidfd, tree};
use crate::signal::{SigInfo, Signal};
use crate::user::{self, UserAddr};
use crate::vfs::Path;
use crate::vfs::flags::O_NONBLOCK;
use crate::vfs::walk::{LastLink, PATH_MAX, Walker};
use core::sync::atomic::Ordering;

const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EMPTY_PATH: u32 = 0x1000;

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(56, "clone", &[Arg::Hex, Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Hex], sys_clone)
        .but("no namespaces"),
    Syscall::full(57, "fork", &[], sys_fork),
    Syscall::full(58, "vfork", &[], sys_vfork),
    Syscall::full(59, "execve", &[Arg::Path, Arg::Ptr, Arg::Ptr], sys_execve),
    Syscall::full(60, "exit", &[Arg::Int], sys_exit),
    Syscall::full(61, "wait4", &[Arg::Int, Arg::Ptr, Arg::Hex, Arg::Ptr], sys_wait4),
    Syscall::full(218, "set_tid_address", &[Arg::Ptr], sys_set_tid_address),
    Syscall::full(231, "exit_group", &[Arg::Int], sys_exit_group),
    Syscall::full(247, "waitid", &[Arg::Int, Arg::Int, Arg::Ptr, Arg::Hex, Arg::Ptr], sys_waitid),
    Syscall::full(272, "unshare", &[Arg::Hex], sys_unshare)
        .but("descriptors and directories; no namespaces"),
    Syscall::full(273, "set_robust_list", &[Arg::Ptr, Arg::Uint], sys_set_robust_list),
    Syscall::full(274, "get_robust_list", &[Arg::Int, Arg::Ptr, Arg::Ptr], sys_get_robust_list),
    Syscall::full(322, "execveat", &[Arg::Fd, Arg::Path, Arg::Ptr, Arg::Ptr, Arg::Hex], sys_execveat),
    Syscall::full(424, "pidfd_send_signal", &[Arg::Fd, Arg::Signal, Arg::Ptr, Arg::Hex], sys_pidfd_send_signal),
    Syscall::full(434, "pidfd_open", &[Arg::Int, Arg::Hex], sys_pidfd_open),
    Syscall::full(435, "clone3", &[Arg::Ptr, Arg::Uint], sys_clone3)
        .but("no namespaces or cgroups"),
];

fn sys_clone(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.args[0] & 0xffff_ffff;
    // With CLONE_PIDFD the descriptor goes where the parent's copy of the id would.
    let request = clone::Request {
        flags: flags & !CSIGNAL,
        exit_signal: clone::exit_signal(flags & CSIGNAL)?,
        stack: call.args[1],
        tls: call.args[4],
        parent_tid: call.addr(2),
        child_tid: call.addr(3),
        pidfd: call.addr(2),
        set_tid: None,
    };
    if request.flags & clone::CLONE_PIDFD != 0 && request.flags & clone::CLONE_PARENT_SETTID != 0 {
        return err(Errno::EINVAL, "CLONE_PIDFD with CLONE_PARENT_SETTID");
    }
    clone::clone(call.thread, call.context, &request).map(|tid| tid as usize)
}

fn sys_fork(call: &mut Call<'_>) -> Result<usize> {
    let request =
        clone::Request { exit_signal: Signal::CHLD.number(), ..clone::Request::default() };
    clone::clone(call.thread, call.context, &request).map(|tid| tid as usize)
}

fn sys_vfork(call: &mut Call<'_>) -> Result<usize> {
    let request = clone::Request {
        flags: CLONE_VM | CLONE_VFORK,
        exit_signal: Signal::CHLD.number(),
        ..clone::Request::default()
    };
    clone::clone(call.thread, call.context, &request).map(|tid| tid as usize)
}

/// `struct clone_args`, version 2.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_ARGS_SIZE_VER0: usize = 64;

fn sys_clone3(call: &mut Call<'_>) -> Result<usize> {
    let size = call.size(1);
    if size > 4096 {
        return err(Errno::E2BIG, "clone_args too long");
    }
    if size < CLONE_ARGS_SIZE_VER0 {
        return err(Errno::EINVAL, "clone_args too short");
    }
    let mut args = CloneArgs::default();
    let known = size.min(size_of::<CloneArgs>());
    user::read_bytes(call.addr(0), &mut args.as_mut_bytes()[..known])?;
    check_rest_is_zero(call.addr(0).offset(known), size - known)?;
    let set_tid = read_set_tid(call, &args)?;
    let request = clone::Request { set_tid, ..clone3_request(&args)? };
    clone::clone(call.thread, call.context, &request).map(|tid| tid as usize)
}

fn check_rest_is_zero(addr: UserAddr, size: usize) -> Result<()> {
    let mut rest = alloc::vec![0; size];
    user::read_bytes(addr, &mut rest)?;
    if rest.iter().any(|&byte| byte != 0) {
        return err(Errno::E2BIG, "unknown fields of clone_args");
    }
    Ok(())
}

/// The id the child is to have. There is one level of process ids.
fn read_set_tid(call: &Call<'_>, args: &CloneArgs) -> Result<Option<u32>> {
    match (args.set_tid, args.set_tid_size) {
        (0, 0) => return Ok(None),
        (0, _) | (_, 0) => return err(Errno::EINVAL, "set_tid without its size, or the reverse"),
        (_, 1) => {}
        _ => return err(Errno::EINVAL, "more ids than levels"),
    }
    let tid: i32 = user::read(UserAddr(args.set_tid as usize))?;
    let Some(tid) = u32::try_from(tid).ok().filter(|&tid| tree::is_possible_id(tid)) else {
        return err(Errno::EINVAL, "no possible id");
    };
    let who = call.thread.credentials();
    if !who.has(Capability::CheckpointRestore) && !who.has(Capability::SysAdmin) {
        return err(Errno::EPERM, "needs CAP_CHECKPOINT_RESTORE");
    }
    Ok(Some(tid))
}

fn clone3_request(args: &CloneArgs) -> Result<clone::Request> {
    let known_flags = 0x3_ffff_ff00u64;
    if args.flags & !known_flags != 0 || args.flags & clone::CLONE_DETACHED != 0 {
        return err(Errno::EINVAL, "unknown clone3 flags");
    }
    if (args.stack == 0) != (args.stack_size == 0) {
        return err(Errno::EINVAL, "stack without size, or size without stack");
    }
    let is_thread = args.flags & (clone::CLONE_THREAD | clone::CLONE_PARENT) != 0;
    if is_thread && args.exit_signal != 0 {
        return err(Errno::EINVAL, "exit signal of a thread");
    }
    let Some(stack) = args.stack.checked_add(args.stack_size) else {
        return err(Errno::EINVAL, "stack out of range");
    };
    Ok(clone::Request {
        flags: args.flags,
        exit_signal: clone::exit_signal(args.exit_signal)?,
        stack,
        tls: args.tls,
        parent_tid: UserAddr(args.parent_tid as usize),
        child_tid: UserAddr(args.child_tid as usize),
        pidfd: UserAddr(args.pidfd as usize),
        set_tid: None,
    })
}

fn sys_execve(call: &mut Call<'_>) -> Result<usize> {
    let name = user::read_c_string(call.addr(0), PATH_MAX - 1, Errno::ENAMETOOLONG)?;
    let thread = call.thread;
    let who = thread.credentials().identity();
    let walker = Walker::new(thread.fs(), &who, thread.fs().cwd(), name.clone())?;
    let path = walker.walk(LastLink::Follow)?;
    execute(call, path, name, call.addr(1), call.addr(2))
}

fn sys_execveat(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(4);
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return err(Errno::EINVAL, "unknown execveat flags");
    }
    let name = user::read_c_string(call.addr(1), PATH_MAX - 1, Errno::ENAMETOOLONG)?;
    let (path, name) = find_at(call.thread, call.int(0), name, flags)?;
    execute(call, path, name, call.addr(2), call.addr(3))
}

/// The file execveat names, and the name it gets: through a descriptor, that of /dev/fd.
fn find_at(thread: &Thread, fd: i32, name: Vec<u8>, flags: u32) -> Result<(Path, Vec<u8>)> {
    if name.is_empty() && flags & AT_EMPTY_PATH != 0 {
        let file = thread.files().get(fd)?;
        let Some(path) = file.path() else { return err(Errno::EACCES, "not a file with a name") };
        return Ok((path.clone(), alloc::format!("/dev/fd/{fd}").into_bytes()));
    }
    let is_relative = fd != AT_FDCWD && name.first() != Some(&b'/');
    let start = match is_relative {
        true => thread.files().get(fd)?.path().cloned().ok_or(Errno::ENOTDIR)?,
        false => thread.fs().cwd(),
    };
    let who = thread.credentials().identity();
    let keeps_link = flags & AT_SYMLINK_NOFOLLOW != 0;
    let last = if keeps_link { LastLink::Keep } else { LastLink::Follow };
    let path = Walker::new(thread.fs(), &who, start, name.clone())?.walk(last)?;
    if keeps_link && path.dentry.kind() == crate::vfs::Kind::Symlink {
        return err(Errno::ELOOP, "a symbolic link");
    }
    let shown = if is_relative { alloc::format!("/dev/fd/{fd}/").into_bytes() } else { Vec::new() };
    Ok((path, [shown, name].concat()))
}

fn execute(call: &mut Call<'_>, path: Path, name: Vec<u8>, args: UserAddr, env: UserAddr) -> Result<usize> {
    let mut args = read_strings(args)?;
    if args.is_empty() {
        args.push(Vec::new());
    }
    let env = read_strings(env)?;
    exec::exec(call.thread, call.context, exec::Request { path, name, args, env })?;
    Ok(0)
}

/// A NULL-ended array of strings. E2BIG once it is longer than any stack takes.
fn read_strings(array: UserAddr) -> Result<Vec<Vec<u8>>> {
    const TOTAL_MAX: usize = 6 << 20;
    let mut strings = Vec::new();
    let mut total = 0;
    if array.is_null() {
        return Ok(strings);
    }
    loop {
        let pointer: u64 = user::read(array.offset(strings.len() * 8))?;
        if pointer == 0 {
            return Ok(strings);
        }
        let text = user::read_c_string(UserAddr(pointer as usize), STRING_MAX - 1, Errno::E2BIG)?;
        total += text.len() + 9;
        if total > TOTAL_MAX {
            return Err(exec::too_many_args());
        }
        strings.push(text);
    }
}

fn sys_exit(call: &mut Call<'_>) -> Result<usize> {
    call.thread.exit_status.store(exit::exited(call.int(0)), Ordering::Relaxed);
    call.thread.set_work(Work::EXIT);
    Ok(0)
}

fn sys_exit_group(call: &mut Call<'_>) -> Result<usize> {
    call.thread.process().begin_exit(exit::exited(call.int(0)));
    Ok(0)
}

fn sys_set_tid_address(call: &mut Call<'_>) -> Result<usize> {
    call.thread.clear_tid.store(call.addr(0).0, Ordering::Relaxed);
    Ok(call.thread.tid() as usize)
}

fn sys_unshare(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.args[0];
    let alone = clone::CLONE_THREAD | clone::CLONE_SIGHAND | clone::CLONE_VM;
    let sysvsem = 0x4_0000;
    if flags & clone::CLONE_NAMESPACES != 0 {
        return Err(clone::no_namespaces(call.thread, flags));
    }
    if flags & !(clone::CLONE_FILES | clone::CLONE_FS | alone | sysvsem) != 0 {
        return err(Errno::EINVAL, "unknown unshare flags");
    }
    if flags & alone != 0 && call.thread.process().thread_count() > 1 {
        return err(Errno::EINVAL, "not the only thread");
    }
    clone::unshare(call.thread, flags);
    Ok(0)
}

fn sys_set_robust_list(call: &mut Call<'_>) -> Result<usize> {
    if call.size(1) != robust::HEAD_SIZE {
        return err(Errno::EINVAL, "unknown size of robust_list_head");
    }
    call.thread.robust_list.store(call.addr(0).0, Ordering::Relaxed);
    Ok(0)
}

fn sys_get_robust_list(call: &mut Call<'_>) -> Result<usize> {
    let head = match call.uint(0) {
        0 => call.thread.robust_list.load(Ordering::Relaxed),
        tid => {
            let thread = tree::find_thread(tid).ok_or_else(tree::no_such_process)?;
            inspect::check_may_inspect(call.thread, &thread)?;
            thread.robust_list.load(Ordering::Relaxed)
        }
    };
    user::write(call.addr(2), &(robust::HEAD_SIZE as u64))?;
    user::write(call.addr(1), &(head as u64))?;
    Ok(0)
}

fn sys_wait4(call: &mut Call<'_>) -> Result<usize> {
    let options = call.uint(2);
    if options & !(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL) != 0 {
        return err(Errno::EINVAL, "unknown wait options");
    }
    let which = match call.int(0) {
        i32::MIN => return err(Errno::ESRCH, "no such group"),
        -1 => Which::Any,
        0 => Which::Group(call.thread.process().pgid()),
        pid if pid < 0 => Which::Group(pid.unsigned_abs()),
        pid => Which::Process(pid.unsigned_abs()),
    };
    let Some(event) = wait::wait(call.thread, which, options | WEXITED)? else { return Ok(0) };
    if !call.addr(1).is_null() {
        user::write(call.addr(1), &event.status)?;
    }
    write_usage(call.addr(3), &event)?;
    Ok(event.pid as usize)
}

const P_ALL: i32 = 0;
const P_PID: i32 = 1;
const P_PGID: i32 = 2;
const P_PIDFD: i32 = 3;

fn sys_waitid(call: &mut Call<'_>) -> Result<usize> {
    let mut options = call.uint(3);
    let events = WEXITED | WSTOPPED | WCONTINUED;
    if options & !(events | WNOHANG | WNOWAIT | WNOTHREAD | WCLONE | WALL) != 0 || options & events == 0 {
        return err(Errno::EINVAL, "unknown wait options");
    }
    let id = call.int(1);
    let mut is_nonblocking = false;
    let which = match call.int(0) {
        P_ALL => Which::Any,
        P_PID if id > 0 => Which::Process(id.unsigned_abs()),
        P_PGID if id > 0 => Which::Group(id.unsigned_abs()),
        P_PGID if id == 0 => Which::Group(call.thread.process().pgid()),
        P_PIDFD if id >= 0 => {
            let (process, blocking) = pidfd::process_of(call.thread, id)?;
            is_nonblocking = blocking == pidfd::Blocking::No && options & WNOHANG == 0;
            Which::Process(process.pid())
        }
        _ => return err(Errno::EINVAL, "unknown kind of id"),
    };
    if is_nonblocking {
        options |= WNOHANG;
    }
    let event = wait::wait(call.thread, which, options)?;
    if event.is_none() && is_nonblocking {
        return err(Errno::EAGAIN, "the pidfd is non-blocking");
    }
    if let Some(event) = &event {
        write_usage(call.addr(4), event)?;
    }
    write_wait_info(call.addr(2), event.as_ref())?;
    Ok(0)
}

fn write_wait_info(addr: UserAddr, event: Option<&ChildEvent>) -> Result<()> {
    if addr.is_null() {
        return Ok(());
    }
    let info = event.map_or_else(SigInfo::default, |event| {
        SigInfo::child(event.code, event.pid, event.uid, event.detail, (0, 0))
    });
    // waitid sets these fields alone: the union behind si_status is left as it is.
    user::write_bytes(addr, &info.as_bytes()[..28])
}

fn write_usage(addr: UserAddr, event: &ChildEvent) -> Result<()> {
    if addr.is_null() {
        return Ok(());
    }
    user::write(addr, &RUsage::from(&event.usage))
}

fn sys_pidfd_open(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(1);
    if flags & !O_NONBLOCK != 0 || call.int(0) <= 0 {
        return err(Errno::EINVAL, "unknown flags or bad id");
    }
    let blocking = if flags != 0 { pidfd::Blocking::No } else { pidfd::Blocking::Yes };
    let pid = call.uint(0);
    let Some(process) = tree::find_process(pid) else {
        let is_thread = tree::find_thread(pid).is_some();
        let errno = if is_thread { Errno::EINVAL } else { Errno::ESRCH };
        return Err(Error::new(errno, "no such process"));
    };
    pidfd::open(call.thread, process, blocking).map(|fd| fd as usize)
}

fn sys_pidfd_send_signal(call: &mut Call<'_>) -> Result<usize> {
    if call.uint(3) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    let (process, _) = pidfd::process_of(call.thread, call.int(0))?;
    super::signal::send_by_pidfd(call, &process)
}
