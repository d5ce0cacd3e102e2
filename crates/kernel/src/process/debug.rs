//! What a debugger outside finds its way by: where each thread's registers and kernel stack are.
//!
//! Kept only while the host debugs a debuggable enclave. The debugger reads the table from memory while the
//! enclave stands still (`python/occlum/gdb_extension.py`), so its layout is fixed:
//!
//! ```text
//! slot: state u64 (0 free)   tid u64   registers u64 (address of `Regs`)   stack u64 (an address in it)
//! ```

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::outside;

const SLOTS: usize = 1024;
const FREE: usize = 0;
const TAKEN: usize = 1;

#[repr(C)]
struct Slot {
    state: AtomicUsize,
    tid: AtomicUsize,
    registers: AtomicUsize,
    stack: AtomicUsize,
}

/// Threads beyond the number of slots are not seen.
static DEBUGGED_THREADS: [Slot; SLOTS] = [const {
    Slot {
        state: AtomicUsize::new(FREE),
        tid: AtomicUsize::new(0),
        registers: AtomicUsize::new(0),
        stack: AtomicUsize::new(0),
    }
}; SLOTS];

/// A thread in the table, until dropped.
pub(super) struct Seen(Option<&'static Slot>);

/// Shows a thread to the debugger, if there is one.
pub(super) fn show(tid: u32, registers: usize, stack: usize) -> Seen {
    if !outside::is_debugged() {
        return Seen(None);
    }
    let take = |slot: &&Slot| slot.state.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let slot = DEBUGGED_THREADS.iter().find(take);
    if let Some(slot) = slot {
        slot.tid.store(tid as usize, Ordering::Release);
        slot.registers.store(registers, Ordering::Release);
        slot.stack.store(stack, Ordering::Release);
    }
    Seen(slot)
}

impl Drop for Seen {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            slot.state.store(FREE, Ordering::Release);
        }
    }
}
