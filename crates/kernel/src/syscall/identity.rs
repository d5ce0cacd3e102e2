//! Who a process is: ids of processes, groups, sessions, users; capabilities.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::process::credentials::{ALL_CAPABILITIES, Capability, Ids};
use crate::process::{Credentials, Process, Thread, groups, tree};
use crate::user::{self, UserAddr, UserSlice};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(39, "getpid", &[], sys_getpid),
    Syscall::full(102, "getuid", &[], sys_getuid),
    Syscall::full(104, "getgid", &[], sys_getgid),
    Syscall::full(105, "setuid", &[Arg::Uint], sys_setuid),
    Syscall::full(106, "setgid", &[Arg::Uint], sys_setgid),
    Syscall::full(107, "geteuid", &[], sys_geteuid),
    Syscall::full(108, "getegid", &[], sys_getegid),
    Syscall::full(109, "setpgid", &[Arg::Int, Arg::Int], sys_setpgid),
    Syscall::full(110, "getppid", &[], sys_getppid),
    Syscall::full(111, "getpgrp", &[], sys_getpgrp),
    Syscall::full(112, "setsid", &[], sys_setsid),
    Syscall::full(113, "setreuid", &[Arg::Int, Arg::Int], sys_setreuid),
    Syscall::full(114, "setregid", &[Arg::Int, Arg::Int], sys_setregid),
    Syscall::full(115, "getgroups", &[Arg::Int, Arg::Ptr], sys_getgroups),
    Syscall::full(116, "setgroups", &[Arg::Int, Arg::Ptr], sys_setgroups),
    Syscall::full(117, "setresuid", &[Arg::Int, Arg::Int, Arg::Int], sys_setresuid),
    Syscall::full(118, "getresuid", &[Arg::Ptr, Arg::Ptr, Arg::Ptr], sys_getresuid),
    Syscall::full(119, "setresgid", &[Arg::Int, Arg::Int, Arg::Int], sys_setresgid),
    Syscall::full(120, "getresgid", &[Arg::Ptr, Arg::Ptr, Arg::Ptr], sys_getresgid),
    Syscall::full(121, "getpgid", &[Arg::Int], sys_getpgid),
    Syscall::full(122, "setfsuid", &[Arg::Uint], sys_setfsuid),
    Syscall::full(123, "setfsgid", &[Arg::Uint], sys_setfsgid),
    Syscall::full(124, "getsid", &[Arg::Int], sys_getsid),
    Syscall::full(125, "capget", &[Arg::Ptr, Arg::Ptr], sys_capget),
    Syscall::full(126, "capset", &[Arg::Ptr, Arg::Ptr], sys_capset),
    Syscall::full(186, "gettid", &[], sys_gettid),
];

fn sys_getpid(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.process().pid() as usize)
}

fn sys_gettid(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.tid() as usize)
}

fn sys_getppid(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.process().ppid() as usize)
}

fn sys_getpgrp(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.process().pgid() as usize)
}

/// The process a call names: 0 is the caller's.
pub(super) fn process_or_self(call: &Call<'_>, pid: i32) -> Result<Arc<Process>> {
    match u32::try_from(pid) {
        Ok(0) => Ok(call.thread.process().clone()),
        Ok(pid) => tree::find_process(pid).ok_or_else(tree::no_such_process),
        Err(_) => Err(tree::no_such_process()),
    }
}

fn sys_getpgid(call: &mut Call<'_>) -> Result<usize> {
    Ok(process_or_self(call, call.int(0))?.pgid() as usize)
}

fn sys_getsid(call: &mut Call<'_>) -> Result<usize> {
    Ok(process_or_self(call, call.int(0))?.sid() as usize)
}

fn sys_setpgid(call: &mut Call<'_>) -> Result<usize> {
    // 0 is the process's own number, whatever that is.
    let pgid = if call.int(1) == 0 { call.int(0) } else { call.int(1) };
    let Ok(pgid) = u32::try_from(pgid) else {
        return err(Errno::EINVAL, "negative group");
    };
    let target = process_or_self(call, call.int(0))?;
    groups::set_group(call.thread.process(), &target, pgid)?;
    Ok(0)
}

fn sys_setsid(call: &mut Call<'_>) -> Result<usize> {
    Ok(groups::new_session(call.thread.process())? as usize)
}

fn sys_getuid(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.credentials().user.real as usize)
}

fn sys_geteuid(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.credentials().user.effective as usize)
}

fn sys_getgid(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.credentials().group.real as usize)
}

fn sys_getegid(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.credentials().group.effective as usize)
}

/// "Leave as it is" in the calls that set several ids.
const KEEP: u32 = u32::MAX;

fn or_keep(new: u32, old: u32) -> u32 {
    if new == KEEP { old } else { new }
}

