//! Commitment: how much user memory exists, and the bound on it.
//!
//! A page is *granted* while a mapping has it, and *warm* after its mapping went away and before the
//! host gets it back or a new mapping takes it. Reservations cost nothing.

use core::sync::atomic::{AtomicUsize, Ordering};

use occlum_abi::Errno;

use crate::error::{Error, Result};

/// Until [`set_limit`] tells what the configuration says.
static LIMIT: AtomicUsize = AtomicUsize::new(256 << 20);
static GRANTED: AtomicUsize = AtomicUsize::new(0);
static WARM: AtomicUsize = AtomicUsize::new(0);
/// The most that was ever granted at once.
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Most bytes kept warm; more than this serves nobody and starves the host.
const WARM_MAX: usize = 256 << 20;

/// Bytes of user memory, for `/proc/meminfo` and sysinfo(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What mappings have.
    pub granted: usize,
    /// Kept for reuse; counts as free.
    pub warm: usize,
    /// `resource_limits.user_space_size`.
    pub limit: usize,
}

impl Usage {
    pub fn now() -> Usage {
        Usage {
            granted: GRANTED.load(Ordering::Relaxed),
            warm: WARM.load(Ordering::Relaxed),
            limit: LIMIT.load(Ordering::Relaxed),
        }
    }

    /// What new mappings can still get.
    pub fn available(&self) -> usize {
        self.limit.saturating_sub(self.granted)
    }
}

/// The most bytes of user memory that mappings had at once.
pub fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

pub(super) fn set_limit(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// Counts `bytes` more as granted; ENOMEM beyond the limit.
pub(super) fn grant(bytes: usize) -> Result<()> {
    let limit = LIMIT.load(Ordering::Relaxed);
    GRANTED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |granted| {
            granted.checked_add(bytes).filter(|&sum| sum <= limit)
        })
        .map(|before| {
            PEAK.fetch_max(before + bytes, Ordering::Relaxed);
        })
        .map_err(|_| Error::new(Errno::ENOMEM, "user_space_size is used up"))
}

/// Whether more than half of all memory is granted: time to look for pages that can be made again.
pub(super) fn is_short() -> bool {
    GRANTED.load(Ordering::Relaxed) > LIMIT.load(Ordering::Relaxed) / 2
}

pub(super) fn release(bytes: usize) {
    GRANTED.fetch_sub(bytes, Ordering::Relaxed);
}

/// Whether `bytes` more may be kept warm beside all that is granted; counts them if so.
pub(super) fn try_keep_warm(bytes: usize) -> bool {
    let usage = Usage::now();
    let room = WARM_MAX.min(usage.available());
    WARM.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |warm| {
        warm.checked_add(bytes).filter(|&sum| sum <= room)
    })
    .is_ok()
}

/// How many warm bytes are too many, now that more is granted.
pub(super) fn warm_excess() -> usize {
    let usage = Usage::now();
    (usage.granted + usage.warm).saturating_sub(usage.limit)
}

pub(super) fn drop_warm(bytes: usize) {
    WARM.fetch_sub(bytes, Ordering::Relaxed);
}
