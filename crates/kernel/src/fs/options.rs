//! File systems for mount(2): a type's name and its option string.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use occlum_enclave::HeapUsage;

use super::host::HostFs;
use super::proc::ProcFs;
use super::ramfs::RamFs;
use super::store::Lower;
use super::stores::{self, Request};
use crate::error::{Errno, Error, Result, err};
use crate::vfs::mount::FileSystem;

/// The file system that type and options name; ENODEV for a type there is not.
pub fn open(kind: &[u8], options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    match kind {
        b"tmpfs" | b"ramfs" => new_ramfs(options),
        b"hostfs" => new_hostfs(options),
        b"sefs" => new_sefs(options),
        b"unionfs" => new_unionfs(options),
        b"proc" | b"procfs" => Ok(Arc::new(ProcFs)),
        _ => err(Errno::ENODEV, "no such type of file system"),
    }
}

/// `name=value`; a word alone has no value.
fn pairs(options: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    options.split(|&byte| byte == b',').filter(|option| !option.is_empty()).map(|option| {
        match option.iter().position(|&byte| byte == b'=') {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option, None),
        }
    })
}

fn new_ramfs(options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let memory = HeapUsage::now().limit as u64;
    let (mut limit, mut mode, mut owner) = (memory, 0o1777, (0, 0));
    for (name, value) in pairs(options) {
        let value = value.unwrap_or_default();
        match name {
            b"size" => limit = size(value, memory)?,
            b"mode" => mode = number(value, 8)?,
            b"uid" => owner.0 = number(value, 10)?,
            b"gid" => owner.1 = number(value, 10)?,
            // Bounded by the kernel heap anyway.
            b"nr_inodes" | b"nr_blocks" => drop(size(value, memory)?),
            b"huge" | b"noswap" | b"inode64" | b"inode32" => {}
            _ => return err(Errno::EINVAL, "unknown option of tmpfs"),
        }
    }
    let fs = RamFs::new(limit, mode & 0o7777)?;
    if owner != (0, 0) {
        fs.root()?.set_attr(&crate::vfs::inode::SetAttr {
            uid: Some(owner.0),
            gid: Some(owner.1),
            ..Default::default()
        })?;
    }
    Ok(fs)
}

fn new_hostfs(options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let mut directory = None;
    for (name, value) in pairs(options) {
        match (name, value) {
            (b"dir", Some(value)) => directory = core::str::from_utf8(value).ok(),
            _ => return err(Errno::EINVAL, "hostfs takes dir="),
        }
    }
    match directory {
        Some(directory) if !directory.is_empty() => Ok(HostFs::new(directory)?),
        _ => err(Errno::EINVAL, "hostfs needs dir="),
    }
}

/// `dir=` the host's directory of the store, `key=` (else a key of the CPU), `mac=` its pin.
fn new_sefs(options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let mut request = Request::default();
    for (name, value) in pairs(options) {
        match (name, value) {
            (b"dir", Some(value)) => request.directory = value,
            (b"key", Some(value)) => request.key = Some(parse_key(value)?),
            (b"mac", Some(value)) => request.pin = value,
            _ => return err(Errno::EINVAL, "sefs takes dir=, key= and mac="),
        }
    }
    Ok(stores::open_requested(&request, None)?)
}

/// A writable store over one that is only read: `lowerdir=`, `upperdir=`, `key=` for both.
fn new_unionfs(options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let (mut lower, mut upper) = (Request::default(), Request::default());
    lower.is_read_only = true;
    for (name, value) in pairs(options) {
        match (name, value) {
            (b"lowerdir", Some(value)) => lower.directory = value,
            (b"upperdir", Some(value)) => upper.directory = value,
            (b"key", Some(value)) => {
                lower.key = Some(parse_key(value)?);
                upper.key = lower.key;
            }
            _ => return err(Errno::EINVAL, "unionfs takes lowerdir=, upperdir= and key="),
        }
    }
    let below = stores::open_requested(&lower, None)?;
    let layer = Lower { root: below.root()?, mark: below.mark()? };
    Ok(stores::open_requested(&upper, Some(layer))?)
}

/// 32 bytes as hexadecimal digits, with or without `-` between them.
fn parse_key(text: &[u8]) -> Result<[u8; 32]> {
    let wrong = Error::new(Errno::EINVAL, "key= takes 32 bytes in hexadecimal");
    let digits = text.iter().filter(|&&byte| byte != b'-');
    let digits: Option<Vec<u8>> = digits.map(|&byte| char::from(byte).to_digit(16).map(|digit| digit as u8)).collect();
    let (pairs, rest) = digits.as_deref().ok_or(wrong)?.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    if rest.is_empty() { bytes.try_into().map_err(|_| wrong) } else { Err(wrong) }
}

fn number(digits: &[u8], radix: u32) -> Result<u32> {
    let digits = core::str::from_utf8(digits).ok();
    let number = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
    number.ok_or(Error::new(Errno::EINVAL, "a number of an option"))
}

/// Bytes, or with k, m, g, or a share of `whole` with %.
fn size(value: &[u8], whole: u64) -> Result<u64> {
    let (digits, shift) = match value.split_last() {
        Some((b'k' | b'K', digits)) => (digits, 10),
        Some((b'm' | b'M', digits)) => (digits, 20),
        Some((b'g' | b'G', digits)) => (digits, 30),
        Some((b'%', digits)) => return Ok(whole / 100 * u64::from(number(digits, 10)?)),
        _ => (value, 0),
    };
    let number = core::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
    let size = number.and_then(|number| number.checked_mul(1 << shift));
    size.ok_or(Error::new(Errno::EINVAL, "a size of an option"))
}

/// Flags and options as /proc/mounts shows them.
pub fn shown(mount: &crate::vfs::Mount) -> String {
    use crate::vfs::mount::*;
    const NAMES: [(u32, &str); 7] = [
        (MS_NOSUID, "nosuid"),
        (MS_NODEV, "nodev"),
        (MS_NOEXEC, "noexec"),
        (MS_SYNCHRONOUS, "sync"),
        (MS_NOATIME, "noatime"),
        (MS_NODIRATIME, "nodiratime"),
        (MS_RELATIME, "relatime"),
    ];
    let mut text = String::from(if mount.is_read_only() { "ro" } else { "rw" });
    for (_, name) in NAMES.iter().filter(|(flag, _)| mount.has(*flag)) {
        text.push(',');
        text.push_str(name);
    }
    text
}
