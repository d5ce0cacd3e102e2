//! The application erred: an errno, with a word on why for the system-call trace.

use core::fmt;

pub use occlum_abi::Errno;

/// What a system call fails with. `why` is shown by the trace, never to the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    pub errno: Errno,
    pub why: &'static str,
    /// What becomes of the call when the errno is EINTR.
    pub restart: Restart,
}

/// Whether a call that a signal interrupted runs again. The user loop does the restart, in the kernel
/// when no handler runs, else by pointing the signal frame back at the system-call instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// EINTR is the answer (or the call failed for another reason).
    Never,
    /// Unless a handler without SA_RESTART ran (Linux: ERESTARTSYS).
    IfHandlerAllows,
    /// Unless any handler ran (Linux: ERESTARTNOHAND; with a deadline kept by
    /// `Thread::deadline_after`, ERESTART_RESTARTBLOCK).
    IfNoHandler,
    /// Always (Linux: ERESTARTNOINTR).
    Always,
}

pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    pub const fn new(errno: Errno, why: &'static str) -> Error {
        Error { errno, why, restart: Restart::Never }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::new(errno, "")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.why.is_empty() {
            return write!(f, "{}", self.errno);
        }
        write!(f, "{} ({})", self.errno, self.why)
    }
}

/// `Err(Error)` with a reason: `return err(EINVAL, "offset not page-aligned")`.
pub fn err<T>(errno: Errno, why: &'static str) -> Result<T> {
    Err(Error::new(errno, why))
}

/// A signal ended the wait of a call that SA_RESTART restarts: read, write, wait4, futex without
/// time-out, fcntl locks, ...
pub const fn interrupted() -> Error {
    Error { errno: Errno::EINTR, why: "interrupted by a signal", restart: Restart::IfHandlerAllows }
}

/// A signal ended the wait of a call that restarts only if no handler ran, whatever SA_RESTART says:
/// nanosleep, poll, select, sigsuspend, futex with time-out. A relative time-out must come from
/// `Thread::deadline_after`, so that the restarted call keeps its end.
pub const fn interrupted_unless_handled() -> Error {
    Error { errno: Errno::EINTR, why: "interrupted by a signal", restart: Restart::IfNoHandler }
}

/// A signal came before the call did anything: it runs again in any case (clone, ...).
pub const fn interrupted_always_restart() -> Error {
    Error { errno: Errno::EINTR, why: "interrupted by a signal", restart: Restart::Always }
}
