//! The ticker: a thread that, while some vCPU has more to run than one task, lets another vCPU help or
//! interrupts it, every two milliseconds.
//!
//! It starts with the first wish and sleeps when for a while there was none. Before it sleeps it says
//! so in the shared page and looks once more; the kernel sets its wish first and then looks whether the
//! ticker sleeps: one of them sees the other.

use crate::instance::Instance;
use crate::sys;
use occlum_abi::ocall::SharedPage;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(2);
/// Periods without a wish after which it sleeps.
const PATIENCE: u32 = 50;

#[derive(Default)]
pub struct Ticker {
    is_started: AtomicBool,
}

impl Ticker {
    /// Tells the kernel that ticks come only after `StartTicker`.
    pub fn set_asleep(&self, shared: &SharedPage) {
        shared.ticker_asleep.store(1, Ordering::SeqCst);
    }
}

/// Serves `StartTicker`.
pub fn start(instance: &Arc<Instance>) -> Result<(), rustix::io::Errno> {
    let shared = instance.shared();
    shared.ticker_asleep.store(0, Ordering::SeqCst);
    if instance.ticker.is_started.swap(true, Ordering::SeqCst) {
        futex::wake(&shared.ticker_asleep, futex::Flags::PRIVATE, 1)?;
        return Ok(());
    }
    let for_thread = instance.clone();
    std::thread::Builder::new()
        .name("ticker".into())
        .spawn(move || tick(&for_thread))
        .map(|_| ())
        .map_err(|_| rustix::io::Errno::AGAIN)
}

fn tick(instance: &Instance) {
    sys::block_signals();
    sys::be_punctual();
    let shared = instance.shared();
    let mut idle_periods = 0;
    let mut helped = 0;
    loop {
        sleep(PERIOD);
        if serve_wishes(instance, &mut helped) {
            idle_periods = 0;
        } else {
            idle_periods += 1;
        }
        instance.clock.refresh_if_old(shared);
        if idle_periods >= PATIENCE {
            sleep_until_started(shared);
            idle_periods = 0;
        }
    }
}

/// Wakes a parked vCPU to help the first that wishes it; interrupts those that were helped by the tick
/// before and wish again, and all when nobody is parked. `helped` has a bit for each vCPU. Says whether
/// there were wishes.
fn serve_wishes(instance: &Instance, helped: &mut u64) -> bool {
    let wanting = |vcpu: &usize| instance.shared().want_tick[*vcpu].load(Ordering::SeqCst) != 0;
    let helped_before = std::mem::take(helped);
    let mut has_woken = false;
    let mut is_wanted = false;
    for vcpu in (0..instance.vcpus).filter(wanting) {
        let bit = 1 << vcpu;
        let is_in_vain = helped_before & bit != 0;
        has_woken = has_woken || (!is_in_vain && instance.parking.wake_any(vcpu));
        if has_woken && !is_in_vain {
            *helped |= bit;
        } else {
            instance.parking.interrupt(vcpu);
        }
        is_wanted = true;
    }
    is_wanted
}

fn sleep_until_started(shared: &SharedPage) {
    shared.ticker_asleep.store(1, Ordering::SeqCst);
    if shared
        .want_tick
        .iter()
        .any(|wish| wish.load(Ordering::SeqCst) != 0)
    {
        shared.ticker_asleep.store(0, Ordering::SeqCst);
        return;
    }
    while shared.ticker_asleep.load(Ordering::SeqCst) == 1 {
        // Returns early if the word has changed or for a signal: then the loop looks again.
        let _ = futex::wait(&shared.ticker_asleep, futex::Flags::PRIVATE, 1, None);
    }
}

fn sleep(period: Duration) {
    let period = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(period.subsec_nanos()),
    };
    // No signal interrupts this thread; were it so, the tick would just come early.
    let _ = rustix::thread::clock_nanosleep_relative(ClockId::Monotonic, &period);
}
