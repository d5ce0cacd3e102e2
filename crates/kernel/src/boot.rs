//! From the first instruction in Rust to the first process.

use occlum_enclave::{Boot, vcpu};

use crate::sched::run;

/// vCPU 0: bring everything up, start the program, then schedule.
pub fn main(_boot: Boot) -> ! {
    vcpu::release_others();
    run::idle_loop()
}

/// Every other vCPU: schedule.
pub fn vcpu_main(_index: usize) -> ! {
    run::idle_loop()
}

/// The end of every task.
pub fn task_exit() -> ! {
    run::exit()
}
