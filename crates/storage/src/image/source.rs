//! Where an image's bytes come from.

/// The bytes of an image file, in memory or in a file of somebody who is not trusted.
pub trait ImageSource {
    /// Copies `buf.len()` bytes at `offset` into `buf`. Called once for the bytes of each block: an
    /// implementation over shared memory must copy, never lend.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError>;

    /// Size of the whole image in bytes.
    fn size(&self) -> u64;

    /// Runs `work`, which hashes with whatever vector instructions the CPU has. An enclave
    /// overrides this to keep the user's vector state.
    fn with_vectors<R>(&self, work: impl FnOnce() -> R) -> R {
        work()
    }
}

impl ImageSource for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let start = usize::try_from(offset).map_err(|_| SourceError)?;
        let end = start.checked_add(buf.len()).ok_or(SourceError)?;
        buf.copy_from_slice(self.get(start..end).ok_or(SourceError)?);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

impl<T: ImageSource + ?Sized> ImageSource for &T {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        (**self).read_at(offset, buf)
    }

    fn size(&self) -> u64 {
        (**self).size()
    }

    fn with_vectors<R>(&self, work: impl FnOnce() -> R) -> R {
        (**self).with_vectors(work)
    }
}

/// The source could not deliver the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceError;
