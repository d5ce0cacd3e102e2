//! Lies about when the enclave is entered, interrupted and resumed, and with which registers.

use crate::lie::{Asked, Lie};
use occlum_host::cpu::software::{Eenter, SoftwareCpu};
use occlum_host::cpu::{AexCause, Exit, HostThread, Refused, Registers};
use occlum_host::instance::Instance;
use occlum_host::sys;
use std::arch::global_asm;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Interrupts all vCPUs all the time, once they have made a call: before that, for some hundred
/// instructions, a vCPU can't be interrupted, and a host that tries has only stopped it.
struct Storm {
    pause: Duration,
    /// Entries of the handler for each interrupt.
    entries: u32,
    /// Bit v: vCPU v has made a call.
    arrived: Arc<AtomicU64>,
}

fn storm(pause_us: u64, entries: u32) -> Arc<dyn Lie> {
    Arc::new(Storm {
        pause: Duration::from_micros(pause_us),
        entries,
        arrived: Arc::default(),
    })
}

impl Lie for Storm {
    fn prepare(&self, instance: &Arc<Instance>, _build_dir: &Path) {
        let (instance, pause, arrived) = (instance.clone(), self.pause, self.arrived.clone());
        std::thread::spawn(move || {
            sys::block_signals();
            sys::be_punctual();
            loop {
                let arrived = arrived.load(Ordering::Relaxed);
                (0..instance.vcpus)
                    .filter(|vcpu| arrived & 1 << vcpu != 0)
                    .for_each(|vcpu| instance.parking.interrupt(vcpu));
                std::thread::sleep(pause);
            }
        });
    }

    fn answer(&self, asked: &Asked, honest: Registers) -> Registers {
        self.arrived.fetch_or(1 << asked.vcpu, Ordering::Relaxed);
        honest
    }

    fn handler_entries(&self, cause: &AexCause) -> u32 {
        if cause.is_interrupt() {
            self.entries
        } else {
            1
        }
    }
}

/// Enters the handler a second time for each exception.
struct HandlerTwice;

impl Lie for HandlerTwice {
    fn handler_entries(&self, _cause: &AexCause) -> u32 {
        2
    }
}

/// Tries to enter through a TCS that a thread is using.
struct TcsTwice;

impl Lie for TcsTwice {
    fn answer(&self, asked: &Asked, honest: Registers) -> Registers {
        let second = SoftwareCpu::attach(asked.instance.enclave.clone(), asked.vcpu);
        assert!(second.is_err(), "the CPU let a second thread take a TCS");
        honest
    }
}

/// Every register that EENTER does not set holds what would hurt most.
struct Poison;

impl Lie for Poison {
    fn enter(
        &self,
        cpu: &mut SoftwareCpu,
        _vcpu: usize,
        registers: &mut Registers,
    ) -> Result<Exit, Refused> {
        // SAFETY: they end in the CPU's own instruction; what they change before it, their contract
        // leaves open or the CPU sets.
        unsafe { cpu.enter_by(poisoned(), registers) }
    }
}

/// The one that fills the widest registers there are.
fn poisoned() -> Eenter {
    if is_x86_feature_detected!("avx512f") {
        eenter_poisoned_avx512
    } else if is_x86_feature_detected!("avx") {
        eenter_poisoned_avx
    } else {
        eenter_poisoned
    }
}

unsafe extern "C" {
    fn eenter_poisoned_avx512(thread: *mut HostThread, registers: *mut Registers) -> u32;
    fn eenter_poisoned_avx(thread: *mut HostThread, registers: *mut Registers) -> u32;
    fn eenter_poisoned(thread: *mut HostThread, registers: *mut Registers) -> u32;
}

// Flags: all arithmetic flags, DF, NT, AC, ID. Not TF: a CPU suppresses single-stepping in an enclave
// that is not being debugged, and the software CPU can't. Floating point: everything unmasked, every
// sticky bit set, all eight x87 registers full and an exception pending; vector registers all ones.
global_asm!(
    r#"
    .section .text.eenter_poisoned, "ax", @progbits
    .globl eenter_poisoned_avx512
    .hidden eenter_poisoned_avx512
    .globl eenter_poisoned_avx
    .hidden eenter_poisoned_avx
    .globl eenter_poisoned
    .hidden eenter_poisoned
eenter_poisoned_avx512:
    vpternlogd zmm16, zmm16, zmm16, 0xff
    vmovdqa64 zmm0, zmm16
    vmovdqa64 zmm1, zmm16
    vmovdqa64 zmm7, zmm16
    vmovdqa64 zmm15, zmm16
    vmovdqa64 zmm31, zmm16
    kxnorw  k1, k0, k0
    kxnorw  k7, k0, k0
    jmp     eenter_poisoned
eenter_poisoned_avx:
    vcmptrueps ymm0, ymm0, ymm0
    vmovaps ymm1, ymm0
    vmovaps ymm7, ymm0
    vmovaps ymm15, ymm0
eenter_poisoned:
    fninit
    .rept 8
    fld1
    .endr
    fldz
    push    0
    fldcw   [rsp]
    mov     dword ptr [rsp], 0x603f
    ldmxcsr [rsp]
    pop     rax
    movabs  rax, 0x123456789000
    wrgsbase rax
    wrfsbase rax
    pushfq
    or      qword ptr [rsp], {FLAGS}
    popfq
    jmp     cpu_eenter
    .text
    "#,
    FLAGS = const 0x24_4CD5,
);

type Make = fn() -> Arc<dyn Lie>;

#[rustfmt::skip]
const LIES: [(&str, Make); 7] = [
    ("kicks-at-10-khz", || storm(100, 1)),
    ("kicks-at-30-khz", || storm(33, 1)),
    ("kicks-that-the-handler-never-sees", || storm(100, 0)),
    ("handler-thrice-for-each-kick", || storm(100, 3)),
    ("handler-twice", || Arc::new(HandlerTwice)),
    ("tcs-taken-twice", || Arc::new(TcsTwice)),
    ("poisoned-registers", || Arc::new(Poison)),
];

pub fn find(name: &str) -> Option<Arc<dyn Lie>> {
    let (_, make) = LIES.iter().find(|(known, _)| *known == name)?;
    Some(make())
}

pub fn names() -> impl Iterator<Item = String> {
    LIES.iter().map(|(name, _)| (*name).into())
}
