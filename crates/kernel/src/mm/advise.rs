//! Advice and questions: madvise(2), mincore(2), msync(2), mlock(2).

use alloc::vec::Vec;
use core::ops::Range;

use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::{host, usermem};

use super::commit;
use super::grant::no_host_memory;
use super::space::{AddressSpace, Space, page_range};
use super::vma::{ForkAdvice, Prot, Source, Vma};
use crate::error::{Errno, Error, Result, err};

/// What madvise(2) may ask that has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// MADV_NORMAL and all that only tunes.
    Tuning,
    /// MADV_DONTNEED
    DontNeed,
    /// MADV_FREE
    Free,
    /// MADV_WILLNEED: loads nothing that is not needed.
    WillNeed,
    /// MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_KEEPONFORK
    OnFork(ForkAdvice),
    /// MADV_POPULATE_READ, MADV_POPULATE_WRITE
    Populate(Prot),
    /// MADV_REMOVE
    Remove,
    /// MADV_COLD, MADV_PAGEOUT: nothing is ever swapped, so all they do is be refused.
    Evict,
    /// MADV_DONTNEED_LOCKED
    DontNeedLocked,
}

/// Up to this size zeroing is cheaper than a call to the host.
const ZERO_MAX: usize = 64 << 10;
/// From this size on memory really goes back, and counts as free.
const RELEASE_MIN: usize = 2 << 20;

impl AddressSpace {
    /// madvise(2). Holes are skipped, then ENOMEM.
    pub fn advise(&self, addr: usize, size: usize, advice: Advice) -> Result<()> {
        let range = page_range(addr, size, Errno::EINVAL)?;
        let mut space = self.lock_resident()?;
        let has_holes = !space.vmas.covers(range.clone());
        for part in space.vmas.parts(range) {
            space.advise_part(&part, advice)?;
        }
        if has_holes { err(Errno::ENOMEM, "hole in the range") } else { Ok(()) }
    }

    /// mincore(2): one byte for each page, 1 if present.
    pub fn mincore(&self, addr: usize, size: usize) -> Result<Vec<u8>> {
        let range = page_range(addr, size, Errno::ENOMEM)?;
        let space = self.inner.lock();
        if !space.vmas.covers(range.clone()) {
            return err(Errno::ENOMEM, "hole in the range");
        }
        let pages = (range.end - range.start) / PAGE_SIZE;
        let mut present = Vec::new();
        present.try_reserve_exact(pages).map_err(|_| Error::new(Errno::EAGAIN, "too many pages"))?;
        let is_present = |page: usize| u8::from(space.is_present(range.start + page * PAGE_SIZE));
        present.extend((0..pages).map(is_present));
        Ok(present)
    }

    /// msync(2): pages of shared files go back to their files. `drops_locked`: MS_INVALIDATE, which locked
    /// pages refuse.
    pub fn sync(&self, addr: usize, size: usize, drops_locked: bool) -> Result<()> {
        let range = page_range(addr, size, Errno::ENOMEM)?;
        let space = self.inner.lock();
        for part in space.vmas.parts(range.clone()) {
            if drops_locked && part.is_locked {
                return err(Errno::EBUSY, "locked pages");
            }
            if let Source::Shared { object, offset } = &part.source {
                object.write_back(*offset..*offset + part.size() as u64)?;
            }
        }
        if space.vmas.covers(range) { Ok(()) } else { err(Errno::ENOMEM, "hole in the range") }
    }

    /// mlock(2): all pages present now; nothing is ever swapped anyway.
    pub fn lock_pages(&self, addr: usize, size: usize) -> Result<()> {
        let range = whole_pages(addr, size)?;
        let mut space = self.lock_resident()?;
        space.set_locked(range, true)
    }

    /// munlock(2)
    pub fn unlock_pages(&self, addr: usize, size: usize) -> Result<()> {
        let range = whole_pages(addr, size)?;
        self.inner.lock().set_locked(range, false)
    }

    /// mlockall(2): what is mapped now, what will be mapped, or both.
    pub fn lock_all(&self, current: bool, future: bool) -> Result<()> {
        let mut space = self.inner.lock();
        if current && space.vmas.size() > space.limits.locked {
            return err(Errno::ENOMEM, "RLIMIT_MEMLOCK");
        }
        space.locks_future = future;
        drop(space);
        if current {
            self.set_all_locked(true);
        }
        Ok(())
    }

    /// munlockall(2)
    pub fn unlock_all(&self) {
        self.inner.lock().locks_future = false;
        self.set_all_locked(false);
    }

    fn set_all_locked(&self, is_locked: bool) {
        let mut space = self.inner.lock();
        let all: Vec<_> = space.vmas.iter().map(Vma::range).collect();
        for range in all {
            space.vmas.update(range, |vma| vma.is_locked = is_locked);
        }
    }
}

