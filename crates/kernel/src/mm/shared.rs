//! Shared mappings of files.
//!
//! On SGX a page has one linear address, so a shared object stands at *one* place of the user range
//! and every process maps it there: sharing costs nothing. While an object exists it holds the newest
//! content of the pages it has loaded; the file's own read and write consult it ([`SharedSlot`]), and
//! loaded pages go back to the file at msync(2) and when the last mapping goes.
//!
//! Page permissions are those of the enclave's page tables, one set for all: the union of what the
//! processes that map the object asked for.
//!
//! Lock order: space, then object, then the file's own locks. `SharedSlot`'s lock is a leaf.

use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::{host, log, usermem};

use super::commit;
use super::fault::CLUSTER;
use super::file::{FileIdentity, MappableFile};
use super::grant::{BOUNCE_SIZE, Bounce, FileData, no_host_memory, set_host_prot};
use super::ranges::RangeSet;
use super::territory;
use super::vma::Prot;
use crate::error::{Errno, Result, err};
use crate::sched::{Mutex, SpinLock};

/// Addresses reserved for an object: room for the file to grow.
const RESERVE_MIN: usize = 16 << 20;
const RESERVE_FACTOR: usize = 4;

/// The place in an inode where the shared object of the file is found while it exists.
///
/// The file layer calls [`SharedSlot::overlay_read`] after it read the file's own data,
/// [`SharedSlot::overlay_write`] after it wrote, and [`SharedSlot::truncated`] after the size shrank.
/// `MappableFile::read_page_data` and `write_page_data` must not.
#[derive(Default)]
pub struct SharedSlot {
    object: SpinLock<Weak<SharedObject>>,
    /// False most of the time, so that ordinary reads and writes pay one load.
    is_used: AtomicBool,
}

impl SharedSlot {
    pub const fn new() -> SharedSlot {
        SharedSlot { object: SpinLock::new(Weak::new()), is_used: AtomicBool::new(false) }
    }

    /// The object, if the file is mapped shared now.
    pub fn object(&self) -> Option<Arc<SharedObject>> {
        if !self.is_used.load(Ordering::Acquire) {
            return None;
        }
        self.object.lock().upgrade()
    }

    /// Replaces what was read from the file at `offset` by what is newer in shared pages.
    pub fn overlay_read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.object().map_or(Ok(()), |object| object.overlay_read(offset, buf))
    }

    /// Brings what was written to the file to the shared pages.
    pub fn overlay_write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.object().map_or(Ok(()), |object| object.overlay_write(offset, data))
    }

    /// The file shrank: pages beyond its end go, the rest of the last page is zeroed.
    pub fn truncated(&self, size: u64) -> Result<()> {
        self.object().map_or(Ok(()), |object| object.truncate(size))
    }

    /// Registers `object`, or gives the one somebody else registered first.
    fn register(&self, object: Arc<SharedObject>) -> Arc<SharedObject> {
        let mut slot = self.object.lock();
        if let Some(first) = slot.upgrade() {
            return first;
        }
        *slot = Arc::downgrade(&object);
        self.is_used.store(true, Ordering::Release);
        object
    }
}

/// Pages of a file that processes share, at one address for all.
pub struct SharedObject {
    file: Arc<dyn MappableFile>,
    /// Address of the file's byte 0, which itself need not be part of the window.
    base: usize,
    /// Addresses that belong to the object.
    window: Range<usize>,
    pages: Mutex<Pages>,
}

struct Pages {
    loaded: RangeSet,
    /// Union of what its mappings may do.
    rights: Prot,
}

impl SharedObject {
    /// The object of a file; a new one stands at addresses of its own.
    pub(super) fn of_file(file: &Arc<dyn MappableFile>, end: u64) -> Result<Arc<SharedObject>> {
        let Some(slot) = file.shared_slot() else { return err(Errno::ENODEV, "can't be mapped shared") };
        if let Some(object) = slot.object() {
            return Ok(object);
        }
        let wanted = usize::try_from(end.max(file.size())).unwrap_or(usize::MAX);
        let size = wanted.saturating_mul(RESERVE_FACTOR).max(RESERVE_MIN) & !(PAGE_SIZE - 1);
        let start = territory::take_global(size)?;
        Ok(slot.register(SharedObject::new(file, start, start..start + size)))
    }

