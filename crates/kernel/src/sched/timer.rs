//! Wake-ups at a time of CLOCK_MONOTONIC. Expired by idle vCPUs (their parking has a deadline) and
//! by ticks while all vCPUs are busy.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use occlum_enclave::time;
use spin::Mutex;

use super::wait::Wake;

static TIMERS: Mutex<BTreeMap<(u64, u64), Arc<dyn Wake>>> = Mutex::new(BTreeMap::new());
static NEXT_ID: AtomicU64 = AtomicU64::new(0);
/// Earliest deadline, `u64::MAX` if none; readable without the lock.
static EARLIEST: AtomicU64 = AtomicU64::new(u64::MAX);

/// An armed timer; dropping it disarms it.
#[must_use]
pub struct Alarm {
    key: (u64, u64),
}

/// CLOCK_MONOTONIC now, in nanoseconds.
pub fn now_ns() -> u64 {
    time::monotonic_ns()
}

/// Wakes `target` once at `deadline_ns` or soon after.
pub fn arm(deadline_ns: u64, target: Arc<dyn Wake>) -> Alarm {
    let key = (deadline_ns, NEXT_ID.fetch_add(1, Ordering::Relaxed));
    let mut timers = TIMERS.lock();
    timers.insert(key, target);
    EARLIEST.fetch_min(deadline_ns, Ordering::AcqRel);
    Alarm { key }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut timers = TIMERS.lock();
        if timers.remove(&self.key).is_some() {
            publish_earliest(&timers);
        }
    }
}

/// Whether any timer is armed.
pub fn is_armed() -> bool {
    EARLIEST.load(Ordering::Acquire) != u64::MAX
}

/// When the next timer expires.
pub fn next_deadline() -> Option<u64> {
    Some(EARLIEST.load(Ordering::Acquire)).filter(|&deadline| deadline != u64::MAX)
}

/// Wakes what is due.
pub fn expire() {
    if !is_armed() {
        return;
    }
    let now = now_ns();
    while EARLIEST.load(Ordering::Acquire) <= now {
        let Some(target) = take_due(now) else { return };
        target.wake();
    }
}

fn take_due(now: u64) -> Option<Arc<dyn Wake>> {
    let mut timers = TIMERS.lock();
    let is_due = timers.first_key_value().is_some_and(|(key, _)| key.0 <= now);
    let target = if is_due { timers.pop_first().map(|(_, target)| target) } else { None };
    publish_earliest(&timers);
    target
}

fn publish_earliest(timers: &BTreeMap<(u64, u64), Arc<dyn Wake>>) {
    let earliest = timers.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
    EARLIEST.store(earliest, Ordering::Release);
}
