//! Growing, shrinking and moving mappings: mremap(2).

use core::ops::Range;

use occlum_abi::layout::{PAGE_SIZE, USER_END};
use occlum_enclave::usermem;

use super::grant::{no_host_memory, set_host_prot};
use super::request::MapRequest;
use super::space::{AddressSpace, Space, check_available, is_mappable, page_range};
use super::territory::Placement;
use super::vma::{Prot, Source, Vma};
use crate::error::{Errno, Result, err};

/// May the mapping move, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    No,
    /// MREMAP_MAYMOVE
    Anywhere,
    /// MREMAP_FIXED
    To(usize),
}

/// What becomes of the old range after a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Nothing,
    /// MREMAP_DONTUNMAP: the mapping, but zeros.
    Zeros,
}

/// Moved mappings from this size on get room to grow in place the next time.
const ROOMY_MIN: usize = 1 << 20;
const ROOM_FACTOR: usize = 4;

impl AddressSpace {
    /// mremap(2). Gives the new address.
    pub fn remap(&self, addr: usize, old_size: usize, new_size: usize, to: Move, leave: Leave) -> Result<usize> {
        let old = page_range(addr, old_size, Errno::EINVAL)?;
        let new_size = new_size.checked_next_multiple_of(PAGE_SIZE).filter(|&size| size <= USER_END);
        match new_size {
            None => err(Errno::EINVAL, "new size too large"),
            Some(0) => err(Errno::EINVAL, "new size is 0"),
            Some(new_size) => self.lock_resident()?.remap(old, new_size, to, leave),
        }
    }
}

impl Space {
    fn remap(&mut self, old: Range<usize>, new_size: usize, to: Move, leave: Leave) -> Result<usize> {
        let vma = self.remappable(&old)?;
        let old_size = old.end - old.start;
        if leave == Leave::Zeros {
            return self.move_leaving_zeros(&vma, old, new_size, to);
        }
        if vma.is_global() && new_size > old_size && to != Move::No {
            return self.grow_shared(&vma, old, new_size, to);
        }
        if let Move::To(target) = to {
            if vma.is_global() {
                return err(Errno::EINVAL, "shared memory stays where it is");
            }
            self.check_target(&old, target, new_size)?;
        } else if new_size <= old_size {
            self.unmap(old.start + new_size..old.end)?;
            return Ok(old.start);
        } else if self.grow_in_place(&vma, old.end, new_size - old_size)? {
            return Ok(old.start);
        } else if to == Move::No {
            return err(Errno::ENOMEM, "no room to grow in place");
        }
        self.move_mapping(&vma, old, new_size, to)
    }

    /// The mapping that holds the whole old range.
    fn remappable(&self, old: &Range<usize>) -> Result<Vma> {
        let Some(vma) = self.vmas.at(old.start) else { return err(Errno::EFAULT, "nothing mapped there") };
        if old.is_empty() {
            return err(Errno::EINVAL, "old size is 0");
        }
        if old.end > vma.end {
            return err(Errno::EFAULT, "old range is more than one mapping");
        }
        let is_text = matches!(vma.source, Source::File { .. }) && vma.prot.contains(Prot::EXEC);
        let is_kernels = matches!(vma.source, Source::Stubs | Source::Vdso | Source::Vvar);
        if is_text || is_kernels {
            return err(Errno::EINVAL, "program text stays where it is");
        }
        Ok(vma.clone())
    }

    /// Shared memory stands at one place: it grows there or nowhere.
    fn grow_shared(&mut self, vma: &Vma, old: Range<usize>, new_size: usize, to: Move) -> Result<usize> {
        let Source::Shared { object, offset } = &vma.source else {
            return err(Errno::EINVAL, "can't grow");
        };
        let by = new_size - (old.end - old.start);
        self.check_growth(vma, by)?;
        let first = offset + (old.start - vma.start) as u64;
        object.address_of(first, new_size)?;
        let is_last = old.end == vma.end && self.vmas.is_free(old.end..old.end + by);
        if !is_last || matches!(to, Move::To(_)) {
            return err(Errno::ENOMEM, "shared memory does not move");
        }
        self.install_grown(extension(vma, old.end, by))?;
        Ok(old.start)
    }

    fn move_leaving_zeros(&mut self, vma: &Vma, old: Range<usize>, new_size: usize, to: Move) -> Result<usize> {
        if new_size != old.end - old.start || to == Move::No || !vma.is_anonymous() || vma.is_shared {
            return err(Errno::EINVAL, "MREMAP_DONTUNMAP is for moving private memory");
        }
        self.check_growth(vma, new_size)?;
        let start = match to {
            Move::To(target) => {
                self.check_target(&old, target, new_size)?;
                self.take_target(target..target + new_size)?;
                target
            }
            _ => self.place_roomy(new_size)?,
        };
        self.vmas.insert(Vma { start, end: start + new_size, ..vma.clone() });
        if let Err(error) = self.copy_pages(old.clone(), start, vma) {
            self.unmap(start..start + new_size)?;
            return Err(error);
        }
        self.forget_anonymous(&Vma { start: old.start, end: old.end, ..vma.clone() })?;
        Ok(start)
    }

    fn check_target(&self, old: &Range<usize>, target: usize, new_size: usize) -> Result<()> {
        let fits = target.is_multiple_of(PAGE_SIZE) && new_size <= USER_END && target <= USER_END - new_size;
        if !fits || (target < old.end && old.start < target + new_size) {
            return err(Errno::EINVAL, "bad target range");
        }
        if is_mappable(target) { Ok(()) } else { err(Errno::EPERM, "below mmap_min_addr") }
    }

