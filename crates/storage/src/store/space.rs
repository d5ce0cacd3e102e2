//! Which blocks are free.
//!
//! Each group of 32768 blocks has two maps. *Used* is what the next commit makes true: it has what is
//! referred to. *Busy* has also what an earlier commit refers to, and what is reserved; only what is
//! not busy is given out. After a commit nothing needs the earlier one, and busy becomes equal to used.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::disk::Disk;
use super::error::{Result, StoreError};
use super::item::Group;
use super::pointer::{BLOCK, Pointer};
use super::seal::BlockKind;
use super::vault::Vault;

pub const GROUP_LEN: u64 = (BLOCK * 8) as u64;
const WORDS: usize = BLOCK / 8;
/// Runs of this length are as good as any.
const GOOD_RUN: u64 = 64;

/// Blocks in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub start: u64,
    pub len: u64,
}

pub struct Space {
    groups: Vec<GroupState>,
    /// Blocks that the store may have.
    limit: u64,
    /// One past the last block ever used.
    high: u64,
    /// Where the next search begins.
    cursor: u64,
    /// Blocks that can be given out.
    free: u64,
    /// Groups that are dirty.
    dirty: u64,
}

#[derive(Default)]
struct GroupState {
    stored: Option<Group>,
    maps: Option<Box<Maps>>,
    /// Not busy.
    free: u32,
    /// No run of free blocks is longer.
    longest: u32,
    /// The stored map is not `used`.
    is_dirty: bool,
    /// `busy` is more than `used`.
    is_held: bool,
}

struct Maps {
    used: [u64; WORDS],
    busy: [u64; WORDS],
}

impl Space {
    /// A space of `limit` blocks, all free.
    pub fn new(limit: u64) -> Result<Space> {
        let count = usize::try_from(limit.div_ceil(GROUP_LEN)).map_err(|_| StoreError::Invalid)?;
        let mut groups = Vec::new();
        groups
            .try_reserve_exact(count)
            .map_err(|_| StoreError::OutOfMemory)?;
        for index in 0..count as u64 {
            let free = (limit - index * GROUP_LEN).min(GROUP_LEN) as u32;
            groups.push(GroupState {
                free,
                longest: free,
                ..GroupState::default()
            });
        }
        Ok(Space {
            groups,
            limit,
            high: 0,
            cursor: 0,
            free: limit,
            dirty: 0,
        })
    }

    /// The map of a group, as the tree has it.
    pub fn add_group(&mut self, index: u64, group: Group) -> Result<()> {
        let state = usize::try_from(index)
            .ok()
            .and_then(|index| self.groups.get_mut(index))
            .ok_or(StoreError::Malformed("a space map lies behind the store"))?;
        let free = group.free.min(state.free);
        self.free -= u64::from(state.free - free);
        state.free = free;
        state.longest = free;
        state.stored = Some(group);
        Ok(())
    }

    pub fn set_high(&mut self, high: u64) {
        self.high = self.high.max(high);
    }

    /// Lowers the end to one past the last block in use, as far as that is known without reading.
    pub fn lower_high(&mut self) {
        while self.high > 0 {
            let index = (self.high - 1) / GROUP_LEN;
            let Some(maps) = &self.groups[index as usize].maps else {
                return;
            };
            let base = index * GROUP_LEN;
            let last = (0..self.high - base)
                .rev()
                .find(|bit| is_set(&maps.used, *bit));
            self.high = base + last.map_or(0, |bit| bit + 1);
            if last.is_some() {
                return;
            }
        }
    }

