//! The software CPU keeps the architecture's rules: entering, leaving, exceptions, resuming, EINIT.
//!
//! There is one enclave range per process, so each test takes its turn.

mod probe;

use occlum_abi::layout;
use occlum_host::cpu::enclave::CpuError;
use occlum_host::cpu::software::SoftwareCpu;
use occlum_host::cpu::{AexCause, Cpu, Exit, Refused, Registers};
use occlum_host::sys;
use occlum_sgx::IntoBytes;
use occlum_sgx::einit::EinitError;
use occlum_sgx::keyrequest::{KeyName, KeyPolicy, KeyRequest};
use probe::{DONE, USER_PAGE, command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn with_cpu(test: impl FnOnce(&mut SoftwareCpu)) {
    let _turn = turn();
    test(&mut SoftwareCpu::attach(probe::enclave(), 0).unwrap());
}

fn enter(cpu: &mut SoftwareCpu, command: u64, rsi: u64, rdx: u64) -> (Exit, Registers) {
    let mut registers = Registers {
        rdi: command,
        rsi,
        rdx,
        ..Registers::default()
    };
    let exit = cpu.enter(&mut registers).unwrap();
    (exit, registers)
}

/// Enters with a command that raises one exception, handles it by skipping `skip` bytes, resumes.
fn raise(
    cpu: &mut SoftwareCpu,
    command: u64,
    skip: u64,
    rdx: u64,
) -> (AexCause, Registers, Registers) {
    let (exit, _) = enter(cpu, command, skip, rdx);
    let Exit::Aex(cause) = exit else {
        panic!("no exception")
    };
    let (exit, handled) = enter(cpu, 0, 0, 0);
    assert_eq!((exit, handled.rdi), (Exit::Eexit, 0));
    let mut registers = Registers::default();
    assert_eq!(cpu.resume(&mut registers), Ok(Exit::Eexit));
    assert_eq!(registers.rdi, DONE);
    (cause, handled, registers)
}

const fn reported(vector: u64) -> u64 {
    1 << 31 | if vector == 3 { 6 } else { 3 } << 8 | vector
}

#[test]
fn eenter_gives_cssa_tcs_and_gs() {
    with_cpu(|cpu| {
        for _ in 0..3 {
            let (exit, out) = enter(cpu, command::REPORT, 0, 0);
            assert_eq!((exit, out.rdi), (Exit::Eexit, DONE));
            assert_eq!((out.rsi, out.rdx), (0, layout::VCPU_AREA_BASE as u64));
            assert_eq!(out.r8, (layout::VCPU_AREA_BASE + layout::VCPU_PAGE) as u64);
        }
    });
}

#[test]
fn an_invalid_opcode_is_reported_in_the_ssa_frame() {
    with_cpu(|cpu| {
        let (cause, handled, _) = raise(cpu, command::INVALID, 2, 0);
        assert_eq!((cause.signal, cause.vector), (libc::SIGILL, 6));
        assert_eq!(handled.rsi, reported(6));
    });
}

#[test]
fn a_page_fault_reports_address_and_error_code() {
    with_cpu(|cpu| {
        let (_, handled, _) = raise(cpu, command::READ, 3, 0x12_3456);
        assert_eq!(
            (handled.rsi, handled.r8, handled.r9),
            (reported(14), 0x12_3456, 4)
        );
        let (_, handled, _) = raise(cpu, command::READ, 3, 1 << 63);
        assert_eq!((handled.rsi, handled.r8, handled.r9), (reported(13), 0, 0));
    });
}

#[test]
fn division_and_breakpoint_have_their_vectors() {
    with_cpu(|cpu| {
        assert_eq!(raise(cpu, command::DIVIDE, 2, 0).1.rsi, reported(0));
        assert_eq!(raise(cpu, command::BREAKPOINT, 0, 0).1.rsi, reported(3));
    });
}

#[test]
fn no_system_call_from_inside_reaches_the_host() {
    with_cpu(|cpu| {
        let (cause, handled, out) = raise(cpu, command::SYSCALL, 2, 0);
        assert_eq!((cause.signal, handled.rsi), (libc::SIGSYS, reported(6)));
        assert_eq!((handled.r10, out.rsi), (39, 39), "RAX is still the number");
        let (_, handled, out) = raise(cpu, command::INT80, 2, 0);
        assert!([reported(6), reported(13)].contains(&handled.rsi));
        assert_eq!((handled.r10, out.rsi), (20, 20));
    });
}

#[test]
fn sysenter_is_an_exception() {
    with_cpu(|cpu| {
        let (exit, _) = enter(cpu, command::SYSENTER, 2, 0);
        let Exit::Aex(cause) = exit else {
            panic!("no exception")
        };
        assert!(cause.vector >= 0);
        assert_eq!(enter(cpu, 0, 0, 0).1.rsi, reported(6));
    });
}

#[test]
fn the_vsyscall_page_does_not_exist_inside() {
    const VSYSCALL_TIME: u64 = 0xFFFF_FFFF_FF60_0400;
    with_cpu(|cpu| {
        let (exit, _) = enter(cpu, command::CALL, 0, VSYSCALL_TIME);
        assert!(
            matches!(exit, Exit::Aex(AexCause { vector: 14, .. })),
            "{exit:?}"
        );
        let (_, handled) = enter(cpu, 0, 0, 0);
        assert_eq!((handled.rsi, handled.rdx), (reported(14), VSYSCALL_TIME));
    });
}

#[test]
fn a_jump_out_of_the_enclave_is_a_fault() {
    const UNMAPPED: u64 = 0x3FFF_0000_0000;
    const NOT_CANONICAL: u64 = 0x4141_4141_4141_4141;
    for target in [UNMAPPED, NOT_CANONICAL] {
        with_cpu(|cpu| {
            let (exit, _) = enter(cpu, command::JUMP, 0, target);
            assert!(
                matches!(
                    exit,
                    Exit::Aex(AexCause {
                        vector: 13 | 14,
                        ..
                    })
                ),
                "{exit:?}"
            );
            assert!([reported(13), reported(14)].contains(&enter(cpu, 0, 0, 0).1.rsi));
        });
    }
}

#[test]
fn resuming_restores_every_register() {
    with_cpu(|cpu| {
        for _ in 0..100 {
            let (_, _, out) = raise(cpu, command::KEEP_STATE, 2, 0);
            assert_eq!(out.rsi, 0);
        }
    });
}

#[test]
fn a_kick_interrupts_and_reports_nothing() {
    with_cpu(|cpu| {
        let thread = sys::thread_id();
        let kicker = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            sys::signal_thread(thread, sys::KICK).unwrap();
        });
        let (cause, handled, _) = raise(cpu, command::SPIN, 0, 0);
        kicker.join().unwrap();
        assert_eq!((cause.signal, cause.vector), (sys::KICK, -1));
        assert_eq!(handled.rsi, 0);
    });
}

