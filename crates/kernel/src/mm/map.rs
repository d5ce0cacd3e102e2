//! Making and removing mappings: mmap(2), munmap(2).

use core::ops::Range;

use alloc::sync::Arc;
use occlum_abi::layout::{PAGE_SIZE, USER_BASE, USER_END};
use occlum_enclave::log;

use super::anonymous::SharedMemory;
use super::fault::EAGER_MAX;
use super::file::MappableFile;
use super::request::{Backing, Fixed, MapRequest, Sharing};
use super::shared::SharedObject;
use super::space::{AddressSpace, Space, check_available, is_mappable, page_range};
use super::vma::{OnFork, Prot, Source, Vma};
use crate::error::{Errno, Result, err};

/// Private file mappings up to this size are loaded when made.
const FILE_EAGER_MAX: usize = 128 << 10;
/// Mappings a space may have (vm.max_map_count).
const MAPPINGS_MAX: usize = 65530;
/// Large mappings are placed so that huge pages fit.
const HUGE_PAGE: usize = 2 << 20;

impl AddressSpace {
    /// mmap(2). Gives the address.
    pub fn map(&self, request: MapRequest) -> Result<usize> {
        self.lock_resident()?.map(request)
    }

    /// munmap(2). Of a part of a shared object that is mapped several times, one mapping goes.
    pub fn unmap(&self, addr: usize, size: usize) -> Result<()> {
        let range = page_range(addr, size, Errno::EINVAL)?;
        if range.is_empty() {
            return err(Errno::EINVAL, "size is 0");
        }
        let mut space = self.lock_resident()?;
        if !space.vmas.has_repeats(range.clone()) {
            return space.unmap(range);
        }
        let single = space.vmas.take_repeats(range);
        single.into_iter().try_for_each(|part| space.unmap(part))
    }

    /// Removes all mappings.
    pub fn unmap_everything(&self) -> Result<()> {
        self.lock_resident()?.unmap(USER_BASE..USER_END)
    }
}

impl Space {
    pub fn map(&mut self, request: MapRequest) -> Result<usize> {
        let size = checked_size(&request)?;
        let is_locked = request.is_locked || self.locks_future;
        let is_populated = request.is_populated || self.locks_future;
        let request = MapRequest { size, is_locked, is_populated, ..request };
        self.check_limits(&request)?;
        let backing = self.resolve_backing(&request)?;
        let start = match &backing {
            Source::Shared { object, offset } => {
                let start = self.place_shared(&request, object, *offset)?;
                if !self.vmas.is_free(start..start + size) {
                    self.repeat(&new_vma(&request, start, backing))?;
                    return Ok(start);
                }
                start
            }
            _ => self.place(&request)?,
        };
        self.install(&request, start, backing)?;
        Ok(start)
    }

    /// Makes a mapping at addresses that were taken for it.
    pub fn install(&mut self, request: &MapRequest, start: usize, source: Source) -> Result<()> {
        let vma = new_vma(request, start, source);
        let range = vma.range();
        self.vmas.insert(vma.clone());
        self.is_mapping = true;
        let prepared = self.prepare(request, &vma);
        self.is_mapping = false;
        if let Err(error) = prepared {
            // The program never saw the mapping.
            self.unmap(range)?;
            return Err(error);
        }
        Ok(())
    }

    pub fn unmap(&mut self, range: Range<usize>) -> Result<()> {
        if self.vmas.is_free(range.clone()) {
            return Ok(());
        }
        self.close_standing(&range, |_, _| false)?;
        self.clear(range)
    }

    /// Removes mappings; pages that stand there are left, for what is mapped instead.
    fn clear(&mut self, range: Range<usize>) -> Result<()> {
        if self.vmas.is_free(range.clone()) {
            return Ok(());
        }
        self.retire(range.clone())?;
        for vma in self.vmas.remove(range.clone()) {
            if !vma.is_global() {
                self.territory.give_back(vma.range());
            }
        }
        self.detach_stubs(range)
    }

    fn check_limits(&self, request: &MapRequest) -> Result<()> {
        let size = request.size;
        if self.vmas.len() >= MAPPINGS_MAX {
            return err(Errno::ENOMEM, "too many mappings");
        }
        if size > self.limits.address_space.saturating_sub(self.vmas.size()) {
            return err(Errno::ENOMEM, "RLIMIT_AS");
        }
        let is_stack = request.is_stack || request.grows_down;
        if !is_stack {
            self.check_data_limit(request.prot, request.sharing == Sharing::Shared, size)?;
        }
        let is_locked = request.is_locked || self.locks_future;
        if is_locked && size > self.limits.locked.saturating_sub(self.locked_size()) {
            return err(Errno::EAGAIN, "RLIMIT_MEMLOCK");
        }
        let is_data = request.prot.contains(Prot::WRITE) && !request.is_unreserved;
        if is_data && matches!(request.backing, Backing::Anonymous) {
            check_available(size)?;
        }
        Ok(())
    }

