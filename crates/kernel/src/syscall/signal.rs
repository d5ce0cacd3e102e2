//! Signals: kill(2), sigaction(2), sigprocmask(2) and their families.

use alloc::sync::Arc;

use super::{Arg, Call, Syscall};
use crate::error::{self, Errno, Error, Result, err};
use crate::process::credentials::Capability;
use crate::process::{Process, Thread, tree};
use crate::sched::run;
use crate::sched::timer;
use crate::sched::{WaitError, WaitQueue};
use crate::signal::info::{SI_TKILL, SI_USER};
use crate::signal::signalfd::SignalFile;
use crate::signal::state::AltStack;
use crate::signal::{
    Action, SigInfo, SigSet, Signal, force_fatal, frame, mask, send_to_process, send_to_thread, stack,
};
use crate::time::value::TimeSpec;
use crate::user::{self, UserAddr};
use crate::vfs::OpenFile;
use crate::vfs::flags::{O_CLOEXEC, O_NONBLOCK, O_RDWR};
use crate::vfs::table::OnExec;

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(13, "rt_sigaction", &[Arg::Signal, Arg::Ptr, Arg::Ptr, Arg::Uint], sys_rt_sigaction),
    Syscall::full(14, "rt_sigprocmask", &[Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Uint], sys_rt_sigprocmask),
    Syscall::full(15, "rt_sigreturn", &[], sys_rt_sigreturn),
    Syscall::full(34, "pause", &[], sys_pause),
    Syscall::full(62, "kill", &[Arg::Int, Arg::Signal], sys_kill),
    Syscall::full(127, "rt_sigpending", &[Arg::Ptr, Arg::Uint], sys_rt_sigpending),
    Syscall::full(128, "rt_sigtimedwait", &[Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Uint], sys_rt_sigtimedwait),
    Syscall::full(129, "rt_sigqueueinfo", &[Arg::Int, Arg::Signal, Arg::Ptr], sys_rt_sigqueueinfo),
    Syscall::full(130, "rt_sigsuspend", &[Arg::Ptr, Arg::Uint], sys_rt_sigsuspend),
    Syscall::full(131, "sigaltstack", &[Arg::Ptr, Arg::Ptr], sys_sigaltstack),
    Syscall::full(200, "tkill", &[Arg::Int, Arg::Signal], sys_tkill),
    Syscall::full(219, "restart_syscall", &[], sys_restart_syscall),
    Syscall::full(234, "tgkill", &[Arg::Int, Arg::Int, Arg::Signal], sys_tgkill),
    Syscall::full(282, "signalfd", &[Arg::Fd, Arg::Ptr, Arg::Uint], sys_signalfd),
    Syscall::full(289, "signalfd4", &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Hex], sys_signalfd4),
    Syscall::full(297, "rt_tgsigqueueinfo", &[Arg::Int, Arg::Int, Arg::Signal, Arg::Ptr], sys_rt_tgsigqueueinfo),
];

/// `sizeof(sigset_t)` in the kernel's interface.
const SIGSET_SIZE: usize = 8;

fn check_set_size(size: usize) -> Result<()> {
    if size == SIGSET_SIZE { Ok(()) } else { err(Errno::EINVAL, "unknown size of sigset_t") }
}

fn read_set(addr: UserAddr) -> Result<SigSet> {
    user::read(addr).map(SigSet)
}

fn sys_rt_sigaction(call: &mut Call<'_>) -> Result<usize> {
    check_set_size(call.size(3))?;
    let new: Option<Action> = match call.addr(1) {
        addr if addr.is_null() => None,
        addr => Some(user::read(addr)?),
    };
    let Some(signal) = Signal::new(call.int(0)) else { return err(Errno::EINVAL, "no such signal") };
    if new.is_some() && SigSet::UNBLOCKABLE.contains(signal) {
        return err(Errno::EINVAL, "SIGKILL and SIGSTOP have no handler");
    }
    let process = call.thread.process();
    let dispositions = process.signals().dispositions();
    let old = match new {
        Some(new) => {
            let old = dispositions.set(signal, new.sanitized());
            if new.ignores(signal) {
                discard(process, signal);
            }
            old
        }
        None => dispositions.get(signal),
    };
    if !call.addr(2).is_null() {
        user::write(call.addr(2), &old)?;
    }
    Ok(0)
}