/// Enters, handles exceptions and interrupts as a vCPU's thread does, until the command is done.
/// Also gives the number of interrupts.
fn drive(cpu: &mut SoftwareCpu, command: u64, skip: u64, rdx: u64) -> (Registers, u32) {
    let mut registers = Registers {
        rdi: command,
        rsi: skip,
        rdx,
        ..Registers::default()
    };
    let mut interrupts = 0;
    let mut depth = 0;
    let mut exit = cpu.enter(&mut registers).unwrap();
    loop {
        interrupts += u32::from(matches!(exit, Exit::Aex(cause) if cause.is_interrupt()));
        exit = match exit {
            Exit::Eexit if depth == 0 => return (registers, interrupts),
            Exit::Eexit => {
                depth = 0;
                cpu.resume(&mut registers).unwrap()
            }
            Exit::Aex(_) if depth == 0 => {
                depth = 1;
                cpu.enter(&mut registers).unwrap()
            }
            Exit::Aex(cause) => {
                assert!(cause.is_interrupt(), "{cause:?}");
                cpu.resume(&mut registers).unwrap()
            }
        };
    }
}

#[test]
fn no_interrupt_loses_a_register() {
    with_cpu(|cpu| {
        let thread = sys::thread_id();
        let is_over = Arc::new(AtomicBool::new(false));
        let kicker = std::thread::spawn({
            let is_over = is_over.clone();
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    sys::signal_thread(thread, sys::KICK).unwrap();
                    (0..2000).for_each(|_| std::hint::spin_loop());
                }
            }
        });
        let mut interrupts = 0;
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline || interrupts < 1000 {
            let (out, count) = drive(cpu, command::KEEP_STATE, 2, 1 << 14);
            assert_eq!((out.rdi, out.rsi), (DONE, 0));
            interrupts += count;
        }
        is_over.store(true, Ordering::Relaxed);
        kicker.join().unwrap();
    });
}

