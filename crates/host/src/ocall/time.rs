//! The clock in the shared page: how the time-stamp counter maps to CLOCK_MONOTONIC and
//! CLOCK_REALTIME.
//!
//! The counter's pace is measured against CLOCK_MONOTONIC, first over the time that loading takes, then
//! over seconds. CLOCK_MONOTONIC in the page never goes back when it is set anew: where it was ahead, it
//! goes on from there, a little slower.

use super::{Call, Served};
use occlum_abi::ocall::SharedPage;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::arch::x86_64::_rdtsc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const SECOND_NS: u64 = 1_000_000_000;
/// Age at which parameters are set anew.
const REFRESH_NS: u64 = SECOND_NS;
/// The pace is measured over at least this, once so much time has passed, and at most twice this.
const BASELINE_NS: u64 = 8 * SECOND_NS;
/// The least to measure the pace over: 20 ns of error in a millisecond are 20 ppm.
const FIRST_BASELINE_NS: u64 = 1_000_000;
/// Attempts to read counter and clock without an interruption between.
const ATTEMPTS: usize = 5;

/// Clocks and counter at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    tsc: u64,
    monotonic_ns: u64,
    realtime_ns: u64,
}

pub struct Clock {
    state: Mutex<State>,
    /// CLOCK_MONOTONIC of the last publication.
    published_ns: AtomicU64,
}

struct State {
    older: Sample,
    newer: Sample,
    published: Option<Parameters>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parameters {
    tsc_base: u64,
    tsc_mult: u32,
    monotonic_ns: u64,
    realtime_ns: u64,
}

impl Clock {
    /// Takes the first sample.
    pub fn start() -> Clock {
        let first = Sample::take();
        let state = State {
            older: first,
            newer: first,
            published: None,
        };
        Clock {
            state: Mutex::new(state),
            published_ns: AtomicU64::new(0),
        }
    }

    /// Sets the parameters in the page anew.
    pub fn publish(&self, page: &SharedPage) {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Sample::take_after(state.older.monotonic_ns + FIRST_BASELINE_NS);
        let parameters = state.next(now);
        state.published = Some(parameters);
        write(page, &parameters);
        self.published_ns
            .store(parameters.monotonic_ns, Ordering::Relaxed);
    }

    pub fn refresh_if_old(&self, page: &SharedPage) {
        let age =
            now_ns(ClockId::Monotonic).saturating_sub(self.published_ns.load(Ordering::Relaxed));
        if age > REFRESH_NS {
            self.publish(page);
        }
    }
}

/// Serves `UpdateTime`.
pub(super) fn update(call: &Call) -> Served {
    call.instance.clock.publish(call.instance.shared());
    Ok(().into())
}

impl State {
    fn next(&mut self, now: Sample) -> Parameters {
        let mult = pace(&self.older, &now);
        if now.monotonic_ns - self.newer.monotonic_ns > BASELINE_NS {
            self.older = std::mem::replace(&mut self.newer, now);
        }
        let shown = self
            .published
            .map_or(0, |published| published.monotonic_at(now.tsc));
        let ahead_ns = shown.saturating_sub(now.monotonic_ns);
        Parameters {
            tsc_base: now.tsc,
            tsc_mult: slowed(mult, ahead_ns),
            monotonic_ns: now.monotonic_ns + ahead_ns,
            realtime_ns: now.realtime_ns,
        }
    }
}

impl Parameters {
    fn monotonic_at(&self, tsc: u64) -> u64 {
        let cycles = u128::from(tsc.saturating_sub(self.tsc_base));
        self.monotonic_ns + ((cycles * u128::from(self.tsc_mult)) >> 32) as u64
    }
}

/// Nanoseconds in 2^32 cycles. A counter slower than 1 GHz can't be expressed; there is none.
fn pace(from: &Sample, to: &Sample) -> u32 {
    let ns = u128::from(to.monotonic_ns - from.monotonic_ns);
    let cycles = u128::from(to.tsc.saturating_sub(from.tsc)).max(1);
    u32::try_from((ns << 32) / cycles).unwrap_or(u32::MAX)
}

/// The pace at which a lead is lost within a second, but not slower than nine tenths.
fn slowed(mult: u32, ahead_ns: u64) -> u32 {
    let loss = ahead_ns.min(SECOND_NS / 10);
    mult - (u64::from(mult) * loss / SECOND_NS) as u32
}

fn write(page: &SharedPage, parameters: &Parameters) {
    page.time_seq.fetch_add(1, Ordering::Relaxed);
    fence(Ordering::Release);
    page.tsc_base.store(parameters.tsc_base, Ordering::Relaxed);
    page.tsc_mult.store(parameters.tsc_mult, Ordering::Relaxed);
    page.monotonic_ns
        .store(parameters.monotonic_ns, Ordering::Relaxed);
    page.realtime_ns
        .store(parameters.realtime_ns, Ordering::Relaxed);
    page.time_seq.fetch_add(1, Ordering::Release);
}

impl Sample {
    fn take() -> Sample {
        let (tsc, monotonic_ns) = read_with_counter(ClockId::Monotonic);
        let (later, realtime_ns) = read_with_counter(ClockId::Realtime);
        // The clocks were read within microseconds; half a nanosecond for each cycle is close enough.
        let between_ns = later.saturating_sub(tsc) / 2;
        Sample {
            tsc,
            monotonic_ns,
            realtime_ns: realtime_ns.saturating_sub(between_ns),
        }
    }

