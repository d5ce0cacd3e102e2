//! A disk in memory that forgets, as real ones do.
//!
//! What was written since the last sync may be on it or not, in parts of a sector, in any order.

use std::cell::RefCell;

use occlum_storage::store::{Disk, DiskError};

const SECTOR: usize = 512;

#[derive(Default)]
pub struct MemoryDisk {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// What reads see.
    current: Vec<u8>,
    /// What survives for sure.
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Calls that still work; `None`: all.
    left: Option<u64>,
    calls: u64,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

impl MemoryDisk {
    pub fn with(bytes: Vec<u8>) -> MemoryDisk {
        let disk = MemoryDisk::default();
        disk.state.borrow_mut().durable = bytes.clone();
        disk.state.borrow_mut().current = bytes;
        disk
    }

    /// After so many more writes and syncs everything fails.
    pub fn stop_after(&self, calls: u64) {
        self.state.borrow_mut().left = Some(calls);
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state.borrow().current.clone()
    }

    /// What is found after a power cut. `random(n)` gives a number below `n`.
    pub fn cut(&self, random: &mut dyn FnMut(u64) -> u64) -> Vec<u8> {
        let state = self.state.borrow();
        let mut bytes = state.durable.clone();
        let mut lost = state.unsynced.clone();
        // Half of the time in order, else shuffled; all, none or some are kept.
        if random(2) == 0 {
            for at in (1..lost.len()).rev() {
                lost.swap(at, random(at as u64 + 1) as usize);
            }
        }
        let kept = [0, 1, 2, 3][random(4) as usize];
        for change in lost {
            match change {
                Change::Size(size) if random(2) == 0 => bytes.resize(size, 0),
                Change::Size(_) => {}
                Change::Write(at, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        let is_kept = match kept {
                            0 => false,
                            1 => true,
                            2 => random(2) == 0,
                            _ => random(16) != 0,
                        };
                        if is_kept {
                            put(&mut bytes, at + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl State {
    fn count(&mut self) -> Result<(), DiskError> {
        self.calls += 1;
        match &mut self.left {
            Some(0) => Err(DiskError::Failed),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for MemoryDisk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let state = self.state.borrow();
        let start = offset as usize;
        let part = state.current.get(start..start + buf.len());
        buf.copy_from_slice(part.ok_or(DiskError::Failed)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state.borrow_mut();
        let stopped = state.count();
        let change = Change::Write(offset as usize, buf.to_vec());
        // The write at which it stops may come through in part, too.
        state.unsynced.push(change);
        stopped?;
        put(&mut state.current, offset as usize, buf);
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        let mut state = self.state.borrow_mut();
        state.count()?;
        state.durable = state.current.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.state.borrow().current.len() as u64)
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        let mut state = self.state.borrow_mut();
        state.count()?;
        state.unsynced.push(Change::Size(size as usize));
        state.current.resize(size as usize, 0);
        Ok(())
    }
}

/// Bytes with one bit changed.
pub struct Flipped<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    pub bit: usize,
}

impl Disk for Flipped<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let start = offset as usize;
        let part = self.bytes.get(start..start + buf.len());
        buf.copy_from_slice(part.ok_or(DiskError::Failed)?);
        if let Some(at) = self.at.checked_sub(start)
            && at < buf.len()
        {
            buf[at] ^= 1 << self.bit;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), DiskError> {
        Err(DiskError::Failed)
    }

    fn sync(&self) -> Result<(), DiskError> {
        Err(DiskError::Failed)
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.bytes.len() as u64)
    }

    fn set_size(&self, _: u64) -> Result<(), DiskError> {
        Err(DiskError::Failed)
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}
