//! [`Vault`]: the disk and the keys to it.

use alloc::boxed::Box;

use super::disk::Disk;
use super::error::Result;
use super::pointer::{BLOCK, MountId, Pointer, Writing};
use super::seal::{BlockKind, KEY_SIZE, KeyRing, Sealer, read_block};

pub struct Vault<D> {
    pub disk: D,
    pub keys: KeyRing,
    pub sealer: Sealer,
}

impl<D: Disk> Vault<D> {
    pub fn new(disk: D, store_key: &[u8; KEY_SIZE], mount: MountId) -> Vault<D> {
        Vault {
            disk,
            keys: KeyRing::new(store_key),
            sealer: Sealer::new(mount),
        }
    }

    pub fn read_block(&mut self, kind: BlockKind, pointer: &Pointer) -> Result<Box<[u8; BLOCK]>> {
        read_block(&self.disk, &mut self.keys, kind, pointer)
    }

    /// Seals the blocks in `bytes` in place; `place(i)` is where block `i` will be written.
    pub fn seal_blocks(
        &mut self,
        kind: BlockKind,
        bytes: &mut [u8],
        mut place: impl FnMut(usize) -> u64,
        mut sealed: impl FnMut(Pointer),
    ) -> Result<()> {
        let first = self.sealer.take((bytes.len() / BLOCK) as u64)?;
        let keys = &mut self.keys;
        self.disk.with_vectors(|| {
            for (index, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
                let writing = Writing {
                    counter: first.counter + index as u64,
                    ..first
                };
                let tag = keys.seal_block(writing, kind, block);
                sealed(Pointer {
                    block: place(index),
                    writing,
                    tag,
                });
            }
        });
        Ok(())
    }

    /// Writes `bytes`, whole blocks, from `block` on.
    pub fn write(&self, block: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.disk.write_at(block * BLOCK as u64, bytes)?)
    }
}