/// A signal that becomes ignored is no longer pending either (POSIX).
fn discard(process: &Process, signal: Signal) {
    let set = SigSet::of(&[signal]);
    process.signals().lock().pending.discard(set);
    process.for_each_thread(|thread| thread.signals().private.lock().discard(set));
}

const SIG_BLOCK: i32 = 0;
const SIG_UNBLOCK: i32 = 1;
const SIG_SETMASK: i32 = 2;

fn sys_rt_sigprocmask(call: &mut Call<'_>) -> Result<usize> {
    check_set_size(call.size(3))?;
    let old = call.thread.signals().blocked();
    if !call.addr(1).is_null() {
        let set = read_set(call.addr(1))?;
        let new = match call.int(0) {
            SIG_BLOCK => old.union(set),
            SIG_UNBLOCK => old.without(set),
            SIG_SETMASK => set,
            _ => return err(Errno::EINVAL, "unknown operation"),
        };
        mask::set(call.thread, new.without(SigSet::UNBLOCKABLE));
    }
    if !call.addr(2).is_null() {
        user::write(call.addr(2), &old.0)?;
    }
    Ok(0)
}

fn sys_rt_sigreturn(call: &mut Call<'_>) -> Result<usize> {
    match frame::pop(call.thread, call.context) {
        Ok(rax) => Ok(rax as usize),
        Err(_) => {
            force_fatal(call.thread, Signal::SEGV);
            Ok(0)
        }
    }
}

fn sys_restart_syscall(_: &mut Call<'_>) -> Result<usize> {
    // Interrupted calls restart inside the kernel; nobody else has a reason to ask.
    err(Errno::EINTR, "nothing to restart")
}

/// Waits for a signal that has a handler or ends the process.
fn wait_for_signal() -> Error {
    let never = WaitQueue::new();
    match never.wait_until(None, true, || None::<()>) {
        Ok(()) | Err(WaitError::TimedOut) => unreachable!("nothing else ends the wait"),
        Err(WaitError::Interrupted) => error::interrupted_unless_handled(),
    }
}

fn sys_pause(_: &mut Call<'_>) -> Result<usize> {
    Err(wait_for_signal())
}

fn sys_rt_sigsuspend(call: &mut Call<'_>) -> Result<usize> {
    check_set_size(call.size(1))?;
    let set = read_set(call.addr(0))?;
    mask::set_temporary(call.thread, set.without(SigSet::UNBLOCKABLE));
    Err(wait_for_signal())
}

fn sys_rt_sigpending(call: &mut Call<'_>) -> Result<usize> {
    if call.size(1) > SIGSET_SIZE {
        return err(Errno::EINVAL, "unknown size of sigset_t");
    }
    let pending = mask::pending(call.thread).intersection(call.thread.signals().blocked());
    user::write_bytes(call.addr(0), &pending.0.to_le_bytes()[..call.size(1)])?;
    Ok(0)
}

fn sys_rt_sigtimedwait(call: &mut Call<'_>) -> Result<usize> {
    check_set_size(call.size(3))?;
    let set = read_set(call.addr(0))?.without(SigSet::UNBLOCKABLE);
    let timeout = TimeSpec::read_optional(call.addr(2))?.map(TimeSpec::to_ns).transpose()?;
    let deadline = timeout.map(|ns| timer::now_ns().saturating_add(ns));
    let (signal, info) = wait_for(call.thread, set, deadline)?;
    if !call.addr(1).is_null() {
        user::write(call.addr(1), &info)?;
    }
    Ok(signal.number() as usize)
}

fn wait_for(thread: &Thread, set: SigSet, deadline: Option<u64>) -> Result<(Signal, SigInfo)> {
    if let Some(found) = mask::take(thread, set) {
        return Ok(found);
    }
    mask::set_awaited(thread, set);
    let never = WaitQueue::new();
    let found = never.wait_until(deadline, true, || mask::take(thread, set));
    mask::set_awaited(thread, SigSet::EMPTY);
    // What woke the wait may have come for it, between its last look and its end.
    let found = found.or_else(|error| mask::take(thread, set).ok_or(error));
    if found.is_ok() {
        run::clear_interrupt();
    }
    mask::recheck(thread);
    found.map_err(|error| match error {
        WaitError::TimedOut => Error::new(Errno::EAGAIN, "no signal came"),
        WaitError::Interrupted => Error::new(Errno::EINTR, "another signal came"),
    })
}

