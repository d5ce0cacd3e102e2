//! Attributes: stat(2) and its kin, mode, owner, times, extended attributes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::path::{
    self, AT_EACCESS, AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, Target,
};
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::process::credentials::Capability;
use crate::user::{self, UserAddr};
use crate::vfs::access::{self, S_ISGID, S_ISUID};
use crate::vfs::inotify::{self, IN_ACCESS, IN_ATTRIB, IN_MODIFY};
use crate::vfs::inode::{SetAttr, Timestamp, XattrMode};
use crate::vfs::mount::{
    MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME, MS_SYNCHRONOUS, Mount,
};
use crate::vfs::walk::LastLink;
use crate::vfs::{Attr, Identity, InodeRef, Kind, create};

use Arg::{Fd, Hex, Int, Octal, Path, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(4, "stat", &[Path, Ptr], sys_stat),
    Syscall::full(5, "fstat", &[Fd, Ptr], sys_fstat),
    Syscall::full(6, "lstat", &[Path, Ptr], sys_lstat),
    Syscall::full(21, "access", &[Path, Octal], sys_access),
    Syscall::full(90, "chmod", &[Path, Octal], sys_chmod),
    Syscall::full(91, "fchmod", &[Fd, Octal], sys_fchmod),
    Syscall::full(92, "chown", &[Path, Int, Int], sys_chown),
    Syscall::full(93, "fchown", &[Fd, Int, Int], sys_fchown),
    Syscall::full(94, "lchown", &[Path, Int, Int], sys_lchown),
    Syscall::full(132, "utime", &[Path, Ptr], sys_utime),
    Syscall::full(137, "statfs", &[Path, Ptr], sys_statfs),
    Syscall::full(138, "fstatfs", &[Fd, Ptr], sys_fstatfs),
    Syscall::full(188, "setxattr", &[Path, Path, Ptr, Uint, Hex], sys_setxattr),
    Syscall::full(189, "lsetxattr", &[Path, Path, Ptr, Uint, Hex], sys_lsetxattr),
    Syscall::full(190, "fsetxattr", &[Fd, Path, Ptr, Uint, Hex], sys_fsetxattr),
    Syscall::full(191, "getxattr", &[Path, Path, Ptr, Uint], sys_getxattr),
    Syscall::full(192, "lgetxattr", &[Path, Path, Ptr, Uint], sys_lgetxattr),
    Syscall::full(193, "fgetxattr", &[Fd, Path, Ptr, Uint], sys_fgetxattr),
    Syscall::full(194, "listxattr", &[Path, Ptr, Uint], sys_listxattr),
    Syscall::full(195, "llistxattr", &[Path, Ptr, Uint], sys_llistxattr),
    Syscall::full(196, "flistxattr", &[Fd, Ptr, Uint], sys_flistxattr),
    Syscall::full(197, "removexattr", &[Path, Path], sys_removexattr),
    Syscall::full(198, "lremovexattr", &[Path, Path], sys_lremovexattr),
    Syscall::full(199, "fremovexattr", &[Fd, Path], sys_fremovexattr),
    Syscall::full(235, "utimes", &[Path, Ptr], sys_utimes),
    Syscall::full(260, "fchownat", &[Fd, Path, Int, Int, Hex], sys_fchownat),
    Syscall::full(261, "futimesat", &[Fd, Path, Ptr], sys_futimesat),
    Syscall::full(262, "newfstatat", &[Fd, Path, Ptr, Hex], sys_newfstatat),
    Syscall::full(268, "fchmodat", &[Fd, Path, Octal], sys_fchmodat),
    Syscall::full(269, "faccessat", &[Fd, Path, Octal], sys_faccessat),
    Syscall::full(280, "utimensat", &[Fd, Path, Ptr, Hex], sys_utimensat),
    Syscall::full(332, "statx", &[Fd, Path, Hex, Hex, Ptr], sys_statx),
    Syscall::full(439, "faccessat2", &[Fd, Path, Octal, Hex], sys_faccessat2),
    Syscall::full(452, "fchmodat2", &[Fd, Path, Octal, Hex], sys_fchmodat2),
];

/// `struct stat` of x86-64.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Stat {
    dev: u64,
    ino: u64,
    nlink: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    pad: u32,
    rdev: u64,
    size: i64,
    block_size: i64,
    blocks: i64,
    atime: TimeSpec,
    mtime: TimeSpec,
    ctime: TimeSpec,
    unused: [i64; 3],
}

