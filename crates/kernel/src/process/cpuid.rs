//! The CPUID instruction of programs.
//!
//! An enclave can't execute it, and on virtual machines it takes microseconds; a C library asks some
//! forty times before `main`. So patched programs (`mm/stubs.rs`) ask here, and here the host is asked once for
//! each leaf. The answers are the host's word, as they are on hardware with any runtime: the kernel
//! itself never acts on them.

use alloc::collections::BTreeMap;

use occlum_enclave::host;
use occlum_enclave::user::Regs;

use crate::sched::SpinLock;

/// Answers by leaf and subleaf. A leaf lock.
static ANSWERS: SpinLock<BTreeMap<(u32, u32), [u32; 4]>> = SpinLock::new(BTreeMap::new());
/// Programs choose the operands: more than any CPU has leaves are not kept.
const ANSWERS_MAX: usize = 512;
/// Leaves that tell which processor this is, where every one answers for itself.
const TOPOLOGY: [u32; 3] = [0xb, 0x1f, 0x8000_001e];

/// Does what the instruction does: operands in EAX and ECX, the answer in EAX, EBX, ECX, EDX.
pub(super) fn answer(regs: &mut Regs) {
    // As the instruction, which looks at the lower halves only.
    let [eax, ebx, ecx, edx] = lookup(regs.rax as u32, regs.rcx as u32);
    regs.rax = u64::from(eax);
    regs.rbx = u64::from(ebx);
    regs.rcx = u64::from(ecx);
    regs.rdx = u64::from(edx);
}

fn lookup(leaf: u32, subleaf: u32) -> [u32; 4] {
    if let Some(known) = ANSWERS.lock().get(&(leaf, subleaf)) {
        return *known;
    }
    let told = host::cpuid(leaf, subleaf);
    let mut answers = ANSWERS.lock();
    if !TOPOLOGY.contains(&leaf) && answers.len() < ANSWERS_MAX {
        answers.insert((leaf, subleaf), told);
    }
    told
}
