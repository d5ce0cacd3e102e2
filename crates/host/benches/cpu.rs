//! Round trips through the software CPU, with a system call of the machine beside them.

#[path = "../tests/probe/mod.rs"]
mod probe;

use occlum_host::cpu::software::SoftwareCpu;
use occlum_host::cpu::{Cpu, Registers};
use probe::command;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() {
    let mut cpu = SoftwareCpu::attach(probe::enclave(), 0).expect("the first TCS is free");
    report(
        "getppid, native",
        measure(1_000_000, || {
            black_box(rustix::process::getppid());
        }),
    );
    report(
        "EENTER + EEXIT",
        measure(1_000_000, || enter(&mut cpu, command::REPORT, 0)),
    );
    report(
        "AEX (#UD), handler, ERESUME",
        measure(100_000, || interrupt(&mut cpu, command::INVALID)),
    );
    report(
        "AEX (SYSCALL), handler, ERESUME",
        measure(100_000, || interrupt(&mut cpu, command::SYSCALL)),
    );
}

/// The fastest of ten runs, for each iteration.
fn measure(count: u32, mut work: impl FnMut()) -> Duration {
    let run = |_| {
        let start = Instant::now();
        (0..count / 10).for_each(|_| work());
        start.elapsed() / (count / 10)
    };
    (0..10).map(run).min().unwrap_or_default()
}

fn report(what: &str, each: Duration) {
    println!("{what:<34} {:>7} ns", each.as_nanos());
}

fn enter(cpu: &mut SoftwareCpu, rdi: u64, rsi: u64) {
    let mut registers = Registers {
        rdi,
        rsi,
        ..Registers::default()
    };
    black_box(cpu.enter(&mut registers)).expect("the probe follows the rules");
}

fn interrupt(cpu: &mut SoftwareCpu, command: u64) {
    const INSTRUCTION_SIZE: u64 = 2;
    enter(cpu, command, INSTRUCTION_SIZE);
    enter(cpu, 0, 0);
    black_box(cpu.resume(&mut Registers::default())).expect("the probe follows the rules");
}
