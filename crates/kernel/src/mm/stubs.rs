//! Patching system calls: what makes them a jump instead of a trap.
//!
//! When bytes of a file with a site table become executable, the space gets a [`StubArea`] near them
//! with a stub for each site; the pages of the file then get their windows overwritten by jumps as
//! they are loaded. A window may lie across the border of what is loaded at once, so patches are
//! applied byte range by byte range. The area goes when the last part of the text goes.
//!
//! A program that makes its text writable sees the patched bytes. Signal frames do not show stubs:
//! [`original_rip`] and [`patched_rip`] translate.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use occlum_abi::layout::{PAGE_SIZE, USER_BASE, USER_END};
use occlum_enclave::{log, usermem};

use super::file::{FileIdentity, MappableFile};
use super::grant::{BOUNCE_SIZE, Bounce, no_host_memory, set_host_prot};
use super::request::MapRequest;
use super::site_table::{STUB_ALIGN, SiteTable};
use super::space::{AddressSpace, Space};
use super::vma::{Prot, Source, Vma};
use super::warm::StubPlace;
use crate::error::Result;
use crate::sched::SpinLock;

/// How far stubs may be from their text: below 2 GiB by what text may refer to.
const REACH: usize = 1536 << 20;
const JUMP_SIZE: usize = 5;
const JUMP: u8 = 0xe9;
const TRAP: u8 = 0xcc;

/// Tables that were parsed, so that each process need not do it again. A leaf lock.
static TABLES: SpinLock<BTreeMap<FileIdentity, Arc<SiteTable>>> = SpinLock::new(BTreeMap::new());
const TABLES_MAX: usize = 256;

/// The stubs of one executable mapping.
#[derive(Clone)]
pub(super) struct StubArea {
    /// Address of the first stub.
    start: usize,
    size: usize,
    /// The mapping it serves.
    text: Range<usize>,
    file: FileIdentity,
    /// File offset of the text's first byte.
    offset: u64,
    table: Arc<SiteTable>,
    /// Which sites of the table.
    sites: Range<usize>,
    /// Where the first site's stub is in the layout of the whole table.
    first_stub: usize,
}

impl Space {
    /// Prepares stubs for a mapping that is or becomes executable, if its file has sites there.
    pub fn attach_stubs(&mut self, vma: &Vma) -> Result<()> {
        let Source::File { file, offset } = &vma.source else { return Ok(()) };
        if self.stubs.values().any(|area| area.covers(vma)) {
            return Ok(());
        }
        let Some(table) = table_of(&**file) else { return Ok(()) };
        let sites = table.inside(*offset..offset + vma.size() as u64);
        let ends = sites.clone().next().zip(sites.clone().next_back());
        let ends = ends.and_then(|(first, last)| table.site(first).zip(table.site(last)));
        let Some((first, last)) = ends else { return Ok(()) };
        let first_stub = first.stub;
        let stub_bytes = last.stub + last.code().len().next_multiple_of(STUB_ALIGN) - first_stub;
        let size = stub_bytes.next_multiple_of(PAGE_SIZE);
        let start = self.territory.place_in(reach_of(&vma.range()), size)?;
        let (text, file_id) = (vma.range(), file.identity());
        let area =
            StubArea { start, size, text, file: file_id, offset: *offset, table, sites, first_stub };
        if self.are_stubs_there(&area) {
            return self.install_stubs(area, None);
        }
        let Some(code) = area.code() else {
            log!(Warn, "a system call of {} is too far from its stub; all of them will trap", file.name());
            self.territory.give_back(start..start + size);
            return Ok(());
        };
        self.install_stubs(area, Some(&code))
    }

