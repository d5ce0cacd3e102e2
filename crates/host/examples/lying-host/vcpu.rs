//! One vCPU, as in the library's `vcpu`, asking the lie at each step.

use crate::lie::{Asked, Lie};
use occlum_abi::ocall::{Entry, Ocall};
use occlum_host::cpu::enclave::CpuError;
use occlum_host::cpu::software::SoftwareCpu;
use occlum_host::cpu::{AexCause, Cpu, Exit, Refused, Registers};
use occlum_host::error::EXIT_STATUS;
use occlum_host::instance::Instance;
use occlum_host::{ocall, sys};
use std::sync::Arc;

/// Starts all vCPUs; the calling thread becomes the first. The process ends when the kernel says so.
pub fn run_all(instance: &Arc<Instance>, lie: &Arc<dyn Lie>) -> Result<(), CpuError> {
    for vcpu in 1..instance.vcpus {
        let (instance, lie) = (instance.clone(), lie.clone());
        std::thread::spawn(move || {
            if let Err(error) = run(&instance, &*lie, vcpu) {
                stop(&error.to_string());
            }
        });
    }
    run(instance, &**lie, 0)
}

fn run(instance: &Arc<Instance>, lie: &dyn Lie, vcpu: usize) -> Result<(), CpuError> {
    let mut cpu = SoftwareCpu::attach(instance.enclave.clone(), vcpu)?;
    sys::be_punctual();
    instance.parking.arrive(vcpu, sys::thread_id());
    if let Err(refused) = serve(&mut cpu, instance, lie, vcpu) {
        stop(&refused.to_string());
    }
    Ok(())
}

fn serve(
    cpu: &mut SoftwareCpu,
    instance: &Arc<Instance>,
    lie: &dyn Lie,
    vcpu: usize,
) -> Result<(), Refused> {
    let mut info = instance.host_info();
    let mut registers = Registers {
        rdi: Entry::Start as u64,
        rsi: (&raw const info).addr() as u64,
        rdx: vcpu as u64,
        ..Registers::default()
    };
    lie.hand_over(&mut registers, &mut info);
    let mut exit = lie.enter(cpu, vcpu, &mut registers)?;
    // The handler's entries still to come before the interrupted frame is resumed.
    let mut entries = None;
    loop {
        exit = match (exit, entries) {
            (Exit::Eexit, Some(left)) if registers.rdi == Ocall::Resume as u64 => {
                handle(cpu, lie, vcpu, &mut registers, &mut entries, left)?
            }
            (Exit::Eexit, _) => {
                registers = answer(instance, lie, vcpu, &registers);
                lie.before_entry(instance);
                lie.enter(cpu, vcpu, &mut registers)?
            }
            (Exit::Aex(cause), None) => {
                let wanted = lie.handler_entries(&cause);
                handle(cpu, lie, vcpu, &mut registers, &mut entries, wanted)?
            }
            (Exit::Aex(cause), Some(_)) if cause.is_interrupt() => cpu.resume(&mut registers)?,
            (Exit::Aex(cause), Some(_)) => stop(&describe(&cause, cpu)),
        };
    }
}

/// Enters the kernel's handler, or resumes if it has run often enough.
fn handle(
    cpu: &mut SoftwareCpu,
    lie: &dyn Lie,
    vcpu: usize,
    registers: &mut Registers,
    entries: &mut Option<u32>,
    wanted: u32,
) -> Result<Exit, Refused> {
    if wanted == 0 {
        *entries = None;
        return cpu.resume(registers);
    }
    *entries = Some(wanted - 1);
    *registers = Registers::default();
    lie.enter(cpu, vcpu, registers)
}

fn answer(
    instance: &Arc<Instance>,
    lie: &dyn Lie,
    vcpu: usize,
    registers: &Registers,
) -> Registers {
    let out = registers;
    let asked = Asked {
        instance,
        vcpu,
        call: Ocall::from_raw(out.rdi),
        args: [out.rsi, out.rdx, out.r8, out.r9, out.r10],
    };
    let honest = ocall::serve(instance, vcpu, out);
    lie.answer(&asked, honest)
}

fn describe(cause: &AexCause, cpu: &SoftwareCpu) -> String {
    let places = [1, 0].map(|frame| cpu.saved_registers(frame).map(|saved| saved.rip.get()));
    let vector = cause.vector;
    format!("exception {vector} in the handler; RIP of handler and interrupted: {places:x?}")
}

fn stop(reason: &str) -> ! {
    eprintln!("error: lying-host: {reason}");
    sys::exit(EXIT_STATUS)
}