    /// RLIMIT_DATA: `size` more bytes of private memory that can be written.
    pub fn check_data_limit(&self, prot: Prot, is_shared: bool, size: usize) -> Result<()> {
        if self.limits.data == usize::MAX || is_shared || !prot.contains(Prot::WRITE) {
            return Ok(());
        }
        let is_data = |vma: &&Vma| vma.prot.contains(Prot::WRITE) && !vma.is_shared && !vma.is_stack && !vma.grows_down;
        let data: usize = self.vmas.iter().filter(is_data).map(Vma::size).sum();
        if size > self.limits.data.saturating_sub(data) {
            return err(Errno::ENOMEM, "RLIMIT_DATA");
        }
        Ok(())
    }

    pub fn locked_size(&self) -> usize {
        if self.limits.locked == usize::MAX {
            return 0;
        }
        self.vmas.iter().filter(|vma| vma.is_locked).map(Vma::size).sum()
    }

    /// What the pages will come from; shared files get their object here.
    fn resolve_backing(&mut self, request: &MapRequest) -> Result<Source> {
        let (file, offset) = match &request.backing {
            Backing::Anonymous if request.sharing == Sharing::Shared => {
                let memory: Arc<dyn MappableFile> = Arc::new(SharedMemory::new(request.size));
                let object = self.shared_object(&memory, request, 0)?;
                return Ok(Source::Shared { object, offset: 0 });
            }
            Backing::Anonymous => return Ok(Source::Anonymous),
            Backing::Stack => return Ok(Source::Stack),
            Backing::File { file, offset } => (file, *offset),
        };
        let is_shared = request.sharing == Sharing::Shared;
        if is_shared && file.shared_slot().is_some() {
            let object = self.shared_object(file, request, offset)?;
            return Ok(Source::Shared { object, offset });
        }
        if is_shared && request.prot.contains(Prot::WRITE) {
            return err(Errno::ENODEV, "this file can't be written through a mapping");
        }
        Ok(Source::File { file: file.clone(), offset })
    }

    /// The object of a file; if it has none yet, one where the program wants it.
    fn shared_object(
        &mut self,
        file: &Arc<dyn MappableFile>,
        request: &MapRequest,
        offset: u64,
    ) -> Result<Arc<SharedObject>> {
        let exists = file.shared_slot().is_some_and(|slot| slot.object().is_some());
        match request.addr {
            Some(addr) if request.fixed != Fixed::No && !exists => {
                let window = addr..addr + request.size;
                self.claim_fixed(window.clone(), request.fixed)?;
                self.claim_from_others(&window)?;
                self.territory.cede(window.clone());
                SharedObject::at(file, offset, window)
            }
            _ => SharedObject::of_file(file, offset + request.size as u64),
        }
    }

    /// Takes the addresses for a mapping, removing what a fixed one replaces.
    fn place(&mut self, request: &MapRequest) -> Result<usize> {
        let size = request.size;
        if let Some(addr) = request.addr {
            if request.fixed != Fixed::No {
                self.claim_fixed(addr..addr + size, request.fixed)?;
                return Ok(addr);
            }
            if let Some(hinted) = self.try_hint(addr, size) {
                return Ok(hinted);
            }
        }
        let align = if size >= HUGE_PAGE { HUGE_PAGE } else { PAGE_SIZE };
        self.territory.place(size, align, request.placement)
    }

    fn try_hint(&mut self, addr: usize, size: usize) -> Option<usize> {
        let start = addr & !(PAGE_SIZE - 1);
        let end = start.checked_add(size).filter(|&end| end <= USER_END)?;
        let is_usable = is_mappable(start) && self.vmas.is_free(start..end);
        (is_usable && self.territory.claim(start..end).is_ok()).then_some(start)
    }

    fn claim_fixed(&mut self, range: Range<usize>, fixed: Fixed) -> Result<()> {
        let is_replacing = fixed == Fixed::Replace;
        if !is_replacing && !self.vmas.is_free(range.clone()) {
            return err(Errno::EEXIST, "something is mapped there");
        }
        let has_global = self.vmas.touching(range.clone()).any(Vma::is_global);
        if has_global || !self.territory.can_claim(range.clone()) {
            log!(Warn, "addresses {:#x}..{:#x} belong to another process", range.start, range.end);
            let errno = if is_replacing { Errno::ENOMEM } else { Errno::EEXIST };
            return err(errno, "addresses belong to another process");
        }
        self.clear(range.clone())?;
        self.territory.claim(range)
    }

    /// A shared object is where it is: a mapping of it goes there or nowhere.
    fn place_shared(&mut self, request: &MapRequest, object: &Arc<SharedObject>, offset: u64) -> Result<usize> {
        let start = object.address_of(offset, request.size)?;
        let range = start..start + request.size;
        if request.fixed != Fixed::No && request.addr != Some(start) {
            log!(Warn, "a shared file is mapped at {start:#x} already and can't be mapped elsewhere too");
            return err(Errno::ENOMEM, "shared object stands elsewhere");
        }
        match request.fixed {
            Fixed::Replace => self.unmap(range)?,
            Fixed::NoReplace if !self.vmas.is_free(range) => {
                return err(Errno::EEXIST, "something is mapped there");
            }
            _ => {}
        }
        Ok(start)
    }