    /// Maps an area; without `code` its pages are there from the last time.
    fn install_stubs(&mut self, area: StubArea, code: Option<&[u8]>) -> Result<()> {
        let range = area.range();
        let request = MapRequest::anonymous(area.size, Prot::NONE);
        self.install(&request, area.start, Source::Stubs)?;
        self.vmas.update(range.clone(), |vma| vma.prot = Prot::READ_EXEC);
        self.charge(&range)?;
        let write = |code: &[u8]| {
            set_host_prot(&range, Prot::READ_WRITE)?;
            usermem::write(area.start, code).map_err(|_| no_host_memory())
        };
        let done = match code {
            Some(code) => write(code).and_then(|()| set_host_prot(&range, Prot::READ_EXEC)),
            None => self.open(&range, Prot::READ_EXEC),
        };
        self.settle(range, done)?;
        self.stubs.insert(area.start, area);
        Ok(())
    }

    /// Patches pages that were loaded before their mapping became executable.
    pub fn patch_loaded(&mut self, vma: &Vma) -> Result<()> {
        if !self.stubs.values().any(|area| area.serves(vma)) {
            return Ok(());
        }
        self.unshare(vma.range())?;
        let mut bounce = Bounce::new()?;
        for part in self.granted.within(vma.range()) {
            set_host_prot(&part, Prot::READ_WRITE)?;
            for at in part.clone().step_by(BOUNCE_SIZE) {
                let piece = bounce.first(part.end - at);
                usermem::read(at, piece).map_err(|_| no_host_memory())?;
                self.patch(vma, at, piece);
                usermem::write(at, piece).map_err(|_| no_host_memory())?;
            }
        }
        Ok(())
    }

    /// Applies the patches that fall into `bytes` of `vma`, which stand or will stand at `address`.
    pub fn patch(&self, vma: &Vma, address: usize, bytes: &mut [u8]) {
        for area in self.stubs.values().filter(|area| area.serves(vma)) {
            area.patch(address, bytes);
        }
    }

    /// Mappings inside `removed` went away: stubs that serve nothing go too.
    pub fn detach_stubs(&mut self, removed: Range<usize>) -> Result<()> {
        let is_file = |vma: &Vma| matches!(vma.source, Source::File { .. });
        let is_idle = |area: &&StubArea| {
            area.touches(&removed) && !self.vmas.touching(area.text.clone()).any(is_file)
        };
        let idle: Vec<usize> = self.stubs.values().filter(is_idle).map(|area| area.start).collect();
        for start in idle {
            if let Some(area) = self.stubs.remove(&start) {
                self.unmap(start..start + area.size)?;
            }
        }
        Ok(())
    }
}

impl StubArea {
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.size
    }

    /// What determines the stubs' bytes and the patches of the text.
    pub fn place(&self) -> StubPlace {
        let text = (self.text.start, self.text.end, self.offset);
        StubPlace { file: self.file, start: self.start, text }
    }

    /// Whether `vma` shows a part of the text this area is for: the same bytes at the same place.
    pub fn serves(&self, vma: &Vma) -> bool {
        let Source::File { file, offset } = &vma.source else { return false };
        let base = |address: usize, offset: u64| address.wrapping_sub(offset as usize);
        self.touches(&vma.range())
            && base(self.text.start, self.offset) == base(vma.start, *offset)
            && self.file == file.identity()
    }

    fn covers(&self, vma: &Vma) -> bool {
        self.serves(vma) && self.text.start <= vma.start && vma.end <= self.text.end
    }

    fn touches(&self, range: &Range<usize>) -> bool {
        self.text.start < range.end && range.start < self.text.end
    }

    fn window_address(&self, window: u64) -> usize {
        self.text.start + (window - self.offset) as usize
    }

    fn stub_address(&self, stub: usize) -> usize {
        self.start + (stub - self.first_stub)
    }

    /// All stubs, ready for their addresses; `None` if a distance does not fit 32 bits.
    fn code(&self) -> Option<Vec<u8>> {
        let mut code = Vec::new();
        code.try_reserve_exact(self.size).ok()?;
        code.resize(self.size, TRAP);
        for site in self.sites.clone().filter_map(|index| self.table.site(index)) {
            let stub = &mut code[site.stub - self.first_stub..][..site.code().len()];
            stub.copy_from_slice(site.code());
            let moved = self.window_address(site.window) as i64 - self.stub_address(site.stub) as i64;
            for fix in site.fixes() {
                let field = stub[fix..].first_chunk_mut::<4>()?;
                let distance = i64::from(i32::from_le_bytes(*field)) + moved;
                *field = i32::try_from(distance).ok()?.to_le_bytes();
            }
            // The jump to the stub has about the same distance, the other way.
            i32::try_from(-moved - JUMP_SIZE as i64).ok()?;
        }
        Some(code)
    }

    fn patch(&self, address: usize, bytes: &mut [u8]) {
        let start = address.max(self.text.start);
        let end = (address + bytes.len()).min(self.text.end);
        if start >= end {
            return;
        }
        let file = |address: usize| self.offset + (address - self.text.start) as u64;
        let touched = self.table.touching(file(start)..file(end));
        let touched = touched.start.max(self.sites.start)..touched.end.min(self.sites.end);
        for site in touched.filter_map(|index| self.table.site(index)) {
            let window = self.window_address(site.window);
            let jump = jump(window, self.stub_address(site.stub));
            for at in window.max(start)..(window + site.window_len()).min(end) {
                bytes[at - address] = jump.get(at - window).copied().unwrap_or(TRAP);
            }
        }
    }
}