fn sys_sigaltstack(call: &mut Call<'_>) -> Result<usize> {
    let new: Option<AltStack> = match call.addr(0) {
        addr if addr.is_null() => None,
        addr => Some(user::read(addr)?),
    };
    let rsp = call.context.regs.rsp;
    let old = stack::report(&call.thread.signals().alt_stack.lock(), rsp);
    if let Some(new) = new {
        stack::set(call.thread, new, rsp)?;
    }
    if !call.addr(1).is_null() {
        user::write(call.addr(1), &old)?;
    }
    Ok(0)
}

/// Signal 0 asks for existence and permission only.
fn signal_or_probe(number: i32) -> Result<Option<Signal>> {
    if number == 0 {
        return Ok(None);
    }
    match Signal::new(number) {
        Some(signal) => Ok(Some(signal)),
        None => err(Errno::EINVAL, "no such signal"),
    }
}

/// EPERM unless the caller may send `signal` to the process (kill(2)).
fn check_may_send(caller: &Thread, target: &Process, signal: Option<Signal>) -> Result<()> {
    let who = caller.credentials();
    if target.pid() == caller.process().pid() || who.has(Capability::Kill) {
        return Ok(());
    }
    // A zombie has no credentials any more; nothing happens to it.
    let Some(whom) = target.main_thread().map(|thread| thread.credentials()) else { return Ok(()) };
    let is_one_of = |id: u32| id == whom.user.real || id == whom.user.saved;
    let is_cont_in_session = signal == Some(Signal::CONT) && target.sid() == caller.process().sid();
    if is_one_of(who.user.real) || is_one_of(who.user.effective) || is_cont_in_session {
        return Ok(());
    }
    err(Errno::EPERM, "another user's process")
}

fn from_caller(caller: &Thread, signal: Signal, code: i32) -> SigInfo {
    SigInfo::from_process(signal, code, caller.process().pid(), caller.credentials().user.real)
}

fn send_one(caller: &Thread, target: &Process, signal: Option<Signal>) -> Result<()> {
    check_may_send(caller, target, signal)?;
    match signal {
        Some(signal) => send_to_process(target, signal, from_caller(caller, signal, SI_USER)),
        None => Ok(()),
    }
}

fn sys_kill(call: &mut Call<'_>) -> Result<usize> {
    let pid = call.int(0);
    let signal = signal_or_probe(call.int(1))?;
    let caller = call.thread;
    match pid {
        i32::MIN => Err(tree::no_such_process()),
        -1 => {
            let own = caller.process().pid();
            let mut others = tree::processes();
            others.retain(|process| process.pid() != own);
            send_to_all(caller, &others, signal)
        }
        0 => send_to_all(caller, &tree::group(caller.process().pgid()), signal),
        pid if pid < 0 => send_to_all(caller, &tree::group(pid.unsigned_abs()), signal),
        pid => {
            let target = find_target(pid.unsigned_abs())?;
            send_one(caller, &target, signal)?;
            Ok(0)
        }
    }
}

/// kill reaches a process by the id of any of its threads.
fn find_target(pid: u32) -> Result<Arc<Process>> {
    let process = tree::find_process(pid);
    let process = process.or_else(|| tree::find_thread(pid).map(|thread| thread.process().clone()));
    process.ok_or_else(tree::no_such_process)
}

/// Succeeds if one of them could be reached.
fn send_to_all(caller: &Thread, targets: &[Arc<Process>], signal: Option<Signal>) -> Result<usize> {
    let mut result = Err(tree::no_such_process());
    for target in targets {
        match send_one(caller, target, signal) {
            Ok(()) => result = Ok(0),
            Err(error) if result.is_err() => result = Err(error),
            Err(_) => {}
        }
    }
    result
}

fn find_in_group(tgid: i32, tid: i32) -> Result<Arc<Thread>> {
    let thread = tree::find_thread(tid.unsigned_abs()).ok_or_else(tree::no_such_process)?;
    if thread.process().pid() != tgid.unsigned_abs() {
        return Err(tree::no_such_process());
    }
    Ok(thread)
}

fn sys_tgkill(call: &mut Call<'_>) -> Result<usize> {
    let (tgid, tid) = (call.int(0), call.int(1));
    if tgid <= 0 || tid <= 0 {
        return err(Errno::EINVAL, "ids are positive");
    }
    let thread = find_in_group(tgid, tid)?;
    send_directed(call, &thread, call.int(2))
}