/// `struct timespec`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct TimeSpec {
    s: i64,
    ns: i64,
}

impl From<Timestamp> for TimeSpec {
    fn from(time: Timestamp) -> TimeSpec {
        TimeSpec { s: time.s, ns: i64::from(time.ns) }
    }
}

fn write_stat(addr: UserAddr, attr: &Attr) -> Result<usize> {
    let stat = Stat {
        dev: attr.dev,
        ino: attr.ino,
        nlink: u64::from(attr.nlink),
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        pad: 0,
        rdev: attr.rdev,
        size: attr.size as i64,
        block_size: i64::from(attr.block_size),
        blocks: attr.blocks as i64,
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        unused: [0; 3],
    };
    user::write(addr, &stat)?;
    Ok(0)
}

fn sys_stat(call: &mut Call<'_>) -> Result<usize> {
    let path = path::object(call, &path::identity(call), AT_FDCWD, 0, LastLink::Follow)?;
    write_stat(call.addr(1), &path.inode().attr()?)
}

fn sys_lstat(call: &mut Call<'_>) -> Result<usize> {
    let path = path::object(call, &path::identity(call), AT_FDCWD, 0, LastLink::Keep)?;
    write_stat(call.addr(1), &path.inode().attr()?)
}

fn sys_fstat(call: &mut Call<'_>) -> Result<usize> {
    let file = call.thread.files().get(call.int(0))?;
    write_stat(call.addr(1), &file.file().attr()?)
}

fn sys_newfstatat(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    let target = path::target(call, &path::identity(call), call.int(0), 1, flags)?;
    write_stat(call.addr(2), &target.attr()?)
}

/// `struct statx`, the fields of STATX_BASIC_STATS.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Statx {
    mask: u32,
    block_size: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: StatxTime,
    btime: StatxTime,
    ctime: StatxTime,
    mtime: StatxTime,
    rdev_major: u32,
    rdev_minor: u32,
    dev_major: u32,
    dev_minor: u32,
    mount_id: u64,
    rest: [u64; 13],
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct StatxTime {
    s: i64,
    ns: u32,
    pad: i32,
}

impl From<Timestamp> for StatxTime {
    fn from(time: Timestamp) -> StatxTime {
        StatxTime { s: time.s, ns: time.ns, pad: 0 }
    }
}

const STATX_BASIC_STATS: u32 = 0x7ff;
const STATX_MNT_ID: u32 = 0x1000;
const STATX_RESERVED: u32 = 0x8000_0000;
const AT_STATX_SYNC_TYPE: u32 = 0x6000;

fn sys_statx(call: &mut Call<'_>) -> Result<usize> {
    let (flags, mask) = (call.uint(2), call.uint(3));
    let known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
    if mask & STATX_RESERVED != 0
        || flags & !known != 0
        || flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE
    {
        return err(Errno::EINVAL, "unknown flags or mask");
    }
    let target = path::target(call, &path::identity(call), call.int(0), 1, flags)?;
    let attr = target.attr()?;
    let (rdev_major, rdev_minor) = split_dev(attr.rdev);
    let (dev_major, dev_minor) = split_dev(attr.dev);
    let statx = Statx {
        mask: STATX_BASIC_STATS | target.path().map_or(0, |_| STATX_MNT_ID),
        block_size: attr.block_size,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        mode: attr.mode as u16,
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.into(),
        ctime: attr.ctime.into(),
        mtime: attr.mtime.into(),
        rdev_major,
        rdev_minor,
        dev_major,
        dev_minor,
        mount_id: target.path().map_or(0, |path| u64::from(path.mount.id)),
        ..Statx::default()
    };
    user::write(call.addr(4), &statx)?;
    Ok(0)
}

/// Major and minor number of a `dev_t`.
pub(super) fn split_dev(dev: u64) -> (u32, u32) {
    let major = (dev >> 8 & 0xfff) | (dev >> 32 & !0xfff);
    let minor = (dev & 0xff) | (dev >> 12 & !0xff);
    (major as u32, minor as u32)
}

fn sys_access(call: &mut Call<'_>) -> Result<usize> {
    access_at(call, AT_FDCWD, 0, 0)
}

fn sys_faccessat(call: &mut Call<'_>) -> Result<usize> {
    access_at(call, call.int(0), 1, 0)
}