    fn grow_in_place(&mut self, vma: &Vma, old_end: usize, by: usize) -> Result<bool> {
        self.check_growth(vma, by)?;
        let Some(new_end) = old_end.checked_add(by).filter(|&end| end <= USER_END) else { return Ok(false) };
        let is_last = old_end == vma.end && self.vmas.is_free(old_end..new_end);
        if !is_last || self.territory.claim(old_end..new_end).is_err() {
            return Ok(false);
        }
        self.install_grown(extension(vma, old_end, by))?;
        Ok(true)
    }

    /// Makes what a mapping grows by, so that it is one mapping with the rest.
    fn install_grown(&mut self, grown: Vma) -> Result<()> {
        let (range, on_fork, is_pristine) = (grown.range(), grown.on_fork, grown.is_pristine);
        self.install(&like(&grown), range.start, grown.source)?;
        self.vmas.update(range, |vma| {
            vma.on_fork = on_fork;
            vma.is_pristine = is_pristine;
        });
        Ok(())
    }

    fn check_growth(&self, vma: &Vma, by: usize) -> Result<()> {
        if by > self.limits.address_space.saturating_sub(self.vmas.size()) {
            return err(Errno::ENOMEM, "RLIMIT_AS");
        }
        self.check_data_limit(vma.prot, vma.is_shared, by)?;
        if vma.is_locked && by > self.limits.locked.saturating_sub(self.locked_size()) {
            return err(Errno::EAGAIN, "RLIMIT_MEMLOCK");
        }
        let is_data = vma.prot.contains(Prot::WRITE) && vma.is_anonymous();
        if is_data { check_available(by) } else { Ok(()) }
    }

    fn move_mapping(&mut self, vma: &Vma, old: Range<usize>, new_size: usize, to: Move) -> Result<usize> {
        let kept = new_size.min(old.end - old.start);
        let start = match to {
            Move::To(target) => {
                self.unmap(old.start + kept..old.end)?;
                self.take_target(target..target + new_size)?;
                target
            }
            _ => self.place_roomy(new_size)?,
        };
        let kept_range = old.start..old.start + kept;
        for part in self.vmas.parts(kept_range.clone()) {
            let (first, end) = (part.start - old.start + start, part.end - old.start + start);
            self.vmas.insert(Vma { start: first, end, ..part });
        }
        if let Err(error) = self.copy_pages(kept_range, start, vma) {
            self.unmap(start..start + kept)?;
            return Err(error);
        }
        self.unmap(old.start..old.start + kept)?;
        if new_size > kept {
            let grown = extension(vma, old.end, new_size - kept);
            self.install_grown(Vma { start: start + kept, end: start + new_size, ..grown })?;
        }
        Ok(start)
    }

    fn take_target(&mut self, target: Range<usize>) -> Result<()> {
        if !self.territory.can_claim(target.clone()) {
            return err(Errno::ENOMEM, "addresses belong to another process");
        }
        self.unmap(target.clone())?;
        self.territory.claim(target)
    }

    /// Takes addresses with free ones after them: what grew once grows again.
    fn place_roomy(&mut self, size: usize) -> Result<usize> {
        if size < ROOMY_MIN {
            return self.territory.place(size, PAGE_SIZE, Placement::High);
        }
        let roomy = size.saturating_mul(ROOM_FACTOR).min(USER_END / 2);
        let start = self.territory.place(roomy.max(size), 2 << 20, Placement::High)?;
        self.territory.give_back(start + size..start + roomy.max(size));
        Ok(start)
    }

    /// Copies the granted pages of a range to the same places of a range that has none.
    fn copy_pages(&mut self, from: Range<usize>, to: usize, vma: &Vma) -> Result<()> {
        let prot = vma.prot;
        let whole = to..to + (from.end - from.start);
        for part in self.granted.within(from.clone()) {
            let target = part.start - from.start + to..part.end - from.start + to;
            if !prot.contains(Prot::READ) {
                set_host_prot(&part, Prot::READ)?;
            }
            self.grant_zeros(target.clone(), Prot::READ_WRITE)?;
            usermem::copy(target.start, part.start, part.end - part.start)
                .map_err(|_| no_host_memory())?;
            if prot != Prot::READ_WRITE {
                set_host_prot(&target, prot)?;
            }
        }
        // Pages of files are loaded when they are touched, over whatever is warm there.
        if vma.is_anonymous() { self.settle_warm(whole, prot) } else { Ok(()) }
    }
}

/// What follows `vma` when it grows at `end`.
fn extension(vma: &Vma, end: usize, by: usize) -> Vma {
    let mut grown = Vma { start: end, end: end + by, ..vma.clone() };
    if let Source::File { offset, .. } | Source::Shared { offset, .. } = &mut grown.source {
        *offset += (end - vma.start) as u64;
    }
    grown
}

/// The request that makes a mapping like `vma`.
fn like(vma: &Vma) -> MapRequest {
    MapRequest {
        size: vma.size(),
        prot: vma.prot,
        sharing: if vma.is_shared { super::Sharing::Shared } else { super::Sharing::Private },
        grows_down: vma.grows_down,
        is_stack: vma.is_stack,
        is_locked: vma.is_locked,
        is_write_denied: vma.is_write_denied,
        ..MapRequest::default()
    }
}
