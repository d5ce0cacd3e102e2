//! What the memory manager needs of a file; inodes of the file layer implement it.

use alloc::string::String;
use alloc::sync::Arc;

use super::shared::SharedSlot;
use crate::error::Result;

/// Which file a mapping shows, for `/proc/PID/maps` and for caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileIdentity {
    pub dev: u64,
    pub ino: u64,
}

/// A file that can be mapped. Called with the space lock held: must not touch user memory.
pub trait MappableFile: Send + Sync {
    /// Fills `buf` with the bytes from `offset` on and zeroes what lies beyond the end of the file.
    /// Gives the number of bytes the file had.
    fn read_page_data(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// Bytes in the file.
    fn size(&self) -> u64;

    fn identity(&self) -> FileIdentity;

    /// Path for `/proc/PID/maps`.
    fn name(&self) -> String;

    /// Whether the bytes are now, and will be while they are the same file, what its identity says: then
    /// pages with them may serve the next program that maps them.
    fn is_unchanging(&self) -> bool {
        false
    }

    /// The site table that the image has for this file (`docs/format/sites.md`).
    fn sites(&self) -> Option<Arc<[u8]>> {
        None
    }

    /// Writes pages of a shared mapping back; never extends the file.
    fn write_page_data(&self, _offset: u64, _data: &[u8]) -> Result<()> {
        crate::error::err(occlum_abi::Errno::EACCES, "the file can't be written through a mapping")
    }

    /// There is nothing but the pages of its shared mapping: zeros until written, gone with it.
    fn is_memory_only(&self) -> bool {
        false
    }

    /// Where a shared mapping of this file is registered. Files that can be written have one, and
    /// their read(2), write(2) and truncate(2) look there first (see [`SharedSlot`]). Without one, a
    /// read-only shared mapping is made private, and a writable one is refused.
    fn shared_slot(&self) -> Option<&SharedSlot> {
        None
    }
}
