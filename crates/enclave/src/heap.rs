//! The kernel heap: one allocator for all kernel objects, growing through its own range by ocalls.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use occlum_abi::layout::{KERNEL_HEAP_BASE, KERNEL_HEAP_END};
use talc::base::{Talc, binning::{Binning, DefaultBinning}};
use talc::source::Source;
use talc::sync::TalcLock;

use crate::host;

/// The heap grows by at least this much: one large page.
const GROWTH: usize = 2 << 20;

#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, Growing, DefaultBinning> =
    TalcLock::new(Growing { end: KERNEL_HEAP_BASE, top: 0 });

/// Bytes the heap may take from the enclave; set from the boot configuration.
static LIMIT: AtomicUsize = AtomicUsize::new(64 << 20);
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Whether the host ever gave less than the limit.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether a failed allocation may be the host's doing.
pub(crate) fn is_refused() -> bool {
    IS_REFUSED.load(Ordering::Relaxed)
}

/// Whether an address is in memory that the host has granted.
pub(crate) fn is_granted(address: usize) -> bool {
    (KERNEL_HEAP_BASE..KERNEL_HEAP_BASE + SIZE.load(Ordering::Relaxed)).contains(&address)
}

/// Bytes of the kernel heap.
#[derive(Clone, Copy, Debug)]
pub struct HeapUsage {
    /// Taken from the enclave so far.
    pub size: usize,
    /// What it may grow to (`resource_limits.kernel_space_heap_size`).
    pub limit: usize,
}

impl HeapUsage {
    /// The usage now.
    pub fn now() -> HeapUsage {
        HeapUsage { size: SIZE.load(Ordering::Relaxed), limit: LIMIT.load(Ordering::Relaxed) }
    }
}

pub(crate) fn set_limit(bytes: usize) {
    LIMIT.store(bytes.min(KERNEL_HEAP_END - KERNEL_HEAP_BASE), Ordering::Relaxed);
}

#[derive(Debug)]
struct Growing {
    /// End of what was granted.
    end: usize,
    /// End of the heap as the allocator knows it; 0 before the first claim.
    top: usize,
}

// SAFETY: `acquire` uses only the allocator it is given, and ocalls, which never allocate.
unsafe impl Source for Growing {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let wanted = (layout.size() + layout.align() + 4096).next_multiple_of(GROWTH);
        let start = talc.source.end;
        let end = start.checked_add(wanted).ok_or(())?;
        if end - KERNEL_HEAP_BASE > LIMIT.load(Ordering::Relaxed) {
            return Err(());
        }
        if host::protect_kernel(start, wanted, host::PROT_READ | host::PROT_WRITE).is_err() {
            IS_REFUSED.store(true, Ordering::Relaxed);
            return Err(());
        }
        talc.source.end = end;
        SIZE.store(end - KERNEL_HEAP_BASE, Ordering::Relaxed);
        // SAFETY: the new range directly follows the old end and belongs to the heap alone.
        let top = unsafe {
            match NonNull::new(talc.source.top as *mut u8) {
                Some(top) => Some(talc.extend(top, end as *mut u8)),
                None => talc.claim(start as *mut u8, wanted),
            }
        };
        talc.source.top = top.ok_or(())?.as_ptr() as usize;
        Ok(())
    }
}
