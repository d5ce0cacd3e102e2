//! Fetches blocks and checks them against the tree.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::cache::{BlockCache, CacheLimits, CachedBlock};
use super::error::{ImageError, Malformed};
use super::hash::{BlockKind, HASH_SIZE, Hash, UnverifiedBlock};
use super::record::{LEAF_SIZE, NODE_SIZE, SUPERBLOCK_SIZE, Superblock};
use super::source::ImageSource;
use super::tree::{FAN_OUT, TreeShape};

/// The blocks of an image whose superblock was checked.
pub struct Blocks<S> {
    source: S,
    shape: TreeShape,
    root_node: Hash,
    nodes: BlockCache,
    leaves: BlockCache,
}

impl<S: ImageSource> Blocks<S> {
    /// Checks the superblock against `root_hash`, the size of the source, and the root node.
    pub fn open(
        source: S,
        root_hash: &Hash,
        limits: CacheLimits,
    ) -> Result<(Blocks<S>, Superblock), ImageError> {
        let superblock = read_superblock(&source, root_hash)?;
        let shape = TreeShape::new(superblock.leaf_count);
        if source.size() != shape.image_size() {
            return Err(ImageError::WrongSize {
                expected: shape.image_size(),
                found: source.size(),
            });
        }
        let blocks = Blocks {
            source,
            shape,
            root_node: superblock.tree,
            nodes: BlockCache::new(limits.nodes),
            leaves: BlockCache::new(limits.leaves),
        };
        blocks.node(blocks.shape.root_level(), 0)?;
        Ok((blocks, superblock))
    }

    pub fn leaf_count(&self) -> u64 {
        self.shape.leaf_count()
    }

    /// A leaf block, from the cache or into it.
    pub fn leaf(&self, index: u64) -> Result<CachedBlock, ImageError> {
        if let Some(block) = self.leaves.get(index) {
            return Ok(block);
        }
        self.check_leaf_index(index)?;
        let expected = hash_in_node(&self.node(0, index / FAN_OUT)?, index);
        let block = self
            .fetch(self.shape.leaf_offset(index), zeros(LEAF_SIZE)?)?
            .verify(&self.source, BlockKind::Leaf, &expected)
            .ok_or(ImageError::LeafHash { index })?;
        let block = Arc::new(block);
        self.leaves.insert(index, &block);
        Ok(block)
    }

    /// Whole leaf blocks from `first` on, straight into `buf`, past the cache. The length of `buf`
    /// is a multiple of `LEAF_SIZE`. After an error `buf` holds checked bytes and zeros only in
    /// part: the caller must not use it.
    pub fn read_leaves(&self, first: u64, buf: &mut [u8]) -> Result<(), ImageError> {
        let mut node: Option<(u64, CachedBlock)> = None;
        for (index, part) in (first..).zip(buf.chunks_exact_mut(LEAF_SIZE)) {
            self.check_leaf_index(index)?;
            let node_index = index / FAN_OUT;
            let node = match &mut node {
                Some((held, block)) if *held == node_index => block,
                slot => &mut slot.insert((node_index, self.node(0, node_index)?)).1,
            };
            let expected = hash_in_node(node, index);
            self.fetch(self.shape.leaf_offset(index), part)?
                .verify(&self.source, BlockKind::Leaf, &expected)
                .ok_or(ImageError::LeafHash { index })?;
        }
        Ok(())
    }

    /// A tree node, checked against its parent. Recurses at most the five levels above it.
    fn node(&self, level: usize, index: u64) -> Result<CachedBlock, ImageError> {
        let key = (level as u64) << 56 | index;
        if let Some(block) = self.nodes.get(key) {
            return Ok(block);
        }
        let expected = if level == self.shape.root_level() {
            self.root_node
        } else {
            hash_in_node(&self.node(level + 1, index / FAN_OUT)?, index)
        };
        let block = self
            .fetch(self.shape.node_offset(level, index), zeros(NODE_SIZE)?)?
            .verify(&self.source, BlockKind::Node, &expected)
            .ok_or(ImageError::NodeHash {
                level: level as u8,
                index,
            })?;
        let block = Arc::new(block);
        self.nodes.insert(key, &block);
        Ok(block)
    }

    fn fetch<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        offset: u64,
        storage: B,
    ) -> Result<UnverifiedBlock<B>, ImageError> {
        Ok(UnverifiedBlock::read(&self.source, offset, storage)?)
    }

    fn check_leaf_index(&self, index: u64) -> Result<(), ImageError> {
        if index >= self.shape.leaf_count() {
            return Err(Malformed::Address.into());
        }
        Ok(())
    }
}

fn read_superblock<S: ImageSource>(source: &S, root_hash: &Hash) -> Result<Superblock, ImageError> {
    let mut bytes = [0; SUPERBLOCK_SIZE];
    UnverifiedBlock::read(source, 0, &mut bytes[..])?
        .verify(source, BlockKind::Superblock, root_hash)
        .ok_or(ImageError::SuperblockHash)?;
    Superblock::parse(&bytes)
}

fn hash_in_node(node: &CachedBlock, index: u64) -> Hash {
    let start = (index % FAN_OUT) as usize * HASH_SIZE;
    let mut hash = [0; HASH_SIZE];
    hash.copy_from_slice(&node.bytes()[start..start + HASH_SIZE]);
    hash
}

/// A vector of zeros, or an error where memory is short.
pub fn zeros(size: usize) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(size)
        .map_err(|_| ImageError::OutOfMemory)?;
    bytes.resize(size, 0);
    Ok(bytes)
}
