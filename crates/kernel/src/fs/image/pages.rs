//! The page cache: checked blocks of image files, shared by all readers.
//!
//! Blocks are large, because hashing and finding cost per block: a cached read is one lookup and one copy
//! for 128 KiB. All blocks of all files stand in one queue; when there are too many, the oldest that was not
//! used since it was last looked at goes (second chance). A block in use stays alive by its `Arc`.
//!
//! Locks: a file's map and the queue, never both at once; none is held while a block is loaded.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_enclave::pages::Pages;
use spin::RwLock;

use crate::error::{Errno, Error, Result};
use crate::sched::SpinLock;
use crate::vfs::Sink;

/// Eight leaf blocks of the image.
const BLOCK: usize = 128 << 10;
const PAGE: usize = 4096;
/// Bytes the cache may hold.
const LIMIT: usize = 256 << 20;

/// The cached blocks of one file.
pub struct FilePages {
    blocks: RwLock<BTreeMap<u64, Arc<Block>>>,
}

struct Block {
    pages: Pages,
    is_recent: AtomicBool,
}

struct Queue {
    blocks: VecDeque<(Weak<FilePages>, u64, usize)>,
    bytes: usize,
}

static QUEUE: SpinLock<Queue> = SpinLock::new(Queue { blocks: VecDeque::new(), bytes: 0 });

impl FilePages {
    pub fn new() -> Arc<FilePages> {
        Arc::new(FilePages { blocks: RwLock::new(BTreeMap::new()) })
    }

    /// Reads from a file of `size` bytes; `load(offset, buf)` fills a block that is not cached.
    pub fn read_at(
        self: &Arc<FilePages>,
        size: u64,
        offset: u64,
        sink: &mut Sink<'_>,
        mut load: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut position = offset;
        while sink.room() > 0 && position < size {
            let number = position / BLOCK as u64;
            let start = number * BLOCK as u64;
            let stored = usize::try_from(size - start).map_or(BLOCK, |rest| rest.min(BLOCK));
            let block = match self.cached(number) {
                Some(block) => block,
                None => self.load_block(number, stored, |buf| load(start, buf))?,
            };
            let copied = sink.put(&block.pages[(position - start) as usize..stored]);
            if copied == 0 {
                break;
            }
            position += copied as u64;
        }
        Ok(())
    }

    fn cached(&self, number: u64) -> Option<Arc<Block>> {
        let block = self.blocks.read().get(&number).cloned()?;
        if !block.is_recent.load(Ordering::Relaxed) {
            block.is_recent.store(true, Ordering::Relaxed);
        }
        Some(block)
    }

    fn load_block(
        self: &Arc<FilePages>,
        number: u64,
        stored: usize,
        load: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Arc<Block>> {
        let order = stored.div_ceil(PAGE).next_power_of_two().trailing_zeros() as usize;
        let no_memory = |_| Error::new(Errno::ENOMEM, "page cache");
        let mut pages = Pages::new(order).map_err(no_memory)?;
        load(&mut pages[..stored])?;
        let block = Arc::new(Block { pages, is_recent: AtomicBool::new(false) });
        let size = PAGE << order;
        // If another vCPU was faster, its block stays in the queue twice, which only costs a look.
        self.blocks.write().insert(number, block.clone());
        let too_many = {
            let mut queue = QUEUE.lock();
            queue.blocks.push_back((Arc::downgrade(self), number, size));
            queue.bytes += size;
            queue.bytes > LIMIT
        };
        if too_many {
            evict();
        }
        Ok(block)
    }
}

/// Takes the oldest blocks away until the limit holds.
fn evict() {
    loop {
        let (file, number, size) = {
            let mut queue = QUEUE.lock();
            if queue.bytes <= LIMIT {
                return;
            }
            let Some(oldest) = queue.blocks.pop_front() else { return };
            oldest
        };
        let is_recent = file.upgrade().is_some_and(|file| {
            let mut blocks = file.blocks.write();
            let is_recent = blocks
                .get(&number)
                .is_some_and(|block| block.is_recent.swap(false, Ordering::Relaxed));
            if !is_recent {
                blocks.remove(&number);
            }
            is_recent
        });
        let mut queue = QUEUE.lock();
        if is_recent {
            queue.blocks.push_back((file, number, size));
        } else {
            queue.bytes -= size;
        }
    }
}

/// Bytes in the cache (for /proc/meminfo).
pub fn cached_bytes() -> usize {
    QUEUE.lock().bytes
}