#[test]
fn a_kick_outside_means_nothing() {
    with_cpu(|cpu| {
        sys::signal_thread(sys::thread_id(), sys::KICK).unwrap();
        assert_eq!(enter(cpu, command::REPORT, 0, 0).0, Exit::Eexit);
    });
}

#[test]
fn frames_run_out() {
    with_cpu(|cpu| {
        assert_eq!(
            cpu.resume(&mut Registers::default()),
            Err(Refused::NothingToResume)
        );
        assert!(matches!(enter(cpu, command::INVALID, 0, 0).0, Exit::Aex(_)));
        assert_eq!(enter(cpu, 0, 0, 0).1.rdi, 0);
        let mut registers = Registers::default();
        assert!(
            matches!(cpu.resume(&mut registers), Ok(Exit::Aex(_))),
            "the same instruction again"
        );
    });
}

#[test]
fn leaving_without_restoring_rsp_is_noticed() {
    with_cpu(|cpu| {
        let mut registers = Registers {
            rdi: command::LEAVE_ASTRAY,
            ..Registers::default()
        };
        assert_eq!(cpu.enter(&mut registers), Err(Refused::LeftAstray));
    });
}

#[test]
fn egetkey_gives_a_key_and_keeps_the_registers() {
    with_cpu(|cpu| {
        let request = KeyRequest::new(KeyName::Seal, KeyPolicy::MRENCLAVE);
        let output = USER_PAGE + 1024;
        // SAFETY: the probe's writable page, which nothing uses at the moment.
        unsafe {
            std::ptr::copy_nonoverlapping(request.as_bytes().as_ptr(), USER_PAGE as *mut u8, 512);
        }
        let (_, out) = enter(cpu, command::EGETKEY, USER_PAGE as u64, output as u64);
        assert_eq!((out.rsi, out.rdx, out.r8), (0, 0, 1));
        // SAFETY: as above.
        let key = unsafe { (output as *const [u8; 16]).read() };
        assert_ne!(key, [7; 16]);
        // SAFETY: as above. An unknown key name.
        unsafe { (USER_PAGE as *mut u16).write(77) };
        let (_, out) = enter(cpu, command::EGETKEY, USER_PAGE as u64, output as u64);
        assert_eq!((out.rsi, out.rdx, out.r8), (256, 1, 1));
    });
}

#[test]
fn a_tcs_serves_one_thread_at_a_time() {
    let _turn = turn();
    let enclave = probe::enclave();
    let first = SoftwareCpu::attach(enclave.clone(), 0).unwrap();
    assert!(matches!(
        SoftwareCpu::attach(enclave.clone(), 0),
        Err(CpuError::NoTcs(0))
    ));
    assert!(matches!(
        SoftwareCpu::attach(enclave.clone(), 2),
        Err(CpuError::NoTcs(2))
    ));
    drop(first);
    assert!(SoftwareCpu::attach(enclave, 0).is_ok());
}

#[test]
fn two_processors_run_at_once() {
    let _turn = turn();
    let enclave = probe::enclave();
    let threads = [0, 1].map(|index| {
        let enclave = enclave.clone();
        std::thread::spawn(move || {
            let mut cpu = SoftwareCpu::attach(enclave, index).unwrap();
            for _ in 0..1000 {
                assert_eq!(raise(&mut cpu, command::KEEP_STATE, 2, 0).2.rsi, 0);
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn einit_refuses_a_changed_page() {
    let _turn = turn();
    let mut stream = probe::stream();
    let sigstruct = probe::sign(&stream, |_| {});
    let last = stream.len() - 1;
    stream[last] ^= 1;
    let refused = probe::build(&stream, &sigstruct).map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, CpuError::Einit(EinitError::Measurement { .. })),
        "{refused}"
    );
}

#[test]
fn einit_refuses_a_wrong_signature() {
    let _turn = turn();
    let stream = probe::stream();
    let mut sigstruct = probe::sign(&stream, |_| {});
    sigstruct.isv_svn.set(1);
    let refused = probe::build(&stream, &sigstruct).map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, CpuError::Einit(EinitError::SigStruct(_))),
        "{refused}"
    );
}

#[test]
fn ecreate_refuses_an_attribute_the_cpu_lacks() {
    let _turn = turn();
    let stream = probe::stream();
    let sigstruct = probe::sign(&stream, |unsigned| {
        unsigned.attributes.flags.set(4 | 1 << 10)
    });
    let refused = probe::build(&stream, &sigstruct).map(|_| ()).unwrap_err();
    assert!(matches!(refused, CpuError::Ecreate(_)), "{refused}");
}
