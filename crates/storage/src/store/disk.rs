//! Where a store's blocks are kept.

/// A file that belongs to somebody who is not trusted. Offsets and sizes in bytes.
pub trait Disk {
    /// Fills all of `buf`. An implementation over shared memory must copy, never lend.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Writes all of `buf`; the file grows if need be.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError>;

    /// What was written before is durable when this returns.
    fn sync(&self) -> Result<(), DiskError>;

    fn size(&self) -> Result<u64, DiskError>;

    fn set_size(&self, size: u64) -> Result<(), DiskError>;

    /// Runs `work`, which uses whatever vector instructions the CPU has. An enclave overrides this
    /// to keep the user's vector state.
    fn with_vectors<R>(&self, work: impl FnOnce() -> R) -> R {
        work()
    }
}

/// The disk did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The host's file system is full.
    Full,
    Failed,
}

impl<T: Disk + ?Sized> Disk for &T {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        (**self).read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        (**self).write_at(offset, buf)
    }

    fn sync(&self) -> Result<(), DiskError> {
        (**self).sync()
    }

    fn size(&self) -> Result<u64, DiskError> {
        (**self).size()
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        (**self).set_size(size)
    }

    fn with_vectors<R>(&self, work: impl FnOnce() -> R) -> R {
        (**self).with_vectors(work)
    }
}
