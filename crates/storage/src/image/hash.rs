//! Hashes, and the step from bytes that were read to bytes that may be believed.

use super::source::{ImageSource, SourceError};

pub const HASH_SIZE: usize = 32;

pub type Hash = [u8; HASH_SIZE];

/// The three kinds of hashed block, kept apart by their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    Superblock,
    Node,
    Leaf,
}

impl BlockKind {
    pub fn hash(self, bytes: &[u8]) -> Hash {
        *blake3::keyed_hash(self.key(), bytes).as_bytes()
    }

    fn key(self) -> &'static [u8; HASH_SIZE] {
        match self {
            BlockKind::Superblock => b"occlum image 1: superblock      ",
            BlockKind::Node => b"occlum image 1: tree node       ",
            BlockKind::Leaf => b"occlum image 1: leaf block      ",
        }
    }
}

/// Bytes as the source gave them, in a vector of our own or in the caller's buffer.
pub struct UnverifiedBlock<B>(B);

/// Bytes whose hash was right. Only [`UnverifiedBlock::verify`] makes one.
pub struct Block<B>(B);

impl<B: AsRef<[u8]> + AsMut<[u8]>> UnverifiedBlock<B> {
    /// Copies a block at `offset` into `storage`, which is as long as the block.
    pub fn read<S: ImageSource>(
        source: &S,
        offset: u64,
        mut storage: B,
    ) -> Result<Self, SourceError> {
        source.read_at(offset, storage.as_mut())?;
        Ok(UnverifiedBlock(storage))
    }

    /// The block, if its hash is `expected`. If not, the bytes are wiped: a caller's buffer never
    /// keeps what was refused.
    pub fn verify<S: ImageSource>(
        mut self,
        source: &S,
        kind: BlockKind,
        expected: &Hash,
    ) -> Option<Block<B>> {
        let found = source.with_vectors(|| kind.hash(self.0.as_ref()));
        if found == *expected {
            return Some(Block(self.0));
        }
        self.0.as_mut().fill(0);
        None
    }
}

impl<B: AsRef<[u8]>> Block<B> {
    pub fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}
