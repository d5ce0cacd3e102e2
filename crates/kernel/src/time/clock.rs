//! The clocks of clock_gettime(2).

use alloc::sync::Arc;

use occlum_abi::Errno;
use occlum_enclave::time;

use super::value::NS_PER_SECOND;
use crate::error::{Result, err};
use crate::process::{Process, Thread, ThreadState, tree};
use crate::sched::timer;

pub const CLOCK_REALTIME: i32 = 0;
pub const CLOCK_MONOTONIC: i32 = 1;
pub const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
pub const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
pub const CLOCK_MONOTONIC_RAW: i32 = 4;
pub const CLOCK_REALTIME_COARSE: i32 = 5;
pub const CLOCK_MONOTONIC_COARSE: i32 = 6;
pub const CLOCK_BOOTTIME: i32 = 7;
pub const CLOCK_REALTIME_ALARM: i32 = 8;
pub const CLOCK_BOOTTIME_ALARM: i32 = 9;
pub const CLOCK_TAI: i32 = 11;

/// A clock that can be read.
#[derive(Clone)]
pub enum Clock {
    Realtime,
    /// Also CLOCK_BOOTTIME: an enclave is never suspended with its clock running on.
    Monotonic,
    ProcessCpu(Arc<Process>),
    ThreadCpu(Arc<ThreadState>),
}

/// Whether a clock's value makes sense to more than its owner, and may be slept on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Exact,
    /// Reads like its exact sibling, can't be slept on.
    Coarse,
}

impl Clock {
    /// The clock a program names. EINVAL for one that does not exist.
    pub fn find(id: i32, caller: &Thread) -> Result<(Clock, Kind)> {
        let clock = match id {
            CLOCK_REALTIME | CLOCK_REALTIME_ALARM | CLOCK_TAI => (Clock::Realtime, Kind::Exact),
            CLOCK_REALTIME_COARSE => (Clock::Realtime, Kind::Coarse),
            CLOCK_MONOTONIC | CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => (Clock::Monotonic, Kind::Exact),
            CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE => (Clock::Monotonic, Kind::Coarse),
            CLOCK_PROCESS_CPUTIME_ID => (Clock::ProcessCpu(caller.process().clone()), Kind::Exact),
            CLOCK_THREAD_CPUTIME_ID => (Clock::ThreadCpu(caller.state().clone()), Kind::Exact),
            id if id < 0 => (find_cpu_clock(id, caller)?, Kind::Exact),
            _ => return err(Errno::EINVAL, "unknown clock"),
        };
        Ok(clock)
    }

    pub fn now_ns(&self) -> u64 {
        match self {
            Clock::Realtime => time::realtime_ns(),
            Clock::Monotonic => timer::now_ns(),
            Clock::ProcessCpu(process) => process.cpu_ns(),
            Clock::ThreadCpu(thread) => thread.cpu_ns(),
        }
    }

    /// CLOCK_MONOTONIC when this clock will (at the earliest) read `at_ns`.
    pub fn to_monotonic(&self, at_ns: u64) -> u64 {
        timer::now_ns().saturating_add(at_ns.saturating_sub(self.now_ns()))
    }

    /// What clock_getres answers.
    pub fn resolution_ns(kind: Kind) -> u64 {
        match kind {
            Kind::Exact => 1,
            // A kernel tick at 250 Hz, as Debian's kernels have.
            Kind::Coarse => NS_PER_SECOND / 250,
        }
    }
}

/// Clocks of other processes and threads: `~id << 3 | kind`, bit 2 for a thread.
fn find_cpu_clock(id: i32, caller: &Thread) -> Result<Clock> {
    const PER_THREAD: i32 = 4;
    const KIND: i32 = 3;
    const FILE: i32 = 3;
    if id & KIND == FILE {
        return err(Errno::EINVAL, "no clock devices");
    }
    let target = !(id >> 3) as u32;
    let clock = if id & PER_THREAD != 0 {
        find_thread_clock(target, caller)
    } else if target == 0 {
        Some(Clock::ProcessCpu(caller.process().clone()))
    } else {
        tree::find_process(target).map(Clock::ProcessCpu)
    };
    match clock {
        Some(clock) => Ok(clock),
        None => err(Errno::EINVAL, "no such process"),
    }
}

/// Only threads of the caller's own process, as Linux.
fn find_thread_clock(tid: u32, caller: &Thread) -> Option<Clock> {
    if tid == 0 {
        return Some(Clock::ThreadCpu(caller.state().clone()));
    }
    let thread = tree::find_thread(tid)?;
    let is_own = thread.process().pid() == caller.process().pid();
    is_own.then(|| Clock::ThreadCpu(thread.state().clone()))
}
