//! Ocalls about files: results checked, structures copied once and then looked at.

use occlum_abi::ocall::{HostStat, Ocall};
use occlum_enclave::host::{self, HostMisbehaved, HostSlice};

use crate::error::{Errno, Error, Result};
use crate::vfs::inode::{Attr, Kind, Timestamp};

/// An ocall whose result must be an errno or at most `max`; another answer is a lie and stops the enclave.
pub fn checked(call: Ocall, args: [u64; 5], max: usize) -> core::result::Result<usize, Errno> {
    match host::call(call, args).at_most(call, max) {
        Ok(result) => result,
        Err(lie) => host::stop_for(lie),
    }
}

/// Copies the first bytes of the staging buffer in.
pub fn copy_in(call: Ocall, staging: &HostSlice, buf: &mut [u8]) {
    if buf.len() > staging.size() {
        host::stop_for(HostMisbehaved::BadLength(call));
    }
    if let Err(lie) = staging.read(buf) {
        host::stop_for(lie);
    }
}

/// Copies `bytes` to the start of the staging buffer; the caller has cut them to its size.
pub fn copy_out(staging: &HostSlice, bytes: &[u8]) {
    if let Err(lie) = staging.write(bytes) {
        host::stop_for(lie);
    }
}

const STAT_SIZE: usize = size_of::<HostStat>();

/// Attributes of an open host descriptor.
pub fn stat_of(fd: u32) -> Result<Attr> {
    let staging = host::staging();
    checked(Ocall::Fstat, [u64::from(fd), staging.addr(), 0, 0, 0], 0)
        .map_err(|errno| Error::new(errno, "the host's fstat"))?;
    take_stat(Ocall::Fstat, &staging)
}

/// The `HostStat` at the start of the staging buffer.
pub fn take_stat(call: Ocall, staging: &HostSlice) -> Result<Attr> {
    let mut raw = [0; STAT_SIZE];
    copy_in(call, staging, &mut raw);
    parse_stat(&raw).ok_or(Error::new(Errno::EIO, "the host's attributes make no sense"))
}

/// ```text
///  0 dev   8 ino  16 mode(4) nlink(4)  24 uid(4) gid(4)  32 rdev  40 size  48 blocks
/// 56 atime_s  64 atime_ns  72 mtime_s  80 mtime_ns  88 ctime_s  96 ctime_ns
/// ```
fn parse_stat(raw: &[u8; STAT_SIZE]) -> Option<Attr> {
    let u64_at = |offset: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&raw[offset..offset + 8]);
        u64::from_le_bytes(bytes)
    };
    let u32_at = |offset: usize| (u64_at(offset & !7) >> ((offset & 4) * 8)) as u32;
    let time_at = |offset: usize| {
        let ns = u64_at(offset + 8);
        (ns < 1_000_000_000).then_some(Timestamp { s: u64_at(offset) as i64, ns: ns as u32 })
    };
    let (mode, size) = (u32_at(16), u64_at(40));
    Kind::from_mode(mode)?;
    if size > i64::MAX as u64 || mode > 0o177_777 {
        return None;
    }
    Some(Attr {
        dev: u64_at(0),
        ino: u64_at(8),
        mode,
        nlink: u32_at(20),
        uid: u32_at(24),
        gid: u32_at(28),
        rdev: u64_at(32),
        size,
        block_size: 4096,
        blocks: u64_at(48),
        atime: time_at(56)?,
        mtime: time_at(72)?,
        ctime: time_at(88)?,
    })
}
