//! Places file data in the leaf space.
//!
//! Whole leaves stand alone, in a row where they come in a row; a leaf of zeros becomes a hole; a
//! leaf whose hash was seen before is not written again. What is shorter than a leaf is packed into
//! shared leaves without crossing their ends.

use std::collections::HashMap;
use std::vec::Vec;

use super::error::WriteError;
use super::output::Output;
use crate::image::hash::{BlockKind, Hash};
use crate::image::record::{Extent, LEAF_SIZE};

/// Shared leaves with room, kept open for what fits. More waste less and scatter neighbours.
const OPEN_SHARED: usize = 8;

/// A file's extents in order, adjacent ones joined.
pub type FileExtents = Vec<Extent>;

pub struct Leaves {
    output: Output,
    hashes: Vec<Hash>,
    /// Number of the leaf with this hash.
    whole: HashMap<Hash, u64>,
    /// Address of the short piece with this hash.
    short: HashMap<Hash, u64>,
    shared: Vec<SharedLeaf>,
}

struct SharedLeaf {
    index: u64,
    bytes: Vec<u8>,
}

impl Leaves {
    pub fn new(output: Output) -> Leaves {
        Leaves {
            output,
            hashes: Vec::new(),
            whole: HashMap::new(),
            short: HashMap::new(),
            shared: Vec::new(),
        }
    }

    /// Stores file data that starts at `file_offset`, a multiple of `LEAF_SIZE`, and notes where.
    pub fn put(
        &mut self,
        bytes: &[u8],
        mut file_offset: u64,
        extents: &mut FileExtents,
    ) -> Result<(), WriteError> {
        let short_size = bytes.len() % LEAF_SIZE;
        let (whole, short) = bytes.split_at(bytes.len() - short_size);
        self.put_whole(whole, file_offset, extents)?;
        file_offset += whole.len() as u64;
        if !is_zero(short) {
            let address = self.put_short(short)?;
            push_extent(
                extents,
                Extent {
                    file_offset,
                    address,
                    size: short_size as u64,
                },
            );
        }
        Ok(())
    }

    /// Closes the shared leaves. Returns the hashes of all leaves.
    pub fn finish(mut self) -> Result<(Output, Vec<Hash>), WriteError> {
        for leaf in core::mem::take(&mut self.shared) {
            self.close(leaf)?;
        }
        Ok((self.output, self.hashes))
    }

    fn put_whole(
        &mut self,
        bytes: &[u8],
        file_offset: u64,
        extents: &mut FileExtents,
    ) -> Result<(), WriteError> {
        // Leaves that are new and in a row are written with one call.
        let mut first = self.hashes.len() as u64;
        let mut run = 0..0;
        for (number, leaf) in bytes.chunks_exact(LEAF_SIZE).enumerate() {
            if is_zero(leaf) {
                continue;
            }
            let start = number * LEAF_SIZE;
            let (index, is_new) = self.place(leaf);
            if is_new && start != run.end {
                self.output.write_leaves(first, &bytes[run])?;
                (first, run) = (index, start..start);
            }
            if is_new {
                run.end = start + LEAF_SIZE;
            }
            let file_offset = file_offset + start as u64;
            let address = index * LEAF_SIZE as u64;
            push_extent(
                extents,
                Extent {
                    file_offset,
                    address,
                    size: LEAF_SIZE as u64,
                },
            );
        }
        self.output.write_leaves(first, &bytes[run])
    }

    /// The number of the leaf with this content, and whether it is a new one.
    fn place(&mut self, leaf: &[u8]) -> (u64, bool) {
        let hash = BlockKind::Leaf.hash(leaf);
        let next = self.hashes.len() as u64;
        let index = *self.whole.entry(hash).or_insert(next);
        if index == next {
            self.hashes.push(hash);
        }
        (index, index == next)
    }

    fn put_short(&mut self, bytes: &[u8]) -> Result<u64, WriteError> {
        let hash = BlockKind::Leaf.hash(bytes);
        if let Some(address) = self.short.get(&hash) {
            return Ok(*address);
        }
        let leaf = self.shared_leaf(bytes.len())?;
        let address = leaf.index * LEAF_SIZE as u64 + leaf.bytes.len() as u64;
        leaf.bytes.extend_from_slice(bytes);
        self.short.insert(hash, address);
        Ok(address)
    }

    /// The open shared leaf that `size` bytes fill best, or a new one.
    fn shared_leaf(&mut self, size: usize) -> Result<&mut SharedLeaf, WriteError> {
        let fits = |leaf: &&(usize, usize)| leaf.1 >= size;
        let rooms: Vec<(usize, usize)> = self
            .shared
            .iter()
            .map(SharedLeaf::room)
            .enumerate()
            .collect();
        if let Some((best, _)) = rooms.iter().filter(fits).min_by_key(|(_, room)| *room) {
            return Ok(&mut self.shared[*best]);
        }
        if self.shared.len() == OPEN_SHARED {
            let fullest = rooms
                .iter()
                .min_by_key(|(_, room)| *room)
                .map_or(0, |(index, _)| *index);
            let leaf = self.shared.swap_remove(fullest);
            self.close(leaf)?;
        }
        let index = self.hashes.len() as u64;
        // Its place; the hash is known when it is closed.
        self.hashes.push(Hash::default());
        self.shared.push(SharedLeaf {
            index,
            bytes: Vec::with_capacity(LEAF_SIZE),
        });
        Ok(self.shared.last_mut().expect("pushed above"))
    }

    fn close(&mut self, mut leaf: SharedLeaf) -> Result<(), WriteError> {
        leaf.bytes.resize(LEAF_SIZE, 0);
        self.hashes[leaf.index as usize] = BlockKind::Leaf.hash(&leaf.bytes);
        self.output.write_leaves(leaf.index, &leaf.bytes)
    }
}

impl SharedLeaf {
    fn room(&self) -> usize {
        LEAF_SIZE - self.bytes.len()
    }
}

fn push_extent(extents: &mut FileExtents, extent: Extent) {
    if let Some(last) = extents.last_mut()
        && last.end() == extent.file_offset
        && last.address + last.size == extent.address
    {
        last.size += extent.size;
        return;
    }
    extents.push(extent);
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
