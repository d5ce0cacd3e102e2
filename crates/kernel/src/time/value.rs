//! `struct timespec` and its relatives, checked.

use occlum_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{Result, err};
use crate::user::{self, UserAddr};

pub const NS_PER_SECOND: u64 = 1_000_000_000;
const NS_PER_US: u64 = 1_000;

/// `struct timespec` as in user memory: not checked yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct TimeSpec {
    pub seconds: i64,
    pub nanoseconds: i64,
}

impl TimeSpec {
    pub fn from_ns(ns: u64) -> TimeSpec {
        TimeSpec { seconds: (ns / NS_PER_SECOND) as i64, nanoseconds: (ns % NS_PER_SECOND) as i64 }
    }

    /// Nanoseconds; what does not fit is for ever. EINVAL for negative or denormal values.
    pub fn to_ns(self) -> Result<u64> {
        let is_normal = (0..NS_PER_SECOND as i64).contains(&self.nanoseconds);
        match u64::try_from(self.seconds) {
            Ok(seconds) if is_normal => {
                Ok(seconds.saturating_mul(NS_PER_SECOND).saturating_add(self.nanoseconds as u64))
            }
            _ => err(Errno::EINVAL, "bad timespec"),
        }
    }

    /// Reads one that the program may leave out.
    pub fn read_optional(addr: UserAddr) -> Result<Option<TimeSpec>> {
        if addr.is_null() { Ok(None) } else { user::read(addr).map(Some) }
    }
}

/// `struct timeval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct TimeVal {
    pub seconds: i64,
    pub microseconds: i64,
}

impl TimeVal {
    pub fn from_ns(ns: u64) -> TimeVal {
        let rest = ns % NS_PER_SECOND;
        TimeVal { seconds: (ns / NS_PER_SECOND) as i64, microseconds: (rest / NS_PER_US) as i64 }
    }

    /// Nanoseconds; EINVAL for negative or denormal values.
    pub fn to_ns(self) -> Result<u64> {
        if !(0..1_000_000).contains(&self.microseconds) {
            return err(Errno::EINVAL, "bad timeval");
        }
        let nanoseconds = self.microseconds * NS_PER_US as i64;
        TimeSpec { seconds: self.seconds, nanoseconds }.to_ns()
    }
}
