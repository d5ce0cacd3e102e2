//! On the way back to user code: end, stop, restart, or call handlers.

use alloc::format;
use ::core::sync::atomic::{AtomicBool, Ordering};

use occlum_enclave::user::UserContext;

use super::action::{SA_NODEFER, SA_RESTART, SIG_DFL, SIG_IGN};
use super::info::CLD_STOPPED;
use super::{Action, DefaultAction, SigInfo, SigSet, Signal, force_fatal, frame, mask};
use crate::error::Restart;
use crate::mm;
use crate::outside;
use crate::process::tree::{self, Report};
use crate::process::{Process, Thread, Work, core, exit, groups};
use crate::sched::{run, timer};

/// A system call that a signal interrupted.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted {
    /// The call's number: RAX holds EINTR by now.
    pub number: u64,
    pub restart: Restart,
}

/// What the thread does next.
pub enum Next {
    /// Run user code.
    Run,
    /// Serve the system call again.
    Again(Interrupted),
    /// End.
    End,
}

/// Delivers everything deliverable. `work` was taken before; `call` is the interrupted system call.
pub fn before_user(
    thread: &Thread,
    context: &mut UserContext,
    work: u32,
    mut call: Option<Interrupted>,
) -> Next {
    if work & Work::MASK != 0 && call.is_none() && !ended_by_signal(context) {
        // The call got what it waited for: signals that only the temporary mask let in stay blocked.
        restore_mask(thread);
    }
    let next = deliver_all(thread, context, &mut call);
    if work & Work::MASK != 0 {
        restore_mask(thread);
    }
    match (next, call) {
        (Next::Run, Some(call)) => Next::Again(call),
        (next, _) => next,
    }
}

fn deliver_all(thread: &Thread, context: &mut UserContext, call: &mut Option<Interrupted>) -> Next {
    loop {
        if thread.is_dying() {
            return Next::End;
        }
        if stop_if_told(thread) {
            continue;
        }
        let Some((signal, info)) = mask::take_deliverable(thread) else { return Next::Run };
        act(thread, context, call, signal, &info);
    }
}

fn act(
    thread: &Thread,
    context: &mut UserContext,
    call: &mut Option<Interrupted>,
    signal: Signal,
    info: &SigInfo,
) {
    let process = thread.process();
    if outside::is_traced() {
        let text = format!("--- {signal:?} {{si_code={}, si_pid={}}} ---", info.code, info.pid());
        outside::trace(thread.tid(), timer::now_ns(), 0, &text);
    }
    let action = process.signals().dispositions().take_for_delivery(signal);
    match action.handler {
        SIG_IGN => {}
        SIG_DFL => match signal.default_action() {
            DefaultAction::Ignore | DefaultAction::Continue => {}
            DefaultAction::Stop if signal != Signal::STOP && groups::is_orphaned(process.pgid(), None) => {}
            DefaultAction::Stop => begin_stop(process, signal),
            DefaultAction::Terminate => process.begin_exit(exit::killed(signal)),
            DefaultAction::Core => {
                report_crash(thread, context, signal, info);
                let has_core = core::dump(thread, context, signal, info);
                process.begin_exit(if has_core { exit::dumped(signal) } else { exit::killed(signal) });
            }
        },
        _ => call_handler(thread, context, call.take(), signal, info, &action),
    }
}

/// A line that says which program crashed and where.
fn report_crash(thread: &Thread, context: &UserContext, signal: Signal, info: &SigInfo) {
    occlum_enclave::log!(
        Warn,
        "process {} ends by {signal:?} (code {}, address {:#x}), rip {:#x}, rsp {:#x}",
        thread.process().pid(),
        info.code,
        info.address(),
        context.regs.rip,
        context.regs.rsp
    );
}

fn call_handler(
    thread: &Thread,
    context: &mut UserContext,
    call: Option<Interrupted>,
    signal: Signal,
    info: &SigInfo,
    action: &Action,
) {
    if let Some(call) = call
        && is_restarted(call.restart, action)
    {
        point_at_syscall(thread, context, call.number);
    }
    let signals = thread.signals();
    let return_mask = signals.saved_mask.lock().take().unwrap_or_else(|| signals.blocked());
    if frame::push(thread, context, signal, info, action, return_mask).is_err() {
        force_fatal(thread, Signal::SEGV);
        return;
    }
    let mut blocked = signals.blocked().union(SigSet(action.mask));
    if !action.has(SA_NODEFER) {
        blocked.insert(signal);
    }
    mask::set(thread, blocked);
}

fn is_restarted(restart: Restart, action: &Action) -> bool {
    match restart {
        Restart::Always => true,
        Restart::IfHandlerAllows => action.has(SA_RESTART),
        Restart::IfNoHandler | Restart::Never => false,
    }
}

/// After the handler, the system call is made again: RIP back at the instruction, RAX its number. A
/// patched site has its instruction in a stub; the frame shows where the program thinks it is.
fn point_at_syscall(thread: &Thread, context: &mut UserContext, number: u64) {
    let after = mm::original_rip(thread.space(), context.regs.rip as usize);
    context.regs.rip = after as u64 - 2;
    context.regs.rax = number;
}

fn ended_by_signal(context: &UserContext) -> bool {
    context.regs.rax == occlum_abi::Errno::EINTR.to_ret() as u64
}

fn restore_mask(thread: &Thread) {
    let saved = thread.signals().saved_mask.lock().take();
    if let Some(saved) = saved {
        mask::set(thread, saved);
    }
}

static HAS_STOPPED: AtomicBool = AtomicBool::new(false);

/// Whether any process was ever stopped: most instances never ask who could continue it.
pub fn has_ever_stopped() -> bool {
    HAS_STOPPED.load(Ordering::Relaxed)
}

/// The default action of a stop signal: all threads of the process stop.
fn begin_stop(process: &Process, signal: Signal) {
    {
        let mut shared = process.signals().lock();
        if shared.stop.is_some() || process.is_ending() {
            return;
        }
        HAS_STOPPED.store(true, Ordering::Relaxed);
        shared.stop = Some(signal);
        shared.stopped_threads = 0;
    }
    for thread in process.threads() {
        thread.notify(Work::STOP);
    }
}

/// Stands still while the process is stopped. False if it is not.
fn stop_if_told(thread: &Thread) -> bool {
    let process = thread.process();
    let Some((signal, is_last)) = count_stopped(process) else { return false };
    if is_last {
        report_stop(process, signal);
    }
    let resumed = process.signals().resume.wait_until(None, false, || {
        let is_stopped = process.signals().lock().stop.is_some();
        (!is_stopped || thread.is_dying()).then_some(())
    });
    debug_assert!(resumed.is_ok());
    run::clear_interrupt();
    true
}

/// A thread has left a process that may be stopping: the rest may be all that had to stop.
pub fn recheck_stop(process: &Process) {
    let stopped = {
        let shared = process.signals().lock();
        let is_complete = shared.stopped_threads != 0 && shared.stopped_threads == process.thread_count();
        shared.stop.filter(|_| is_complete)
    };
    if let Some(signal) = stopped {
        report_stop(process, signal);
    }
}

fn report_stop(process: &Process, signal: Signal) {
    tree::set_report(process.pid(), Some(Report::Stopped(signal.number())));
    exit::tell_parent(process, CLD_STOPPED, signal.number());
}

fn count_stopped(process: &Process) -> Option<(Signal, bool)> {
    let mut shared = process.signals().lock();
    let signal = shared.stop?;
    shared.stopped_threads += 1;
    Some((signal, shared.stopped_threads == process.thread_count()))
}
