//! A bounded cache of checked blocks, shared by all vCPUs.
//!
//! Clock replacement: a hit marks the slot, the hand takes the first unmarked one. Blocks are
//! handed out as `Arc`, so evicting one that is in use is harmless.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use super::hash::Block;

pub type CachedBlock = Arc<Block<Vec<u8>>>;

/// How many blocks an open image keeps. Memory: `nodes * 4096 + leaves * 16384` bytes.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Tree nodes; one of level 0 covers 2 MiB of the image.
    pub nodes: usize,
    /// Leaf blocks with inodes, directories, small files and the ends of files.
    pub leaves: usize,
}

impl Default for CacheLimits {
    /// 512 KiB of nodes and 2 MiB of leaves.
    fn default() -> Self {
        CacheLimits {
            nodes: 128,
            leaves: 128,
        }
    }
}

pub struct BlockCache {
    limit: usize,
    clock: Mutex<Clock>,
}

#[derive(Default)]
struct Clock {
    slots: Vec<Slot>,
    slot_of: BTreeMap<u64, usize>,
    hand: usize,
}

struct Slot {
    key: u64,
    block: CachedBlock,
    is_recent: bool,
}

impl BlockCache {
    /// A cache of `limit` blocks, at least 1.
    pub fn new(limit: usize) -> BlockCache {
        BlockCache {
            limit: limit.max(1),
            clock: Mutex::new(Clock::default()),
        }
    }

    pub fn get(&self, key: u64) -> Option<CachedBlock> {
        let mut clock = self.clock.lock();
        let index = *clock.slot_of.get(&key)?;
        let slot = clock.slots.get_mut(index)?;
        slot.is_recent = true;
        Some(slot.block.clone())
    }

    /// Keeps `block`. If two vCPUs loaded the same block, the first one stays.
    pub fn insert(&self, key: u64, block: &CachedBlock) {
        let evicted = self.clock.lock().insert(self.limit, key, block.clone());
        // Freed here, outside the lock.
        drop(evicted);
    }
}

impl Clock {
    fn insert(&mut self, limit: usize, key: u64, block: CachedBlock) -> Option<CachedBlock> {
        if self.slot_of.contains_key(&key) {
            return Some(block);
        }
        let slot = Slot {
            key,
            block,
            is_recent: false,
        };
        if self.slots.len() < limit {
            self.slot_of.insert(key, self.slots.len());
            self.slots.push(slot);
            return None;
        }
        let victim = self.next_victim();
        let old = core::mem::replace(&mut self.slots[victim], slot);
        self.slot_of.remove(&old.key);
        self.slot_of.insert(key, victim);
        Some(old.block)
    }

    /// Ends within two rounds: the first round unmarks every slot it passes.
    fn next_victim(&mut self) -> usize {
        loop {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !core::mem::take(&mut self.slots[index].is_recent) {
                return index;
            }
        }
    }
}