    /// The object of a file that has none yet, with its byte `offset` at the start of `window`, whose
    /// addresses it takes over.
    pub(super) fn at(file: &Arc<dyn MappableFile>, offset: u64, window: Range<usize>) -> Result<Arc<SharedObject>> {
        let Some(slot) = file.shared_slot() else { return err(Errno::ENODEV, "can't be mapped shared") };
        let base = window.start.wrapping_sub(offset as usize);
        Ok(slot.register(SharedObject::new(file, base, window)))
    }

    fn new(file: &Arc<dyn MappableFile>, base: usize, window: Range<usize>) -> Arc<SharedObject> {
        let pages = Mutex::new(Pages { loaded: RangeSet::new(), rights: Prot::NONE });
        Arc::new(SharedObject { file: file.clone(), base, window, pages })
    }

    pub fn identity(&self) -> FileIdentity {
        self.file.identity()
    }

    pub fn name(&self) -> String {
        self.file.name()
    }

    /// Where `size` bytes from `offset` on stand.
    pub(super) fn address_of(&self, offset: u64, size: usize) -> Result<usize> {
        let start = self.base.wrapping_add(offset as usize);
        let end = start.checked_add(size);
        let fits = start >= self.window.start && end.is_some_and(|end| end <= self.window.end);
        if !fits {
            log!(Warn, "a shared mapping of {} does not fit the place the file has", self.name());
            return err(Errno::ENOMEM, "beyond the shared object's addresses");
        }
        Ok(start)
    }

    /// A mapping with these rights exists from now on.
    pub(super) fn add_rights(&self, prot: Prot) -> Result<()> {
        let mut pages = self.pages.lock();
        let rights = pages.rights.union(prot);
        if rights != pages.rights {
            pages.loaded.iter().try_for_each(|part| set_host_prot(&part, rights))?;
            pages.rights = rights;
        }
        Ok(())
    }

    pub(super) fn is_present(&self, address: usize) -> bool {
        self.pages.lock().loaded.at(address).is_some()
    }

    /// Loads the pages around `address`.
    pub(super) fn make_present(&self, address: usize) -> Result<()> {
        let mut pages = self.pages.lock();
        let page = address & !(PAGE_SIZE - 1);
        let rights = pages.rights;
        if pages.loaded.at(page).is_some() {
            return set_host_prot(&(page..page + PAGE_SIZE), rights);
        }
        let end = self.base.wrapping_add((self.file.size() as usize).next_multiple_of(PAGE_SIZE));
        let first = page & !(CLUSTER - 1);
        let cluster = first.max(self.window.start)..(first + CLUSTER).min(self.window.end).min(end);
        let missing = if cluster.is_empty() { Default::default() } else { pages.loaded.missing(cluster) };
        let Some(range) = missing.into_iter().find(|part| part.contains(&page)) else {
            return err(Errno::EFAULT, "beyond the end of the file");
        };
        self.load(&mut pages, range)
    }

    fn load(&self, pages: &mut Pages, range: Range<usize>) -> Result<()> {
        let size = range.end - range.start;
        commit::grant(size)?;
        let offset = (range.start.wrapping_sub(self.base)) as u64;
        // Other processes may touch the pages at any time.
        let data = FileData { file: &*self.file, offset, patch: &|_, _| {} };
        let done = match self.file.is_memory_only() {
            true => set_host_prot(&range, pages.rights),
            false => data.install(range.clone(), pages.rights),
        };
        if done.is_err() {
            commit::release(size);
            host::release_user(range.start, size).map_err(|_| no_host_memory())?;
            return done;
        }
        pages.loaded.insert(range);
        Ok(())
    }

    /// Writes loaded pages back to the file. `range` is in bytes of the file.
    pub fn write_back(&self, range: Range<u64>) -> Result<()> {
        let pages = self.pages.lock();
        if !pages.rights.contains(Prot::WRITE) || self.file.is_memory_only() {
            return Ok(());
        }
        let end = range.end.min(self.file.size());
        let mut bounce = Bounce::new()?;
        for part in self.loaded_parts(&pages, range.start..end) {
            for at in part.clone().step_by(BOUNCE_SIZE) {
                let piece = bounce.first(part.end - at);
                usermem::read(at, piece).map_err(|_| no_host_memory())?;
                self.file.write_page_data(at.wrapping_sub(self.base) as u64, piece)?;
            }
        }
        Ok(())
    }

