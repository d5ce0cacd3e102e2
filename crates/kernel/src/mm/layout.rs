//! What the host's page tables say for a space ([`Layout`]), and what must change to get from one to
//! another when members of an overlay group take turns.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::grant::set_host_prot;
use super::ranges::RangeSet;
use super::space::Space;
use super::vma::Prot;
use crate::error::Result;

/// Accessible pages, ascending, with their permissions; everything else is inaccessible.
#[derive(Default)]
pub(super) struct Layout(Vec<(Range<usize>, Prot)>);

impl Layout {
    /// Appends pages above all others.
    fn push(&mut self, range: Range<usize>, prot: Prot) {
        if prot.is_none() || range.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some((last, same)) if *same == prot && last.end == range.start => last.end = range.end,
            _ => self.0.push((range, prot)),
        }
    }

    /// The parts inside `range`, which no part crosses the ends of.
    pub fn within(&self, range: &Range<usize>) -> impl Iterator<Item = (Range<usize>, Prot)> {
        let first = self.0.partition_point(|(part, _)| part.start < range.start);
        let end = range.end;
        self.0[first..].iter().take_while(move |(part, _)| part.end <= end).cloned()
    }

    /// Whether every page of the range is readable and writable.
    pub fn is_writable(&self, range: &Range<usize>) -> bool {
        let mut at = range.start;
        let first = self.0.partition_point(|(part, _)| part.end <= at);
        for (part, prot) in &self.0[first..] {
            if part.start > at || !prot.contains(Prot::WRITE) {
                return false;
            }
            at = part.end;
            if at >= range.end {
                return true;
            }
        }
        false
    }

    /// The same with other permissions for some ranges, which ascend.
    pub fn with(&self, overrides: &[(Range<usize>, Prot)]) -> Layout {
        let mut layout = Layout::default();
        let mut overrides = overrides.iter().peekable();
        let mut done = 0;
        for (range, own) in &self.0 {
            while let Some((next, prot)) = overrides.next_if(|(next, _)| next.start < range.end) {
                let before = range.start.max(done);
                layout.push(before..next.start.max(before), *own);
                layout.push(next.clone(), *prot);
                done = next.end;
            }
            layout.push(range.start.max(done).min(range.end)..range.end, *own);
        }
        overrides.for_each(|(rest, prot)| layout.push(rest.clone(), *prot));
        layout
    }

    /// Makes the host's page tables, which say `self`, say `new`. Runs of pages that become inaccessible
    /// are joined across gaps inside `owned`: what is there is inaccessible already.
    pub fn change_to(&self, new: &Layout, owned: &RangeSet) -> Result<()> {
        for (range, prot) in self.changes_to(new, owned) {
            set_host_prot(&range, prot)?;
        }
        Ok(())
    }

    fn changes_to(&self, new: &Layout, owned: &RangeSet) -> Vec<(Range<usize>, Prot)> {
        let mut changes: Vec<(Range<usize>, Prot)> = Vec::new();
        let (mut old, mut new) = (Cursor::new(&self.0), Cursor::new(&new.0));
        let mut at = 0;
        // Everything since the last change is inaccessible and stays so.
        let mut is_gap = false;
        while let Some(end) = old.next_border(at).into_iter().chain(new.next_border(at)).min() {
            let (before, after) = (old.prot_at(at), new.prot_at(at));
            if before.host_bits() == after.host_bits() {
                is_gap &= before.is_none();
            } else {
                match changes.last_mut() {
                    Some((last, prot))
                        if *prot == after
                            && (last.end == at
                                || after.is_none() && is_gap && owned.covers(last.start..end)) =>
                    {
                        last.end = end;
                    }
                    _ => changes.push((at..end, after)),
                }
                is_gap = true;
            }
            at = end;
        }
        changes
    }
}

/// Walks along a layout.
struct Cursor<'a> {
    rest: &'a [(Range<usize>, Prot)],
}

impl<'a> Cursor<'a> {
    fn new(rest: &'a [(Range<usize>, Prot)]) -> Cursor<'a> {
        Cursor { rest }
    }

    /// The first border above `at`; addresses never go back.
    fn next_border(&mut self, at: usize) -> Option<usize> {
        while let Some((range, _)) = self.rest.first() {
            if range.start > at {
                return Some(range.start);
            }
            if range.end > at {
                return Some(range.end);
            }
            self.rest = &self.rest[1..];
        }
        None
    }

    fn prot_at(&self, at: usize) -> Prot {
        match self.rest.first() {
            Some((range, prot)) if range.contains(&at) => *prot,
            _ => Prot::NONE,
        }
    }
}

impl Space {
    /// What the host's page tables say while this space is in place. Of members of groups it is remembered
    /// until something changes.
    pub fn layout(&mut self) -> Arc<Layout> {
        if self.overlay.group.is_none() {
            return Arc::new(self.find_layout());
        }
        if let Some(known) = &self.overlay.layout {
            return known.clone();
        }
        let layout = Arc::new(self.find_layout());
        self.overlay.layout = Some(layout.clone());
        layout
    }

    fn find_layout(&self) -> Layout {
        let mut layout = Layout::default();
        for vma in self.vmas.iter().filter(|vma| !vma.is_global()) {
            for part in self.granted.within(vma.range()) {
                for (piece, prot) in self.shown(part, vma.prot) {
                    layout.push(piece, prot);
                }
            }
        }
        layout
    }

    /// Pages of a mapping with `prot`, and what the host is to allow: shared pages are not written.
    pub fn shown(&self, range: Range<usize>, prot: Prot) -> Vec<(Range<usize>, Prot)> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        if prot.contains(Prot::WRITE) {
            for tracked in self.overlay.tracked.within(range.clone()) {
                pieces.push((at..tracked.start, prot));
                pieces.push((tracked.clone(), prot.without(Prot::WRITE).union(Prot::READ)));
                at = tracked.end;
            }
        }
        pieces.push((at..range.end, prot));
        pieces.retain(|(piece, _)| !piece.is_empty());
        pieces
    }
}
