//! Warm pages that were left accessible ([`Standing`]).
//!
//! When a space ends nobody runs in it any more, so its pages need not be closed: the next run of
//! the same program wants most of them as they are, and each change of permissions costs microseconds.
//! What stands is closed before user code runs over it: all of it when the arena goes to another program, what is
//! left of it when a program is loaded (`Space::close_standing`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use super::vma::Prot;

/// Disjoint ranges and what the host's page tables allow there.
#[derive(Default)]
pub(super) struct Standing {
    /// Start to end and permissions; neighbours differ.
    parts: BTreeMap<usize, (usize, Prot)>,
}

impl Standing {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Ranges come in ascending order, on nothing that stands.
    pub fn insert(&mut self, range: Range<usize>, prot: Prot) {
        if range.is_empty() || prot.is_none() {
            return;
        }
        match self.parts.range_mut(..range.start).next_back() {
            Some((_, (end, same))) if *end == range.start && *same == prot => *end = range.end,
            _ => drop(self.parts.insert(range.start, (range.end, prot))),
        }
    }

    /// Whether all of a range stands with just these permissions.
    pub fn is(&self, range: &Range<usize>, prot: Prot) -> bool {
        let found = self.parts.range(..=range.start).next_back();
        found.is_some_and(|(_, &(end, stands))| end >= range.end && stands.host_bits() == prot.host_bits())
    }

    /// Forgets a range: it was closed, or granted.
    pub fn remove(&mut self, range: &Range<usize>) {
        loop {
            let last = self.parts.range(..range.end).next_back();
            let Some((&start, &(end, prot))) = last.filter(|(_, (end, _))| *end > range.start) else { return };
            self.parts.remove(&start);
            if end > range.end {
                self.parts.insert(range.end, (end, prot));
            }
            if start < range.start {
                self.parts.insert(start, (range.start, prot));
            }
        }
    }

    pub fn within(&self, range: &Range<usize>) -> Vec<Range<usize>> {
        let before = self.parts.range(..range.start).next_back();
        let parts = before.into_iter().chain(self.parts.range(range.clone()));
        let cut = parts.map(|(&start, &(end, _))| start.max(range.start)..end.min(range.end));
        cut.filter(|part| !part.is_empty()).collect()
    }
}
