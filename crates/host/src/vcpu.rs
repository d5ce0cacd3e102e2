//! One vCPU: a thread that enters the enclave and does what the kernel asks for each time it leaves.
//!
//! An asynchronous exit from the first SSA frame is followed by EENTER, where the kernel's exception
//! handler runs on the second, and then by ERESUME. One that interrupts the handler itself is resumed at
//! once if it was an interrupt; an exception there is a bug in the kernel.

use crate::cpu::enclave::CpuError;
use crate::cpu::software::SoftwareCpu;
use crate::cpu::{AexCause, Cpu, Exit, Refused, Registers};
use crate::error::EXIT_STATUS;
use crate::instance::Instance;
use crate::ocall;
use crate::sys;
use crate::terminal;
use occlum_abi::ocall::{Entry, Ocall};
use std::sync::Arc;

/// Starts all vCPUs; the calling thread becomes the first. The process ends when the kernel says so.
pub fn run_all(instance: &Arc<Instance>) -> Result<(), CpuError> {
    for vcpu in 1..instance.vcpus {
        let instance = instance.clone();
        let start = move || {
            if let Err(error) = run(&instance, vcpu) {
                stop(&error.to_string());
            }
        };
        std::thread::Builder::new()
            .name(format!("vcpu{vcpu}"))
            .spawn(start)
            .map_err(|_| CpuError::System(rustix::io::Errno::AGAIN))?;
    }
    run(instance, 0)
}

fn run(instance: &Arc<Instance>, vcpu: usize) -> Result<(), CpuError> {
    let mut cpu = SoftwareCpu::attach(instance.enclave.clone(), vcpu)?;
    sys::be_punctual();
    instance.parking.arrive(vcpu, sys::thread_id());
    if let Err(refused) = serve(&mut cpu, instance, vcpu) {
        stop(&refused.to_string());
    }
    Ok(())
}

fn serve(cpu: &mut impl Cpu, instance: &Arc<Instance>, vcpu: usize) -> Result<(), Refused> {
    let info = instance.host_info();
    let mut registers = Registers {
        rdi: Entry::Start as u64,
        rsi: (&raw const info).addr() as u64,
        rdx: vcpu as u64,
        ..Registers::default()
    };
    let mut interrupted = 0;
    let mut exit = cpu.enter(&mut registers)?;
    loop {
        if let Exit::Aex(cause) = &exit {
            instance.counters[vcpu].count_aex();
            if interrupted == 0 && cause.is_interrupt() {
                note_place(instance, vcpu, cpu);
            }
        }
        exit = match exit {
            Exit::Eexit if registers.rdi == Ocall::Resume as u64 && interrupted > 0 => {
                interrupted -= 1;
                cpu.resume(&mut registers)?
            }
            Exit::Eexit => {
                registers = ocall::serve(instance, vcpu, &registers);
                cpu.enter(&mut registers)?
            }
            Exit::Aex(_) if interrupted == 0 => {
                interrupted += 1;
                registers = Registers::default();
                cpu.enter(&mut registers)?
            }
            Exit::Aex(cause) if cause.is_interrupt() => cpu.resume(&mut registers)?,
            Exit::Aex(cause) => stop(&describe(&cause, cpu)),
        };
    }
}

/// For the profile: where the vCPU was interrupted first.
fn note_place(instance: &Instance, vcpu: usize, cpu: &impl Cpu) {
    if let Some(profile) = &instance.profile
        && let Some(saved) = cpu.saved_registers(0)
    {
        profile.sample(instance, vcpu, saved.rip.get());
    }
}

/// An exception in the handler, and what the handler was about to handle.
fn describe(cause: &AexCause, cpu: &impl Cpu) -> String {
    let mut text = format!(
        "exception {} (error {:#x}, address {:#x}) in the kernel's exception handler",
        cause.vector, cause.error, cause.address
    );
    for (what, frame) in [("handler", 1), ("interrupted", 0)] {
        if let Some(saved) = cpu.saved_registers(frame) {
            let (rip, rsp) = (saved.rip.get(), saved.rsp.get());
            let info = saved.exit_info.get();
            text += &format!("\n{what}: RIP {rip:#x}, RSP {rsp:#x}, EXITINFO {info:#x}");
        }
    }
    text
}

fn stop(reason: &str) -> ! {
    terminal::restore();
    eprintln!("error: occlum-host: {reason}");
    sys::exit(EXIT_STATUS)
}
