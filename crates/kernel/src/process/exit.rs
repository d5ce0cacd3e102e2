//! How threads and processes end.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::group::Remaining;
use super::tree::{self, INIT};
use super::usage::ns_to_ticks;
use super::{Process, Thread, groups, programs, thread};
use crate::fs::pty::job;
use crate::futex;
use crate::ipc;
use crate::outside;
use crate::sched::{self, timer};
use crate::signal::action::{SA_NOCLDSTOP, SA_NOCLDWAIT, SIG_IGN};
use crate::signal::deliver;
use crate::signal::info::{CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED};
use crate::signal::{SigInfo, Signal, send_to_process};
use crate::user::{self, UserAddr};

/// Bit of a wait status: a core was dumped.
const CORE_DUMPED: u32 = 0x80;

/// The wait status of a process that called exit.
pub fn exited(code: i32) -> u32 {
    (code as u32 & 0xff) << 8
}

/// The wait status of a process that a signal ended.
pub fn killed(signal: Signal) -> u32 {
    signal.number() as u32
}

/// The same where a core was dumped.
pub fn dumped(signal: Signal) -> u32 {
    killed(signal) | CORE_DUMPED
}

/// Ends a process by a signal that can't be caught.
pub fn kill_process(process: &Process, signal: Signal) {
    process.begin_exit(killed(signal));
}

/// The last of a thread; its user loop returns after this. The thread runs in its own task.
pub(super) fn finish(thread: Arc<Thread>) {
    let status = thread.exit_status.load(Ordering::Relaxed);
    release_user_memory(&thread);
    let process = thread.process().clone();
    let tid = thread.tid();
    thread::detach(&sched::current());
    // Before the group knows: a thread that executes a program may then take over the id.
    tree::remove_thread(tid);
    tree::release_thread();
    let remaining = process.remove_thread(&thread, status);
    // Closes files and unmaps memory if nobody shares them, before the parent hears of the end.
    drop(thread);
    match remaining {
        Remaining::Nobody(status) => end_process(&process, status),
        Remaining::Threads => deliver::recheck_stop(&process),
    }
}

/// The thread no longer uses its memory: tells those who wait for that. Also at execve.
pub(super) fn release_user_memory(thread: &Thread) {
    futex::robust::release_all(thread);
    let clear_tid = UserAddr(thread.clear_tid.swap(0, Ordering::Relaxed));
    if !clear_tid.is_null() && user::write(clear_tid, &0u32).is_ok() {
        futex::wake_at(clear_tid, 1);
    }
    let gate = thread.vfork.lock().take();
    if let Some(gate) = gate {
        gate.open();
    }
}

fn end_process(process: &Arc<Process>, status: u32) {
    process.timers().cancel_all();
    process.set_program(super::group::Program::default());
    ipc::process_ended(process.pid());
    trace_end(process.pid(), status);
    programs::ended(process.pid(), status);
    if process.sid() == process.pid() {
        job::session_ended(process.sid());
    }
    let group_before = groups::Watched::before_end(process);
    hand_over_children(process);
    let parent = tree::parent_of(process.pid());
    let is_wanted = parent.as_ref().is_some_and(|parent| is_exit_wanted(process, parent));
    tree::set_zombie(process.pid(), status);
    group_before.tell_orphaned();
    if !is_wanted {
        tree::reap(process.pid());
    }
    process.ended.wake_all();
    if parent.is_some() {
        let (code, detail) = describe(status);
        tell_parent_with(process, parent.as_deref(), code, detail);
    }
}

fn trace_end(pid: u32, status: u32) {
    if !outside::is_traced() {
        return;
    }
    let text = match Signal::new((status & 0x7f) as i32) {
        Some(signal) => format!("+++ killed by {signal:?} +++"),
        None => format!("+++ exited with {} +++", status >> 8 & 0xff),
    };
    outside::trace(pid, timer::now_ns(), 0, &text);
}

/// Whether the parent will wait: not if it ignores SIGCHLD, or said so by SA_NOCLDWAIT.
fn is_exit_wanted(process: &Process, parent: &Process) -> bool {
    if process.exit_signal.load(Ordering::Relaxed) != Signal::CHLD.number() {
        return true;
    }
    let action = parent.signals().dispositions().get(Signal::CHLD);
    action.handler != SIG_IGN && !action.has(SA_NOCLDWAIT)
}

fn hand_over_children(process: &Process) {
    let (orphans, heir) = tree::orphan_children(process.pid());
    for orphan in &orphans {
        for thread in orphan.threads() {
            let number = thread.parent_death_signal.load(Ordering::Relaxed);
            if let Some(signal) = Signal::new(number) {
                let info = SigInfo::from_process(signal, 0, process.pid(), 0);
                // A full queue loses it, as in Linux.
                let _ = crate::signal::send_to_thread(&thread, signal, info);
            }
        }
    }
    if let Some(heir) = heir.filter(|heir| heir.pid() != INIT) {
        heir.child_change.wake_all();
    }
}

/// si_code and si_status for a wait status.
pub(super) fn describe(status: u32) -> (i32, i32) {
    let signal = status & 0x7f;
    if signal == 0 {
        return (CLD_EXITED, (status >> 8 & 0xff) as i32);
    }
    let code = if status & CORE_DUMPED != 0 { CLD_DUMPED } else { CLD_KILLED };
    (code, signal as i32)
}

/// News about a process for its parent: SIGCHLD (or what it asked for) and a wake-up.
pub(crate) fn tell_parent(process: &Process, code: i32, detail: i32) {
    let parent = tree::parent_of(process.pid());
    tell_parent_with(process, parent.as_deref(), code, detail);
}

fn tell_parent_with(process: &Process, parent: Option<&Process>, code: i32, detail: i32) {
    let Some(parent) = parent else { return programs::changed(process.pid(), code, detail) };
    let is_end = code != CLD_STOPPED && code != CLD_CONTINUED;
    let number = if is_end { process.exit_signal.load(Ordering::Relaxed) } else { Signal::CHLD.number() };
    if let Some(signal) = Signal::new(number) {
        let action = parent.signals().dispositions().get(signal);
        if is_end || action.handler != SIG_IGN && !action.has(SA_NOCLDSTOP) {
            let usage = process.usage();
            let times = (ns_to_ticks(usage.user_ns()), ns_to_ticks(usage.system_ns));
            let mut info = SigInfo::child(code, process.pid(), process.real_uid(), detail, times);
            info.signo = signal.number();
            // A classic signal is never refused; a real-time exit signal may be, as in Linux.
            let _ = send_to_process(parent, signal, info);
        }
    }
    parent.child_change.wake_all();
}
