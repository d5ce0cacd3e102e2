//! Keeps the clock parameters of the kernel, and of programs that read them without a system call (the
//! vDSO), close to the host's.

use alloc::sync::Arc;

use occlum_enclave::{log, time as cpu};
use spin::Mutex;

use crate::mm::vdso;
use crate::sched::Wake;
use crate::sched::load;
use crate::sched::timer::{self, Alarm};

/// The host corrects its parameters about as often.
const PERIOD_NS: u64 = 1_000_000_000;

struct Keeper;

static ALARM: Mutex<Option<Alarm>> = Mutex::new(None);

/// Publishes the clocks now and from time to time while the instance runs.
pub fn start() {
    publish();
    rearm();
}

fn rearm() {
    let alarm = timer::arm(timer::now_ns() + PERIOD_NS, Arc::new(Keeper));
    let old = ALARM.lock().replace(alarm);
    drop(old);
}

fn publish() {
    let Some(params) = cpu::adopt_host_clock() else { return };
    if let Err(error) = vdso::publish(&params) {
        log!(Warn, "the vDSO's clocks are not kept up to date: {error:?}");
    }
}

impl Wake for Keeper {
    fn wake(&self) -> bool {
        load::sample();
        publish();
        rearm();
        true
    }
}
