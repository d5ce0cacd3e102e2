//! Descriptors that the kernel may name: the three standard ones and those it has opened.

use super::{Call, Served};
use occlum_abi::ocall::{HostStat, HostStatFs};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, FlockOperation};
use rustix::io::{self, Errno};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

#[derive(Default)]
pub struct Files {
    opened: Mutex<BTreeMap<i32, Arc<OwnedFd>>>,
    /// Whether a standard descriptor is a regular file.
    is_regular: [OnceLock<bool>; 3],
}

/// A descriptor that stays open while this lives, even if another vCPU closes it.
pub enum File {
    Standard(BorrowedFd<'static>),
    Opened(Arc<OwnedFd>),
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            File::Standard(fd) => *fd,
            File::Opened(fd) => fd.as_fd(),
        }
    }
}

impl Files {
    /// The descriptor with the number in an ocall's argument.
    pub fn get(&self, number: u64) -> Result<File, Errno> {
        match number {
            0 => Ok(File::Standard(rustix::stdio::stdin())),
            1 => Ok(File::Standard(rustix::stdio::stdout())),
            2 => Ok(File::Standard(rustix::stdio::stderr())),
            _ => {
                let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
                self.lock()
                    .get(&number)
                    .cloned()
                    .map(File::Opened)
                    .ok_or(Errno::BADF)
            }
        }
    }

    /// Whether the descriptor is a regular file, which always answers, only maybe not at once.
    pub fn is_regular(&self, number: u64, file: &File) -> Result<bool, Errno> {
        let known = usize::try_from(number)
            .ok()
            .and_then(|number| self.is_regular.get(number));
        if let Some(is_regular) = known.and_then(OnceLock::get) {
            return Ok(*is_regular);
        }
        let is_regular = FileType::from_raw_mode(fs::fstat(file)?.st_mode).is_file();
        Ok(known.map_or(is_regular, |known| *known.get_or_init(|| is_regular)))
    }

    /// Takes a descriptor; the kernel names it by its own number.
    pub fn insert(&self, file: OwnedFd) -> u32 {
        let number = file.as_raw_fd();
        self.lock().insert(number, Arc::new(file));
        number.unsigned_abs()
    }

    pub fn remove(&self, number: u64) -> Result<(), Errno> {
        let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
        self.lock().remove(&number).map(|_| ()).ok_or(Errno::BADF)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<OwnedFd>>> {
        self.opened
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Call<'_> {
    /// The descriptor in the first argument.
    pub(super) fn file(&self) -> Result<File, Errno> {
        self.instance.files.get(self.args[0])
    }
}

pub(super) fn close(call: &Call) -> Served {
    call.instance.parking.watches.forget(call.args[0]);
    call.instance.files.remove(call.args[0])?;
    Ok(().into())
}

pub(super) fn read_at(call: &Call) -> Served {
    Ok(io::pread(call.file()?, call.buffer(2)?, call.args[1])?.into())
}

pub(super) fn write_at(call: &Call) -> Served {
    Ok(io::pwrite(call.file()?, call.buffer(2)?, call.args[1])?.into())
}

pub(super) fn truncate(call: &Call) -> Served {
    fs::ftruncate(call.file()?, call.args[1])?;
    Ok(().into())
}

pub(super) fn sync(call: &Call) -> Served {
    const DATA_ONLY: u64 = 1;
    if call.args[1] == DATA_ONLY {
        fs::fdatasync(call.file()?)?;
    } else {
        fs::fsync(call.file()?)?;
    }
    Ok(().into())
}

pub(super) fn lock(call: &Call) -> Served {
    let operation = match call.args[1] {
        0 => FlockOperation::NonBlockingLockShared,
        1 => FlockOperation::NonBlockingLockExclusive,
        _ => return Err(Errno::INVAL),
    };
    fs::flock(call.file()?, operation)?;
    Ok(().into())
}

pub(super) fn fstat(call: &Call) -> Served {
    call.put(1, host_stat(&fs::fstat(call.file()?)?))?;
    Ok(().into())
}

pub(super) fn statfs(call: &Call) -> Served {
    let stat = fs::fstatfs(call.file()?)?;
    let host_statfs = HostStatFs {
        block_size: stat.f_bsize as u64,
        blocks: stat.f_blocks,
        blocks_free: stat.f_bfree,
        blocks_available: stat.f_bavail,
        files: stat.f_files,
        files_free: stat.f_ffree,
        name_max: stat.f_namelen as u64,
    };
    call.put(1, host_statfs)?;
    Ok(().into())
}

pub fn host_stat(stat: &fs::Stat) -> HostStat {
    HostStat {
        dev: stat.st_dev,
        ino: stat.st_ino,
        mode: stat.st_mode,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev,
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime_s: stat.st_atime,
        atime_ns: stat.st_atime_nsec as i64,
        mtime_s: stat.st_mtime,
        mtime_ns: stat.st_mtime_nsec as i64,
        ctime_s: stat.st_ctime,
        ctime_ns: stat.st_ctime_nsec as i64,
    }
}
