//! Paths below a directory the kernel has opened. Whatever a path says, and whatever links stand in
//! its way, it does not lead out of that directory: directories are resolved by openat2(2) with
//! RESOLVE_BENEATH, and the last component is used as a name only.

use super::files::{File, host_stat};
use super::{Answer, Call, Served};
use crate::sys;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;

/// First argument: a host path as it is given.
const NO_DIRECTORY: u64 = u64::MAX;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A directory and a name in it, which is neither empty nor `.` nor `..`.
struct Place<'a> {
    directory: Directory,
    name: &'a OsStr,
}

enum Directory {
    /// The handle itself.
    Root(File),
    Below(OwnedFd),
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Directory::Root(file) => file.as_fd(),
            Directory::Below(fd) => fd.as_fd(),
        }
    }
}

pub(super) fn open(call: &Call) -> Served {
    let path = call.bytes(1)?;
    let path = OsStr::from_bytes(&path);
    let flags = u32::try_from(call.args[3]).map_err(|_| Errno::INVAL)?;
    // A FIFO without a peer must not stop the vCPU, and a terminal must not become the host's.
    let flags =
        OFlags::from_bits_retain(flags) | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let is_new = flags.contains(OFlags::CREATE) || flags.contains(OFlags::TMPFILE);
    let mode = if is_new {
        mode(call.args[4])?
    } else {
        Mode::empty()
    };
    let opened = if call.args[0] == NO_DIRECTORY {
        fs::open(path, flags, mode)?
    } else {
        fs::openat2(call.file()?, path, flags, mode, BENEATH)?
    };
    Ok((call.instance.files.insert(opened) as usize).into())
}

pub(super) fn stat(call: &Call) -> Served {
    let path = call.bytes(1)?;
    let path = OsStr::from_bytes(&path);
    let stat = fs::fstat(handle(call, path)?)?;
    call.put(3, host_stat(&stat))?;
    Ok(().into())
}

pub(super) fn read_dir(call: &Call) -> Served {
    /// Position and read are two calls.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let directory = call.file()?;
    let buffer = call.buffer(1)?;
    let cookie = call.args[3];
    fs::seek(&directory, fs::SeekFrom::Start(cookie))?;
    let size = sys::directory_entries(&directory, buffer)?;
    let next = last_cookie(&buffer[..size]).unwrap_or(cookie);
    Ok(Answer {
        value: size as u64,
        second: next,
    })
}

/// `d_off` of the last linux_dirent64: ino u64, off u64, reclen u16, type u8, name.
fn last_cookie(mut entries: &[u8]) -> Option<u64> {
    let mut last = None;
    while let Some((header, _)) = entries.split_first_chunk::<18>() {
        let size = usize::from(u16::from_ne_bytes([header[16], header[17]]));
        last = header[8..]
            .first_chunk()
            .map(|offset| u64::from_ne_bytes(*offset));
        entries = entries.get(size.max(1)..)?;
    }
    last
}

pub(super) fn mkdir(call: &Call) -> Served {
    let path = call.bytes(1)?;
    let place = place(call, &path)?;
    fs::mkdirat(&place.directory, place.name, mode(call.args[3])?)?;
    Ok(().into())
}

pub(super) fn unlink(call: &Call) -> Served {
    let path = call.bytes(1)?;
    let place = place(call, &path)?;
    let flags = u32::try_from(call.args[3])
        .ok()
        .and_then(AtFlags::from_bits);
    let flags = flags
        .filter(|flags| AtFlags::REMOVEDIR.contains(*flags))
        .ok_or(Errno::INVAL)?;
    fs::unlinkat(&place.directory, place.name, flags)?;
    Ok(().into())
}

pub(super) fn rename(call: &Call) -> Served {
    let paths = call.bytes(1)?;
    let (old, new) = two_paths(&paths)?;
    let (old, new) = (place(call, old)?, place(call, new)?);
    let flags = u32::try_from(call.args[3]).map_err(|_| Errno::INVAL)?;
    let flags = fs::RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    fs::renameat_with(&old.directory, old.name, &new.directory, new.name, flags)?;
    Ok(().into())
}

