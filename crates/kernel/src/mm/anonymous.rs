//! Anonymous memory that processes share (MAP_SHARED | MAP_ANONYMOUS): a shared object with no file behind.

use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

use super::file::{FileIdentity, MappableFile};
use super::shared::SharedSlot;
use crate::error::Result;

/// Where Linux shows such memory to be.
const DEVICE: u64 = 1;

pub(super) struct SharedMemory {
    size: u64,
    number: u64,
    slot: SharedSlot,
}

impl SharedMemory {
    pub fn new(size: usize) -> SharedMemory {
        static NEXT: AtomicU64 = AtomicU64::new(1024);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        SharedMemory { size: size as u64, number, slot: SharedSlot::new() }
    }
}

impl MappableFile for SharedMemory {
    fn read_page_data(&self, _offset: u64, buf: &mut [u8]) -> Result<usize> {
        buf.fill(0);
        Ok(buf.len())
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn identity(&self) -> FileIdentity {
        FileIdentity { dev: DEVICE, ino: self.number }
    }

    fn name(&self) -> String {
        String::from("/dev/zero (deleted)")
    }

    fn is_memory_only(&self) -> bool {
        true
    }

    fn shared_slot(&self) -> Option<&SharedSlot> {
        Some(&self.slot)
    }
}