fn sys_setuid(call: &mut Call<'_>) -> Result<usize> {
    let id = valid_id(call.uint(0))?;
    let old = call.thread.credentials();
    let user = set_one(old.user, id, old.has(Capability::Setuid))?;
    install(call.thread, old.with_user(user));
    Ok(0)
}

fn sys_setgid(call: &mut Call<'_>) -> Result<usize> {
    let id = valid_id(call.uint(0))?;
    let old = call.thread.credentials();
    let group = set_one(old.group, id, old.has(Capability::Setgid))?;
    install(call.thread, Credentials { group, ..(*old).clone() });
    Ok(0)
}

/// Makes `new` the caller's. A change of effective ids or capabilities ends what depended on them, prctl(2).
fn install(thread: &Thread, new: Credentials) {
    let old = thread.credentials();
    let is_same = old.user.effective == new.user.effective
        && old.user.fs == new.user.fs
        && old.group.effective == new.group.effective
        && old.group.fs == new.group.fs
        && new.permitted & !old.permitted == 0;
    if !is_same {
        thread.process().set_dumpable(false);
        thread.parent_death_signal.store(0, Ordering::Relaxed);
    }
    thread.set_credentials(new);
}

fn valid_id(id: u32) -> Result<u32> {
    if id == KEEP { err(Errno::EINVAL, "-1 is no id") } else { Ok(id) }
}

/// setuid and setgid: all ids for the privileged, else the effective one.
fn set_one(ids: Ids, id: u32, is_privileged: bool) -> Result<Ids> {
    if is_privileged {
        return Ok(Ids::all(id));
    }
    if id != ids.real && id != ids.saved {
        return err(Errno::EPERM, "not one's own id");
    }
    Ok(Ids { effective: id, fs: id, ..ids })
}

fn sys_setreuid(call: &mut Call<'_>) -> Result<usize> {
    let old = call.thread.credentials();
    let user = set_two(old.user, call.uint(0), call.uint(1), old.has(Capability::Setuid))?;
    install(call.thread, old.with_user(user));
    Ok(0)
}

fn sys_setregid(call: &mut Call<'_>) -> Result<usize> {
    let old = call.thread.credentials();
    let group = set_two(old.group, call.uint(0), call.uint(1), old.has(Capability::Setgid))?;
    install(call.thread, Credentials { group, ..(*old).clone() });
    Ok(0)
}

fn set_two(ids: Ids, real: u32, effective: u32, is_privileged: bool) -> Result<Ids> {
    let may_real = real == KEEP || real == ids.real || real == ids.effective;
    let may_effective = effective == KEEP || ids.may_become(effective);
    if !is_privileged && !(may_real && may_effective) {
        return err(Errno::EPERM, "not one's own id");
    }
    let mut new = Ids { real: or_keep(real, ids.real), effective: or_keep(effective, ids.effective), ..ids };
    if real != KEEP || effective != KEEP && effective != ids.real {
        new.saved = new.effective;
    }
    new.fs = new.effective;
    Ok(new)
}

fn sys_setresuid(call: &mut Call<'_>) -> Result<usize> {
    let old = call.thread.credentials();
    let user = set_three(old.user, call, old.has(Capability::Setuid))?;
    install(call.thread, old.with_user(user));
    Ok(0)
}

fn sys_setresgid(call: &mut Call<'_>) -> Result<usize> {
    let old = call.thread.credentials();
    let group = set_three(old.group, call, old.has(Capability::Setgid))?;
    install(call.thread, Credentials { group, ..(*old).clone() });
    Ok(0)
}

fn set_three(ids: Ids, call: &Call<'_>, is_privileged: bool) -> Result<Ids> {
    let wanted = [call.uint(0), call.uint(1), call.uint(2)];
    let may = |id: u32| id == KEEP || ids.may_become(id);
    if !is_privileged && !wanted.iter().all(|&id| may(id)) {
        return err(Errno::EPERM, "not one's own id");
    }
    let effective = or_keep(wanted[1], ids.effective);
    Ok(Ids {
        real: or_keep(wanted[0], ids.real),
        effective,
        saved: or_keep(wanted[2], ids.saved),
        fs: effective,
    })
}

fn sys_getresuid(call: &mut Call<'_>) -> Result<usize> {
    write_ids(call, call.thread.credentials().user)
}

fn sys_getresgid(call: &mut Call<'_>) -> Result<usize> {
    write_ids(call, call.thread.credentials().group)
}

fn write_ids(call: &Call<'_>, ids: Ids) -> Result<usize> {
    user::write(call.addr(0), &ids.real)?;
    user::write(call.addr(1), &ids.effective)?;
    user::write(call.addr(2), &ids.saved)?;
    Ok(0)
}

/// Gives the old id, whether or not the new one was allowed: the call has no other way to tell.
fn sys_setfsuid(call: &mut Call<'_>) -> Result<usize> {
    let old = call.thread.credentials();
    let id = call.uint(0);
    let may = old.has(Capability::Setuid) || old.user.may_become(id) || id == old.user.fs;
    if may && id != KEEP && id != old.user.fs {
        install(call.thread, old.with_fsuid(id));
    }
    Ok(old.user.fs as usize)
}

