//! First touch: making a page present, or saying why not.

use core::ops::Range;

use occlum_abi::Errno;
use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::log;

use super::grant::set_host_prot;
use super::space::{AddressSpace, Space};
use super::vma::{Prot, Source, Vma};
use crate::error::Result;

/// How memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// What came of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOutcome {
    /// Try again.
    Resolved,
    /// SIGSEGV, SEGV_MAPERR.
    NoMapping,
    /// SIGSEGV, SEGV_ACCERR.
    NoPermission,
    /// SIGBUS, BUS_ADRERR: a file mapping beyond the end of its file, or a file that can't be read.
    BeyondFile,
    /// The process is to be killed: there is no memory to go on.
    OutOfMemory,
}

/// Mappings up to this size are granted when made.
pub(super) const EAGER_MAX: usize = 128 << 10;
/// Grant units: stacks are touched a little, mid-size heaps more, large ones in huge pages.
pub(super) const STACK_CHUNK: usize = 64 << 10;
const CHUNK: usize = 128 << 10;
const HUGE_CHUNK: usize = 2 << 20;
/// Mappings from this size on are granted in huge chunks.
const HUGE_MIN: usize = 8 << 20;
/// File pages come in clusters of this size.
pub(super) const CLUSTER: usize = 64 << 10;
/// A growing mapping keeps this distance from the one below.
const STACK_GUARD: usize = 256 * PAGE_SIZE;

impl AddressSpace {
    /// See [`super::fault`].
    pub fn fault(&self, address: usize, access: Access) -> FaultOutcome {
        let mut space = match self.lock_resident() {
            Ok(space) => space,
            Err(error) => return outcome(Err(error)),
        };
        if space.vmas.at(address).is_none() && !space.grow_down(address) {
            return FaultOutcome::NoMapping;
        }
        space.resolve(address, access)
    }
}

impl Space {
    fn resolve(&mut self, address: usize, access: Access) -> FaultOutcome {
        let Some(vma) = self.vmas.at(address).cloned() else { return FaultOutcome::NoMapping };
        if !permits(vma.prot, access) {
            return FaultOutcome::NoPermission;
        }
        if let Source::Shared { object, .. } = &vma.source {
            return outcome(object.make_present(address));
        }
        let page = address & !(PAGE_SIZE - 1);
        if vma.is_global() || self.granted.at(page).is_some() {
            match self.unshare_at(page, access) {
                Ok(false) => {}
                unshared => return outcome(unshared.map(drop)),
            }
            // Another thread was faster, or the host forgot: say it again, then retry.
            let shown = self.shown(page..page + PAGE_SIZE, vma.prot);
            return outcome(shown.iter().try_for_each(|(page, prot)| set_host_prot(page, *prot)));
        }
        let Some(chunk) = self.chunk(&vma, page) else { return FaultOutcome::BeyondFile };
        outcome(self.present(&vma, chunk))
    }

    /// Grants pages of one mapping, none of which is granted.
    pub fn present(&mut self, vma: &Vma, range: Range<usize>) -> Result<()> {
        match vma.source {
            Source::File { .. } => self.grant_file(vma, range),
            _ => self.grant_zeros(range, vma.prot),
        }
    }

    /// Grants what is not granted yet of a part of a mapping.
    pub fn present_missing(&mut self, vma: &Vma, range: Range<usize>) -> Result<()> {
        let missing = self.granted.missing(range);
        missing.into_iter().try_for_each(|part| self.present(vma, part))
    }

    /// What to grant at once around a page: aligned, inside the mapping, not granted yet.
    fn chunk(&self, vma: &Vma, page: usize) -> Option<Range<usize>> {
        let size = match vma.source {
            Source::File { .. } => CLUSTER,
            _ if vma.is_stack || vma.grows_down => STACK_CHUNK,
            _ if vma.size() >= HUGE_MIN => HUGE_CHUNK,
            _ => CHUNK,
        };
        let start = (page & !(size - 1)).max(vma.start);
        let end = ((page & !(size - 1)) + size).min(vma.file_end());
        let missing = self.granted.missing(start..end.max(start));
        missing.into_iter().find(|part| part.contains(&page))
    }

    /// A fault just below a mapping that grows down makes it larger. Says whether it did.
    fn grow_down(&mut self, address: usize) -> bool {
        let page = address & !(PAGE_SIZE - 1);
        let Some(vma) = self.vmas.from(page).filter(|vma| vma.grows_down && vma.is_anonymous()) else {
            return false;
        };
        let (start, end) = (vma.start, vma.end);
        let guarded = page.saturating_sub(STACK_GUARD)..start;
        let fits = end - page <= self.limits.stack && self.vmas.is_free(guarded);
        if !fits || self.territory.claim(page..start).is_err() {
            return false;
        }
        let Some(vma) = self.vmas.remove(start..end).pop() else { return false };
        self.vmas.insert(Vma { start: page, ..vma.clone() });
        self.settle_warm(page..start, vma.prot).is_ok()
    }
}

impl Vma {
    /// Where this mapping's pages end: at its end, or where the file has no more pages.
    pub(super) fn file_end(&self) -> usize {
        let Source::File { file, offset } = &self.source else { return self.end };
        let left = file.size().saturating_sub(*offset).min(self.size() as u64) as usize;
        self.end.min(self.start + left.next_multiple_of(PAGE_SIZE))
    }
}

fn permits(prot: Prot, access: Access) -> bool {
    match access {
        Access::Read => !prot.is_none(),
        Access::Write => prot.contains(Prot::WRITE),
        Access::Execute => prot.contains(Prot::EXEC),
    }
}

fn outcome(result: Result<()>) -> FaultOutcome {
    match result {
        Ok(()) => FaultOutcome::Resolved,
        Err(error) if error.errno == Errno::ENOMEM => {
            log!(Error, "no memory for a page: {error:?}");
            FaultOutcome::OutOfMemory
        }
        Err(_) => FaultOutcome::BeyondFile,
    }
}
