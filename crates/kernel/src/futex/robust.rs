//! Robust futexes: locks that a thread held when it ended (set_robust_list(2), and the kernel
//! document "robust-futex-ABI").
//!
//! ```text
//! head:   +0 first entry   +8 offset from entry to futex word   +16 entry being locked or unlocked
//! entry:  +0 next entry; bit 0 of a pointer marks a pi futex
//! ```

use core::sync::atomic::Ordering;

use super::{pi, wake_at};
use crate::error::Result;
use crate::process::ThreadState;
use crate::user::{self, UserAddr};

/// `sizeof(struct robust_list_head)`, the only length set_robust_list takes.
pub const HEAD_SIZE: usize = 24;

/// Longest list walked: it may be circular.
const LIST_MAX: usize = 2048;

pub const FUTEX_WAITERS: u32 = 0x8000_0000;
pub const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
pub const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

/// Marks all robust futexes that the thread holds as orphaned. Called by the thread at its end.
pub(crate) fn release_all(thread: &ThreadState) {
    let head = thread.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        // Where the list leads into the void it ends.
        let _ = walk(UserAddr(head), thread.tid());
    }
}

fn walk(head: UserAddr, tid: u32) -> Result<()> {
    let offset: u64 = user::read(head.offset(8))?;
    let pending: u64 = user::read(head.offset(16))?;
    let mut entry: u64 = user::read(head)?;
    for _ in 0..LIST_MAX {
        if entry & !1 == head.0 as u64 {
            break;
        }
        // Read before the futex is given away: its new owner may take it off the list.
        let next = user::read(UserAddr((entry & !1) as usize));
        if entry & !1 != pending & !1 {
            orphan(entry, offset, tid, false)?;
        }
        entry = next?;
    }
    if pending & !1 != 0 {
        orphan(pending, offset, tid, true)?;
    }
    Ok(())
}

fn orphan(entry: u64, offset: u64, tid: u32, is_pending: bool) -> Result<()> {
    let is_pi = entry & 1 != 0;
    let addr = UserAddr((entry & !1).wrapping_add(offset) as usize);
    loop {
        let word = user::load_u32(addr)?;
        if is_pending && !is_pi && word == 0 {
            // It died between unlocking and waking.
            wake_at(addr, 1);
            return Ok(());
        }
        if word & FUTEX_TID_MASK != tid {
            return Ok(());
        }
        if is_pi && word & FUTEX_WAITERS != 0 {
            return pi::hand_over(addr, word, FUTEX_OWNER_DIED);
        }
        let orphaned = word & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        if user::compare_exchange_u32(addr, word, orphaned)? == word {
            if word & FUTEX_WAITERS != 0 {
                wake_at(addr, 1);
            }
            return Ok(());
        }
    }
}