    /// Not before CLOCK_MONOTONIC is past `monotonic_ns`.
    fn take_after(monotonic_ns: u64) -> Sample {
        loop {
            let sample = Sample::take();
            if sample.monotonic_ns > monotonic_ns {
                return sample;
            }
            std::hint::spin_loop();
        }
    }
}

/// The clock, and the counter at the middle of reading it; the quickest of several attempts.
fn read_with_counter(clock: ClockId) -> (u64, u64) {
    let attempt = |_| {
        let before = counter();
        let ns = now_ns(clock);
        let duration = counter().saturating_sub(before);
        (duration, before + duration / 2, ns)
    };
    let best = (0..ATTEMPTS)
        .map(attempt)
        .min_by_key(|(duration, ..)| *duration);
    best.map_or((0, 0), |(_, tsc, ns)| (tsc, ns))
}

fn counter() -> u64 {
    // SAFETY: reads the counter; this program runs in user mode of Linux, which allows it.
    unsafe { _rdtsc() }
}

/// In nanoseconds.
pub fn now_ns(clock: ClockId) -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    tv_sec.cast_unsigned() * SECOND_NS + tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MULT: u32 = 1 << 31;

    fn sample(tsc: u64, monotonic_ns: u64) -> Sample {
        Sample {
            tsc,
            monotonic_ns,
            realtime_ns: monotonic_ns,
        }
    }

    #[test]
    fn the_pace_is_nanoseconds_for_each_cycle() {
        assert_eq!(pace(&sample(0, 0), &sample(2_000_000, 1_000_000)), MULT);
        assert_eq!(pace(&sample(0, 0), &sample(0, 1_000_000)), u32::MAX);
    }

    #[test]
    fn time_does_not_go_back_when_it_was_ahead() {
        let published = Parameters {
            tsc_base: 0,
            tsc_mult: MULT,
            monotonic_ns: 0,
            realtime_ns: 0,
        };
        let mut state = State {
            older: sample(0, 0),
            newer: sample(0, 0),
            published: Some(published),
        };
        let next = state.next(sample(2_000_000_000, 999_000_000));
        assert_eq!(next.monotonic_ns, 1_000_000_000);
        assert!(next.tsc_mult < pace(&sample(0, 0), &sample(2_000_000_000, 999_000_000)));
    }

    #[test]
    fn the_clock_follows_the_systems() {
        let clock = Clock::start();
        // SAFETY: atomics, for which zero is a value.
        let page: Box<SharedPage> = unsafe { Box::new(std::mem::zeroed()) };
        clock.publish(&page);
        assert_eq!(page.time_seq.load(Ordering::Relaxed), 2);
        let state = clock.state.lock().unwrap();
        let shown = state.published.unwrap().monotonic_at(counter());
        assert!(shown.abs_diff(now_ns(ClockId::Monotonic)) < SECOND_NS / 100);
    }
}