    /// One past the last block ever used: the file's size in blocks.
    pub fn high(&self) -> u64 {
        self.high
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Blocks that can be given out now.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Reserves 1 to `want` blocks in a row; none if nothing is free.
    pub fn reserve<D: Disk>(&mut self, vault: &mut Vault<D>, want: u64) -> Result<Option<Run>> {
        if self.free == 0 {
            return Ok(None);
        }
        let good = want.clamp(1, GOOD_RUN);
        let is_holey = self.holes() > self.high / 8 + 1024;
        let mut atleast = good;
        while is_holey && atleast > 0 {
            if let Some(run) = self.search(vault, self.high, want, atleast)? {
                return Ok(Some(run));
            }
            atleast /= 4;
        }
        for (bound, atleast) in [(self.high, good), (self.limit, good), (self.limit, 1)] {
            if let Some(run) = self.search(vault, bound, want, atleast)? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// Free blocks in front of the end.
    fn holes(&self) -> u64 {
        let beyond = self.limit.saturating_sub(self.high);
        self.free.saturating_sub(beyond)
    }

    /// If half of the file is free, what is written next goes to its beginning, so that the end can
    /// be cut off.
    pub fn prefer_low(&mut self) {
        if self.holes() > self.high / 2 {
            self.cursor = 0;
        }
    }

    /// Looks below `bound` for a run of `atleast` blocks, from the cursor on and then around.
    fn search<D: Disk>(
        &mut self,
        vault: &mut Vault<D>,
        bound: u64,
        want: u64,
        atleast: u64,
    ) -> Result<Option<Run>> {
        let count = bound.div_ceil(GROUP_LEN);
        let first = (self.cursor / GROUP_LEN).min(count.saturating_sub(1));
        for step in 0..=count {
            let index = (first + step) % count.max(1);
            if index >= count || u64::from(self.groups[index as usize].longest) < atleast {
                continue;
            }
            self.load(vault, index)?;
            let from = if step == 0 {
                self.cursor % GROUP_LEN
            } else {
                0
            };
            if let Some(run) = self.search_group(index, bound, from, want, atleast) {
                self.hold(run);
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    fn search_group(
        &mut self,
        index: u64,
        bound: u64,
        from: u64,
        want: u64,
        atleast: u64,
    ) -> Option<Run> {
        let base = index * GROUP_LEN;
        let end = (self.limit - base).min(GROUP_LEN);
        let group = &mut self.groups[index as usize];
        let busy = &group.maps.as_ref()?.busy;
        let mut longest = 0;
        let mut at = from;
        while let Some(free) = next_run(busy, at, end, want) {
            if base + free.start >= bound {
                return None;
            }
            if free.len >= atleast {
                return Some(Run {
                    start: base + free.start,
                    len: free.len,
                });
            }
            longest = longest.max(free.len);
            at = free.start + free.len;
        }
        if from == 0 {
            group.longest = longest as u32;
        }
        None
    }

    fn hold(&mut self, run: Run) {
        let group = &mut self.groups[(run.start / GROUP_LEN) as usize];
        if let Some(maps) = &mut group.maps {
            for block in run.start..run.start + run.len {
                set(&mut maps.busy, block % GROUP_LEN);
            }
        }
        group.free -= run.len as u32;
        group.is_held = true;
        self.free -= run.len;
        self.cursor = run.start + run.len;
    }

    /// Where the next search begins.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next search begins here: the rest of a reserved run was not needed.
    pub fn set_cursor(&mut self, block: u64) {
        self.cursor = block;
    }

    /// A block comes into use: one that was reserved, or one that a log record names.
    pub fn mark_used<D: Disk>(&mut self, vault: &mut Vault<D>, block: u64) -> Result<()> {
        let index = self.check(block)?;
        self.load(vault, index)?;
        let group = &mut self.groups[index as usize];
        let maps = group.maps.as_mut().expect("it was just loaded");
        if set(&mut maps.used, block % GROUP_LEN) {
            return Err(StoreError::Malformed("a block is used twice"));
        }
        if !set(&mut maps.busy, block % GROUP_LEN) {
            group.free -= 1;
            self.free -= 1;
        }
        self.dirty += u64::from(!core::mem::replace(&mut group.is_dirty, true));
        self.high = self.high.max(block + 1);
        Ok(())
    }

    pub fn is_used<D: Disk>(&mut self, vault: &mut Vault<D>, block: u64) -> Result<bool> {
        let index = self.check(block)?;
        self.load(vault, index)?;
        let maps = self.groups[index as usize].maps.as_ref();
        Ok(maps.is_some_and(|maps| is_set(&maps.used, block % GROUP_LEN)))
    }

    /// A block goes out of use. It is given out again after the next commit.
    pub fn mark_free<D: Disk>(&mut self, vault: &mut Vault<D>, block: u64) -> Result<()> {
        let index = self.check(block)?;
        self.load(vault, index)?;
        let group = &mut self.groups[index as usize];
        let maps = group.maps.as_mut().expect("it was just loaded");
        if !clear(&mut maps.used, block % GROUP_LEN) {
            return Err(StoreError::Malformed("a free block is freed"));
        }
        self.dirty += u64::from(!core::mem::replace(&mut group.is_dirty, true));
        group.is_held = true;
        Ok(())
    }

    /// Gives a block out again at once: no commit ever named it.
    pub fn give_back(&mut self, block: u64) {
        let group = &mut self.groups[(block / GROUP_LEN) as usize];
        if let Some(maps) = &mut group.maps
            && clear(&mut maps.busy, block % GROUP_LEN)
        {
            group.free += 1;
            group.longest = GROUP_LEN as u32;
            self.free += 1;
        }
    }

    /// A commit is durable: only what it uses is busy.
    pub fn committed(&mut self) {
        for group in &mut self.groups {
            if !core::mem::take(&mut group.is_held) {
                continue;
            }
            if let Some(maps) = &mut group.maps {
                let before = count_ones(&maps.busy);
                maps.busy = maps.used;
                let released = before - count_ones(&maps.busy);
                group.free += released;
                group.longest = GROUP_LEN as u32;
                self.free += u64::from(released);
            }
        }
    }

    /// Groups whose stored maps are not what they should be.
    pub fn dirty_groups(&self) -> Vec<u64> {
        let dirty = self
            .groups
            .iter()
            .zip(0..)
            .filter(|(group, _)| group.is_dirty);
        dirty.map(|(_, index)| index).collect()
    }

    pub fn group_count(&self) -> u64 {
        self.groups.len() as u64
    }

    pub fn dirty_count(&self) -> u64 {
        self.dirty
    }

    /// Where the group's map was last written.
    pub fn stored_map(&self, index: u64) -> Option<u64> {
        self.groups[index as usize]
            .stored
            .map(|group| group.map.block)
    }

    /// The bytes of a group's map, to be sealed.
    pub fn encode(&self, index: u64, out: &mut Vec<u8>) {
        let maps = self.groups[index as usize].maps.as_ref();
        let maps = maps.expect("a group that changed is loaded");
        maps.used
            .iter()
            .for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    /// The map was written; gives the item for the tree.
    pub fn stored(&mut self, index: u64, map: Pointer) -> Group {
        let base = index * GROUP_LEN;
        let size = (self.limit - base).min(GROUP_LEN) as u32;
        let group = &mut self.groups[index as usize];
        let used = group.maps.as_ref().map_or(0, |maps| count_ones(&maps.used));
        let item = Group {
            map,
            free: size - used,
        };
        group.stored = Some(item);
        self.dirty -= u64::from(core::mem::take(&mut group.is_dirty));
        item
    }

    fn check(&self, block: u64) -> Result<u64> {
        if block >= self.limit {
            return Err(StoreError::Malformed("a block lies behind the store"));
        }
        Ok(block / GROUP_LEN)
    }

    fn load<D: Disk>(&mut self, vault: &mut Vault<D>, index: u64) -> Result<()> {
        let group = &mut self.groups[index as usize];
        if group.maps.is_some() {
            return Ok(());
        }
        let mut used = [0; WORDS];
        if let Some(stored) = &group.stored {
            let block = vault.read_block(BlockKind::Map, &stored.map)?;
            let (words, _) = block.as_chunks::<8>();
            for (word, bytes) in used.iter_mut().zip(words) {
                *word = u64::from_le_bytes(*bytes);
            }
            let size = (self.limit - index * GROUP_LEN).min(GROUP_LEN) as u32;
            let free = size.saturating_sub(count_ones(&used));
            self.free = self.free + u64::from(free) - u64::from(group.free);
            group.free = free;
        }
        let busy = used;
        group.maps = Some(Box::new(Maps { used, busy }));
        Ok(())
    }
}

/// The first run of clear bits in `from..end`, cut to `want`.
fn next_run(words: &[u64; WORDS], from: u64, end: u64, want: u64) -> Option<Run> {
    let start = next_bit(words, from, end, 0)?;
    let bound = end.min(start.saturating_add(want));
    let stop = next_bit(words, start, bound, u64::MAX).unwrap_or(bound);
    Some(Run {
        start,
        len: stop - start,
    })
}

/// The first bit in `from..end` that is clear (`flip` 0) or set (`flip`
/// `u64::MAX`).
fn next_bit(words: &[u64; WORDS], from: u64, end: u64, flip: u64) -> Option<u64> {
    let mut at = from;
    while at < end {
        let word = (words[(at / 64) as usize] ^ !flip) >> (at % 64);
        if word != 0 {
            let found = at + u64::from(word.trailing_zeros());
            return (found < end).then_some(found);
        }
        at = (at / 64 + 1) * 64;
    }
    None
}

fn is_set(words: &[u64; WORDS], bit: u64) -> bool {
    words[(bit / 64) as usize] >> (bit % 64) & 1 == 1
}

/// Says whether it was set before.
fn set(words: &mut [u64; WORDS], bit: u64) -> bool {
    let was = is_set(words, bit);
    words[(bit / 64) as usize] |= 1 << (bit % 64);
    was
}

fn clear(words: &mut [u64; WORDS], bit: u64) -> bool {
    let was = is_set(words, bit);
    words[(bit / 64) as usize] &= !(1 << (bit % 64));
    was
}

fn count_ones(words: &[u64; WORDS]) -> u32 {
    words.iter().map(|word| word.count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_between_set_bits() {
        let mut words = [0; WORDS];
        (0..70).for_each(|bit| assert!(!set(&mut words, bit)));
        set(&mut words, 75);
        let run = |start, len| Some(Run { start, len });
        assert_eq!(next_run(&words, 0, GROUP_LEN, 64), run(70, 5));
        assert_eq!(next_run(&words, 75, GROUP_LEN, 64), run(76, 64));
        assert_eq!(next_run(&words, 76, 80, 64), run(76, 4));
        assert_eq!(next_run(&words, 0, 70, 64), None);
        assert!(clear(&mut words, 3));
        assert_eq!(next_run(&words, 0, GROUP_LEN, 64), run(3, 1));
    }
}
