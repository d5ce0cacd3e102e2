//! Readiness: what poll, select and epoll ask, and how they hear of changes.

use alloc::sync::Arc;
use core::ops::{BitAnd, BitOr, BitOrAssign, Not};

use crate::error::{Errno, Error, Result, err, interrupted};
use crate::sched::{WaitError, WaitQueue, Wake};

use super::file::Wait;

/// POLL* bits of poll(2); EPOLL* have the same values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(pub u32);

impl Events {
    pub const NONE: Events = Events(0);
    pub const IN: Events = Events(0x1);
    pub const PRI: Events = Events(0x2);
    pub const OUT: Events = Events(0x4);
    pub const ERR: Events = Events(0x8);
    pub const HUP: Events = Events(0x10);
    pub const NVAL: Events = Events(0x20);
    pub const RDNORM: Events = Events(0x40);
    pub const RDBAND: Events = Events(0x80);
    pub const WRNORM: Events = Events(0x100);
    pub const WRBAND: Events = Events(0x200);
    pub const RDHUP: Events = Events(0x2000);

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn has(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }

    /// With the `NORM` twins of IN and OUT, as Linux reports them.
    pub fn with_twins(self) -> Events {
        let mut all = self;
        if self.has(Events::IN) {
            all |= Events::RDNORM;
        }
        if self.has(Events::OUT) {
            all |= Events::WRNORM;
        }
        all
    }
}

impl BitOr for Events {
    type Output = Events;

    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Events) {
        self.0 |= other.0;
    }
}

impl BitAnd for Events {
    type Output = Events;

    fn bitand(self, other: Events) -> Events {
        Events(self.0 & other.0)
    }
}

impl Not for Events {
    type Output = Events;

    fn not(self) -> Events {
        Events(!self.0)
    }
}

/// Who wants to know when a file's readiness changes: tasks blocked in it, and pollers.
pub struct Readiness {
    blocked: WaitQueue,
    pollers: WaitQueue,
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness::new()
    }
}

impl Readiness {
    pub const fn new() -> Readiness {
        Readiness { blocked: WaitQueue::new(), pollers: WaitQueue::new() }
    }

    /// Something may have become ready. Called without the lock that guards it.
    pub fn notify(&self) {
        self.blocked.wake_all();
        self.pollers.wake_all();
    }

    /// Whether anybody waits or polls.
    pub fn has_waiters(&self) -> bool {
        !self.blocked.is_empty() || !self.pollers.is_empty()
    }

    /// More of what was ready already: nobody blocked waits for it, but edge-triggered pollers want to hear.
    pub fn notify_pollers(&self) {
        self.pollers.wake_all();
    }

    pub fn add(&self, waker: &Arc<dyn Wake>) {
        self.pollers.add(waker.clone());
    }

    pub fn remove(&self, waker: &Arc<dyn Wake>) {
        self.pollers.remove(waker);
    }

    /// Runs `attempt` until it gives something; waits in between if `wait` allows, else EAGAIN.
    pub fn wait<R>(&self, wait: Wait, mut attempt: impl FnMut() -> Option<R>) -> Result<R> {
        if let Some(result) = attempt() {
            return Ok(result);
        }
        if wait == Wait::Never {
            return err(Errno::EAGAIN, "would block");
        }
        self.blocked.wait_until(None, true, attempt).map_err(wait_error)
    }

    /// As [`Readiness::wait`], until a time of CLOCK_MONOTONIC: then ETIMEDOUT.
    pub fn wait_until<R>(
        &self,
        deadline_ns: Option<u64>,
        attempt: impl FnMut() -> Option<R>,
    ) -> Result<R> {
        self.blocked.wait_until(deadline_ns, true, attempt).map_err(wait_error)
    }
}

/// A wait that ended without its condition, as an errno.
pub fn wait_error(error: WaitError) -> Error {
    match error {
        WaitError::Interrupted => interrupted(),
        WaitError::TimedOut => Error::new(Errno::ETIMEDOUT, "time is up"),
    }
}
