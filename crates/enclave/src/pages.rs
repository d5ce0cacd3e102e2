//! Page-aligned kernel memory outside the heap, for file data. Blocks of 2^n pages; freed blocks
//! are kept for reuse in per-size lists (their pages stay warm).

use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::vec::Vec;
use occlum_abi::layout::{KERNEL_PAGES_BASE, KERNEL_PAGES_END, PAGE_SIZE};
use spin::Mutex;

use crate::host;

/// Largest block: 4 MiB.
pub const MAX_ORDER: usize = 10;
/// The range grows by this much at a time.
const GROWTH: usize = 4 << 20;

struct Pool {
    /// Never handed out: `fresh..granted` is mapped, from `granted` on it is not.
    fresh: usize,
    granted: usize,
    free: [Vec<usize>; MAX_ORDER + 1],
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    fresh: KERNEL_PAGES_BASE,
    granted: KERNEL_PAGES_BASE,
    free: [const { Vec::new() }; MAX_ORDER + 1],
});
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// No memory for pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesError;

/// An owned, page-aligned block of 2^order pages; a byte slice.
#[derive(Debug)]
pub struct Pages {
    addr: usize,
    order: u8,
}

impl Pages {
    /// A block of 2^`order` pages with unspecified content.
    pub fn new(order: usize) -> Result<Pages, PagesError> {
        if order > MAX_ORDER {
            return Err(PagesError);
        }
        let addr = POOL.lock().take(order)?;
        IN_USE.fetch_add(PAGE_SIZE << order, Ordering::Relaxed);
        Ok(Pages { addr, order: order as u8 })
    }

    /// A zeroed block of 2^`order` pages.
    pub fn zeroed(order: usize) -> Result<Pages, PagesError> {
        let mut pages = Pages::new(order)?;
        pages.fill(0);
        Ok(pages)
    }

    /// Bytes in all blocks alive.
    pub fn in_use() -> usize {
        IN_USE.load(Ordering::Relaxed)
    }
}

impl Pool {
    fn take(&mut self, order: usize) -> Result<usize, PagesError> {
        if let Some(addr) = self.free[order].pop() {
            return Ok(addr);
        }
        if let Some(larger) = (order + 1..=MAX_ORDER).find(|&o| !self.free[o].is_empty()) {
            let addr = self.free[larger].pop().ok_or(PagesError)?;
            for half in (order..larger).rev() {
                self.free[half].push(addr + (PAGE_SIZE << half));
            }
            return Ok(addr);
        }
        self.take_fresh(PAGE_SIZE << order)
    }

    fn take_fresh(&mut self, size: usize) -> Result<usize, PagesError> {
        let addr = self.fresh.next_multiple_of(size);
        let end = addr + size;
        if end > self.granted {
            let grow = (end - self.granted).next_multiple_of(GROWTH);
            if self.granted + grow > KERNEL_PAGES_END {
                return Err(PagesError);
            }
            host::protect_kernel(self.granted, grow, host::PROT_READ | host::PROT_WRITE)
                .map_err(|_| PagesError)?;
            self.granted += grow;
        }
        self.give_back_gap(self.fresh, addr);
        self.fresh = end;
        Ok(addr)
    }

    /// Alignment left `from..to` unused: hand it to the lists, page by page.
    fn give_back_gap(&mut self, from: usize, to: usize) {
        for page in (from..to).step_by(PAGE_SIZE) {
            self.free[0].push(page);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        IN_USE.fetch_sub(PAGE_SIZE << self.order, Ordering::Relaxed);
        POOL.lock().free[usize::from(self.order)].push(self.addr);
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is mapped, initialised (zeros from the enclave or older content) and owned.
        unsafe { core::slice::from_raw_parts(self.addr as *const u8, PAGE_SIZE << self.order) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes it exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.addr as *mut u8, PAGE_SIZE << self.order) }
    }
}
