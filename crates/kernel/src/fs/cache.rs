//! The page cache's bound: blocks of all files that can be read again, oldest first, and who goes when
//! there are too many.
//!
//! A file keeps its own blocks and tells of each here once. The oldest one that was not used since it was last
//! looked at goes (second chance). What is not yet written stays; writers keep it to a quarter of the
//! limit ([`dirty_limit`]).
//!
//! Lock: the queue's, a leaf; it is not held while a file is asked.

use alloc::collections::VecDeque;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::sched::SpinLock;

/// Bytes the cache may hold when the configuration does not say.
const DEFAULT_LIMIT: usize = 256 << 20;

/// Bytes that may be dirty in a large cache: more would not make the disk faster.
const MAX_DIRTY: usize = 32 << 20;
/// Bytes that the cache takes without asking whether they are read again.
const SMALL: usize = 128 << 20;

/// A file whose blocks are in the cache.
pub trait Cached: Send + Sync {
    /// Drops block `number` if it can.
    fn evict(&self, number: u64) -> Evicted;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// It is no longer there.
    Gone,
    /// It was used, is being used or is not yet written.
    Kept,
}

struct Queue {
    blocks: VecDeque<(Weak<dyn Cached>, u64, usize)>,
    bytes: usize,
}

static QUEUE: SpinLock<Queue> = SpinLock::new(Queue { blocks: VecDeque::new(), bytes: 0 });
static LIMIT: AtomicUsize = AtomicUsize::new(DEFAULT_LIMIT);

/// Bounds the cache to `bytes`.
pub fn set_limit(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// Which blocks of a file were read, but not kept.
///
/// Memory the enclave has not used yet costs more to touch than blocks cost to check (the host clears it, and
/// may have to find it), and much is read only once: beyond a small cache, only what is read again is kept, and
/// the memory of what is not is used for the next block.
#[derive(Default)]
pub struct ReadOnce {
    bits: Vec<u64>,
}

impl ReadOnce {
    /// Whether a block that was just read stays.
    pub fn is_kept(&mut self, number: u64) -> bool {
        if is_small() {
            return true;
        }
        let (Ok(word), bit) = (usize::try_from(number / 64), number % 64) else { return true };
        if word >= self.bits.len() {
            let more = word + 1 - self.bits.len();
            if self.bits.try_reserve(more).is_err() {
                return true;
            }
            self.bits.resize(word + 1, 0);
        }
        let was_read = self.bits[word] >> bit & 1 != 0;
        self.bits[word] |= 1 << bit;
        was_read
    }
}

/// Whether the cache is so small that it may take anything.
pub fn is_small() -> bool {
    bytes() < SMALL
}

/// Bytes that may wait to be written before who writes must help.
pub fn dirty_limit() -> usize {
    (LIMIT.load(Ordering::Relaxed) / 4).min(MAX_DIRTY)
}

/// Bytes in the cache (for /proc/meminfo).
pub fn bytes() -> usize {
    QUEUE.lock().bytes
}

/// `file` has a new block of `size` bytes. The caller holds no lock that `evict` needs of another file.
pub fn added(file: Weak<dyn Cached>, number: u64, size: usize) {
    let too_many = {
        let mut queue = QUEUE.lock();
        queue.blocks.push_back((file, number, size));
        queue.bytes += size;
        queue.bytes > LIMIT.load(Ordering::Relaxed)
    };
    if too_many {
        evict();
    }
}

/// Takes the oldest blocks away until the limit holds, or all were asked twice.
fn evict() {
    let mut attempts = QUEUE.lock().blocks.len() * 2;
    while attempts > 0 {
        attempts -= 1;
        let (file, number, size) = {
            let mut queue = QUEUE.lock();
            if queue.bytes <= LIMIT.load(Ordering::Relaxed) {
                return;
            }
            let Some(oldest) = queue.blocks.pop_front() else { return };
            oldest
        };
        let evicted = file.upgrade().map_or(Evicted::Gone, |file| file.evict(number));
        let mut queue = QUEUE.lock();
        match evicted {
            Evicted::Kept => queue.blocks.push_back((file, number, size)),
            Evicted::Gone => queue.bytes -= size,
        }
    }
}
