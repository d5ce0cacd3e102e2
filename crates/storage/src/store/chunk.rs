//! [`Chunk`]: where 32 blocks of a file are.
//!
//! ```text
//! runs, sorted:  0  1  first block within the chunk
//!                1  1  count
//!                2  6  block number of the first
//!                8  6  counter of the first
//!               14 12  mount id
//!               26     count tags of 16 bytes
//! ```

use alloc::vec::Vec;

use super::error::{Result, StoreError};
use super::pointer::{MountId, Pointer, TAG_SIZE, Writing, get_u48, put_u48};
use super::wire::Fields;

/// Blocks in a chunk.
pub const CHUNK_LEN: u64 = 32;

const RUN_SIZE: usize = 26;

/// Sorted by position; what is absent is a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    slots: Vec<(u8, Pointer)>,
}

impl Chunk {
    /// Puts a block there; gives the one that was there.
    pub fn set(&mut self, position: u8, pointer: Pointer) -> Option<Pointer> {
        match self.find(position) {
            Ok(at) => Some(core::mem::replace(&mut self.slots[at].1, pointer)),
            Err(at) => {
                self.slots.insert(at, (position, pointer));
                None
            }
        }
    }

    pub fn clear(&mut self, position: u8) -> Option<Pointer> {
        let at = self.find(position).ok()?;
        Some(self.slots.remove(at).1)
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn slots(&self) -> &[(u8, Pointer)] {
        &self.slots
    }

    fn find(&self, position: u8) -> core::result::Result<usize, usize> {
        self.slots.binary_search_by_key(&position, |slot| slot.0)
    }

    fn runs(&self) -> impl Iterator<Item = &[(u8, Pointer)]> {
        self.slots.chunk_by(|(position, pointer), (next, behind)| {
            position + 1 == *next && pointer.continues_as(behind, 1)
        })
    }

    pub fn encoded_size(&self) -> usize {
        self.runs().count() * RUN_SIZE + self.slots.len() * TAG_SIZE
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        for run in self.runs() {
            let (position, first) = run[0];
            out.extend_from_slice(&[position, run.len() as u8]);
            out.extend_from_slice(&put_u48(first.block));
            out.extend_from_slice(&put_u48(first.writing.counter));
            out.extend_from_slice(&first.writing.mount.0);
            run.iter()
                .for_each(|(_, pointer)| out.extend_from_slice(&pointer.tag));
        }
    }

    pub fn parse(fields: &mut Fields<'_>) -> Result<Chunk> {
        let mut slots = Vec::new();
        let mut end = 0;
        while !fields.is_empty() {
            let (position, count) = (fields.u8()?, fields.u8()?);
            let is_sorted = position >= end && count > 0;
            end = position.saturating_add(count);
            if !is_sorted || u64::from(end) > CHUNK_LEN {
                return Err(StoreError::Malformed("a chunk's runs are out of order"));
            }
            parse_run(fields, position, count, &mut slots)?;
        }
        Ok(Chunk { slots })
    }
}

fn parse_run(
    fields: &mut Fields<'_>,
    position: u8,
    count: u8,
    slots: &mut Vec<(u8, Pointer)>,
) -> Result<()> {
    let block = get_u48(fields.bytes(6)?);
    let counter = get_u48(fields.bytes(6)?);
    let mount = MountId(fields.array()?);
    slots
        .try_reserve(usize::from(count))
        .map_err(|_| StoreError::OutOfMemory)?;
    for distance in 0..count {
        let writing = Writing {
            counter: counter + u64::from(distance),
            mount,
        };
        let pointer = Pointer {
            block: block + u64::from(distance),
            writing,
            tag: fields.array()?,
        };
        slots.push((position + distance, pointer));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(block: u64) -> Pointer {
        let writing = Writing {
            counter: block + 5,
            mount: MountId([1; 12]),
        };
        Pointer {
            block,
            writing,
            tag: [block as u8; 16],
        }
    }

    #[test]
    fn neighbours_share_a_run() {
        let mut chunk = Chunk::default();
        for (position, block) in [(3, 10), (4, 11), (6, 13), (5, 90)] {
            assert_eq!(chunk.set(position, pointer(block)), None);
        }
        assert_eq!(chunk.encoded_size(), 3 * RUN_SIZE + 4 * TAG_SIZE);
        let mut bytes = Vec::new();
        chunk.encode(&mut bytes);
        assert_eq!(bytes.len(), chunk.encoded_size());
        assert_eq!(Chunk::parse(&mut Fields::new(&bytes)), Ok(chunk.clone()));
        assert_eq!(chunk.clear(4), Some(pointer(11)));
        assert_eq!(chunk.clear(4), None);
        assert_eq!(chunk.set(3, pointer(1)), Some(pointer(10)));
    }
}