fn sys_faccessat2(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(3);
    if flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    access_at(call, call.int(0), 1, flags)
}

fn access_at(call: &Call<'_>, dirfd: i32, index: usize, flags: u32) -> Result<usize> {
    let wanted = call.uint(index + 1);
    if wanted & !7 != 0 {
        return err(Errno::EINVAL, "unknown access mode");
    }
    // access(2) asks for the real user, unless AT_EACCESS.
    let who = match flags & AT_EACCESS {
        0 => Identity::real(&call.thread.credentials()),
        _ => path::identity(call),
    };
    let target = path::target(call, &who, dirfd, index, flags & !AT_EACCESS)?;
    if wanted & access::MAY_WRITE != 0
        && let Some(path) = target.path()
        && matches!(path.dentry.kind(), Kind::Regular | Kind::Directory | Kind::Symlink)
    {
        create::check_writable_mount(path)?;
    }
    access::check_attr(&target.attr()?, &who, wanted)?;
    Ok(0)
}

fn sys_chmod(call: &mut Call<'_>) -> Result<usize> {
    chmod_at(call, AT_FDCWD, 0, 0)
}

fn sys_fchmodat(call: &mut Call<'_>) -> Result<usize> {
    chmod_at(call, call.int(0), 1, 0)
}

fn sys_fchmodat2(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    chmod_at(call, call.int(0), 1, flags)
}

fn sys_fchmod(call: &mut Call<'_>) -> Result<usize> {
    let who = path::identity(call);
    let target = Target::Open(super::file::content(call, 0)?);
    chmod(&who, &target, call.uint(1))
}

fn chmod_at(call: &Call<'_>, dirfd: i32, index: usize, flags: u32) -> Result<usize> {
    let who = path::identity(call);
    let target = path::target(call, &who, dirfd, index, flags)?;
    chmod(&who, &target, call.uint(index + 1))
}

fn chmod(who: &Identity, target: &Target, mode: u32) -> Result<usize> {
    let inode = changeable(target)?;
    let attr = inode.attr()?;
    if !who.owns(&attr) {
        return err(Errno::EPERM, "not the owner");
    }
    if inode.kind() == Kind::Symlink {
        return err(Errno::EOPNOTSUPP, "mode of a symbolic link");
    }
    let mut mode = mode & 0o7777;
    if !who.has(Capability::Fsetid) && !who.is_in_group(attr.gid) {
        mode &= !S_ISGID;
    }
    inode.set_attr(&SetAttr { mode: Some(mode), ..SetAttr::default() })?;
    tell(target, IN_ATTRIB);
    Ok(0)
}

/// Tells who watches the object.
fn tell(target: &Target, event: u32) {
    if let Some(path) = target.path() {
        inotify::changed(&path.dentry, event);
    }
}

/// The inode of something whose attributes are to change; EROFS.
fn changeable(target: &Target) -> Result<&InodeRef> {
    if let Some(path) = target.path() {
        create::check_writable_mount(path)?;
    }
    target.inode()
}

fn sys_chown(call: &mut Call<'_>) -> Result<usize> {
    chown_at(call, AT_FDCWD, 0, 0)
}

fn sys_lchown(call: &mut Call<'_>) -> Result<usize> {
    chown_at(call, AT_FDCWD, 0, AT_SYMLINK_NOFOLLOW)
}

fn sys_fchownat(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(4);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    chown_at(call, call.int(0), 1, flags)
}

fn sys_fchown(call: &mut Call<'_>) -> Result<usize> {
    let who = path::identity(call);
    let target = Target::Open(super::file::content(call, 0)?);
    chown(&who, &target, call.uint(1), call.uint(2))
}

fn chown_at(call: &Call<'_>, dirfd: i32, index: usize, flags: u32) -> Result<usize> {
    let who = path::identity(call);
    let target = path::target(call, &who, dirfd, index, flags)?;
    chown(&who, &target, call.uint(index + 1), call.uint(index + 2))
}

