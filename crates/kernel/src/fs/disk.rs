//! A file of the host that holds a store's blocks.
//!
//! The host may change or withhold what is in it: the store checks every block. What the host says of
//! lengths is checked here.

use occlum_abi::ocall::Ocall;
use occlum_enclave::host::{self, HostSlice};
use occlum_enclave::vector;
use occlum_storage::store::{Disk, DiskError};

use super::hostcall;
use super::hostfd::{self, HostFd};
use crate::error::{Errno, Result, err};
use crate::vfs::flags::{O_CREAT, O_NOFOLLOW, O_RDONLY, O_RDWR};

/// An open file that nobody else uses as a store.
pub struct HostDisk {
    file: HostFd,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

impl HostDisk {
    /// Opens the host file at `path`, made empty if it is not there and may be written. EBUSY if another
    /// enclave has it open for writing.
    pub fn open(path: &[u8], access: Access) -> Result<HostDisk> {
        let flags = match access {
            Access::ReadOnly => O_RDONLY,
            Access::ReadWrite => O_RDWR | O_CREAT,
        };
        let file = hostfd::open_at(hostfd::NO_DIRECTORY, path, flags | O_NOFOLLOW, 0o600)?;
        let is_exclusive = u64::from(access == Access::ReadWrite);
        let locked = hostcall::checked(Ocall::Lock, [u64::from(file.0), is_exclusive, 0, 0, 0], 0);
        match locked {
            Ok(_) => Ok(HostDisk { file }),
            Err(Errno::EAGAIN) => err(Errno::EBUSY, "another enclave uses the store"),
            Err(errno) => err(errno, "the host's lock"),
        }
    }

    fn number(&self) -> u64 {
        u64::from(self.file.0)
    }

    /// The next piece of a transfer of `size` bytes.
    fn piece(size: usize) -> (HostSlice, usize) {
        let staging = host::staging();
        let size = size.min(staging.size());
        (staging, size)
    }
}

impl Disk for HostDisk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> core::result::Result<(), DiskError> {
        let mut done = 0;
        while done < buf.len() {
            let (staging, size) = HostDisk::piece(buf.len() - done);
            let args = [self.number(), offset + done as u64, staging.addr(), size as u64, 0];
            let count = hostcall::checked(Ocall::ReadAt, args, size).map_err(failed)?;
            if count == 0 {
                return Err(DiskError::Failed);
            }
            hostcall::copy_in(Ocall::ReadAt, &staging, &mut buf[done..done + count]);
            done += count;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> core::result::Result<(), DiskError> {
        let mut done = 0;
        while done < buf.len() {
            let (staging, size) = HostDisk::piece(buf.len() - done);
            hostcall::copy_out(&staging, &buf[done..done + size]);
            let args = [self.number(), offset + done as u64, staging.addr(), size as u64, 0];
            let count = hostcall::checked(Ocall::WriteAt, args, size).map_err(failed)?;
            if count == 0 {
                return Err(DiskError::Failed);
            }
            done += count;
        }
        Ok(())
    }

    fn sync(&self) -> core::result::Result<(), DiskError> {
        const DATA_ONLY: u64 = 1;
        let done = hostcall::checked(Ocall::Sync, [self.number(), DATA_ONLY, 0, 0, 0], 0);
        done.map(drop).map_err(failed)
    }

    fn size(&self) -> core::result::Result<u64, DiskError> {
        match hostcall::stat_of(self.file.0) {
            Ok(attr) => Ok(attr.size),
            Err(_) => Err(DiskError::Failed),
        }
    }

    fn set_size(&self, size: u64) -> core::result::Result<(), DiskError> {
        let done = hostcall::checked(Ocall::Truncate, [self.number(), size, 0, 0, 0], 0);
        done.map(drop).map_err(failed)
    }

    fn with_vectors<R>(&self, work: impl FnOnce() -> R) -> R {
        vector::wide(work)
    }
}

fn failed(errno: Errno) -> DiskError {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG => DiskError::Full,
        _ => DiskError::Failed,
    }
}
