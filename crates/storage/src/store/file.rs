//! [`FileDisk`]: a store in a file, for those outside the enclave.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::{Disk, DiskError};

/// A file that is locked: one user at a time, or many who only read.
pub struct FileDisk {
    file: File,
}

impl FileDisk {
    /// Opens the file and locks it. `ErrorKind::ResourceBusy` if somebody else has it.
    pub fn open(path: &Path, is_read_only: bool) -> io::Result<FileDisk> {
        let file = OpenOptions::new()
            .read(true)
            .write(!is_read_only)
            .open(path)?;
        FileDisk::lock(file, is_read_only)
    }

    /// Makes the file, which must not exist.
    pub fn create(path: &Path) -> io::Result<FileDisk> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        FileDisk::lock(file, false)
    }

    fn lock(file: File, is_read_only: bool) -> io::Result<FileDisk> {
        let locked = match is_read_only {
            true => file.try_lock_shared(),
            false => file.try_lock(),
        };
        match locked {
            Ok(()) => Ok(FileDisk { file }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Disk for FileDisk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(buf, offset).map_err(reason)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(buf, offset).map_err(reason)
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(reason)
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(reason)?.len())
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.file.set_len(size).map_err(reason)
    }
}

fn reason(error: io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::Full,
        _ => DiskError::Failed,
    }
}
