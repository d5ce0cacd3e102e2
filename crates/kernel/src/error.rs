//! The application erred: an errno, with a word on why for the system-call trace.

use core::fmt;

pub use occlum_abi::Errno;

/// What a system call fails with. `why` is shown by the trace, never to the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    pub errno: Errno,
    pub why: &'static str,
}

pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    pub const fn new(errno: Errno, why: &'static str) -> Error {
        Error { errno, why }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error { errno, why: "" }
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