fn sys_setfsgid(call: &mut Call<'_>) -> Result<usize> {
    let old = call.thread.credentials();
    let id = call.uint(0);
    let may = old.has(Capability::Setgid) || old.group.may_become(id) || id == old.group.fs;
    if may && id != KEEP && id != old.group.fs {
        let group = Ids { fs: id, ..old.group };
        install(call.thread, Credentials { group, ..(*old).clone() });
    }
    Ok(old.group.fs as usize)
}

/// NGROUPS_MAX
const GROUPS_MAX: usize = 65536;

fn sys_getgroups(call: &mut Call<'_>) -> Result<usize> {
    let groups = call.thread.credentials().groups.clone();
    let Ok(room) = usize::try_from(call.int(0)) else { return err(Errno::EINVAL, "negative count") };
    if room != 0 {
        if groups.len() > room {
            return err(Errno::EINVAL, "no room for all groups");
        }
        UserSlice::new(call.addr(1), room).copy_out(&groups)?;
    }
    Ok(groups.len())
}

fn sys_setgroups(call: &mut Call<'_>) -> Result<usize> {
    let old = call.thread.credentials();
    if !old.has(Capability::Setgid) {
        return err(Errno::EPERM, "needs CAP_SETGID");
    }
    let count = call.uint(0) as usize;
    if count > GROUPS_MAX {
        return err(Errno::EINVAL, "too many groups");
    }
    let groups = Arc::new(UserSlice::<u32>::new(call.addr(1), count).copy_in()?);
    install(call.thread, Credentials { groups, ..(*old).clone() });
    Ok(0)
}

const CAPABILITY_VERSION_1: u32 = 0x1998_0330;
const CAPABILITY_VERSION_2: u32 = 0x2007_1026;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The header, and how many data structures its version has. An unknown version is answered with
/// the one the kernel prefers.
fn read_header(addr: UserAddr) -> Result<Option<(CapHeader, usize)>> {
    let header: CapHeader = user::read(addr)?;
    match header.version {
        CAPABILITY_VERSION_1 => Ok(Some((header, 1))),
        CAPABILITY_VERSION_2 | CAPABILITY_VERSION_3 => Ok(Some((header, 2))),
        _ => {
            user::write(addr, &CAPABILITY_VERSION_3)?;
            Ok(None)
        }
    }
}

fn sys_capget(call: &mut Call<'_>) -> Result<usize> {
    let Some((header, count)) = read_header(call.addr(0))? else {
        if call.addr(1).is_null() {
            return Ok(0);
        }
        return err(Errno::EINVAL, "unknown capability version");
    };
    let Ok(pid) = u32::try_from(header.pid) else { return err(Errno::EINVAL, "negative pid") };
    let credentials = match pid {
        0 => call.thread.credentials(),
        pid => tree::find_thread(pid).ok_or_else(tree::no_such_process)?.credentials(),
    };
    if call.addr(1).is_null() {
        return Ok(0);
    }
    let half = |shift: u32| CapData {
        effective: (credentials.effective >> shift) as u32,
        permitted: (credentials.permitted >> shift) as u32,
        inheritable: (credentials.inheritable >> shift) as u32,
    };
    UserSlice::new(call.addr(1), count).copy_out(&[half(0), half(32)])?;
    Ok(0)
}

fn sys_capset(call: &mut Call<'_>) -> Result<usize> {
    let Some((header, count)) = read_header(call.addr(0))? else {
        return err(Errno::EINVAL, "unknown capability version");
    };
    if header.pid != 0 && header.pid.unsigned_abs() != call.thread.tid() {
        return err(Errno::EPERM, "only one's own capabilities");
    }
    let data = UserSlice::<CapData>::new(call.addr(1), count).copy_in()?;
    let join = |field: fn(&CapData) -> u32| {
        data.iter().rev().fold(0u64, |all, half| all << 32 | u64::from(field(half))) & ALL_CAPABILITIES
    };
    let (effective, permitted) = (join(|d| d.effective), join(|d| d.permitted));
    let inheritable = join(|d| d.inheritable);
    let old = call.thread.credentials();
    let may_inherit = if old.has(Capability::Setpcap) { u64::MAX } else { old.inheritable | old.permitted };
    let may_inherit = may_inherit & (old.inheritable | old.bounding);
    if permitted & !old.permitted != 0 || effective & !permitted != 0 || inheritable & !may_inherit != 0 {
        return err(Errno::EPERM, "more than permitted");
    }
    let ambient = old.ambient & permitted & inheritable;
    install(call.thread, Credentials { effective, permitted, inheritable, ambient, ..(*old).clone() });
    Ok(0)
}