impl Space {
    fn advise_part(&mut self, part: &Vma, advice: Advice) -> Result<()> {
        let is_private_anonymous = part.is_anonymous() && !part.is_shared;
        match advice {
            Advice::Tuning | Advice::WillNeed => Ok(()),
            Advice::Free if is_private_anonymous => Ok(()),
            Advice::Free => err(Errno::EINVAL, "MADV_FREE is for private anonymous memory"),
            Advice::DontNeed if part.is_locked => err(Errno::EINVAL, "locked pages"),
            Advice::Evict if part.is_locked => err(Errno::EINVAL, "locked pages"),
            Advice::Evict => Ok(()),
            Advice::Remove => remove(part),
            Advice::DontNeedLocked => {
                self.advise_part(&Vma { is_locked: false, ..part.clone() }, Advice::DontNeed)
            }
            Advice::DontNeed if is_private_anonymous => self.forget_anonymous(part),
            Advice::DontNeed if matches!(part.source, Source::File { .. }) => self.retire(part.range()),
            Advice::DontNeed => Ok(()),
            Advice::OnFork(ForkAdvice::Wipe) if !is_private_anonymous => {
                err(Errno::EINVAL, "MADV_WIPEONFORK is for private anonymous memory")
            }
            Advice::OnFork(advice) => {
                self.vmas.update(part.range(), |vma| vma.on_fork = vma.on_fork.advised(advice));
                Ok(())
            }
            Advice::Populate(prot) => self.populate(part, prot),
        }
    }

    pub(super) fn forget_anonymous(&mut self, part: &Vma) -> Result<()> {
        for pages in self.granted.within(part.range()) {
            self.forget_pages(pages, part.prot)?;
        }
        Ok(())
    }

    /// Makes granted pages read as zeros the next time.
    fn forget_pages(&mut self, pages: Range<usize>, prot: Prot) -> Result<()> {
        self.unshare(pages.clone())?;
        let size = pages.end - pages.start;
        if size <= ZERO_MAX && prot.contains(Prot::WRITE) {
            return usermem::fill(pages.start, 0, size).map_err(|_| no_host_memory());
        }
        if size < RELEASE_MIN {
            return host::discard_user(pages.start, size, prot.host_bits()).map_err(|_| no_host_memory());
        }
        host::release_user(pages.start, size).map_err(|_| no_host_memory())?;
        self.granted.remove(pages);
        commit::release(size);
        Ok(())
    }

    fn populate(&mut self, part: &Vma, prot: Prot) -> Result<()> {
        if !part.prot.contains(prot) {
            return err(Errno::EFAULT, "no such access to the mapping");
        }
        if part.is_global() {
            return Ok(());
        }
        self.present_missing(part, part.start..part.file_end())
    }

    fn set_locked(&mut self, range: Range<usize>, is_locked: bool) -> Result<()> {
        if !self.vmas.covers(range.clone()) {
            return err(Errno::ENOMEM, "hole in the range");
        }
        if is_locked {
            self.check_lock_limit(&range)?;
            for part in self.vmas.parts(range.clone()).iter().filter(|part| !part.prot.is_none()) {
                self.populate(part, Prot::NONE)?;
            }
        }
        self.vmas.update(range, |vma| vma.is_locked = is_locked);
        Ok(())
    }

    fn check_lock_limit(&self, range: &Range<usize>) -> Result<()> {
        let is_new = |vma: &&Vma| !vma.is_locked;
        let parts = self.vmas.parts(range.clone());
        let more: usize = parts.iter().filter(is_new).map(Vma::size).sum();
        if more > self.limits.locked.saturating_sub(self.locked_size()) {
            return err(Errno::ENOMEM, "RLIMIT_MEMLOCK");
        }
        Ok(())
    }

    fn is_present(&self, page: usize) -> bool {
        match self.vmas.at(page).map(|vma| &vma.source) {
            Some(Source::Shared { object, .. }) => object.is_present(page),
            Some(Source::Vdso | Source::Vvar) => true,
            _ => self.granted.at(page).is_some(),
        }
    }
}

/// MADV_REMOVE: the file has zeros there.
fn remove(part: &Vma) -> Result<()> {
    let Source::Shared { object, offset } = &part.source else {
        return err(Errno::EINVAL, "no shared file behind");
    };
    if part.is_locked {
        return err(Errno::EINVAL, "locked pages");
    }
    if !part.prot.contains(Prot::WRITE) {
        return err(Errno::EACCES, "not writable");
    }
    object.zero(*offset..*offset + part.size() as u64)
}

/// The pages that hold `[addr, addr + size)`.
fn whole_pages(addr: usize, size: usize) -> Result<Range<usize>> {
    let start = addr & !(PAGE_SIZE - 1);
    let size = size.checked_add(addr - start);
    size.map_or_else(|| err(Errno::EINVAL, "range wraps around"), |size| page_range(start, size, Errno::ENOMEM))
}

