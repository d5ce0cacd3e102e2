//! Reads of any range of the leaf space.

use super::blocks::Blocks;
use super::cache::CachedBlock;
use super::error::{ImageError, Malformed};
use super::record::LEAF_SIZE;
use super::source::ImageSource;

/// A view of the leaf space that remembers the block it read last, because records stand close
/// together: most reads then take no lock.
pub struct LeafSpace<'a, S> {
    blocks: &'a Blocks<S>,
    last: Option<(u64, CachedBlock)>,
}

impl<'a, S: ImageSource> LeafSpace<'a, S> {
    pub fn new(blocks: &'a Blocks<S>) -> Self {
        LeafSpace { blocks, last: None }
    }

    /// Fills `buf` from `address` on. Whole aligned leaves go straight into `buf`; the rest comes
    /// through the cache.
    pub fn read(&mut self, mut address: u64, mut buf: &mut [u8]) -> Result<(), ImageError> {
        while !buf.is_empty() {
            let size = self.read_some(address, buf)?;
            address = address.checked_add(size as u64).ok_or(Malformed::Address)?;
            buf = &mut buf[size..];
        }
        Ok(())
    }

    /// A record of `N` bytes at `address`.
    pub fn record<const N: usize>(&mut self, address: u64) -> Result<[u8; N], ImageError> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads 1 or more bytes and says how many.
    fn read_some(&mut self, address: u64, buf: &mut [u8]) -> Result<usize, ImageError> {
        let index = address / LEAF_SIZE as u64;
        let start = (address % LEAF_SIZE as u64) as usize;
        if start == 0 && buf.len() >= LEAF_SIZE {
            let size = buf.len() - buf.len() % LEAF_SIZE;
            self.blocks.read_leaves(index, &mut buf[..size])?;
            return Ok(size);
        }
        let size = buf.len().min(LEAF_SIZE - start);
        let block = self.leaf(index)?;
        buf[..size].copy_from_slice(&block.bytes()[start..start + size]);
        Ok(size)
    }

    fn leaf(&mut self, index: u64) -> Result<&CachedBlock, ImageError> {
        match &mut self.last {
            Some((held, _)) if *held == index => {}
            slot => *slot = Some((index, self.blocks.leaf(index)?)),
        }
        let (_, block) = self.last.as_ref().expect("filled by the match above");
        Ok(block)
    }
}
