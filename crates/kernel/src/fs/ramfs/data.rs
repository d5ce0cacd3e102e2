//! The content of a regular file: blocks of pages, holes, and what is still only below.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use occlum_enclave::pages::Pages;
use spin::RwLock;

use super::Shared;
use crate::error::{Errno, Error, Result, err};
use crate::vfs::inode::{Position, Seek};
use crate::vfs::{InodeRef, Sink, Source};

/// Bytes of a full block. The last block of a file may be smaller.
const BLOCK: usize = 64 << 10;
const PAGE: usize = 4096;

pub const MAX_FILE_SIZE: u64 = i64::MAX as u64 & !(BLOCK as u64 - 1);

/// Content of one file.
pub struct Data {
    content: RwLock<Content>,
    shared: Arc<Shared>,
}

struct Content {
    size: u64,
    /// By number; a missing block is a hole, or lies below. A block shorter than `BLOCK` ends in zeros.
    blocks: BTreeMap<u64, Pages>,
    lower: Option<InodeRef>,
    /// Missing blocks have the lower file's content up to here.
    lower_size: u64,
}

impl Data {
    pub fn new(shared: &Arc<Shared>, lower: Option<(InodeRef, u64)>) -> Data {
        let (lower, size) = lower.map_or((None, 0), |(inode, size)| (Some(inode), size));
        let content = Content { size, blocks: BTreeMap::new(), lower, lower_size: size };
        Data { content: RwLock::new(content), shared: shared.clone() }
    }

    pub fn size(&self) -> u64 {
        self.content.read().size
    }

    /// Bytes of memory it takes, or takes below.
    pub fn occupied(&self) -> u64 {
        let content = self.content.read();
        let own: usize = content.blocks.values().map(|block| block.len()).sum();
        own as u64 + if content.blocks.is_empty() { content.lower_size } else { 0 }
    }

    /// Whether nothing was written here: the content is the lower file's.
    pub fn is_unchanged(&self) -> bool {
        let content = self.content.read();
        content.blocks.is_empty() && content.lower.is_some() && content.lower_size == content.size
    }

    pub fn read_at(&self, offset: u64, sink: &mut Sink<'_>) -> Result<()> {
        let start = sink.done();
        while sink.room() > 0 {
            let before = sink.done();
            let position = offset.saturating_add((before - start) as u64);
            // No progress: the lower file is shorter than it was.
            if !self.read_piece(position, sink)? || sink.done() == before {
                break;
            }
        }
        Ok(())
    }

    /// Reads up to the end of a block, or of what lies below. False at the end of the file.
    fn read_piece(&self, position: u64, sink: &mut Sink<'_>) -> Result<bool> {
        let content = self.content.read();
        if position >= content.size {
            return Ok(false);
        }
        let (number, inside) = split(position);
        let size = (BLOCK - inside).min(clip(content.size - position));
        if let Some(block) = content.blocks.get(&number) {
            let stored = block.len().saturating_sub(inside).min(size);
            let copied = sink.put(&block[block.len().min(inside)..][..stored]);
            if copied == stored {
                sink.put_zeros(size - stored);
            }
            return Ok(true);
        }
        let below = content.lower_size.min(content.size).saturating_sub(position);
        let Some(lower) = content.lower.clone().filter(|_| below > 0) else {
            sink.put_zeros(size);
            return Ok(true);
        };
        let next = content.blocks.range(number + 1..).next().map(|(number, _)| number * BLOCK as u64);
        let run = next.map_or(below, |next| below.min(next - position));
        drop(content);
        sink.capped(clip(run), |sink| lower.read_at(position, sink))?;
        Ok(true)
    }

    /// Writes from `source`; gives the offset behind the last byte.
    pub fn write_at(&self, at: Position, source: &mut Source<'_>) -> Result<u64> {
        let mut position = match at {
            Position::At(offset) => offset,
            Position::End => self.content.read().size,
        };
        while source.left() > 0 {
            if position >= MAX_FILE_SIZE {
                return err(Errno::EFBIG, "file too large");
            }
            let mut content = self.content.write();
            // Appending: somebody may have come in between.
            if at == Position::End {
                position = content.size;
            }
            position += content.write_piece(&self.shared, position, source)? as u64;
        }
        Ok(position)
    }

    pub fn resize(&self, size: u64) -> Result<()> {
        if size > MAX_FILE_SIZE {
            return err(Errno::EFBIG, "file too large");
        }
        let mut content = self.content.write();
        if size < content.size {
            content.cut(&self.shared, size);
        }
        content.size = size;
        Ok(())
    }

    /// Makes `offset..offset + size` zeros; the file does not grow.
    pub fn zero(&self, offset: u64, size: u64) -> Result<()> {
        let mut content = self.content.write();
        let end = offset.saturating_add(size).min(content.size);
        let mut position = offset;
        while position < end {
            let (number, inside) = split(position);
            let step = (BLOCK - inside).min(clip(end - position));
            content.zero_piece(&self.shared, number, inside, step)?;
            position += step as u64;
        }
        Ok(())
    }

