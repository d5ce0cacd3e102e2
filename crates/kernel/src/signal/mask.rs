//! The set of blocked signals of a thread.

use super::info::SI_TIMER;
use super::{SigInfo, SigSet, Signal};
use crate::process::{ThreadState, Work};

/// Replaces the mask of the current thread; gives the old one.
pub fn set(thread: &ThreadState, mask: SigSet) -> SigSet {
    let signals = thread.process().signals();
    let (old, newly_blocked) = {
        let _lock = signals.lock();
        let old = thread.signals().blocked();
        thread.signals().store_blocked(mask);
        (old, mask.without(old))
    };
    if !newly_blocked.is_empty() {
        hand_over(thread, newly_blocked);
    }
    recheck(thread);
    old
}

/// Notifies the current thread if it has something to deliver.
pub fn recheck(thread: &ThreadState) {
    if !deliverable(thread).is_empty() {
        thread.notify(Work::SIGNAL);
    }
}

/// What is pending for the thread or its process and not blocked.
pub fn deliverable(thread: &ThreadState) -> SigSet {
    pending(thread).without(thread.signals().blocked())
}

/// What is pending for the thread or its process, blocked or not.
pub fn pending(thread: &ThreadState) -> SigSet {
    let shared = thread.process().signals().lock();
    shared.pending.set().union(thread.signals().private.lock().set())
}

/// Installs `mask` until the current system call has returned and what it let through is delivered
/// (sigsuspend, ppoll, pselect, epoll_pwait). The way back to user code restores the old mask.
pub fn set_temporary(thread: &ThreadState, mask: SigSet) {
    let old = set(thread, mask);
    *thread.signals().saved_mask.lock() = Some(old);
    thread.set_work(Work::MASK);
}

/// Signals of the process that this thread no longer takes: somebody else may.
fn hand_over(thread: &ThreadState, newly_blocked: SigSet) {
    let process = thread.process();
    let orphaned = process.signals().lock().pending.set().intersection(newly_blocked);
    let mut left = orphaned;
    while let Some(signal) = left.first() {
        left.remove(signal);
        let other = process.find_thread(|other| {
            other.tid() != thread.tid() && other.signals().accepts(signal)
        });
        if let Some(other) = other {
            other.notify(Work::SIGNAL);
        }
    }
}

/// Takes one pending signal out of those in `set`, blocked or not (sigtimedwait, signalfd).
pub fn take(thread: &ThreadState, set: SigSet) -> Option<(Signal, SigInfo)> {
    let process = thread.process();
    let (signal, mut info) = {
        let mut shared = process.signals().lock();
        let others = SigSet(!set.0);
        let private = thread.signals().private.lock().take(others);
        private.or_else(|| shared.pending.take(others))?
    };
    if info.code == SI_TIMER
        && let Ok(timer) = process.timers().get(info.timer_id())
    {
        info.set_overrun(timer.on_delivery());
    }
    Some((signal, info))
}

/// Takes the next signal to deliver.
pub fn take_deliverable(thread: &ThreadState) -> Option<(Signal, SigInfo)> {
    take(thread, SigSet(!thread.signals().blocked().0))
}

/// Declares what sigtimedwait waits for, so that senders choose and wake this thread.
pub fn set_awaited(thread: &ThreadState, set: SigSet) {
    let _lock = thread.process().signals().lock();
    thread.signals().store_awaited(set);
}
