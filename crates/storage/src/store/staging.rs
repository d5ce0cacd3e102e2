//! [`Staging`]: data blocks on their way to the disk.
//!
//! Data is copied here once, sealed in place and written in long runs. Until then reads find it here.

use alloc::vec::Vec;

use super::disk::Disk;
use super::error::{Result, StoreError};
use super::pointer::{BLOCK, Pointer};
use super::seal::{BlockKind, UnverifiedBlock};
use super::space::{Run, Space};
use super::vault::Vault;

/// Blocks that are written at once.
const STAGING_LEN: usize = 64;

#[derive(Default)]
pub struct Staging {
    /// Sealed blocks for the beginning of `run`.
    bytes: Vec<u8>,
    run: Run,
    /// Blocks written since the last commit.
    unsynced: u64,
}

impl Staging {
    /// Takes the first blocks of `data` (whole blocks); their pointers come to `sealed`. The count
    /// of bytes taken, none if no block is free.
    pub fn take<D: Disk>(
        &mut self,
        vault: &mut Vault<D>,
        space: &mut Space,
        data: &[u8],
        sealed: impl FnMut(Pointer),
    ) -> Result<usize> {
        if self.filled() == self.run.len && !self.next_run(vault, space)? {
            return Ok(0);
        }
        let first = self.run.start + self.filled();
        let room = (self.run.len - self.filled()) as usize * BLOCK;
        let size = room.min(data.len());
        for block in first..first + (size / BLOCK) as u64 {
            space.mark_used(vault, block)?;
        }
        let start = self.bytes.len();
        self.bytes
            .try_reserve(size)
            .map_err(|_| StoreError::OutOfMemory)?;
        self.bytes.extend_from_slice(&data[..size]);
        let part = &mut self.bytes[start..];
        vault.seal_blocks(BlockKind::Data, part, |index| first + index as u64, sealed)?;
        if self.filled() == self.run.len {
            self.write(vault)?;
        }
        Ok(size)
    }

    /// Writes what is here. The rest of the run is the allocator's again at the next commit.
    pub fn flush<D: Disk>(&mut self, vault: &mut Vault<D>, space: &mut Space) -> Result<()> {
        let end = self.run.start + self.filled();
        let is_cut = self.filled() < self.run.len;
        self.write(vault)?;
        if is_cut {
            space.set_cursor(end);
        }
        self.run = Run::default();
        Ok(())
    }

    /// Puts the block into `out` if it is still here: as the disk would give it.
    pub fn copy_out(&self, block: u64, out: &mut [u8]) -> bool {
        let Some(index) = block.checked_sub(self.run.start) else {
            return false;
        };
        if index >= self.filled() {
            return false;
        }
        let start = index as usize * BLOCK;
        out.copy_from_slice(&self.bytes[start..start + BLOCK]);
        true
    }

    /// Reads and verifies one data block, here or on the disk.
    pub fn read<D: Disk>(
        &self,
        vault: &mut Vault<D>,
        pointer: &Pointer,
        out: &mut [u8],
    ) -> Result<()> {
        if !self.copy_out(pointer.block, out) {
            vault.disk.read_at(pointer.block * BLOCK as u64, out)?;
        }
        let keys = &mut vault.keys;
        vault.disk.with_vectors(|| {
            UnverifiedBlock::from_disk(out)
                .verify(keys, BlockKind::Data, pointer)
                .map(drop)
        })
    }

    pub fn unsynced(&self) -> u64 {
        self.unsynced
    }

    pub fn synced(&mut self) {
        self.unsynced = 0;
    }

    fn filled(&self) -> u64 {
        (self.bytes.len() / BLOCK) as u64
    }

    fn next_run<D: Disk>(&mut self, vault: &mut Vault<D>, space: &mut Space) -> Result<bool> {
        self.write(vault)?;
        let run = space.reserve(vault, STAGING_LEN as u64)?;
        self.run = run.unwrap_or_default();
        Ok(run.is_some())
    }

    /// After this the run has no room: a later block needs a new one.
    fn write<D: Disk>(&mut self, vault: &mut Vault<D>) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        vault.write(self.run.start, &self.bytes)?;
        self.unsynced += self.filled();
        self.bytes.clear();
        self.run = Run::default();
        Ok(())
    }
}
