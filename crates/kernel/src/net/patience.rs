//! How long a socket call may wait: O_NONBLOCK, MSG_DONTWAIT, SO_RCVTIMEO and SO_SNDTIMEO together.

use crate::error::{Errno, Error, Restart, Result, err};
use crate::sched::timer;
use crate::vfs::file::Wait;
use crate::vfs::poll::Readiness;

/// Whether and until when to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    Never,
    Forever,
    /// CLOCK_MONOTONIC.
    Until(u64),
}

impl Patience {
    /// `timeout_ns` as the socket option has it: 0 for none.
    pub fn new(wait: Wait, timeout_ns: u64) -> Patience {
        match (wait, timeout_ns) {
            (Wait::Never, _) => Patience::Never,
            (Wait::Allowed, 0) => Patience::Forever,
            (Wait::Allowed, timeout_ns) => Patience::Until(timer::now_ns().saturating_add(timeout_ns)),
        }
    }

    /// Runs `attempt` until it gives something. EAGAIN when that takes too long; after a signal a call
    /// without time-out may be restarted, one with it not (socket(7), signal(7)).
    pub fn wait<R>(self, ready: &Readiness, mut attempt: impl FnMut() -> Option<R>) -> Result<R> {
        if let Some(result) = attempt() {
            return Ok(result);
        }
        let deadline = match self {
            Patience::Never => return err(Errno::EAGAIN, "would block"),
            Patience::Forever => None,
            Patience::Until(deadline) => Some(deadline),
        };
        ready.wait_until(deadline, attempt).map_err(|error| match (error.errno, deadline) {
            (Errno::ETIMEDOUT, _) => Error::new(Errno::EAGAIN, "the socket's time-out is over"),
            (Errno::EINTR, Some(_)) => Error { restart: Restart::Never, ..error },
            _ => error,
        })
    }
}
