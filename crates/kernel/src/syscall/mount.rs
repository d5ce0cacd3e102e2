//! mount(2) and umount2(2).

use alloc::string::String;
use alloc::vec::Vec;

use super::path::{self, AT_FDCWD};
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::process::credentials::Capability;
use crate::user;
use crate::vfs::mount::{KEPT_FLAGS, MS_NOATIME, MS_RELATIME, MS_STRICTATIME, Path as Place};
use crate::vfs::mounts::{self, Depth, Scope, Unmount};
use crate::vfs::walk::LastLink;

use Arg::{Hex, Path, Ptr};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(165, "mount", &[Path, Path, Path, Hex, Ptr], sys_mount)
        .but("no shared propagation: there is one table of mounts for all"),
    Syscall::full(166, "umount2", &[Path, Hex], sys_umount2),
];

const MS_REMOUNT: u32 = 32;
const MS_BIND: u32 = 1 << 12;
const MS_MOVE: u32 = 1 << 13;
const MS_REC: u32 = 1 << 14;
const MS_SILENT: u32 = 1 << 15;
const MS_UNBINDABLE: u32 = 1 << 17;
const MS_PRIVATE: u32 = 1 << 18;
const MS_SLAVE: u32 = 1 << 19;
const MS_SHARED: u32 = 1 << 20;
const PROPAGATION: u32 = MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED;
/// An old magic number that the C library once had in the upper half.
const MS_MAGIC: u32 = 0xc0ed_0000;
const OPTIONS_MAX: usize = 4095;

fn sys_mount(call: &mut Call<'_>) -> Result<usize> {
    let who = path::identity(call);
    let mut flags = call.uint(3);
    if flags >> 16 == MS_MAGIC >> 16 {
        flags &= 0xffff;
    }
    let options = options(call)?;
    let on = path::object(call, &who, AT_FDCWD, 1, LastLink::Follow)?;
    if !who.has(Capability::SysAdmin) {
        return err(Errno::EPERM, "CAP_SYS_ADMIN");
    }
    if flags & MS_REMOUNT != 0 {
        let scope = if flags & MS_BIND != 0 { Scope::Mount } else { Scope::FileSystem };
        mounts::remount(&on, kept(flags), scope)?;
    } else if flags & MS_BIND != 0 {
        let from = source_path(call)?;
        let depth = if flags & MS_REC != 0 { Depth::All } else { Depth::One };
        mounts::bind(&from, on, depth)?;
    } else if flags & PROPAGATION != 0 {
        set_propagation(&on, flags)?;
    } else if flags & MS_MOVE != 0 {
        mounts::move_mount(&source_path(call)?, on)?;
    } else {
        mount_new(call, on, kept(flags), &options)?;
    }
    Ok(0)
}

/// The option string; Linux cuts it at a page.
fn options(call: &Call<'_>) -> Result<Vec<u8>> {
    match call.addr(4) {
        addr if addr.is_null() => Ok(Vec::new()),
        addr => user::read_c_string(addr, OPTIONS_MAX, Errno::EINVAL),
    }
}

/// What the mount keeps: relative access times unless others were asked for.
fn kept(flags: u32) -> u32 {
    let wants_other = flags & (MS_NOATIME | MS_STRICTATIME) != 0;
    let flags = if wants_other { flags } else { flags | MS_RELATIME };
    flags & KEPT_FLAGS
}

fn source_path(call: &Call<'_>) -> Result<Place> {
    if call.addr(0).is_null() {
        return err(Errno::EINVAL, "no source");
    }
    path::object(call, &path::identity(call), AT_FDCWD, 0, LastLink::Follow)
}

/// With one table nothing propagates: everything is private already.
fn set_propagation(on: &Place, flags: u32) -> Result<()> {
    let allowed = PROPAGATION | MS_REC | MS_SILENT;
    if flags & !allowed != 0 || !(flags & PROPAGATION).is_power_of_two() || !on.is_mount_root() {
        return err(Errno::EINVAL, "propagation flags");
    }
    if flags & (MS_PRIVATE | MS_SLAVE) == 0 {
        return err(Errno::EINVAL, "only private mounts");
    }
    Ok(())
}

fn mount_new(call: &Call<'_>, on: Place, flags: u32, options: &[u8]) -> Result<()> {
    if call.addr(2).is_null() {
        return err(Errno::EINVAL, "no type");
    }
    let kind = path::read(call, 2)?;
    let fs = crate::fs::options::open(&kind, options)?;
    let source = match call.addr(0) {
        addr if addr.is_null() => String::from("none"),
        _ => String::from_utf8_lossy(&path::read(call, 0)?).into_owned(),
    };
    let read_only = if fs.is_read_only() { crate::vfs::mount::MS_RDONLY } else { 0 };
    mounts::mount(fs, on, source, flags | read_only)
}

fn sys_umount2(call: &mut Call<'_>) -> Result<usize> {
    const MNT_FORCE: u32 = 1;
    const MNT_DETACH: u32 = 2;
    const UMOUNT_NOFOLLOW: u32 = 8;
    let flags = call.uint(1);
    if flags & !(MNT_DETACH | UMOUNT_NOFOLLOW | MNT_FORCE) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    let who = path::identity(call);
    let last = if flags & UMOUNT_NOFOLLOW != 0 { LastLink::Keep } else { LastLink::Follow };
    if !who.has(Capability::SysAdmin) {
        return err(Errno::EPERM, "CAP_SYS_ADMIN");
    }
    let path = path::object(call, &who, AT_FDCWD, 0, last)?;
    let how = if flags & MNT_DETACH != 0 { Unmount::Lazy } else { Unmount::IfUnused };
    mounts::unmount(path, how)?;
    Ok(0)
}
