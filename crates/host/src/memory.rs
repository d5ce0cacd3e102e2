//! Host memory in which the enclave stands, and host memory shared with it.
//!
//! [`Elrange`] owns the enclave's linear range: reserved as a whole and inaccessible, then made
//! accessible page by page. Its contents belong to the enclave; the host only writes pages while it
//! builds them. [`Mapping`] is any other memory: buffers, files, signal stacks.

use occlum_abi::layout;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};
use std::ffi::c_void;
use std::ops::Range;
use std::ptr;

const HUGE_PAGE: usize = 2 << 20;

/// Page permissions, with the bits of mprotect(2).
pub type Protection = MprotectFlags;

/// The enclave's linear range. One per process: its address is fixed.
pub struct Elrange(());

impl Elrange {
    /// Reserves the range; nothing is accessible. Fails with EEXIST if something stands there.
    pub fn reserve() -> Result<Elrange, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        let size = layout::ELRANGE_END - layout::USER_BASE;
        // SAFETY: NOREPLACE: no mapping that exists is touched.
        let at = unsafe {
            mm::mmap_anonymous(address(layout::USER_BASE), size, ProtFlags::empty(), flags)?
        };
        if at != address(layout::USER_BASE) {
            // Linux before 4.17 takes the address for a hint.
            // SAFETY: just mapped, used by nobody.
            unsafe { mm::munmap(at, size)? };
            return Err(Errno::EXIST);
        }
        Ok(Elrange(()))
    }

    /// Sets the permissions of pages. Content stays; a page never touched reads as zeros.
    pub fn protect(&self, pages: Range<usize>, protection: Protection) -> Result<(), Errno> {
        let size = check(&pages)?;
        // SAFETY: the range belongs to the enclave; no Rust object lives there.
        unsafe { mm::mprotect(address(pages.start), size, protection) }
    }

    /// Lets the host's system use large pages where they fit.
    pub fn prefer_huge_pages(&self, pages: Range<usize>) -> Result<(), Errno> {
        let size = check(&pages)?;
        if pages.end & !(HUGE_PAGE - 1) <= pages.start.next_multiple_of(HUGE_PAGE) {
            return Ok(());
        }
        // SAFETY: changes no content.
        unsafe { mm::madvise(address(pages.start), size, Advice::LinuxHugepage) }
    }

    /// Brings writable pages into memory at once: cheaper than a fault for each.
    pub fn populate(&self, pages: Range<usize>) -> Result<(), Errno> {
        let size = check(&pages)?;
        // SAFETY: changes no content.
        unsafe { mm::madvise(address(pages.start), size, Advice::LinuxPopulateWrite) }
    }

    /// Drops content and memory; the permissions stay.
    pub fn discard(&self, pages: Range<usize>) -> Result<(), Errno> {
        let size = check(&pages)?;
        // SAFETY: as in `protect`.
        unsafe { mm::madvise(address(pages.start), size, Advice::LinuxDontNeed) }
    }

    /// Drops content and memory; the pages become inaccessible. A new mapping, because the kernel
    /// outside can merge it with its neighbours, which one that had pages it often can't.
    pub fn release(&self, pages: Range<usize>) -> Result<(), Errno> {
        let size = check(&pages)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: as in `protect`.
        unsafe { mm::mmap_anonymous(address(pages.start), size, ProtFlags::empty(), flags)? };
        Ok(())
    }

    /// Replaces pages by new ones with the content of enclave memory at `source`. They are made
    /// elsewhere and moved here whole, so that no thread sees them half-made.
    pub fn install(
        &self,
        pages: Range<usize>,
        protection: Protection,
        source: usize,
    ) -> Result<(), Errno> {
        let size = check(&pages)?;
        let end = source.checked_add(size).ok_or(Errno::INVAL)?;
        if source < layout::KERNEL_BASE || end > layout::ELRANGE_END {
            return Err(Errno::INVAL);
        }
        // As the rest of the range, or it could not be merged with its neighbours.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::POPULATE;
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping. The source is memory of the kernel, which is the one that asks and
        // says that it can be read; if it lies, it stops itself. The target belongs to the enclave.
        unsafe {
            let made = mm::mmap_anonymous(ptr::null_mut(), size, writable, flags)?;
            ptr::copy_nonoverlapping(address(source).cast::<u8>(), made.cast::<u8>(), size);
            let moved = mm::mprotect(made, size, protection).and_then(|()| {
                mm::mremap_fixed(
                    made,
                    size,
                    size,
                    mm::MremapFlags::MAYMOVE,
                    address(pages.start),
                )
            });
            if let Err(error) = moved {
                mm::munmap(made, size)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Copies into pages of an enclave that is being built.
    ///
    /// # Safety
    /// The pages are writable and nobody else uses them.
    pub unsafe fn write(&self, at: usize, data: &[u8]) {
        assert!(at >= layout::USER_BASE && at + data.len() <= layout::ELRANGE_END);
        // SAFETY: inside the range, and the caller vouches for the rest.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), address(at).cast(), data.len()) }
    }
}

impl Drop for Elrange {
    fn drop(&mut self) {
        let size = layout::ELRANGE_END - layout::USER_BASE;
        // SAFETY: the owner is gone, and with it everyone who could enter. Failure leaks a reservation.
        let _ = unsafe { mm::munmap(address(layout::USER_BASE), size) };
    }
}

fn check(pages: &Range<usize>) -> Result<usize, Errno> {
    let is_aligned = pages.start.is_multiple_of(layout::PAGE_SIZE)
        && pages.end.is_multiple_of(layout::PAGE_SIZE);
    let is_inside = pages.start >= layout::USER_BASE && pages.end <= layout::ELRANGE_END;
    if !is_aligned || !is_inside || pages.is_empty() {
        return Err(Errno::INVAL);
    }
    Ok(pages.len())
}

fn address(at: usize) -> *mut c_void {
    ptr::without_provenance_mut(at)
}

/// Memory outside the enclave, unmapped when dropped.
pub struct Mapping {
    start: *mut u8,
    size: usize,
}

// SAFETY: plain memory; access goes through raw pointers whose users have their own rules.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub fn anonymous(size: usize) -> Result<Mapping, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the system's choice.
        let start =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), size, access, MapFlags::PRIVATE)? };
        Ok(Mapping {
            start: start.cast(),
            size,
        })
    }

    /// A file, read-only. Its content may change at any time.
    pub fn file(file: impl AsFd, size: usize) -> Result<Mapping, Errno> {
        // SAFETY: a new mapping; only raw pointers into it are handed out.
        let start = unsafe {
            mm::mmap(
                ptr::null_mut(),
                size,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                file,
                0,
            )?
        };
        Ok(Mapping {
            start: start.cast(),
            size,
        })
    }

    /// Executable code at a fixed place outside the enclave.
    pub fn code_at(at: usize, code: &[u8]) -> Result<Mapping, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let size = code.len().next_multiple_of(layout::PAGE_SIZE);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: NOREPLACE; the new pages are ours, large enough, and not yet executable.
        unsafe {
            let start: *mut u8 = mm::mmap_anonymous(address(at), size, access, flags)?.cast();
            ptr::copy_nonoverlapping(code.as_ptr(), start, code.len());
            mm::mprotect(start.cast(), size, Protection::READ | Protection::EXEC)?;
            Ok(Mapping { start, size })
        }
    }

    pub fn address(&self) -> usize {
        self.start.addr()
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn pointer(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.size);
        self.start.wrapping_add(offset)
    }

    /// Makes a part inaccessible that nobody uses.
    pub fn guard(&self, part: Range<usize>) -> Result<(), Errno> {
        assert!(part.end <= self.size);
        // SAFETY: inside the mapping.
        unsafe {
            mm::mprotect(
                self.pointer(part.start).cast(),
                part.len(),
                Protection::empty(),
            )
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: owned. Failure leaks it.
        let _ = unsafe { mm::munmap(self.start.cast(), self.size) };
    }
}
