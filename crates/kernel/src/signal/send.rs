//! From a sender to the thread that will act.

use alloc::sync::Arc;

use occlum_abi::Errno;

use super::pending::QueueFull;
use super::{Action, SigInfo, SigSet, Signal};
use crate::error::{Error, Result};
use crate::process::{Process, Resource, Thread, ThreadState, Work, exit};

/// Sends a signal to a process; any of its threads may take it.
pub fn send_to_process(process: &Process, signal: Signal, info: SigInfo) -> Result<()> {
    let target = {
        let mut shared = process.signals().lock();
        prepare(process, &mut shared, signal);
        if is_ignored_by_all(process, signal) {
            return Ok(());
        }
        shared.pending.push(signal, info, limit(process)).map_err(too_many)?;
        choose(process, signal)
    };
    finish(process, signal, target);
    Ok(())
}

/// Sends a signal to one thread.
pub fn send_to_thread(thread: &ThreadState, signal: Signal, info: SigInfo) -> Result<()> {
    let process = thread.process();
    let accepts = {
        let mut shared = process.signals().lock();
        prepare(process, &mut shared, signal);
        let action = process.signals().dispositions().get(signal);
        if action.ignores(signal) && !thread.signals().blocked().contains(signal) {
            return Ok(());
        }
        let limit = limit(process);
        thread.signals().private.lock().push(signal, info, limit).map_err(too_many)?;
        thread.signals().accepts(signal)
    };
    process.signals().readers.wake_all();
    if signal == Signal::KILL {
        exit::kill_process(process, Signal::KILL);
    } else if accepts {
        thread.notify(Work::SIGNAL);
    }
    Ok(())
}

/// A signal that the thread itself caused and can't go on without: if it is blocked or ignored, the
/// process dies of it.
pub fn force(thread: &ThreadState, signal: Signal, info: SigInfo) {
    let process = thread.process();
    {
        let _lock = process.signals().lock();
        let dispositions = process.signals().dispositions();
        let action = dispositions.get(signal);
        let mut blocked = thread.signals().blocked();
        if blocked.contains(signal) || action.handler == super::action::SIG_IGN {
            dispositions.set(signal, Action::default());
            blocked.remove(signal);
            thread.signals().store_blocked(blocked);
        }
        // Without memory for the record the signal still arrives.
        let pushed = thread.signals().private.lock().push(signal, info, usize::MAX);
        debug_assert!(pushed.is_ok());
    }
    thread.notify(Work::SIGNAL);
}

/// SIGSEGV that no handler may see (a broken signal frame or stack).
pub fn force_fatal(thread: &ThreadState, signal: Signal) {
    {
        let _lock = thread.process().signals().lock();
        thread.process().signals().dispositions().set(signal, Action::default());
    }
    force(thread, signal, SigInfo::kernel(signal));
}

/// SIGCONT and the stop signals cancel each other, when sent and not when delivered.
fn prepare(process: &Process, shared: &mut super::state::Shared, signal: Signal) {
    let cancelled = match signal {
        Signal::CONT => SigSet::STOPS,
        _ if SigSet::STOPS.contains(signal) => SigSet::of(&[Signal::CONT]),
        _ => return,
    };
    shared.pending.discard(cancelled);
    process.for_each_thread(|thread| thread.signals().private.lock().discard(cancelled));
    if signal == Signal::CONT && shared.stop.take().is_some() {
        shared.stopped_threads = 0;
        process.signals().resume.wake_all();
        process.mark_continued();
    }
}

/// A signal that is ignored and not blocked by anybody leaves no trace.
fn is_ignored_by_all(process: &Process, signal: Signal) -> bool {
    let action = process.signals().dispositions().get(signal);
    action.ignores(signal) && choose_with(process, |thread| thread.signals().blocked().contains(signal)).is_none()
}

/// A thread that accepts the signal, the main thread preferred.
fn choose(process: &Process, signal: Signal) -> Option<Arc<Thread>> {
    choose_with(process, |thread| thread.signals().accepts(signal))
}

fn choose_with(process: &Process, wanted: impl Fn(&ThreadState) -> bool) -> Option<Arc<Thread>> {
    process.find_thread(|thread| wanted(thread))
}

fn finish(process: &Process, signal: Signal, target: Option<Arc<Thread>>) {
    process.signals().readers.wake_all();
    if signal == Signal::KILL {
        exit::kill_process(process, Signal::KILL);
        return;
    }
    if signal == Signal::CONT {
        process.tell_parent_if_continued();
    }
    if let Some(thread) = target {
        thread.notify(Work::SIGNAL);
    }
}

fn limit(process: &Process) -> usize {
    usize::try_from(process.limit(Resource::SIGPENDING).soft).unwrap_or(usize::MAX)
}

fn too_many(_: QueueFull) -> Error {
    Error::new(Errno::EAGAIN, "RLIMIT_SIGPENDING reached")
}
