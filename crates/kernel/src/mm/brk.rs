//! The heap after the program: brk(2).

use occlum_abi::layout::{PAGE_SIZE, USER_END};

use super::request::MapRequest;
use super::space::{AddressSpace, Space, check_available};
use super::vma::{Prot, Source};
use crate::error::{Errno, Result, err};

/// Start and end of the heap; both 0 until the program is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brk {
    start: usize,
    end: usize,
}

impl AddressSpace {
    /// Where the heap begins: after the program's last segment.
    pub fn set_brk_start(&self, start: usize) {
        self.inner.lock().brk = Brk { start, end: start };
    }

    /// brk(2) as the kernel sees it: gives the end of the heap, the old one if it can't move there.
    pub fn set_brk(&self, end: usize) -> usize {
        let Ok(mut space) = self.lock_resident() else { return self.inner.lock().brk.end };
        // The caller compares what it asked for with what it gets; there is no errno to give.
        match space.move_brk(end) {
            Ok(()) => end,
            Err(_) => space.brk.end,
        }
    }
}

impl Space {
    fn move_brk(&mut self, end: usize) -> Result<()> {
        if end < self.brk.start || end > USER_END || self.brk.start == 0 {
            return err(Errno::ENOMEM, "not where the heap can end");
        }
        let old = self.brk.end.next_multiple_of(PAGE_SIZE);
        let new = end.next_multiple_of(PAGE_SIZE);
        if new > old {
            self.extend_heap(old, new)?;
        } else if new < old {
            self.unmap(new..old)?;
        }
        self.brk.end = end;
        Ok(())
    }

    fn extend_heap(&mut self, old: usize, new: usize) -> Result<()> {
        let size = new - old;
        if new - self.brk.start > self.limits.data {
            return err(Errno::ENOMEM, "RLIMIT_DATA");
        }
        if size > self.limits.address_space.saturating_sub(self.vmas.size()) {
            return err(Errno::ENOMEM, "RLIMIT_AS");
        }
        check_available(size)?;
        if !self.vmas.is_free(old..new) {
            return err(Errno::ENOMEM, "the heap meets a mapping");
        }
        self.territory.claim(old..new)?;
        let request = MapRequest::anonymous(size, Prot::READ_WRITE);
        self.install(&request, old, Source::Heap)
    }
}
