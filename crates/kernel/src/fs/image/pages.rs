//! Checked blocks of image files in the page cache, shared by all readers.
//!
//! Blocks are large, because hashing and finding cost per block: a cached read is one lookup and one copy
//! for 128 KiB. A block in use stays alive by its `Arc`.
//!
//! Lock: a file's map; it is not held while a block is loaded.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_enclave::pages::Pages;
use spin::RwLock;

use crate::error::{Errno, Error, Result};
use crate::fs::cache::{self, Cached, Evicted, ReadOnce};
use crate::sched::SpinLock;
use crate::vfs::Sink;

/// Eight leaf blocks of the image.
const BLOCK: usize = 128 << 10;
const PAGE: usize = 4096;

/// The cached blocks of one file.
pub struct FilePages {
    blocks: RwLock<BTreeMap<u64, Arc<Block>>>,
    read_once: SpinLock<ReadOnce>,
}

struct Block {
    pages: Pages,
    is_recent: AtomicBool,
}

impl FilePages {
    pub fn new() -> Arc<FilePages> {
        Arc::new(FilePages { blocks: RwLock::new(BTreeMap::new()), read_once: SpinLock::new(ReadOnce::default()) })
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
        if !self.read_once.lock().is_kept(number) {
            return Ok(block);
        }
        let size = PAGE << order;
        // If another vCPU was faster, its block stays in the queue twice, which only costs a look.
        self.blocks.write().insert(number, block.clone());
        let me: Weak<FilePages> = Arc::downgrade(self);
        cache::added(me, number, size);
        Ok(block)
    }
}

impl Cached for FilePages {
    fn evict(&self, number: u64) -> Evicted {
        let mut blocks = self.blocks.write();
        let is_recent =
            blocks.get(&number).is_some_and(|block| block.is_recent.swap(false, Ordering::Relaxed));
        if is_recent {
            return Evicted::Kept;
        }
        let gone = blocks.remove(&number);
        drop(blocks);
        drop(gone);
        Evicted::Gone
    }
}