    /// Maps a part of a shared object once more. It stays where it is, with the rights of both mappings,
    /// until both are gone.
    fn repeat(&mut self, vma: &Vma) -> Result<()> {
        let Source::Shared { object, .. } = &vma.source else { return Ok(()) };
        object.add_rights(vma.prot)?;
        let gaps = self.vmas.gaps(vma.range());
        self.vmas.update(vma.range(), |present| {
            present.repeats += 1;
            present.prot = present.prot.union(vma.prot);
            present.is_write_denied &= vma.is_write_denied;
        });
        for gap in gaps {
            self.vmas.insert(vma.part(gap.start, gap.end));
        }
        Ok(())
    }

    /// Grants what is granted at once.
    fn prepare(&mut self, request: &MapRequest, vma: &Vma) -> Result<()> {
        match &vma.source {
            Source::Shared { object, .. } => return object.add_rights(vma.prot),
            Source::File { .. } => self.prepare_file(request, vma)?,
            _ => self.prepare_anonymous(request, vma)?,
        }
        self.close_under(request, vma)
    }

    /// What stands under a mapping and is not granted must fault, unless it is what the mapping shows.
    fn close_under(&mut self, request: &MapRequest, vma: &Vma) -> Result<()> {
        match &vma.source {
            // Where a program will be: nobody looks before it is there.
            Source::Anonymous if request.is_program => Ok(()),
            Source::Stubs => Ok(()),
            Source::File { file, offset } if request.is_outline() && file.is_unchanging() => {
                let identity = file.identity();
                self.close_standing(&vma.range(), |range, content| {
                    content.is_of(identity, offset + (range.start.wrapping_sub(vma.start)) as u64)
                })
            }
            _ => self.close_standing(&vma.range(), |_, _| false),
        }
    }

    fn prepare_file(&mut self, request: &MapRequest, vma: &Vma) -> Result<()> {
        if vma.prot.contains(Prot::EXEC) {
            self.attach_stubs(vma)?;
        }
        if request.is_outline() {
            // What stands there serves the segments.
            return Ok(());
        }
        self.revive(vma)?;
        let end = vma.file_end();
        let is_eager = request.is_populated || vma.size() <= FILE_EAGER_MAX;
        if vma.prot.is_none() || end <= vma.start || !is_eager {
            return Ok(());
        }
        self.present_missing(vma, vma.start..end)
    }

    fn prepare_anonymous(&mut self, request: &MapRequest, vma: &Vma) -> Result<()> {
        if !vma.prot.is_none() && (request.is_populated || vma.size() <= EAGER_MAX) {
            return self.present(vma, vma.range());
        }
        self.settle_warm(vma.range(), vma.prot)
    }
}

impl MapRequest {
    /// A program or library as a whole, over which its segments will be mapped.
    fn is_outline(&self) -> bool {
        self.is_program && self.fixed == Fixed::No
    }

    /// The checks that need no lock, in Linux's order.
    pub fn check(&self) -> Result<()> {
        checked_size(self).map(drop)
    }
}

/// The size in whole pages.
fn checked_size(request: &MapRequest) -> Result<usize> {
    if request.size == 0 {
        return err(Errno::EINVAL, "size is 0");
    }
    let size = request.size.checked_next_multiple_of(PAGE_SIZE).filter(|&size| size <= USER_END);
    let Some(size) = size else { return err(Errno::ENOMEM, "size too large") };
    if let Backing::File { offset, .. } = request.backing
        && offset.checked_add(size as u64).is_none_or(|end| end > i64::MAX as u64)
    {
        return err(Errno::EOVERFLOW, "offset too large");
    }
    if request.fixed != Fixed::No {
        check_fixed(request.addr.unwrap_or(0), size)?;
    }
    Ok(size)
}

fn check_fixed(addr: usize, size: usize) -> Result<()> {
    if addr > USER_END - size {
        return err(Errno::ENOMEM, "beyond the user range");
    }
    if !addr.is_multiple_of(PAGE_SIZE) {
        return err(Errno::EINVAL, "fixed address not page-aligned");
    }
    if !is_mappable(addr) {
        return err(Errno::EPERM, "below mmap_min_addr");
    }
    Ok(())
}

fn new_vma(request: &MapRequest, start: usize, source: Source) -> Vma {
    let is_stack = request.is_stack || matches!(source, Source::Stack);
    Vma {
        start,
        end: start + request.size,
        prot: request.prot,
        is_shared: request.sharing == Sharing::Shared,
        grows_down: request.grows_down,
        is_stack,
        is_locked: request.is_locked,
        is_write_denied: request.is_write_denied,
        on_fork: OnFork::COPY,
        is_pristine: !request.prot.contains(Prot::WRITE),
        repeats: 0,
        source,
    }
}

