//! One mapping of a space ([`Vma`]) and the sorted set of them ([`VmaSet`]).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::file::MappableFile;
use super::shared::SharedObject;

/// Permissions of a mapping: PROT_READ | PROT_WRITE | PROT_EXEC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prot(u8);

impl Prot {
    pub const NONE: Prot = Prot(0);
    pub const READ: Prot = Prot(1);
    pub const WRITE: Prot = Prot(2);
    pub const EXEC: Prot = Prot(4);
    pub const READ_WRITE: Prot = Prot(3);
    pub const READ_EXEC: Prot = Prot(5);

    /// From mmap(2)'s bits; others than the three are ignored, as Linux does.
    pub fn from_bits(bits: u64) -> Prot {
        Prot((bits & 7) as u8)
    }

    pub const fn union(self, other: Prot) -> Prot {
        Prot(self.0 | other.0)
    }

    pub const fn contains(self, other: Prot) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    pub const fn without(self, other: Prot) -> Prot {
        Prot(self.0 & !other.0)
    }

    /// What the page tables must say: on x86 every right includes reading.
    pub(super) fn host_bits(self) -> u32 {
        if self.is_none() { 0 } else { u32::from(self.0 | Prot::READ.0) }
    }
}

/// Where the pages of a mapping come from.
#[derive(Clone)]
pub enum Source {
    Anonymous,
    /// brk(2); merged and named apart.
    Heap,
    /// The stack of the main thread.
    Stack,
    /// Private file mapping: `offset` of the mapping's first byte.
    File { file: Arc<dyn MappableFile>, offset: u64 },
    /// Part of an object that has the same addresses in every space.
    Shared { object: Arc<SharedObject>, offset: u64 },
    /// Code of patched system calls.
    Stubs,
    Vdso,
    /// The data page of the vDSO.
    Vvar,
}

/// What madvise(2) says about a mapping and the children to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkAdvice {
    /// MADV_DONTFORK
    Skip,
    /// MADV_DOFORK
    DontSkip,
    /// MADV_WIPEONFORK
    Wipe,
    /// MADV_KEEPONFORK
    DontWipe,
}

/// What a forked child gets of a mapping: a copy, unless this says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnFork {
    /// No mapping.
    pub is_skipped: bool,
    /// The mapping, but zeros.
    pub is_wiped: bool,
}

impl OnFork {
    pub const COPY: OnFork = OnFork { is_skipped: false, is_wiped: false };

    /// The two are independent, as on Linux.
    pub(super) fn advised(self, advice: ForkAdvice) -> OnFork {
        match advice {
            ForkAdvice::Skip => OnFork { is_skipped: true, ..self },
            ForkAdvice::DontSkip => OnFork { is_skipped: false, ..self },
            ForkAdvice::Wipe => OnFork { is_wiped: true, ..self },
            ForkAdvice::DontWipe => OnFork { is_wiped: false, ..self },
        }
    }
}

/// A mapping.
#[derive(Clone)]
pub struct Vma {
    pub start: usize,
    pub end: usize,
    pub prot: Prot,
    pub source: Source,
    /// MAP_SHARED, for `/proc/PID/maps` and msync(2).
    pub is_shared: bool,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// MAP_STACK, or the main stack: touched from the top down.
    pub is_stack: bool,
    /// mlock(2): counted only, nothing is ever swapped.
    pub is_locked: bool,
    /// The file was not opened for writing, so a shared mapping can't be made writable.
    pub is_write_denied: bool,
    pub on_fork: OnFork,
    /// It was never writable: its pages hold what was loaded.
    pub is_pristine: bool,
    /// How often more than once the process has mapped this part of a shared object, which can't stand
    /// at two addresses.
    pub repeats: u32,
}

impl Vma {
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    pub fn size(&self) -> usize {
        self.end - self.start
    }

    /// The addresses are not this space's: nothing may change pages there.
    pub fn is_global(&self) -> bool {
        matches!(self.source, Source::Vdso | Source::Vvar | Source::Shared { .. })
    }

    /// Pages are zeros until written.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.source, Source::Anonymous | Source::Heap | Source::Stack)
    }

    /// The part of this mapping from `start` to `end`, with its offset moved along.
    pub(super) fn part(&self, start: usize, end: usize) -> Vma {
        let mut part = Vma { start, end, ..self.clone() };
        let skipped = (start - self.start) as u64;
        match &mut part.source {
            Source::File { offset, .. } | Source::Shared { offset, .. } => *offset += skipped,
            _ => {}
        }
        part
    }

    /// Whether `next`, which begins where this ends, is more of the same.
    fn continues_in(&self, next: &Vma) -> bool {
        let same = self.end == next.start
            && self.prot == next.prot
            && self.is_shared == next.is_shared
            && self.grows_down == next.grows_down
            && self.is_stack == next.is_stack
            && self.is_locked == next.is_locked
            && self.is_write_denied == next.is_write_denied
            && self.on_fork == next.on_fork
            && self.is_pristine == next.is_pristine
            && self.repeats == next.repeats;
        same && match (&self.source, &next.source) {
            (Source::Anonymous, Source::Anonymous) => !self.is_shared,
            (Source::Heap, Source::Heap) | (Source::Stack, Source::Stack) => true,
            (Source::File { file, offset }, Source::File { file: other, offset: next_offset }) => {
                Arc::ptr_eq(file, other) && offset + self.size() as u64 == *next_offset
            }
            (Source::Shared { object, offset }, Source::Shared { object: other, offset: next_offset }) => {
                Arc::ptr_eq(object, other) && offset + self.size() as u64 == *next_offset
            }
            _ => false,
        }
    }
}