fn jump(from: usize, to: usize) -> [u8; JUMP_SIZE] {
    // `code` has checked that the distance fits.
    let distance = (to.wrapping_sub(from + JUMP_SIZE) as i32).to_le_bytes();
    [JUMP, distance[0], distance[1], distance[2], distance[3]]
}

fn reach_of(text: &Range<usize>) -> Range<usize> {
    let low = text.end.saturating_sub(REACH).max(USER_BASE);
    low..text.start.saturating_add(REACH).min(USER_END)
}

/// The parsed table of a file, if it has a sound one.
fn table_of(file: &dyn MappableFile) -> Option<Arc<SiteTable>> {
    let blob = file.sites()?;
    let identity = file.identity();
    let known = TABLES.lock().get(&identity).cloned();
    if let Some(table) = known.filter(|table| table.is_made_from(&blob)) {
        return Some(table);
    }
    let Some(table) = SiteTable::parse(blob).map(Arc::new) else {
        log!(Warn, "the site table of {} is malformed; its system calls will trap", file.name());
        return None;
    };
    let mut tables = TABLES.lock();
    if tables.len() >= TABLES_MAX {
        tables.clear();
    }
    tables.insert(identity, table.clone());
    Some(table)
}

/// The address in the program's own code for an address that may be in a stub.
pub fn original_rip(space: &AddressSpace, rip: usize) -> usize {
    let space = space.inner.lock();
    let Some((_, area)) = space.stubs.range(..=rip).next_back() else { return rip };
    if rip >= area.start + area.size {
        return rip;
    }
    let Some(site) = area.table.by_stub(rip - area.start + area.first_stub) else { return rip };
    let at = rip - area.stub_address(site.stub);
    let exact = site.maps().find(|&(_, stub)| stub == at).map(|(window, _)| window);
    let window = area.window_address(site.window);
    match exact {
        Some(offset) => window + offset,
        None if site.call_range().contains(&at) => window + site.site_at(),
        None => rip,
    }
}

/// Where to continue for an address that may lie inside a patched window, whose bytes are gone.
pub fn patched_rip(space: &AddressSpace, rip: usize) -> usize {
    let space = space.inner.lock();
    let Some(area) = space.stubs.values().find(|area| area.text.contains(&rip)) else { return rip };
    let offset = area.offset + (rip - area.text.start) as u64;
    let touched = area.table.touching(offset..offset + 1);
    let touched = touched.start.max(area.sites.start)..touched.end.min(area.sites.end);
    let Some(site) = touched.clone().next().and_then(|index| area.table.site(index)) else { return rip };
    let at = (offset - site.window) as usize;
    let moved = site.maps().find(|&(window, _)| at > 0 && window == at);
    moved.map_or(rip, |(_, stub)| area.stub_address(site.stub) + stub)
}