    /// As lseek(2) with SEEK_DATA and SEEK_HOLE, in whole blocks.
    pub fn seek(&self, what: Seek, offset: u64) -> Result<u64> {
        let content = self.content.read();
        if offset >= content.size {
            return err(Errno::ENXIO, "offset beyond the end");
        }
        let mut position = offset;
        while position < content.size {
            let number = split(position).0;
            let is_data = content.blocks.contains_key(&number) || position < content.lower_size;
            if is_data == (what == Seek::Data) {
                return Ok(position);
            }
            let next = content.blocks.range(number + 1..).next().map(|(number, _)| *number);
            position = match next {
                Some(next) if what == Seek::Data => next * BLOCK as u64,
                None if what == Seek::Data => return err(Errno::ENXIO, "only a hole follows"),
                _ => (number + 1) * BLOCK as u64,
            };
        }
        if what == Seek::Data { err(Errno::ENXIO, "only a hole follows") } else { Ok(content.size) }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let content = self.content.get_mut();
        content.cut(&self.shared, 0);
    }
}

impl Content {
    /// Writes within one block; gives the bytes taken.
    fn write_piece(&mut self, shared: &Shared, position: u64, source: &mut Source<'_>) -> Result<usize> {
        let (number, inside) = split(position);
        let size = (BLOCK - inside).min(source.left());
        let block = self.block(shared, number, inside, size)?;
        let taken = source.take(&mut block.pages[inside..inside + size]);
        if block.is_fresh {
            block.pages[inside + taken..inside + size].fill(0);
        }
        if taken > 0 {
            self.size = self.size.max(position + taken as u64);
        }
        Ok(taken)
    }

    /// The block, with room for bytes `from..from + size` of it. If it is new, those bytes are not
    /// initialised and the caller must write all of them; the others are as the file has them.
    fn block(&mut self, shared: &Shared, number: u64, from: usize, size: usize) -> Result<BlockMut<'_>> {
        let end = from + size;
        let have = self.blocks.get(&number).map_or(0, |block| block.len());
        if have >= end {
            let pages = self.blocks.get_mut(&number).ok_or(Error::new(Errno::EIO, "block"))?;
            return Ok(BlockMut { pages, is_fresh: false });
        }
        let below = clip(self.lower_size.saturating_sub(number * BLOCK as u64)).min(BLOCK);
        let is_copy = have == 0 && below > 0;
        let wanted = if is_copy { end.max(below) } else { end };
        let order = order_for(wanted);
        let new_size = PAGE << order;
        shared.charge((new_size - have) as u64)?;
        let Ok(mut pages) = Pages::new(order) else {
            shared.discharge((new_size - have) as u64);
            return err(Errno::ENOSPC, "no enclave memory for file data");
        };
        let mut is_fresh = false;
        if let Some(old) = self.blocks.get(&number) {
            pages[..have].copy_from_slice(old);
            pages[have..].fill(0);
        } else if is_copy {
            pages[below..].fill(0);
            if let Err(error) = self.copy_from_below(number, &mut pages[..below]) {
                shared.discharge(new_size as u64);
                return Err(error);
            }
        } else {
            pages[..from].fill(0);
            pages[end..].fill(0);
            is_fresh = true;
        }
        self.blocks.insert(number, pages);
        let pages = self.blocks.get_mut(&number).ok_or(Error::new(Errno::EIO, "block"))?;
        Ok(BlockMut { pages, is_fresh })
    }

    fn copy_from_below(&self, number: u64, buf: &mut [u8]) -> Result<()> {
        let Some(lower) = &self.lower else { return Ok(()) };
        let size = buf.len();
        let mut sink = Sink::kernel(buf);
        lower.read_at(number * BLOCK as u64, &mut sink)?;
        if sink.done() < size {
            return err(Errno::EIO, "the lower file is shorter than it was");
        }
        Ok(())
    }

    fn zero_piece(&mut self, shared: &Shared, number: u64, from: usize, size: usize) -> Result<()> {
        let is_below = number * (BLOCK as u64) < self.lower_size;
        if size == BLOCK && !is_below {
            if let Some(block) = self.blocks.remove(&number) {
                shared.discharge(block.len() as u64);
            }
            return Ok(());
        }
        if !is_below && !self.blocks.contains_key(&number) {
            return Ok(());
        }
        let block = self.block(shared, number, from, size)?;
        block.pages[from..from + size].fill(0);
        Ok(())
    }

    /// Drops what lies behind `size`.
    fn cut(&mut self, shared: &Shared, size: u64) {
        let (number, inside) = split(size);
        let first_gone = if inside == 0 { number } else { number + 1 };
        for block in self.blocks.split_off(&first_gone).values() {
            shared.discharge(block.len() as u64);
        }
        if let Some(block) = self.blocks.get_mut(&number).filter(|block| block.len() > inside) {
            block[inside..].fill(0);
        }
        self.lower_size = self.lower_size.min(size);
    }
}

struct BlockMut<'a> {
    pages: &'a mut Pages,
    is_fresh: bool,
}

/// Block number, and offset in the block.
fn split(position: u64) -> (u64, usize) {
    (position / BLOCK as u64, (position % BLOCK as u64) as usize)
}

fn clip(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn order_for(size: usize) -> usize {
    size.div_ceil(PAGE).next_power_of_two().trailing_zeros() as usize
}
