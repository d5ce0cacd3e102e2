//! Site tables (`docs/format/sites.md`): which bytes of an ELF file are system calls or `cpuid`, and what
//! stands in for them.
//!
//! ```text
//! header   "OSIT" | version u16 = 1 | 0 u16 | count u32 | stub_bytes u32
//! record   window_off u64 | window_len u8 | site_at u8 | stub_len u8 | stub_call u8
//!          stub_ret u8 | fix_count u8 | map_count u8 | kind u8 | fixes 4 | maps 6 x 2
//!          stub code, padded to 4
//! ```

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

const HEADER_SIZE: usize = 16;
const RECORD_SIZE: usize = 32;
const WINDOW_LEN: Range<usize> = 5..46;
const FIXES_MAX: usize = 4;
const MAPS_MAX: usize = 6;
/// `lea rcx, [rip + disp32]` (rdx for `cpuid`) and `jmp *%gs:disp32`.
const CALL_SIZE: usize = 15;
/// 0 is `syscall`, 1 `cpuid`. The kernel does the same with both: the stubs differ.
const KIND_MAX: usize = 1;
/// Stubs begin at multiples of this.
pub(super) const STUB_ALIGN: usize = 16;

/// The table of one file, checked.
pub struct SiteTable {
    blob: Arc<[u8]>,
    sites: Vec<Entry>,
}

/// Where a record is found, and where its stub goes.
#[derive(Clone, Copy)]
struct Entry {
    window: u64,
    /// Offset of the record in the blob.
    record: usize,
    /// Offset of the stub if all stubs of the table are laid out in order.
    stub: usize,
}

/// One system call (or `cpuid`) of the file.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// File offset of the window.
    pub window: u64,
    /// Offset of the stub in the layout of all stubs.
    pub stub: usize,
    record: &'a [u8],
}

impl SiteTable {
    /// `None` if the table breaks a rule of its format.
    pub fn parse(blob: Arc<[u8]>) -> Option<SiteTable> {
        let header = blob.first_chunk::<HEADER_SIZE>()?;
        if header[..8] != *b"OSIT\x01\0\0\0" {
            return None;
        }
        let count = u32_at(&blob, 8)? as usize;
        let stub_bytes = u32_at(&blob, 12)? as usize;
        let mut sites = Vec::new();
        sites.try_reserve_exact(count.min(blob.len() / RECORD_SIZE)).ok()?;
        let (mut at, mut stub, mut last_end) = (HEADER_SIZE, 0, 0);
        for _ in 0..count {
            let site = Site::parse(&blob, at, stub)?;
            if site.window < last_end {
                return None;
            }
            last_end = site.window.checked_add(site.window_len() as u64)?;
            sites.push(Entry { window: site.window, record: at, stub });
            at += RECORD_SIZE + site.code().len().next_multiple_of(4);
            stub += site.code().len().next_multiple_of(STUB_ALIGN);
        }
        (at == blob.len() && stub == stub_bytes).then_some(SiteTable { blob, sites })
    }

    pub fn is_made_from(&self, blob: &Arc<[u8]>) -> bool {
        Arc::ptr_eq(&self.blob, blob)
    }

    /// Indices of the sites whose windows lie wholly inside file bytes `bytes`.
    pub(super) fn inside(&self, bytes: Range<u64>) -> Range<usize> {
        let first = self.sites.partition_point(|site| site.window < bytes.start);
        let last = self.sites.partition_point(|site| self.end_of(site) <= bytes.end);
        first..last.max(first)
    }

    /// Indices of the sites whose windows touch file bytes `bytes`.
    pub(super) fn touching(&self, bytes: Range<u64>) -> Range<usize> {
        let first = self.sites.partition_point(|site| self.end_of(site) <= bytes.start);
        let last = self.sites.partition_point(|site| site.window < bytes.end);
        first..last.max(first)
    }

    /// The site whose stub holds byte `offset` of the layout of all stubs.
    pub(super) fn by_stub(&self, offset: usize) -> Option<Site<'_>> {
        let index = self.sites.partition_point(|site| site.stub <= offset).checked_sub(1)?;
        let site = self.site(index)?;
        (offset < site.stub + site.code().len()).then_some(site)
    }

    pub(super) fn site(&self, index: usize) -> Option<Site<'_>> {
        let Entry { window, record, stub } = *self.sites.get(index)?;
        Some(Site { window, stub, record: &self.blob[record..] })
    }

    fn end_of(&self, entry: &Entry) -> u64 {
        entry.window + u64::from(self.blob[entry.record + 8])
    }
}

impl<'a> Site<'a> {
    /// The record at `at`, with every field checked.
    fn parse(blob: &'a [u8], at: usize, stub: usize) -> Option<Site<'a>> {
        let record = blob.get(at..)?;
        let window = u64::from_le_bytes(*record.first_chunk::<8>()?);
        let fixed = record.first_chunk::<RECORD_SIZE>()?;
        let site = Site { window, stub, record };
        let [window_len, site_at, stub_len, stub_call, stub_ret, fixes, maps, kind] =
            [8, 9, 10, 11, 12, 13, 14, 15].map(|index: usize| usize::from(fixed[index]));
        let is_sound = WINDOW_LEN.contains(&window_len)
            && site_at + 2 <= window_len
            && stub_call + CALL_SIZE == stub_ret
            && stub_ret <= stub_len
            && fixes <= FIXES_MAX
            && (1..=MAPS_MAX).contains(&maps)
            && kind <= KIND_MAX
            && record.len() >= RECORD_SIZE + stub_len.next_multiple_of(4);
        let is_inside = is_sound
            && site.fixes().all(|fix| fix + 4 <= stub_len)
            && site.maps().all(|(window, stub)| window <= window_len && stub < stub_len);
        is_inside.then_some(site)
    }

    pub fn window_len(&self) -> usize {
        usize::from(self.record[8])
    }

    /// Offset of the replaced instruction in the window.
    pub fn site_at(&self) -> usize {
        usize::from(self.record[9])
    }

    /// Where in the stub the sequence stands that replaces the instruction.
    pub fn call_range(&self) -> Range<usize> {
        usize::from(self.record[11])..usize::from(self.record[12])
    }

    pub fn code(&self) -> &'a [u8] {
        &self.record[RECORD_SIZE..RECORD_SIZE + usize::from(self.record[10])]
    }

    /// Offsets in the stub of 32-bit distances that lead out of it.
    pub fn fixes(&self) -> impl Iterator<Item = usize> + 'a {
        self.record[16..16 + usize::from(self.record[13])].iter().map(|&fix| usize::from(fix))
    }

    /// Instruction starts: offset in the window, offset in the stub.
    pub fn maps(&self) -> impl Iterator<Item = (usize, usize)> + 'a {
        let pairs = self.record[20..20 + 2 * usize::from(self.record[14])].chunks_exact(2);
        pairs.map(|pair| (usize::from(pair[0]), usize::from(pair[1])))
    }
}

fn u32_at(blob: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*blob.get(at..)?.first_chunk::<4>()?))
}
