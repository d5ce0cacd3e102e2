//! Where time goes in the enclave: a thread interrupts the vCPUs a thousand times a second, and each notes
//! where it was. What is written is read by `occlum.profiling`:
//!
//! ```text
//! m PROCESS IS-PROGRAM START OFFSET PATH   code of a file stands there (hexadecimal but for the process)
//! s PROCESS RIP                            a vCPU that ran a thread of the process was there
//! ```
//! Time outside the enclave, waiting included, is not in it.

use crate::instance::Instance;
use crate::sys;
use occlum_abi::ocall::MAPPED_AS_PROGRAM;
use rustix::time::{ClockId, Timespec};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Not a divisor of the ticker's period: programs that follow the ticks would always be seen alike.
const PERIOD_NS: i64 = 1_003_000;

pub struct Profile(File);

impl Profile {
    pub fn new(file: File) -> Profile {
        Profile(file)
    }

    pub fn mapped(&self, start: u64, offset: u64, process: u64, path: &[u8]) {
        let is_program = u32::from(process & MAPPED_AS_PROGRAM != 0);
        let process = process & !MAPPED_AS_PROGRAM;
        let mut line = format!("m {process} {is_program} {start:x} {offset:x} ").into_bytes();
        line.extend(path.iter().filter(|byte| **byte != b'\n'));
        line.push(b'\n');
        self.write(&line);
    }

    /// A vCPU was interrupted at `rip`.
    pub fn sample(&self, instance: &Instance, vcpu: usize, rip: u64) {
        let process = instance.shared().running[vcpu].load(Ordering::Relaxed);
        self.write(format!("s {process} {rip:x}\n").as_bytes());
    }

    fn write(&self, line: &[u8]) {
        // A line is written at once, or lines of several vCPUs would mix. What can't be written is lost.
        let _ = (&self.0).write_all(line);
    }
}

/// Starts the thread that interrupts.
pub fn start(instance: &Arc<Instance>) -> std::io::Result<()> {
    let instance = instance.clone();
    let sample = move || {
        sys::block_signals();
        sys::be_punctual();
        loop {
            let period = Timespec {
                tv_sec: 0,
                tv_nsec: PERIOD_NS,
            };
            // It comes early if interrupted.
            let _ = rustix::thread::clock_nanosleep_relative(ClockId::Monotonic, &period);
            (0..instance.vcpus).for_each(|vcpu| instance.parking.interrupt_if_awake(vcpu));
        }
    };
    let thread = std::thread::Builder::new().name("profile".into());
    thread.spawn(sample).map(drop)
}
