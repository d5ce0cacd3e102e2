//! What a process and a thread remember about signals.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::{Mutex, MutexGuard};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::pending::Pending;
use super::{Dispositions, SigSet, Signal};
use crate::sched::WaitQueue;

/// The part of a thread group.
pub struct ProcessSignals {
    shared: Mutex<Shared>,
    dispositions: Mutex<Arc<Dispositions>>,
    /// Woken when a stop ends.
    pub(crate) resume: WaitQueue,
    /// Woken when any signal is queued: signalfd readers and pollers.
    pub(crate) readers: WaitQueue,
}

/// Under the process's signal lock.
#[derive(Default)]
pub struct Shared {
    /// Signals for whichever thread takes them.
    pub pending: Pending,
    /// The signal that stopped the process, while it is stopped or stopping.
    pub stop: Option<Signal>,
    /// Threads that have stopped for `stop`.
    pub stopped_threads: usize,
}

impl ProcessSignals {
    pub fn new(dispositions: Arc<Dispositions>) -> ProcessSignals {
        ProcessSignals {
            shared: Mutex::new(Shared::default()),
            dispositions: Mutex::new(dispositions),
            resume: WaitQueue::new(),
            readers: WaitQueue::new(),
        }
    }

    /// Takes the process's signal lock.
    pub fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock()
    }

    pub fn dispositions(&self) -> Arc<Dispositions> {
        self.dispositions.lock().clone()
    }

    pub fn set_dispositions(&self, new: Arc<Dispositions>) {
        let old = core::mem::replace(&mut *self.dispositions.lock(), new);
        drop(old);
    }
}

/// The part of a thread.
pub struct ThreadSignals {
    /// Signals for this thread alone.
    pub private: Mutex<Pending>,
    /// Written by the thread itself, under the process's signal lock; read by senders under it.
    blocked: AtomicU64,
    /// What sigtimedwait waits for: not blocked for senders.
    awaited: AtomicU64,
    /// The mask to return to after a call that replaced it (sigsuspend, ppoll).
    pub saved_mask: Mutex<Option<SigSet>>,
    pub alt_stack: Mutex<AltStack>,
    pub last_fault: Mutex<FaultRecord>,
}

impl ThreadSignals {
    pub fn new(blocked: SigSet) -> ThreadSignals {
        ThreadSignals {
            private: Mutex::new(Pending::new()),
            blocked: AtomicU64::new(blocked.0),
            awaited: AtomicU64::new(0),
            saved_mask: Mutex::new(None),
            alt_stack: Mutex::new(AltStack::default()),
            last_fault: Mutex::new(FaultRecord::default()),
        }
    }

    pub fn blocked(&self) -> SigSet {
        SigSet(self.blocked.load(Ordering::Relaxed))
    }

    /// Call with the process's signal lock held; `mask::set` does.
    pub(super) fn store_blocked(&self, set: SigSet) {
        self.blocked.store(set.without(SigSet::UNBLOCKABLE).0, Ordering::Relaxed);
    }

    pub(super) fn store_awaited(&self, set: SigSet) {
        self.awaited.store(set.0, Ordering::Relaxed);
    }

    /// Whether a sender may choose this thread.
    pub(super) fn accepts(&self, signal: Signal) -> bool {
        !self.blocked().contains(signal) || self.is_awaited(signal)
    }

    pub(super) fn is_awaited(&self, signal: Signal) -> bool {
        SigSet(self.awaited.load(Ordering::Relaxed)).contains(signal)
    }
}

pub const SS_ONSTACK: u32 = 1;
pub const SS_DISABLE: u32 = 2;
pub const SS_AUTODISARM: u32 = 1 << 31;

/// `stack_t`: the alternate signal stack.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct AltStack {
    pub sp: u64,
    pub flags: u32,
    pub padding: u32,
    pub size: u64,
}

impl Default for AltStack {
    fn default() -> AltStack {
        AltStack { sp: 0, flags: SS_DISABLE, padding: 0, size: 0 }
    }
}

impl AltStack {
    pub fn is_enabled(&self) -> bool {
        self.size != 0
    }

    /// Whether a stack pointer lies on it (on x86 stacks grow down: the end counts, the start not).
    pub fn contains(&self, sp: u64) -> bool {
        sp > self.sp && sp - self.sp <= self.size
    }

    /// Whether a thread whose stack pointer this is runs on it, as signal delivery asks: with
    /// SS_AUTODISARM never, because it is disarmed while in use.
    pub fn is_in_use(&self, sp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.contains(sp)
    }
}

/// The last exception of a thread, as signal frames show it.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRecord {
    pub trap_number: u64,
    pub error_code: u64,
    pub address: u64,
}
