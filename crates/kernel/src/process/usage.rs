//! What a process has used: processor time and faults.

use occlum_enclave::time as cpu;

/// Consumption that adds up when threads and children end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, nanoseconds. The kernel does not tell user and system time apart (that would
    /// cost two counter reads for each system call); all counts as user time.
    pub cpu_ns: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub switches: u64,
    /// Largest resident set of any process counted, bytes.
    pub max_rss: u64,
}

impl Usage {
    pub fn add(&mut self, other: &Usage) {
        self.cpu_ns += other.cpu_ns;
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.switches += other.switches;
        self.max_rss = self.max_rss.max(other.max_rss);
    }
}

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
