//! Kernel stacks: fixed slots in their own range, each with an unmapped guard page below.
//! Freed stacks are kept for reuse (mapping one costs an ocall and page faults).

use alloc::vec::Vec;
use spin::Mutex;

use occlum_abi::layout::{KERNEL_STACKS_BASE, KERNEL_STACKS_END, PAGE_SIZE};

use crate::host;

/// Bytes between the starts of two slots: a guard page, then the stack.
const SLOT: usize = 64 << 10;

/// No more kernel stacks: out of enclave memory or of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackError;

pub(crate) struct KernelStack {
    slot: usize,
}

struct Slots {
    /// Slots below this one were handed out at least once and are mapped.
    next: usize,
    free: Vec<usize>,
}

static SLOTS: Mutex<Slots> = Mutex::new(Slots { next: KERNEL_STACKS_BASE, free: Vec::new() });

impl KernelStack {
    pub(crate) fn new() -> Result<KernelStack, StackError> {
        let fresh = {
            let mut slots = SLOTS.lock();
            if let Some(slot) = slots.free.pop() {
                return Ok(KernelStack { slot });
            }
            let slot = slots.next;
            if slot + SLOT > KERNEL_STACKS_END {
                return Err(StackError);
            }
            slots.next += SLOT;
            slot
        };
        host::protect_kernel(fresh + PAGE_SIZE, SLOT - PAGE_SIZE, host::PROT_READ | host::PROT_WRITE)
            .map_err(|_| StackError)?;
        Ok(KernelStack { slot: fresh })
    }

    /// The address just above the stack, 16-byte aligned.
    pub(crate) fn top(&self) -> usize {
        self.slot + SLOT
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        SLOTS.lock().free.push(self.slot);
    }
}