fn chown(who: &Identity, target: &Target, uid: u32, gid: u32) -> Result<usize> {
    let inode = changeable(target)?;
    let attr = inode.attr()?;
    // -1 leaves an id as it is.
    let uid = Some(uid).filter(|&uid| uid != u32::MAX);
    let gid = Some(gid).filter(|&gid| gid != u32::MAX);
    if !who.has(Capability::Chown) {
        let keeps_owner = uid.is_none_or(|uid| uid == attr.uid && who.uid == attr.uid);
        let may_have_group = gid.is_none_or(|gid| who.uid == attr.uid && who.is_in_group(gid));
        if !keeps_owner || !may_have_group {
            return err(Errno::EPERM, "CAP_CHOWN");
        }
    }
    let is_program = inode.kind() != Kind::Directory && (uid.is_some() || gid.is_some());
    let lost = if attr.mode & 0o010 != 0 { S_ISUID | S_ISGID } else { S_ISUID };
    let mode = is_program.then_some(attr.mode & 0o7777 & !lost);
    inode.set_attr(&SetAttr { uid, gid, mode, ..SetAttr::default() })?;
    tell(target, IN_ATTRIB);
    Ok(0)
}

const UTIME_NOW: i64 = 0x3fff_ffff;
const UTIME_OMIT: i64 = 0x3fff_fffe;

fn sys_utimensat(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    let times = match call.addr(2) {
        addr if addr.is_null() => None,
        addr => Some(user::read::<[TimeSpec; 2]>(addr)?),
    };
    if times.is_some_and(|[atime, mtime]| atime.ns == UTIME_OMIT && mtime.ns == UTIME_OMIT) {
        return Ok(0);
    }
    let who = path::identity(call);
    let target = if call.addr(1).is_null() {
        if call.int(0) == AT_FDCWD {
            return err(Errno::EFAULT, "no path and no descriptor");
        }
        if flags != 0 {
            return err(Errno::EINVAL, "flags without a path");
        }
        Target::Open(super::file::content(call, 0)?)
    } else {
        path::target(call, &who, call.int(0), 1, flags)?
    };
    set_times(&who, &target, times)
}

/// `struct timeval` pairs: microseconds.
fn sys_utimes(call: &mut Call<'_>) -> Result<usize> {
    set_micro_times(call, AT_FDCWD, 0)
}

fn sys_futimesat(call: &mut Call<'_>) -> Result<usize> {
    set_micro_times(call, call.int(0), 1)
}

fn set_micro_times(call: &Call<'_>, dirfd: i32, index: usize) -> Result<usize> {
    let times = match call.addr(index + 1) {
        addr if addr.is_null() => None,
        addr => Some(user::read::<[TimeSpec; 2]>(addr)?),
    };
    let times = match times {
        Some(times) if times.iter().any(|time| !(0..1_000_000).contains(&time.ns)) => {
            return err(Errno::EINVAL, "microseconds");
        }
        times => times.map(|times| times.map(|time| TimeSpec { s: time.s, ns: time.ns * 1000 })),
    };
    let who = path::identity(call);
    let target = path::target(call, &who, dirfd, index, 0)?;
    set_times(&who, &target, times)
}

fn sys_utime(call: &mut Call<'_>) -> Result<usize> {
    let times = match call.addr(1) {
        addr if addr.is_null() => None,
        addr => Some(user::read::<[i64; 2]>(addr)?.map(|s| TimeSpec { s, ns: 0 })),
    };
    let who = path::identity(call);
    let target = path::target(call, &who, AT_FDCWD, 0, 0)?;
    set_times(&who, &target, times)
}

/// `None`: both to now, which who may write the file may do too.
fn set_times(who: &Identity, target: &Target, times: Option<[TimeSpec; 2]>) -> Result<usize> {
    let inode = changeable(target)?;
    let now = Timestamp::now();
    let change = match times {
        None => SetAttr { atime: Some(now), mtime: Some(now), ..SetAttr::default() },
        Some([atime, mtime]) => SetAttr {
            atime: time_to_set(atime, now)?,
            mtime: time_to_set(mtime, now)?,
            ..SetAttr::default()
        },
    };
    let attr = inode.attr()?;
    let is_now = times.is_none_or(|times| times.iter().all(|time| time.ns == UTIME_NOW));
    if !who.owns(&attr) {
        if !is_now {
            return err(Errno::EPERM, "not the owner");
        }
        access::check_attr(&attr, who, access::MAY_WRITE)?;
    }
    inode.set_attr(&change)?;
    tell(target, match (change.atime, change.mtime) {
        (Some(_), None) => IN_ACCESS,
        (None, Some(_)) => IN_MODIFY,
        _ => IN_ATTRIB,
    });
    Ok(0)
}