pub(super) fn symlink(call: &Call) -> Served {
    let paths = call.bytes(1)?;
    let (target, link) = two_paths(&paths)?;
    let link = place(call, link)?;
    fs::symlinkat(OsStr::from_bytes(target), &link.directory, link.name)?;
    Ok(().into())
}

pub(super) fn link(call: &Call) -> Served {
    let paths = call.bytes(1)?;
    let (old, new) = two_paths(&paths)?;
    let (old, new) = (place(call, old)?, place(call, new)?);
    fs::linkat(
        &old.directory,
        old.name,
        &new.directory,
        new.name,
        AtFlags::empty(),
    )?;
    Ok(().into())
}

pub(super) fn read_link(call: &Call) -> Served {
    let path = call.bytes(1)?;
    let place = place(call, &path)?;
    let target = fs::readlinkat(&place.directory, place.name, Vec::new())?;
    let target = target.to_bytes();
    let output = call.buffer(3)?;
    let size = target.len().min(output.len());
    output[..size].copy_from_slice(&target[..size]);
    Ok(size.into())
}

pub(super) fn chmod(call: &Call) -> Served {
    let file = handle(call, OsStr::from_bytes(&call.bytes(1)?))?;
    if FileType::from_raw_mode(fs::fstat(&file)?.st_mode).is_symlink() {
        return Err(Errno::OPNOTSUPP);
    }
    // The handle is O_PATH, which fchmod does not take; older systems have no fchmodat2.
    fs::chmod(
        format!("/proc/self/fd/{}", file.as_raw_fd()),
        mode(call.args[3])?,
    )?;
    Ok(().into())
}

pub(super) fn chown(call: &Call) -> Served {
    let path = call.bytes(1)?;
    let place = place(call, &path)?;
    let (user, group) = (call.args[3] as u32, (call.args[3] >> 32) as u32);
    let known = |id: u32| id != u32::MAX;
    let user = known(user).then(|| Uid::from_raw(user));
    let group = known(group).then(|| Gid::from_raw(group));
    fs::chownat(
        &place.directory,
        place.name,
        user,
        group,
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    Ok(().into())
}

pub(super) fn utimes(call: &Call) -> Served {
    let path = call.bytes(1)?;
    let place = place(call, &path)?;
    let raw = call.instance.staging(call.vcpu, call.args[3], 32)?;
    let (fields, _) = raw.as_chunks::<8>();
    let time = |at: usize| fs::Timespec {
        tv_sec: i64::from_ne_bytes(fields[at]),
        tv_nsec: i64::from_ne_bytes(fields[at + 1]),
    };
    let times = fs::Timestamps {
        last_access: time(0),
        last_modification: time(2),
    };
    fs::utimensat(
        &place.directory,
        place.name,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    Ok(().into())
}

/// A handle that names a file without opening it; a final symlink is the file.
fn handle(call: &Call, path: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if call.args[0] == NO_DIRECTORY {
        return fs::open(path, flags, Mode::empty());
    }
    fs::openat2(call.file()?, path, flags, Mode::empty(), BENEATH)
}

fn place<'a>(call: &Call, path: &'a [u8]) -> Result<Place<'a>, Errno> {
    let path = Path::new(OsStr::from_bytes(path));
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let root = call.file()?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = match parent {
        None => Directory::Root(root),
        Some(parent) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Directory::Below(fs::openat2(root, parent, flags, Mode::empty(), BENEATH)?)
        }
    };
    Ok(Place { directory, name })
}

/// `first\0second`.
fn two_paths(bytes: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .ok_or(Errno::INVAL)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

fn mode(argument: u64) -> Result<Mode, Errno> {
    let bits = u32::try_from(argument).map_err(|_| Errno::INVAL)?;
    Ok(Mode::from_raw_mode(bits & 0o7777))
}
