//! Time. The host tells how the time-stamp counter maps to clocks; the CPU's counter does the rest.
//!
//! Clocks are untrusted by nature (the host sets them), but [`monotonic_ns`] never goes back.

use core::sync::atomic::{AtomicU64, Ordering};

use occlum_abi::ocall::SharedPage;

use crate::host::{self, HostMisbehaved};
use crate::user;

/// How the time-stamp counter maps to nanoseconds: `base + (((tsc - tsc_base) * mult) >> 32)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockParams {
    #[allow(missing_docs)]
    pub tsc_base: u64,
    /// Nanoseconds per cycle as a 0.32 fixed-point fraction; 0 means not set.
    pub mult: u32,
    /// CLOCK_MONOTONIC at `tsc_base`.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME at `tsc_base`.
    pub realtime_ns: u64,
}

/// The time-stamp counter.
pub fn tsc() -> u64 {
    user::tsc()
}

static LAST_NS: AtomicU64 = AtomicU64::new(0);

/// Times the host is asked for a usable clock before it is called a liar.
const CLOCK_PATIENCE: usize = 100;

/// The clock parameters the host publishes now; `None` before it could. A host that publishes none,
/// or a clock that stands still, has misbehaved: the enclave stops.
pub fn clock_params() -> Option<ClockParams> {
    let shared = host::shared()?;
    if let Some(params) = read_params(shared) {
        return Some(params);
    }
    // An honest writer may have been put off its processor in the middle: the ocall waits for it.
    for _ in 0..CLOCK_PATIENCE {
        refresh();
        if let Some(params) = read_params(shared) {
            return Some(params);
        }
    }
    host::stop_for(HostMisbehaved::BadClock)
}

fn read_params(shared: &SharedPage) -> Option<ClockParams> {
    for _ in 0..1000 {
        let before = shared.time_seq.load(Ordering::Acquire);
        let params = ClockParams {
            tsc_base: shared.tsc_base.load(Ordering::Relaxed),
            mult: shared.tsc_mult.load(Ordering::Relaxed),
            monotonic_ns: shared.monotonic_ns.load(Ordering::Relaxed),
            realtime_ns: shared.realtime_ns.load(Ordering::Relaxed),
        };
        core::sync::atomic::fence(Ordering::Acquire);
        let after = shared.time_seq.load(Ordering::Relaxed);
        if before == after && before.is_multiple_of(2) {
            return (params.mult != 0).then_some(params);
        }
        core::hint::spin_loop();
    }
    None
}

/// Asks the host for fresh clock parameters.
pub fn refresh() {
    host::update_time();
}

impl ClockParams {
    /// Nanoseconds since `tsc_base`; 0 if the counter is behind it.
    pub fn elapsed_ns(&self, tsc: u64) -> u64 {
        let cycles = tsc.saturating_sub(self.tsc_base);
        ((u128::from(cycles) * u128::from(self.mult)) >> 32) as u64
    }
}

/// CLOCK_MONOTONIC in nanoseconds. Never goes back.
pub fn monotonic_ns() -> u64 {
    let now = clock_params().map_or(0, |p| p.monotonic_ns.saturating_add(p.elapsed_ns(tsc())));
    let last = LAST_NS.fetch_max(now, Ordering::Relaxed);
    now.max(last)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    clock_params().map_or(0, |p| p.realtime_ns.saturating_add(p.elapsed_ns(tsc())))
}
