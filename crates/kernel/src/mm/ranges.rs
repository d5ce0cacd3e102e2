//! [`RangeSet`]: disjoint address ranges, kept merged and sorted.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// A set of addresses as maximal, non-adjacent ranges.
#[derive(Clone, Default)]
pub(super) struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<usize, usize>,
    size: usize,
}

impl RangeSet {
    pub const fn new() -> RangeSet {
        RangeSet { ranges: BTreeMap::new(), size: 0 }
    }

    /// Bytes in the set.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many ranges.
    pub fn parts(&self) -> usize {
        self.ranges.len()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Adds a range; what was there already stays. Gives the bytes that are new.
    pub fn insert(&mut self, range: Range<usize>) -> usize {
        if range.is_empty() {
            return 0;
        }
        let before = self.size;
        self.remove(range.clone());
        let Range { mut start, mut end } = range;
        self.size += end - start;
        if let Some((&left, &left_end)) = self.ranges.range(..start).next_back()
            && left_end == start
        {
            self.ranges.remove(&left);
            start = left;
        }
        if let Some(right_end) = self.ranges.remove(&end) {
            end = right_end;
        }
        self.ranges.insert(start, end);
        self.size - before
    }

    /// Removes a range; gives the bytes that were there.
    pub fn remove(&mut self, range: Range<usize>) -> usize {
        let before = self.size;
        while let Some(found) = self.last_touching(&range) {
            self.ranges.remove(&found.start);
            if found.start < range.start {
                self.ranges.insert(found.start, range.start);
            }
            if found.end > range.end {
                self.ranges.insert(range.end, found.end);
            }
            self.size -= found.end.min(range.end) - found.start.max(range.start);
        }
        before - self.size
    }

    /// The range that holds `address`.
    pub fn at(&self, address: usize) -> Option<Range<usize>> {
        let (&start, &end) = self.ranges.range(..=address).next_back()?;
        (address < end).then_some(start..end)
    }

    /// Whether every address of a range is in the set.
    pub fn covers(&self, range: Range<usize>) -> bool {
        range.is_empty() || self.at(range.start).is_some_and(|found| found.end >= range.end)
    }

    /// The parts of the set inside `range`, ascending.
    pub fn within(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let first = self.at(range.start).map_or(range.start, |found| found.start);
        if range.start >= range.end {
            return Vec::new();
        }
        let found = self.ranges.range(first..range.end);
        found.map(|(&start, &end)| start.max(range.start)..end.min(range.end)).collect()
    }

    /// The parts of `range` that are not in the set, ascending.
    pub fn missing(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut missing = Vec::new();
        let mut at = range.start;
        for found in self.within(range.clone()) {
            if found.start > at {
                missing.push(at..found.start);
            }
            at = found.end;
        }
        if at < range.end {
            missing.push(at..range.end);
        }
        missing
    }

    /// The highest address inside `bounds` where `size` bytes are in the set.
    pub fn highest_fit(&self, size: usize, align: usize, bounds: Range<usize>) -> Option<usize> {
        self.ranges.range(..bounds.end).rev().find_map(|(&start, &end)| {
            let top = end.min(bounds.end).checked_sub(size)? & !(align - 1);
            (top >= start.max(bounds.start)).then_some(top)
        })
    }

    /// The lowest address inside `bounds` where `size` bytes are in the set.
    pub fn lowest_fit(&self, size: usize, align: usize, bounds: Range<usize>) -> Option<usize> {
        let first = self.at(bounds.start).map_or(bounds.start, |found| found.start);
        if first >= bounds.end {
            return None;
        }
        self.ranges.range(first..bounds.end).find_map(|(&start, &end)| {
            let at = start.max(bounds.start).checked_next_multiple_of(align)?;
            (at.checked_add(size)? <= end.min(bounds.end)).then_some(at)
        })
    }

    fn last_touching(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let (&start, &end) = self.ranges.range(..range.end).next_back()?;
        (end > range.start && !range.is_empty()).then_some(start..end)
    }
}

impl Extend<Range<usize>> for RangeSet {
    fn extend<I: IntoIterator<Item = Range<usize>>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert(range);
        }
    }
}

impl FromIterator<Range<usize>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<usize>>>(ranges: I) -> RangeSet {
        let mut set = RangeSet::new();
        set.extend(ranges);
        set
    }
}