fn time_to_set(time: TimeSpec, now: Timestamp) -> Result<Option<Timestamp>> {
    match time.ns {
        UTIME_OMIT => Ok(None),
        UTIME_NOW => Ok(Some(now)),
        0..1_000_000_000 => Ok(Some(Timestamp { s: time.s, ns: time.ns as u32 })),
        _ => err(Errno::EINVAL, "nanoseconds"),
    }
}

/// `struct statfs` of x86-64.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct StatFs {
    kind: u64,
    block_size: u64,
    blocks: u64,
    blocks_free: u64,
    blocks_available: u64,
    files: u64,
    files_free: u64,
    id: [u32; 2],
    name_max: u64,
    fragment_size: u64,
    flags: u64,
    spare: [u64; 4],
}

fn sys_statfs(call: &mut Call<'_>) -> Result<usize> {
    let path = path::object(call, &path::identity(call), AT_FDCWD, 0, LastLink::Follow)?;
    write_statfs(call.addr(1), Some(&path.mount))
}

fn sys_fstatfs(call: &mut Call<'_>) -> Result<usize> {
    let file = call.thread.files().get(call.int(0))?;
    write_statfs(call.addr(1), file.path().map(|path| &*path.mount))
}

/// Pipes and sockets have no mount: they show a file system without space, as Linux does.
fn write_statfs(addr: UserAddr, mount: Option<&Mount>) -> Result<usize> {
    const PIPEFS_MAGIC: u64 = 0x5049_5045;
    const ST_VALID: u64 = 0x20;
    let stat = match mount {
        Some(mount) => mount.fs.stat()?,
        None => crate::vfs::mount::StatFs { magic: PIPEFS_MAGIC, block_size: 4096, ..Default::default() },
    };
    let stat = StatFs {
        kind: stat.magic,
        block_size: stat.block_size,
        blocks: stat.blocks,
        blocks_free: stat.blocks_free,
        blocks_available: stat.blocks_free,
        files: stat.files,
        files_free: stat.files_free,
        id: [mount.map_or(0, |mount| mount.id), 0],
        name_max: 255,
        fragment_size: stat.block_size,
        flags: ST_VALID | mount.map_or(0, statfs_flags),
        spare: [0; 4],
    };
    user::write(addr, &stat)?;
    Ok(0)
}

/// The mount's flags as `f_flags`: the first five have the values of MS_*, the others do not.
fn statfs_flags(mount: &Mount) -> u64 {
    const ST_RELATIME: u64 = 4096;
    let times = if mount.has(MS_RELATIME) { ST_RELATIME } else { 0 };
    u64::from(mount.flags() & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS))
        | u64::from(mount.flags() & (MS_NOATIME | MS_NODIRATIME))
        | times
}

// Extended attributes.

const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65536;
const XATTR_LIST_MAX: usize = 65536;

fn by_path(call: &Call<'_>, flags: u32) -> Result<Target> {
    path::target(call, &path::identity(call), AT_FDCWD, 0, flags)
}

fn by_descriptor(call: &Call<'_>) -> Result<Target> {
    Ok(Target::Open(super::file::content(call, 0)?))
}

fn sys_setxattr(call: &mut Call<'_>) -> Result<usize> {
    set_xattr(call, by_path(call, 0)?)
}

fn sys_lsetxattr(call: &mut Call<'_>) -> Result<usize> {
    set_xattr(call, by_path(call, AT_SYMLINK_NOFOLLOW)?)
}

fn sys_fsetxattr(call: &mut Call<'_>) -> Result<usize> {
    set_xattr(call, by_descriptor(call)?)
}

fn set_xattr(call: &Call<'_>, target: Target) -> Result<usize> {
    let how = match call.uint(4) {
        0 => XattrMode::Any,
        1 => XattrMode::Create,
        2 => XattrMode::Replace,
        _ => return err(Errno::EINVAL, "flags"),
    };
    let name = xattr_name(call)?;
    let size = call.size(3);
    if size > XATTR_SIZE_MAX {
        return err(Errno::E2BIG, "value larger than XATTR_SIZE_MAX");
    }
    let value = crate::user::UserSlice::<u8>::new(call.addr(2), size).copy_in()?;
    let inode = changeable(&target)?;
    check_xattr_name(&path::identity(call), inode, &name, access::MAY_WRITE)?;
    inode.set_xattr(&name, &value, how)?;
    tell(&target, IN_ATTRIB);
    Ok(0)
}

