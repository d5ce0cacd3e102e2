//! RLIMIT_CPU: SIGXCPU each second of processor time from the soft limit on, SIGKILL at the hard one.
//!
//! A process with such a limit has an alarm for the earliest time at which it can have used that much; when
//! it goes off too early, it is set again.

use alloc::sync::{Arc, Weak};

use super::limits::INFINITY;
use super::{Process, Resource, exit};
use crate::sched::Wake;
use crate::sched::timer;
use crate::signal::{SigInfo, Signal, send_to_process};

const NS_PER_SECOND: u64 = 1_000_000_000;
/// How exactly the time is watched.
const STEP_NS: u64 = 1_000_000;

struct Watch {
    process: Weak<Process>,
}

/// Begins, goes on or ends watching, as the limits are now.
pub fn watch(process: &Arc<Process>) {
    let limit = process.limit(Resource::CPU);
    let alarm = (limit.soft != INFINITY || limit.hard != INFINITY).then(|| {
        let next = limit.soft.min(limit.hard).max(1).saturating_mul(NS_PER_SECOND);
        let left = next.saturating_sub(process.cpu_ns()) / threads(process);
        let target = Arc::new(Watch { process: Arc::downgrade(process) });
        timer::arm(timer::now_ns().saturating_add(left.max(STEP_NS)), target)
    });
    let old = core::mem::replace(&mut *process.cpu_alarm.lock(), alarm);
    drop(old);
}

/// Threads that may use processors at the same time.
fn threads(process: &Process) -> u64 {
    process.thread_count().clamp(1, occlum_enclave::vcpu::count()) as u64
}

impl Wake for Watch {
    fn wake(&self) -> bool {
        if let Some(process) = self.process.upgrade().filter(|process| !process.is_ending()) {
            look(&process);
            watch(&process);
        }
        true
    }
}

fn look(process: &Process) {
    let limit = process.limit(Resource::CPU);
    let used_s = process.cpu_ns() / NS_PER_SECOND;
    if used_s >= limit.hard.max(1) {
        return exit::kill_process(process, Signal::KILL);
    }
    if used_s >= limit.soft.max(1) {
        // As on Linux the soft limit moves, so that the signal comes again after another second.
        process.set_limit(Resource::CPU, super::Limit { soft: used_s + 1, ..limit });
        // A classic signal is never refused.
        let _ = send_to_process(process, Signal::XCPU, SigInfo::kernel(Signal::XCPU));
    }
}
