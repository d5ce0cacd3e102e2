//! Granting pages to mappings and taking them back: the only code that changes host permissions.

use core::ops::Range;

use alloc::sync::Arc;
use alloc::vec::Vec;
use occlum_abi::Errno;
use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::pages::Pages;
use occlum_enclave::{host, usermem};

use super::commit;
use super::file::MappableFile;
use super::fold;
use super::layout::Layout;
use super::space::Space;
use super::territory;
use super::vma::{Prot, Source, Vma};
use super::warm::Content;
use crate::error::{Error, Result};

/// Warm ranges larger than this go back to the host: zeroing them would cost more than it saves.
const WARM_PART_MAX: usize = 16 << 20;
/// Warm pages under a new lazily granted mapping: up to this much is zeroed and granted at once.
const SETTLE_MAX: usize = 1 << 20;
/// File data moves in pieces of 2^4 pages: one cluster of a lazily loaded file.
const BOUNCE_ORDER: usize = 4;
pub(super) const BOUNCE_SIZE: usize = PAGE_SIZE << BOUNCE_ORDER;

impl Space {
    /// Makes pages of zeros accessible, where none are granted yet.
    pub fn grant_zeros(&mut self, range: Range<usize>, prot: Prot) -> Result<()> {
        self.charge(&range)?;
        if self.overlay.group.is_some() && self.is_shown_to_others() {
            // What other members left here; zeroing it could lose another thread's write.
            self.territory.warm.release(range.clone());
        }
        let warm = self.territory.warm.within(range.clone());
        let first = if warm.is_empty() { prot } else { Prot::READ_WRITE };
        let done = self
            .open(&range, first)
            .and_then(|()| warm.into_iter().try_for_each(zero))
            .and_then(|()| if first == prot { Ok(()) } else { set_host_prot(&range, prot) });
        self.settle(range, done)
    }

    /// Makes pages with a file's data accessible, where none are granted yet.
    pub fn grant_file(&mut self, vma: &Vma, range: Range<usize>) -> Result<()> {
        let Source::File { file, offset } = &vma.source else { return Ok(()) };
        let offset = offset + (range.start - vma.start) as u64;
        self.charge(&range)?;
        let data = FileData { file: &**file, offset, patch: &|at, piece| self.patch(vma, at, piece) };
        let done = if self.is_shown_to_others() {
            data.install(range.clone(), vma.prot)
        } else {
            self.open_for_data(&range).and_then(|()| data.load(range.clone(), vma.prot))
        };
        self.settle(range, done)
    }

    /// Sets the permissions of pages that are about to be granted, unless they stand with them.
    pub fn open(&self, range: &Range<usize>, prot: Prot) -> Result<()> {
        if self.territory.warm.stand_as(range, prot) { Ok(()) } else { set_host_prot(range, prot) }
    }

    /// Makes pages writable that will all be written now.
    fn open_for_data(&self, range: &Range<usize>) -> Result<()> {
        match self.territory.warm.covers(range.clone()) {
            true => self.open(range, Prot::READ_WRITE),
            false => populate(range),
        }
    }

    /// Makes inaccessible what the last space left accessible inside `range`, but for what is granted by
    /// now, and known content that is to be kept.
    pub fn close_standing(
        &mut self,
        range: &Range<usize>,
        keep: impl Fn(&Range<usize>, &Content) -> bool,
    ) -> Result<()> {
        let mut warm = core::mem::take(&mut self.territory.warm);
        let (granted, owned) = (&self.granted, self.territory.owned());
        let closed = warm.close(range, keep, |gap| !granted.within(gap.clone()).is_empty() || !owned.covers(gap));
        self.territory.warm = warm;
        closed
    }

    /// Warm pages under anonymous memory that is granted lazily. They must not be zeroed when another
    /// thread may already see them, so it happens when the memory becomes accessible, or they go.
    /// Under a reservation they stay.
    pub fn settle_warm(&mut self, range: Range<usize>, prot: Prot) -> Result<()> {
        let warm = self.territory.warm.within(range.clone());
        let size: usize = warm.iter().map(|part| part.end - part.start).sum();
        if size == 0 || prot.is_none() {
            return Ok(());
        }
        if size > SETTLE_MAX {
            self.territory.warm.release(range.clone());
            let left = !self.territory.warm.within(range).is_empty();
            return if left { Err(no_host_memory()) } else { Ok(()) };
        }
        warm.into_iter().try_for_each(|part| self.grant_zeros(part, prot))
    }

    /// Takes pages from mappings that go away, keeping them warm where that pays.
    pub fn retire(&mut self, range: Range<usize>) -> Result<()> {
        self.part_with(range.clone())?;
        for part in self.granted.within(range) {
            let size = part.end - part.start;
            let is_warm = size <= WARM_PART_MAX && commit::try_keep_warm(size);
            if is_warm {
                set_host_prot(&part, Prot::NONE).inspect_err(|_| commit::drop_warm(size))?;
                self.territory.warm.insert(part.clone());
            } else {
                host::release_user(part.start, size).map_err(|_| no_host_memory())?;
            }
            self.granted.remove(part);
            commit::release(size);
        }
        Ok(())
    }

