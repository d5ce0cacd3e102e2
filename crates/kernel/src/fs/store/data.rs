//! The content of a regular file of a store, in the page cache.
//!
//! Blocks of 16 pages, of which some are valid (as the file has them) and of those some dirty (newer than the
//! store). Reading in order loads whole blocks, reading here and there single pages. Written pages wait until
//! fsync, the write-back task, or too many of them send them to the store, neighbours together.
//!
//! Lock order: the content's (sleeping, one for each file), then the store's.

use alloc::collections::BTreeMap;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use occlum_enclave::pages::Pages;

use super::Shared;
use crate::error::{Errno, Error, Result, err};
use crate::fs::cache::{Evicted, ReadOnce};
use crate::sched::Mutex;
use crate::vfs::inode::Position;
use crate::vfs::{Sink, Source};

const PAGE: usize = 4096;
const BLOCK_ORDER: usize = 4;
/// Bytes of a block.
pub const BLOCK: usize = PAGE << BLOCK_ORDER;
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64 & !(BLOCK as u64 - 1);

pub struct Data {
    size: AtomicU64,
    content: Mutex<Content>,
}

struct Content {
    blocks: BTreeMap<u64, Block>,
    /// What the store takes for the size. Behind it are zeros, or dirty pages.
    stored: u64,
    /// Where the last read ended.
    next_read: u64,
    read_once: ReadOnce,
}

struct Block {
    pages: Pages,
    /// One bit for each page.
    valid: u16,
    dirty: u16,
    is_recent: bool,
    /// The cache knows of it, and may take it away when it is clean. Blocks that were only written are told of
    /// when they are clean, if they stay at all.
    is_known: bool,
}

/// The file in its store.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub shared: &'a Shared,
    pub ino: u64,
}

/// What becomes of blocks that were only written, when they are clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Keep,
    /// Their memory is used for what is written next.
    Drop,
}

/// Blocks that a call has added to the cache, for `cache::added`.
pub type Added = alloc::vec::Vec<u64>;

impl Data {
    pub fn new(size: u64) -> Data {
        let content = Content { blocks: BTreeMap::new(), stored: size, next_read: 0, read_once: ReadOnce::default() };
        Data { size: AtomicU64::new(size), content: Mutex::new(content) }
    }

    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The file was copied to the store: it has `size` bytes there.
    pub fn reset(&self, size: u64) {
        self.content.lock().stored = size;
        self.size.store(size, Ordering::Release);
    }

    pub fn read_at(&self, place: Place<'_>, offset: u64, sink: &mut Sink<'_>, added: &mut Added) -> Result<()> {
        let mut content = self.content.lock();
        let size = self.size();
        let mut position = offset;
        while sink.room() > 0 && position < size {
            let (number, inside) = split(position);
            let step = (BLOCK - inside).min(clip(size - position)).min(sink.room());
            let is_next = position == content.next_read || inside == 0;
            let wanted = if is_next { 0..BLOCK } else { inside..inside + step };
            content.load(place, number, wanted)?;
            let Some(block) = content.blocks.get(&number) else { break };
            let copied = sink.put(&block.pages[inside..inside + step]);
            position += copied as u64;
            content.next_read = position;
            if copied < step {
                break;
            }
            content.was_read(number, inside + step == BLOCK, added);
        }
        Ok(())
    }

    /// Writes from `source`; gives the offset behind the last byte.
    pub fn write_at(
        &self,
        place: Place<'_>,
        at: Position,
        source: &mut Source<'_>,
    ) -> Result<u64> {
        let mut content = self.content.lock();
        let mut position = match at {
            Position::At(offset) => offset,
            Position::End => self.size(),
        };
        while source.left() > 0 {
            if position >= MAX_FILE_SIZE {
                return err(Errno::EFBIG, "file too large");
            }
            let (number, inside) = split(position);
            let taken = content.write_piece(place, number, inside, source)?;
            position += taken as u64;
            if position > self.size() && taken > 0 {
                self.size.store(position, Ordering::Release);
            }
            if taken == 0 {
                break;
            }
        }
        Ok(position)
    }

