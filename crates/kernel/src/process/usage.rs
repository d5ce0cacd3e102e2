//! What a process has used: processor time and faults.

use occlum_enclave::time as cpu;
use spin::Mutex;

/// Consumption that adds up when threads and children end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, nanoseconds.
    pub cpu_ns: u64,
    /// The part of it that the kernel used, estimated: one system call in [`SAMPLE`] is measured, because
    /// reading the counter costs as much as a short call.
    pub system_ns: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub switches: u64,
    /// Times a vCPU was taken away.
    pub preemptions: u64,
    /// Largest resident set of any process counted, bytes.
    pub max_rss: u64,
}

impl Usage {
    const NONE: Usage = Usage {
        cpu_ns: 0,
        system_ns: 0,
        minor_faults: 0,
        major_faults: 0,
        switches: 0,
        preemptions: 0,
        max_rss: 0,
    };

    pub fn user_ns(&self) -> u64 {
        self.cpu_ns - self.system_ns
    }

    pub fn add(&mut self, other: &Usage) {
        self.cpu_ns += other.cpu_ns;
        self.system_ns += other.system_ns;
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.switches += other.switches;
        self.preemptions += other.preemptions;
        self.max_rss = self.max_rss.max(other.max_rss);
    }
}

/// Of all threads that have ended.
static PAST: Mutex<Usage> = Mutex::new(Usage::NONE);

pub(super) fn count_past(usage: &Usage) {
    PAST.lock().add(usage);
}

/// What all threads there ever were have used.
pub fn of_all() -> Usage {
    let mut total = *PAST.lock();
    for process in super::processes() {
        process.for_each_thread(|thread| total.add(&thread.usage()));
    }
    total
}

/// Of so many system calls one is measured.
pub const SAMPLE: u32 = 16;

/// Nanoseconds for a number of cycles of the time-stamp counter.
pub fn cycles_to_ns(cycles: u64) -> u64 {
    let mult = cpu::clock_params().map_or(0, |params| params.mult);
    ((u128::from(cycles) * u128::from(mult)) >> 32) as u64
}

/// USER_HZ: the unit of times(2) and /proc.
pub const TICKS_PER_SECOND: u64 = 100;

/// Clock ticks in a number of nanoseconds.
pub fn ns_to_ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / TICKS_PER_SECOND)
}