    fn overlay_read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let pages = self.pages.lock();
        for part in self.loaded_parts(&pages, offset..offset + buf.len() as u64) {
            let at = part.start.wrapping_sub(self.base) - offset as usize;
            let piece = &mut buf[at..at + (part.end - part.start)];
            usermem::read(part.start, piece).map_err(|_| no_host_memory())?;
        }
        Ok(())
    }

    fn overlay_write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let pages = self.pages.lock();
        for part in self.loaded_parts(&pages, offset..offset + data.len() as u64) {
            let at = part.start.wrapping_sub(self.base) - offset as usize;
            let piece = &data[at..at + (part.end - part.start)];
            with_write(&part, pages.rights, || usermem::write(part.start, piece))?;
        }
        Ok(())
    }

    /// Makes a part of the file zeros, in memory and behind.
    pub(super) fn zero(&self, bytes: Range<u64>) -> Result<()> {
        self.zero_loaded(bytes.clone())?;
        if self.file.is_memory_only() {
            return Ok(());
        }
        let mut zeros = Bounce::new()?;
        let end = bytes.end.min(self.file.size());
        for at in (bytes.start..end).step_by(BOUNCE_SIZE) {
            let piece = zeros.first((end - at) as usize);
            piece.fill(0);
            self.file.write_page_data(at, piece)?;
        }
        Ok(())
    }

    fn zero_loaded(&self, bytes: Range<u64>) -> Result<()> {
        let pages = self.pages.lock();
        let end = bytes.end.min(self.file.size().next_multiple_of(PAGE_SIZE as u64));
        for part in self.loaded_parts(&pages, bytes.start..end.max(bytes.start)) {
            with_write(&part, pages.rights, || usermem::fill(part.start, 0, part.end - part.start))?;
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<()> {
        let mut pages = self.pages.lock();
        let end = self.base.wrapping_add(size as usize);
        let page_end = end.next_multiple_of(PAGE_SIZE);
        for tail in pages.loaded.within(end..page_end) {
            let size = tail.end - tail.start;
            with_write(&tail, pages.rights, || usermem::fill(tail.start, 0, size))?;
        }
        for part in pages.loaded.within(page_end..self.window.end.max(page_end)) {
            let size = part.end - part.start;
            host::release_user(part.start, size).map_err(|_| no_host_memory())?;
            pages.loaded.remove(part);
            commit::release(size);
        }
        Ok(())
    }

    /// Addresses of what is loaded of a part of the file.
    fn loaded_parts(&self, pages: &Pages, bytes: Range<u64>) -> alloc::vec::Vec<Range<usize>> {
        let start = self.base.wrapping_add(bytes.start as usize).max(self.window.start);
        let end = self.base.wrapping_add(bytes.end as usize).min(self.window.end);
        if start < end { pages.loaded.within(start..end) } else { Default::default() }
    }
}

impl Drop for SharedObject {
    fn drop(&mut self) {
        if let Err(error) = self.write_back(0..self.file.size()) {
            log!(Error, "shared pages of {} are lost: {error:?}", self.name());
        }
        let pages = self.pages.lock();
        let mut is_clean = true;
        for part in pages.loaded.iter() {
            commit::release(part.end - part.start);
            is_clean &= host::release_user(part.start, part.end - part.start).is_ok();
        }
        // Addresses whose pages the host did not take back are never given out again.
        if is_clean {
            territory::return_global(self.window.clone());
        }
    }
}

/// Writes to pages whose mappings may all be read-only.
fn with_write<T>(
    part: &Range<usize>,
    rights: Prot,
    write: impl FnOnce() -> core::result::Result<T, usermem::Fault>,
) -> Result<T> {
    if rights.contains(Prot::WRITE) {
        return write().map_err(|_| no_host_memory());
    }
    let pages = part.start & !(PAGE_SIZE - 1)..part.end.next_multiple_of(PAGE_SIZE);
    set_host_prot(&pages, Prot::READ_WRITE)?;
    let result = write().map_err(|_| no_host_memory());
    set_host_prot(&pages, rights)?;
    result
}