    /// Brings dirty pages to the store.
    pub fn write_back(&self, place: Place<'_>, then: Then, added: &mut Added) -> Result<()> {
        let mut content = self.content.lock();
        content.write_back(place, self.size())?;
        content.after_write_back(then, added);
        Ok(())
    }

    pub fn resize(&self, place: Place<'_>, size: u64) -> Result<()> {
        if size > MAX_FILE_SIZE {
            return err(Errno::EFBIG, "file too large");
        }
        let mut content = self.content.lock();
        if size < self.size() {
            content.cut(place.shared, size);
        }
        place.set_size(size)?;
        content.stored = size;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Lets `act` change the stored content from `offset` on; what is cached of it is forgotten. `act` gives the
    /// new size.
    pub fn change_stored(&self, place: Place<'_>, offset: u64, act: impl FnOnce() -> Result<u64>) -> Result<()> {
        let mut content = self.content.lock();
        content.write_back(place, self.size())?;
        let size = act()?;
        content.blocks.split_off(&split(offset).0);
        content.stored = size;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Nobody will read what was written: the file is gone.
    pub fn forget(&self, shared: &Shared) {
        let mut content = self.content.lock();
        content.cut(shared, 0);
    }

    pub fn evict(&self, number: u64) -> Evicted {
        let Some(mut content) = self.content.try_lock() else { return Evicted::Kept };
        let Some(block) = content.blocks.get_mut(&number) else { return Evicted::Gone };
        if core::mem::take(&mut block.is_recent) || block.dirty != 0 {
            return Evicted::Kept;
        }
        content.blocks.remove(&number);
        Evicted::Gone
    }
}

impl Content {
    /// The block, new and without valid pages if it is not there.
    fn block(&mut self, number: u64) -> Result<&mut Block> {
        if !self.blocks.contains_key(&number) {
            let no_memory = |_| Error::new(Errno::ENOMEM, "page cache");
            let pages = Pages::new(BLOCK_ORDER).map_err(no_memory)?;
            self.blocks.insert(number, Block { pages, valid: 0, dirty: 0, is_recent: false, is_known: false });
        }
        let block = self.blocks.get_mut(&number).ok_or(Error::new(Errno::EIO, "block"))?;
        block.is_recent = true;
        Ok(block)
    }

    /// Makes the pages that hold bytes `wanted` of a block valid.
    fn load(&mut self, place: Place<'_>, number: u64, wanted: Range<usize>) -> Result<()> {
        let stored = self.stored;
        let block = self.block(number)?;
        let missing = mask(&wanted) & !block.valid;
        for run in runs(missing) {
            let bytes = run.start * PAGE..run.end * PAGE;
            let offset = number * BLOCK as u64 + bytes.start as u64;
            place.read(offset, stored, &mut block.pages[bytes.clone()])?;
            block.valid |= mask(&bytes);
        }
        Ok(())
    }

    /// Writes within one block; gives the bytes taken.
    fn write_piece(
        &mut self,
        place: Place<'_>,
        number: u64,
        inside: usize,
        source: &mut Source<'_>,
    ) -> Result<usize> {
        let wanted = inside..inside + (BLOCK - inside).min(source.left());
        self.load_edges(place, number, &wanted)?;
        let block = self.block(number)?;
        place.shared.charge((mask(&wanted) & !block.dirty).count_ones())?;
        let taken = source.take(&mut block.pages[wanted.clone()]);
        let written = inside..inside + taken;
        let last = written.end / PAGE;
        let is_torn = taken < wanted.len() && !written.end.is_multiple_of(PAGE) && block.valid & 1 << last == 0;
        let (was_dirty, charged) = (block.dirty, mask(&wanted));
        if is_torn {
            // The copy stopped within a page that was to be written whole: its rest is as the file has it.
            let mut page = Pages::new(0).map_err(|_| Error::new(Errno::ENOMEM, "page cache"))?;
            let start = last * PAGE;
            let offset = number * BLOCK as u64 + start as u64;
            place.read(offset, self.stored, &mut page)?;
            let block = self.block(number)?;
            block.pages[written.end..start + PAGE].copy_from_slice(&page[written.end - start..]);
        }
        let block = self.block(number)?;
        block.valid |= mask(&written);
        block.dirty |= mask(&written);
        let unused = (charged & !was_dirty).count_ones() - (mask(&written) & !was_dirty).count_ones();
        place.shared.discharge(unused);
        Ok(taken)
    }

    /// Makes pages valid of which only a part is to be written.
    fn load_edges(&mut self, place: Place<'_>, number: u64, wanted: &Range<usize>) -> Result<()> {
        for edge in [wanted.start, wanted.end] {
            if !edge.is_multiple_of(PAGE) {
                let page = edge / PAGE * PAGE;
                self.load(place, number, page..page + PAGE)?;
            }
        }
        Ok(())
    }

    fn write_back(&mut self, place: Place<'_>, size: u64) -> Result<()> {
        let Content { blocks, stored, .. } = self;
        for (&number, block) in blocks.iter_mut().filter(|(_, block)| block.dirty != 0) {
            for run in runs(block.dirty) {
                let bytes = run.start * PAGE..run.end * PAGE;
                let offset = number * BLOCK as u64 + bytes.start as u64;
                let end = bytes.end.min(bytes.start + clip(size.saturating_sub(offset)));
                place.write(offset, &block.pages[bytes.start..end])?;
                *stored = (*stored).max(offset + (end - bytes.start) as u64);
                block.dirty &= !mask(&bytes);
                place.shared.discharge((run.end - run.start) as u32);
            }
        }
        Ok(())
    }

    /// A read used the block, to its end or not: lets the cache know of it, or forgets what is read only once.
    fn was_read(&mut self, number: u64, is_at_end: bool, added: &mut Added) {
        let Content { blocks, read_once, .. } = self;
        let Some(block) = blocks.get_mut(&number).filter(|block| !block.is_known && block.dirty == 0) else { return };
        if !is_at_end || read_once.is_kept(number) {
            block.is_known = true;
            added.push(number);
        } else {
            blocks.remove(&number);
        }
    }

    fn after_write_back(&mut self, then: Then, added: &mut Added) {
        self.blocks.retain(|&number, block| {
            if block.is_known || block.dirty != 0 {
                return true;
            }
            if then == Then::Drop {
                return false;
            }
            block.is_known = true;
            added.push(number);
            true
        });
    }

    /// Drops what lies behind `size`.
    fn cut(&mut self, shared: &Shared, size: u64) {
        let (number, inside) = split(size);
        let first_gone = if inside == 0 { number } else { number + 1 };
        for block in self.blocks.split_off(&first_gone).values() {
            shared.discharge(block.dirty.count_ones());
        }
        if let Some(block) = self.blocks.get_mut(&number) {
            let page_end = inside.next_multiple_of(PAGE);
            block.pages[inside..page_end].fill(0);
            let gone = mask(&(page_end..BLOCK));
            shared.discharge((block.dirty & gone).count_ones());
            block.valid &= !gone;
            block.dirty &= !gone;
        }
        self.stored = self.stored.min(size);
    }
}

/// Bits of the pages that hold bytes `range` of a block.
fn mask(range: &Range<usize>) -> u16 {
    if range.is_empty() {
        return 0;
    }
    let (first, end) = (range.start / PAGE, range.end.div_ceil(PAGE));
    (((1u32 << (end - first)) - 1) << first) as u16
}

/// Runs of set bits.
fn runs(mut bits: u16) -> impl Iterator<Item = Range<usize>> {
    core::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        let start = bits.trailing_zeros() as usize;
        let count = (bits >> start).trailing_ones() as usize;
        bits &= !(((1u32 << count) - 1) << start) as u16;
        Some(start..start + count)
    })
}

/// Block number, and offset in the block.
fn split(position: u64) -> (u64, usize) {
    (position / BLOCK as u64, (position % BLOCK as u64) as usize)
}

fn clip(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
