//! Time. The host tells how the time-stamp counter maps to clocks; the CPU's counter does the rest.
//!
//! Clocks are untrusted by nature (the host sets them), but [`monotonic_ns`] never goes back.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use occlum_abi::ocall::SharedPage;

use crate::host::{self, HostMisbehaved};
use crate::user;

/// How the time-stamp counter maps to nanoseconds: `base + (((tsc - tsc_base) * mult) >> 32)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockParams {
    #[allow(missing_docs)]
    pub tsc_base: u64,
    /// Nanoseconds per cycle as a 0.32 fixed-point fraction.
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

/// What all clocks are computed from until the host's parameters are adopted again. A seqlock, odd
/// while it is written.
static ADOPTED: Adopted = Adopted {
    seq: AtomicU64::new(0),
    tsc_base: AtomicU64::new(0),
    mult: AtomicU32::new(0),
    monotonic_ns: AtomicU64::new(0),
    realtime_ns: AtomicU64::new(0),
};
static ADOPTING: spin::Mutex<()> = spin::Mutex::new(());

struct Adopted {
    seq: AtomicU64,
    tsc_base: AtomicU64,
    mult: AtomicU32,
    monotonic_ns: AtomicU64,
    realtime_ns: AtomicU64,
}

/// Times the host is asked for a usable clock before it is called a liar.
const CLOCK_PATIENCE: usize = 100;

/// The clock parameters in use; `None` before the host could publish any.
pub fn clock_params() -> Option<ClockParams> {
    ADOPTED.read().or_else(adopt_host_clock)
}

/// Takes over the parameters the host publishes now, moved so that CLOCK_MONOTONIC does not go back,
/// and gives them. All clocks, those that programs read by themselves included, must be computed from
/// the same ones, or time goes back between two ways to read it.
///
/// A host that publishes none, or a clock that stands still, has misbehaved: the enclave stops.
pub fn adopt_host_clock() -> Option<ClockParams> {
    let new = host_params()?;
    let _guard = ADOPTING.lock();
    let now = tsc();
    let reached_ns = ADOPTED.read().map_or(0, |old| old.monotonic_at(now));
    let behind_ns = reached_ns.saturating_sub(new.monotonic_at(now));
    let params =
        ClockParams { monotonic_ns: new.monotonic_ns.saturating_add(behind_ns), ..new };
    ADOPTED.write(&params);
    Some(params)
}

/// What the host publishes.
fn host_params() -> Option<ClockParams> {
    let shared = host::shared()?;
    // An honest writer may have been put off its processor in the middle: the ocall waits for it.
    for _ in 0..CLOCK_PATIENCE {
        if let Some(params) = read_params(shared)
            && params.is_plausible()
        {
            return Some(params);
        }
        refresh();
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
        fence(Ordering::Acquire);
        let after = shared.time_seq.load(Ordering::Relaxed);
        if before == after && before.is_multiple_of(2) {
            return Some(params);
        }
        core::hint::spin_loop();
    }
    None
}

impl Adopted {
    /// `None` before the first write.
    fn read(&self) -> Option<ClockParams> {
        loop {
            let before = self.seq.load(Ordering::Acquire);
            if before == 0 {
                return None;
            }
            let params = ClockParams {
                tsc_base: self.tsc_base.load(Ordering::Relaxed),
                mult: self.mult.load(Ordering::Relaxed),
                monotonic_ns: self.monotonic_ns.load(Ordering::Relaxed),
                realtime_ns: self.realtime_ns.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.seq.load(Ordering::Relaxed) {
                return Some(params);
            }
            core::hint::spin_loop();
        }
    }

    /// One writer at a time.
    fn write(&self, params: &ClockParams) {
        let seq = self.seq.load(Ordering::Relaxed);
        // The first write has no reader that could see it half done: 0 is "nothing yet".
        let during = if seq == 0 { 0 } else { seq + 1 };
        self.seq.store(during, Ordering::Relaxed);
        fence(Ordering::Release);
        self.tsc_base.store(params.tsc_base, Ordering::Relaxed);
        self.mult.store(params.mult, Ordering::Relaxed);
        self.monotonic_ns.store(params.monotonic_ns, Ordering::Relaxed);
        self.realtime_ns.store(params.realtime_ns, Ordering::Relaxed);
        self.seq.store(seq + 2, Ordering::Release);
    }
}

/// Asks the host for fresh clock parameters.
pub fn refresh() {
    host::update_time();
}

/// A counter of 64 GHz: nothing is as fast.
const SLOWEST_MULT: u32 = u32::MAX / 64;
/// How far the counters of processors may be apart.
const COUNTER_SLACK: u64 = 1 << 32;
/// About 146 years.
const END_OF_TIME_NS: u64 = 1 << 62;

impl ClockParams {
    fn is_plausible(&self) -> bool {
        self.mult > SLOWEST_MULT
            && self.tsc_base <= tsc().saturating_add(COUNTER_SLACK)
            && self.monotonic_at(tsc()) < END_OF_TIME_NS
            && self.realtime_ns < END_OF_TIME_NS
    }

    fn monotonic_at(&self, tsc: u64) -> u64 {
        self.monotonic_ns.saturating_add(self.elapsed_ns(tsc))
    }

    /// Nanoseconds since `tsc_base`; 0 if the counter is behind it.
    pub fn elapsed_ns(&self, tsc: u64) -> u64 {
        let cycles = tsc.saturating_sub(self.tsc_base);
        ((u128::from(cycles) * u128::from(self.mult)) >> 32) as u64
    }
}

/// CLOCK_MONOTONIC in nanoseconds. Never goes back.
pub fn monotonic_ns() -> u64 {
    let now = clock_params().map_or(0, |params| params.monotonic_at(tsc()));
    let last = LAST_NS.fetch_max(now, Ordering::Relaxed);
    now.max(last)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    clock_params().map_or(0, |p| p.realtime_ns.saturating_add(p.elapsed_ns(tsc())))
}