fn sys_tkill(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) <= 0 {
        return err(Errno::EINVAL, "ids are positive");
    }
    let thread = tree::find_thread(call.uint(0)).ok_or_else(tree::no_such_process)?;
    send_directed(call, &thread, call.int(1))
}

fn send_directed(call: &Call<'_>, thread: &Thread, number: i32) -> Result<usize> {
    let signal = signal_or_probe(number)?;
    check_may_send(call.thread, thread.process(), signal)?;
    if let Some(signal) = signal {
        send_to_thread(thread, signal, from_caller(call.thread, signal, SI_TKILL))?;
    }
    Ok(0)
}

/// The record of sigqueue: what claims to come from kill or the kernel must not, except to oneself.
fn read_info(call: &Call<'_>, addr: UserAddr, signal: i32, is_self: bool) -> Result<SigInfo> {
    let mut info: SigInfo = user::read(addr)?;
    info.signo = signal;
    if !is_self && (info.code >= 0 || info.code == SI_TKILL) {
        return err(Errno::EPERM, "a record that could come from the kernel");
    }
    debug_assert!(call.thread.tid() != 0);
    Ok(info)
}

fn sys_rt_sigqueueinfo(call: &mut Call<'_>) -> Result<usize> {
    let is_self = call.uint(0) == call.thread.process().pid();
    let info = read_info(call, call.addr(2), call.int(1), is_self)?;
    let target = find_target(call.uint(0))?;
    let signal = signal_or_probe(call.int(1))?;
    check_may_send(call.thread, &target, signal)?;
    if let Some(signal) = signal {
        send_to_process(&target, signal, info)?;
    }
    Ok(0)
}

fn sys_rt_tgsigqueueinfo(call: &mut Call<'_>) -> Result<usize> {
    let (tgid, tid) = (call.int(0), call.int(1));
    let is_self = tgid.unsigned_abs() == call.thread.process().pid();
    let info = read_info(call, call.addr(3), call.int(2), is_self)?;
    if tgid <= 0 || tid <= 0 {
        return err(Errno::EINVAL, "ids are positive");
    }
    let thread = find_in_group(tgid, tid)?;
    let signal = signal_or_probe(call.int(2))?;
    check_may_send(call.thread, thread.process(), signal)?;
    if let Some(signal) = signal {
        send_to_thread(&thread, signal, info)?;
    }
    Ok(0)
}

fn sys_signalfd(call: &mut Call<'_>) -> Result<usize> {
    open_signalfd(call, 0)
}

fn sys_signalfd4(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(3);
    if flags & !(O_NONBLOCK | O_CLOEXEC) != 0 {
        return err(Errno::EINVAL, "unknown signalfd flags");
    }
    open_signalfd(call, flags)
}

fn open_signalfd(call: &Call<'_>, flags: u32) -> Result<usize> {
    check_set_size(call.size(2))?;
    let set = read_set(call.addr(1))?.without(SigSet::UNBLOCKABLE);
    let fd = call.int(0);
    if fd == -1 {
        let file = OpenFile::new(Arc::new(SignalFile::new(set)), O_RDWR | flags & O_NONBLOCK);
        let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
        return call.thread.files().insert(file, on_exec).map(|fd| fd as usize);
    }
    let open = call.thread.files().get(fd)?;
    let file: &dyn core::any::Any = &**open.file();
    let Some(file) = file.downcast_ref::<SignalFile>() else {
        return err(Errno::EINVAL, "not a signalfd");
    };
    file.set_mask(set);
    Ok(fd as usize)
}

/// pidfd_send_signal(pidfd, signal, info, flags)
pub(super) fn send_by_pidfd(call: &Call<'_>, process: &Arc<Process>) -> Result<usize> {
    let signal = signal_or_probe(call.int(1))?;
    if call.addr(2).is_null() {
        if tree::is_zombie(process.pid()) && process.thread_count() == 0 && tree::find_process(process.pid()).is_none() {
            return Err(tree::no_such_process());
        }
        send_one(call.thread, process, signal)?;
        return Ok(0);
    }
    let is_self = process.pid() == call.thread.process().pid();
    let given: SigInfo = user::read(call.addr(2))?;
    if given.signo != call.int(1) {
        return err(Errno::EINVAL, "the record is about another signal");
    }
    let info = read_info(call, call.addr(2), call.int(1), is_self)?;
    check_may_send(call.thread, process, signal)?;
    if let Some(signal) = signal {
        send_to_process(process, signal, info)?;
    }
    Ok(0)
}