/// The mappings of a space by start; they do not overlap.
#[derive(Default)]
pub(super) struct VmaSet {
    vmas: BTreeMap<usize, Vma>,
    size: usize,
}

impl VmaSet {
    /// Bytes in all mappings.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Number of mappings.
    pub fn len(&self) -> usize {
        self.vmas.len()
    }

    pub fn clear(&mut self) {
        *self = VmaSet::default();
    }

    pub fn iter(&self) -> impl Iterator<Item = &Vma> {
        self.vmas.values()
    }

    /// The mapping that holds `address`.
    pub fn at(&self, address: usize) -> Option<&Vma> {
        let (_, vma) = self.vmas.range(..=address).next_back()?;
        (address < vma.end).then_some(vma)
    }

    /// The first mapping that ends above `address`.
    pub fn from(&self, address: usize) -> Option<&Vma> {
        self.at(address).or_else(|| self.vmas.range(address..).next().map(|(_, vma)| vma))
    }

    /// The mappings that touch `range`, whole.
    pub fn touching(&self, range: Range<usize>) -> impl Iterator<Item = &Vma> {
        let first = self.at(range.start).map_or(range.start, |vma| vma.start);
        // An empty range touches nothing.
        let end = if range.is_empty() { first } else { range.end };
        self.vmas.range(first..end).map(|(_, vma)| vma)
    }

    /// The parts of mappings inside `range`.
    pub fn parts(&self, range: Range<usize>) -> Vec<Vma> {
        let part = |vma: &Vma| vma.part(vma.start.max(range.start), vma.end.min(range.end));
        self.touching(range.clone()).map(part).collect()
    }

    pub fn is_free(&self, range: Range<usize>) -> bool {
        self.touching(range).next().is_none()
    }

    /// Whether mappings cover the range without a gap.
    pub fn covers(&self, range: Range<usize>) -> bool {
        let mut at = range.start;
        for vma in self.touching(range.clone()) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= range.end
    }

    /// The parts of `range` where nothing is mapped.
    pub fn gaps(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for vma in self.touching(range.clone()) {
            if vma.start > at {
                gaps.push(at..vma.start);
            }
            at = vma.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Takes one mapping off where several stand. Gives the parts of `range` where that was not so.
    pub fn take_repeats(&mut self, range: Range<usize>) -> Vec<Range<usize>> {
        let parts = self.parts(range.clone());
        self.update(range, |vma| vma.repeats = vma.repeats.saturating_sub(1));
        parts.iter().filter(|part| part.repeats == 0).map(Vma::range).collect()
    }

    pub fn has_repeats(&self, range: Range<usize>) -> bool {
        self.touching(range).any(|vma| vma.repeats > 0)
    }

    /// What a forked child has of them.
    pub fn forked(&self) -> VmaSet {
        let mut forked = VmaSet::default();
        for vma in self.iter().filter(|vma| !vma.on_fork.is_skipped) {
            forked.insert(Vma { is_locked: false, ..vma.clone() });
        }
        forked
    }

    /// Adds a mapping where there is none, merged with its neighbours.
    pub fn insert(&mut self, vma: Vma) {
        self.size += vma.size();
        let start = vma.start;
        self.vmas.insert(start, vma);
        self.merge_before(start);
        if let Some(end) = self.at(start).map(|vma| vma.end) {
            self.merge_before(end);
        }
    }

    /// Takes out the parts of mappings inside `range`.
    pub fn remove(&mut self, range: Range<usize>) -> Vec<Vma> {
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<usize> = self.vmas.range(range).map(|(&start, _)| start).collect();
        let removed: Vec<Vma> = starts.iter().filter_map(|start| self.vmas.remove(start)).collect();
        self.size -= removed.iter().map(Vma::size).sum::<usize>();
        removed
    }

    /// Changes the parts of mappings inside `range`.
    pub fn update(&mut self, range: Range<usize>, mut change: impl FnMut(&mut Vma)) {
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<usize> = self.vmas.range(range.clone()).map(|(&start, _)| start).collect();
        for start in &starts {
            if let Some(vma) = self.vmas.get_mut(start) {
                change(vma);
            }
        }
        for start in starts {
            self.merge_before(start);
        }
        self.merge_before(range.end);
    }

    /// Makes `address` a boundary.
    fn split(&mut self, address: usize) {
        let Some(vma) = self.at(address).filter(|vma| vma.start < address) else { return };
        let (left, right) = (vma.part(vma.start, address), vma.part(address, vma.end));
        self.vmas.insert(left.start, left);
        self.vmas.insert(right.start, right);
    }

    /// Merges the mapping that begins at `start` into the one before it, if it continues it.
    fn merge_before(&mut self, start: usize) {
        let Some((_, left)) = self.vmas.range(..start).next_back() else { return };
        let Some(right) = self.vmas.get(&start).filter(|right| left.continues_in(right)) else { return };
        let (left_start, end) = (left.start, right.end);
        self.vmas.remove(&start);
        if let Some(left) = self.vmas.get_mut(&left_start) {
            left.end = end;
        }
    }
}
