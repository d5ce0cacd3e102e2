//! Descriptors of the host that close themselves, and paths handed to it.

use occlum_abi::ocall::Ocall;
use occlum_enclave::host::{self, HostMisbehaved, HostSlice};
use occlum_enclave::pages::Pages;

use super::hostcall;
use crate::error::{Errno, Error, Result, err};
use crate::vfs::inode::Position;
use crate::vfs::{Sink, Source};

/// No directory handle: the path is the host's own. For the sources of mounts only.
pub const NO_DIRECTORY: u64 = u64::MAX;

/// Bytes moved in one ocall: 2^5 pages.
const CHUNK_ORDER: usize = 5;

/// A descriptor of the host that closes itself.
pub struct HostFd(pub u32);

impl Drop for HostFd {
    fn drop(&mut self) {
        // A failure to close is the host's affair.
        let _ = hostcall::checked(Ocall::Close, [u64::from(self.0), 0, 0, 0, 0], 0);
    }
}

pub fn checked(call: Ocall, args: [u64; 5], max: usize) -> Result<usize> {
    hostcall::checked(call, args, max).map_err(|errno| Error::new(errno, "the host's answer"))
}

/// Puts a path into the first half of the staging buffer.
pub fn put_path(path: &[u8]) -> Result<HostSlice> {
    let staging = host::staging();
    if path.len() > output(&staging).addr().saturating_sub(staging.addr()) as usize {
        return err(Errno::ENAMETOOLONG, "path for the host");
    }
    hostcall::copy_out(&staging, path);
    Ok(staging)
}

/// Where answers go while the first half of the staging buffer holds paths.
pub fn output(staging: &HostSlice) -> HostSlice {
    let half = staging.size() / 2;
    match staging.part(half, staging.size() - half) {
        Some(part) => part,
        None => host::stop_for(HostMisbehaved::BadPointer),
    }
}

/// open(2) below the directory handle `directory`.
pub fn open_at(directory: u64, path: &[u8], flags: u32, mode: u32) -> Result<HostFd> {
    let staging = put_path(path)?;
    let args = [directory, staging.addr(), path.len() as u64, u64::from(flags), u64::from(mode)];
    let fd = checked(Ocall::Open, args, i32::MAX as usize)?;
    Ok(HostFd(fd as u32))
}

impl HostFd {
    pub fn read_at(&self, offset: u64, sink: &mut Sink<'_>) -> Result<()> {
        let mut buf = chunk()?;
        let mut position = offset;
        while sink.room() > 0 {
            let staging = host::staging();
            let size = sink.room().min(buf.len()).min(staging.size());
            let args = [u64::from(self.0), position, staging.addr(), size as u64, 0];
            let count = checked(Ocall::ReadAt, args, size)?;
            hostcall::copy_in(Ocall::ReadAt, &staging, &mut buf[..count]);
            let copied = sink.put(&buf[..count]);
            position += copied as u64;
            if count < size || copied < count {
                break;
            }
        }
        Ok(())
    }

    pub fn write_at(&self, position: Position, source: &mut Source<'_>) -> Result<u64> {
        let mut buf = chunk()?;
        let mut at = match position {
            Position::At(offset) => offset,
            Position::End => hostcall::stat_of(self.0)?.size,
        };
        while source.left() > 0 {
            let staging = host::staging();
            let size = source.left().min(buf.len()).min(staging.size());
            let mark = *source;
            let taken = source.take(&mut buf[..size]);
            if taken == 0 {
                break;
            }
            hostcall::copy_out(&staging, &buf[..taken]);
            let args = [u64::from(self.0), at, staging.addr(), taken as u64, 0];
            let sent = checked(Ocall::WriteAt, args, taken).inspect_err(|_| source.rewind(mark, 0))?;
            at += sent as u64;
            if sent < taken {
                source.rewind(mark, sent);
                break;
            }
        }
        Ok(at)
    }
}

fn chunk() -> Result<Pages> {
    Pages::new(CHUNK_ORDER).map_err(|_| Error::new(Errno::ENOMEM, "transfer buffer"))
}