fn sys_getxattr(call: &mut Call<'_>) -> Result<usize> {
    get_xattr(call, by_path(call, 0)?)
}

fn sys_lgetxattr(call: &mut Call<'_>) -> Result<usize> {
    get_xattr(call, by_path(call, AT_SYMLINK_NOFOLLOW)?)
}

fn sys_fgetxattr(call: &mut Call<'_>) -> Result<usize> {
    get_xattr(call, by_descriptor(call)?)
}

fn get_xattr(call: &Call<'_>, target: Target) -> Result<usize> {
    let name = xattr_name(call)?;
    let inode = target.inode()?;
    check_xattr_name(&path::identity(call), inode, &name, access::MAY_READ)?;
    let value = inode.xattr(&name)?;
    give_sized(call.addr(2), call.size(3), &value)
}

fn sys_listxattr(call: &mut Call<'_>) -> Result<usize> {
    list_xattrs(call, by_path(call, 0)?)
}

fn sys_llistxattr(call: &mut Call<'_>) -> Result<usize> {
    list_xattrs(call, by_path(call, AT_SYMLINK_NOFOLLOW)?)
}

fn sys_flistxattr(call: &mut Call<'_>) -> Result<usize> {
    list_xattrs(call, by_descriptor(call)?)
}

fn list_xattrs(call: &Call<'_>, target: Target) -> Result<usize> {
    let is_privileged = path::identity(call).has(Capability::SysAdmin);
    let names: Vec<Box<[u8]>> = target.inode()?.xattr_names()?;
    let mut list = Vec::new();
    for name in names.iter().filter(|name| is_privileged || !name.starts_with(b"trusted.")) {
        list.extend_from_slice(name);
        list.push(0);
    }
    give_sized(call.addr(1), call.size(2).min(XATTR_LIST_MAX), &list)
}

fn sys_removexattr(call: &mut Call<'_>) -> Result<usize> {
    remove_xattr(call, by_path(call, 0)?)
}

fn sys_lremovexattr(call: &mut Call<'_>) -> Result<usize> {
    remove_xattr(call, by_path(call, AT_SYMLINK_NOFOLLOW)?)
}

fn sys_fremovexattr(call: &mut Call<'_>) -> Result<usize> {
    remove_xattr(call, by_descriptor(call)?)
}

fn remove_xattr(call: &Call<'_>, target: Target) -> Result<usize> {
    let name = xattr_name(call)?;
    let inode = changeable(&target)?;
    check_xattr_name(&path::identity(call), inode, &name, access::MAY_WRITE)?;
    inode.remove_xattr(&name)?;
    tell(&target, IN_ATTRIB);
    Ok(0)
}

/// A size of 0 asks for the size; ERANGE if it is too small.
fn give_sized(addr: UserAddr, size: usize, value: &[u8]) -> Result<usize> {
    if size == 0 {
        return Ok(value.len());
    }
    if value.len() > size {
        return err(Errno::ERANGE, "buffer too small");
    }
    user::write_bytes(addr, value)?;
    Ok(value.len())
}

fn xattr_name(call: &Call<'_>) -> Result<Vec<u8>> {
    let name = user::read_c_string(call.addr(1), XATTR_NAME_MAX, Errno::ERANGE)?;
    if name.is_empty() {
        return err(Errno::ERANGE, "empty attribute name");
    }
    Ok(name)
}

/// xattr(7): who may touch which class of attribute.
fn check_xattr_name(who: &Identity, inode: &InodeRef, name: &[u8], wanted: u32) -> Result<()> {
    let is_write = wanted == access::MAY_WRITE;
    if name.starts_with(b"trusted.") {
        let hidden = if is_write { Errno::EPERM } else { Errno::ENODATA };
        return if who.has(Capability::SysAdmin) { Ok(()) } else { err(hidden, "trusted attribute") };
    }
    if name.starts_with(b"security.") {
        let may = !is_write || who.has(Capability::SysAdmin);
        return if may { Ok(()) } else { err(Errno::EPERM, "security attribute") };
    }
    if !name.starts_with(b"user.") {
        return Err(Error::new(Errno::EOPNOTSUPP, "unknown class of attribute"));
    }
    if !matches!(inode.kind(), Kind::Regular | Kind::Directory) {
        let errno = if is_write { Errno::EPERM } else { Errno::ENODATA };
        return err(errno, "user attributes are for files and directories");
    }
    access::check(&**inode, who, wanted)
}