    /// [`Space::retire`] for a space whose processes are gone, with as few calls as possible: what is kept
    /// stands as it is.
    pub fn retire_all(&mut self) {
        let is_large = |vma: &&Vma| vma.size() > WARM_PART_MAX && !vma.is_pristine && !vma.is_global();
        let large = self.vmas.iter().filter(is_large).flat_map(|vma| self.granted.within(vma.range()));
        let large: Vec<_> = large.filter(|part| part.end - part.start > WARM_PART_MAX).collect();
        for part in large {
            self.retire_or_abandon(part);
        }
        // Of a folded space nothing is accessible.
        let layout = if self.is_folded { Arc::default() } else { self.layout() };
        for owned in self.territory.owned_ranges() {
            self.leave_standing(owned, &layout);
        }
    }

    /// Keeps all granted pages of an owned range warm and as they are.
    fn leave_standing(&mut self, owned: Range<usize>, layout: &Layout) {
        let parts = self.granted.within(owned);
        let size: usize = parts.iter().map(|part| part.end - part.start).sum();
        if !commit::try_keep_warm(size) {
            return parts.into_iter().for_each(|part| self.retire_or_abandon(part));
        }
        for part in parts {
            self.granted.remove(part.clone());
            self.territory.warm.insert(part.clone());
            for (range, prot) in layout.within(&part) {
                self.territory.warm.leave_standing(range, prot);
            }
        }
        commit::release(size);
    }

    /// What can't be taken back is never used again.
    fn retire_or_abandon(&mut self, part: Range<usize>) {
        if self.retire(part.clone()).is_err() {
            self.territory.abandon(part);
        }
    }

    /// Changes permissions of what is granted inside a range.
    pub fn reprotect(&mut self, range: Range<usize>, prot: Prot) -> Result<()> {
        let parts = self.granted.within(range).into_iter().flat_map(|part| self.shown(part, prot));
        parts.into_iter().try_for_each(|(part, prot)| set_host_prot(&part, prot))
    }

    /// Before pages are made: counts them and makes room for them.
    pub fn charge(&mut self, range: &Range<usize>) -> Result<()> {
        self.make_room(range)?;
        fold::relieve();
        let size = range.end - range.start;
        commit::grant(size).or_else(|_| {
            fold::reclaim();
            commit::grant(size)
        })?;
        let excess = commit::warm_excess();
        if excess > 0 && territory::reclaim(excess) < excess {
            self.territory.warm.release(0..range.start);
            self.territory.warm.release(range.end..usize::MAX);
        }
        Ok(())
    }

    /// Books the outcome of granting a range.
    pub fn settle(&mut self, range: Range<usize>, done: Result<()>) -> Result<()> {
        let size = range.end - range.start;
        if let Err(error) = done {
            commit::release(size);
            // Half-made pages are as good as never made: dropped, or never used again.
            self.territory.warm.remove(range.clone());
            if host::release_user(range.start, size).is_err() {
                self.territory.abandon(range);
            }
            return Err(error);
        }
        self.territory.warm.remove(range.clone());
        self.granted.insert(range);
        self.weigh();
        Ok(())
    }
}

/// A kernel buffer that data passes through on its way to user pages.
pub(super) struct Bounce(Pages);

impl Bounce {
    pub fn new() -> Result<Bounce> {
        Pages::new(BOUNCE_ORDER).map(Bounce).map_err(|_| Error::new(Errno::ENOMEM, "no kernel pages"))
    }

    /// At most `size` bytes of it.
    pub fn first(&mut self, size: usize) -> &mut [u8] {
        &mut self.0[..size.min(BOUNCE_SIZE)]
    }
}

/// A part of a file on its way to user pages.
pub(super) struct FileData<'a> {
    pub file: &'a dyn MappableFile,
    pub offset: u64,
    /// Called with the address and content of each piece before it gets there.
    pub patch: &'a dyn Fn(usize, &mut [u8]),
}

impl FileData<'_> {
    /// Fills writable pages in place. Nobody else may see them meanwhile.
    pub fn load(&self, range: Range<usize>, prot: Prot) -> Result<()> {
        self.pieces(range.clone(), |at, piece| {
            usermem::write(at, piece).map_err(|_| no_host_memory())
        })?;
        if prot == Prot::READ_WRITE { Ok(()) } else { set_host_prot(&range, prot) }
    }

    /// Makes pages that appear whole, for ranges that other threads may touch at any time.
    pub fn install(&self, range: Range<usize>, prot: Prot) -> Result<()> {
        self.pieces(range, |at, piece| {
            host::install_user(at, piece, prot.host_bits()).map_err(|_| no_host_memory())
        })
    }

    fn pieces(&self, range: Range<usize>, put: impl Fn(usize, &[u8]) -> Result<()>) -> Result<()> {
        let mut bounce = Bounce::new()?;
        for at in range.clone().step_by(BOUNCE_SIZE) {
            let piece = bounce.first(range.end - at);
            self.file.read_page_data(self.offset + (at - range.start) as u64, piece)?;
            (self.patch)(at, piece);
            put(at, piece)?;
        }
        Ok(())
    }
}

/// Makes pages writable that will all be written now.
fn populate(range: &Range<usize>) -> Result<()> {
    let prot = Prot::READ_WRITE.host_bits() | host::PROT_POPULATE;
    host::protect_user(range.start, range.end - range.start, prot).map_err(|_| no_host_memory())
}

pub(super) fn set_host_prot(range: &Range<usize>, prot: Prot) -> Result<()> {
    host::protect_user(range.start, range.end - range.start, prot.host_bits())
        .map_err(|_| no_host_memory())
}

fn zero(range: Range<usize>) -> Result<()> {
    usermem::fill(range.start, 0, range.end - range.start).map_err(|_| no_host_memory())
}

pub(super) fn no_host_memory() -> Error {
    Error::new(Errno::ENOMEM, "the host has no memory left")
}
