//! prctl(2).

use core::sync::atomic::Ordering;

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::process::Credentials;
use crate::process::credentials::{
    Capability, SECBIT_KEEP_CAPS, SECBIT_KEEP_CAPS_LOCKED, SECBIT_LOCKS, SECBIT_NO_CAP_AMBIENT_RAISE,
};
use crate::signal::Signal;
use crate::user::{self, UserAddr};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(157, "prctl", &[Arg::Int, Arg::Hex, Arg::Hex, Arg::Hex, Arg::Hex], sys_prctl)
        .but("no seccomp (EINVAL), no PR_SET_TSC, PR_SET_MM, names of mappings, speculation control"),
];

const PR_SET_PDEATHSIG: i32 = 1;
const PR_GET_PDEATHSIG: i32 = 2;
const PR_GET_DUMPABLE: i32 = 3;
const PR_SET_DUMPABLE: i32 = 4;
const PR_GET_KEEPCAPS: i32 = 7;
const PR_SET_KEEPCAPS: i32 = 8;
const PR_GET_TIMING: i32 = 13;
const PR_SET_TIMING: i32 = 14;
const PR_SET_NAME: i32 = 15;
const PR_GET_NAME: i32 = 16;
const PR_GET_SECCOMP: i32 = 21;
const PR_SET_SECCOMP: i32 = 22;
const PR_CAPBSET_READ: i32 = 23;
const PR_CAPBSET_DROP: i32 = 24;
const PR_GET_TSC: i32 = 25;
const PR_SET_TSC: i32 = 26;
const PR_GET_SECUREBITS: i32 = 27;
const PR_SET_SECUREBITS: i32 = 28;
const PR_SET_TIMERSLACK: i32 = 29;
const PR_GET_TIMERSLACK: i32 = 30;
const PR_SET_CHILD_SUBREAPER: i32 = 36;
const PR_GET_CHILD_SUBREAPER: i32 = 37;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_GET_NO_NEW_PRIVS: i32 = 39;
const PR_GET_TID_ADDRESS: i32 = 40;
const PR_SET_THP_DISABLE: i32 = 41;
const PR_GET_THP_DISABLE: i32 = 42;
const PR_CAP_AMBIENT: i32 = 47;
const PR_SET_MDWE: i32 = 65;
const PR_GET_MDWE: i32 = 66;
const PR_GET_AUXV: i32 = 0x4155_5856;
const PR_SET_VMA: i32 = 0x5356_4d41;

fn sys_prctl(call: &mut Call<'_>) -> Result<usize> {
    let thread = call.thread;
    let arg = call.args[1];
    match call.int(0) {
        PR_SET_PDEATHSIG => set_death_signal(call),
        PR_GET_PDEATHSIG => write_int(call.addr(1), thread.parent_death_signal.load(Ordering::Relaxed)),
        PR_GET_DUMPABLE => Ok(usize::from(thread.process().is_dumpable())),
        PR_SET_DUMPABLE if arg <= 1 => {
            thread.process().set_dumpable(arg == 1);
            Ok(0)
        }
        PR_SET_NAME => set_name(call),
        PR_GET_NAME => {
            user::write_bytes(call.addr(1), &thread.name())?;
            Ok(0)
        }
        PR_GET_TIMING => Ok(0),
        PR_SET_TIMING if arg == 0 => Ok(0),
        PR_GET_SECCOMP => Ok(0),
        PR_SET_SECCOMP => err(Errno::EINVAL, "no seccomp"),
        PR_GET_TSC => write_int(call.addr(1), PR_TSC_ENABLE),
        // Nothing here can forbid the instruction.
        PR_SET_TSC if call.int(1) == PR_TSC_ENABLE => Ok(0),
        PR_SET_TIMERSLACK => {
            thread.timer_slack_ns.store(if arg == 0 { 50_000 } else { arg }, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_TIMERSLACK => Ok(thread.timer_slack_ns.load(Ordering::Relaxed) as usize),
        PR_SET_CHILD_SUBREAPER => {
            thread.process().set_subreaper(arg != 0);
            Ok(0)
        }
        PR_GET_CHILD_SUBREAPER => write_int(call.addr(1), i32::from(thread.process().is_subreaper())),
        PR_SET_NO_NEW_PRIVS if arg == 1 && call.args[2..5] == [0; 3] => {
            thread.no_new_privs.store(true, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_NO_NEW_PRIVS if call.args[1..5] == [0; 4] => {
            Ok(usize::from(thread.no_new_privs.load(Ordering::Relaxed)))
        }
        PR_GET_TID_ADDRESS => {
            user::write(call.addr(1), &(thread.clear_tid.load(Ordering::Relaxed) as u64))?;
            Ok(0)
        }
        PR_GET_THP_DISABLE if call.args[1..5] == [0; 4] => {
            Ok(usize::from(thread.process().no_huge_pages.load(Ordering::Relaxed)))
        }
        PR_SET_THP_DISABLE if call.args[2..5] == [0; 3] => {
            thread.process().no_huge_pages.store(arg != 0, Ordering::Relaxed);
            Ok(0)
        }
        PR_SET_MDWE if call.args[2..5] == [0; 3] => set_mdwe(call),
        PR_GET_MDWE if call.args[1..5] == [0; 4] => Ok(thread.process().mdwe.load(Ordering::Relaxed) as usize),
        PR_GET_AUXV if call.args[3..5] == [0; 2] => copy_auxv(call),
        // Names of anonymous mappings are for people; Linux without CONFIG_ANON_VMA_NAME refuses.
        PR_SET_VMA => err(Errno::EINVAL, "mappings have no names"),
        _ => capabilities_prctl(call),
    }
}

const PR_TSC_ENABLE: i32 = 1;

/// Memory that was written is never executed (see `syscall/memory.rs`): can't be taken back.
fn set_mdwe(call: &Call<'_>) -> Result<usize> {
    const REFUSE_EXEC_GAIN: u64 = 1;
    const NO_INHERIT: u64 = 2;
    let bits = call.args[1];
    let old = u64::from(call.thread.process().mdwe.load(Ordering::Relaxed));
    if bits & !(REFUSE_EXEC_GAIN | NO_INHERIT) != 0 || bits == NO_INHERIT {
        return err(Errno::EINVAL, "unknown bits");
    }
    if old != 0 && old != bits {
        return err(Errno::EPERM, "set already");
    }
    call.thread.process().mdwe.store(bits as u32, Ordering::Relaxed);
    Ok(0)
}

/// Copies what fits of the auxiliary vector; gives its size.
fn copy_auxv(call: &Call<'_>) -> Result<usize> {
    let program = call.thread.process().program();
    let words = &program.auxv[..];
    let count = words.len().min(call.size(2) / 8);
    user::UserSlice::new(call.addr(1), count).copy_out(words)?;
    Ok(words.len() * 8)
}

fn capabilities_prctl(call: &Call<'_>) -> Result<usize> {
    let thread = call.thread;
    let old = thread.credentials();
    let arg = call.args[1];
    match call.int(0) {
        PR_CAPBSET_READ if arg <= 40 => Ok((old.bounding >> arg & 1) as usize),
        PR_CAPBSET_DROP if arg <= 40 => {
            if !old.has(Capability::Setpcap) {
                return err(Errno::EPERM, "needs CAP_SETPCAP");
            }
            thread.set_credentials(Credentials { bounding: old.bounding & !(1 << arg), ..(*old).clone() });
            Ok(0)
        }
        PR_GET_KEEPCAPS => Ok(usize::from(old.securebits & SECBIT_KEEP_CAPS != 0)),
        PR_SET_KEEPCAPS if arg <= 1 && old.securebits & SECBIT_KEEP_CAPS_LOCKED != 0 => {
            err(Errno::EPERM, "locked")
        }
        PR_SET_KEEPCAPS if arg <= 1 => {
            let keep = if arg == 1 { SECBIT_KEEP_CAPS } else { 0 };
            let securebits = old.securebits & !SECBIT_KEEP_CAPS | keep;
            thread.set_credentials(Credentials { securebits, ..(*old).clone() });
            Ok(0)
        }
        PR_GET_SECUREBITS => Ok(old.securebits as usize),
        PR_SET_SECUREBITS => set_securebits(call, &old),
        PR_CAP_AMBIENT => ambient_prctl(call, &old),
        _ => err(Errno::EINVAL, "unknown prctl"),
    }
}

/// Locked bits stay as they are, and locks are never taken off.
fn set_securebits(call: &Call<'_>, old: &Credentials) -> Result<usize> {
    let Ok(bits) = u32::try_from(call.args[1]) else { return err(Errno::EPERM, "unknown bits") };
    let locks = old.securebits & SECBIT_LOCKS;
    let changed = bits ^ old.securebits;
    if bits > 0xff || changed & locks >> 1 != 0 || locks & !bits != 0 || !old.has(Capability::Setpcap) {
        return err(Errno::EPERM, "locked, or needs CAP_SETPCAP");
    }
    call.thread.set_credentials(Credentials { securebits: bits, ..old.clone() });
    Ok(0)
}

const PR_CAP_AMBIENT_IS_SET: u64 = 1;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
const PR_CAP_AMBIENT_LOWER: u64 = 3;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;

fn ambient_prctl(call: &Call<'_>, old: &Credentials) -> Result<usize> {
    let capability = call.args[2];
    let is_clear = call.args[1] == PR_CAP_AMBIENT_CLEAR_ALL;
    if call.args[3..5] != [0; 2] || is_clear && capability != 0 {
        return err(Errno::EINVAL, "arguments without meaning");
    }
    if capability > 40 && !is_clear {
        return err(Errno::EINVAL, "unknown capability");
    }
    let bit = 1u64 << (capability & 63);
    let ambient = match call.args[1] {
        PR_CAP_AMBIENT_IS_SET => return Ok(usize::from(old.ambient & bit != 0)),
        PR_CAP_AMBIENT_RAISE
            if old.permitted & old.inheritable & bit == 0
                || old.securebits & SECBIT_NO_CAP_AMBIENT_RAISE != 0 =>
        {
            return err(Errno::EPERM, "not both permitted and inheritable");
        }
        PR_CAP_AMBIENT_RAISE => old.ambient | bit,
        PR_CAP_AMBIENT_LOWER => old.ambient & !bit,
        PR_CAP_AMBIENT_CLEAR_ALL => 0,
        _ => return err(Errno::EINVAL, "unknown ambient operation"),
    };
    call.thread.set_credentials(Credentials { ambient, ..old.clone() });
    Ok(0)
}

fn set_death_signal(call: &Call<'_>) -> Result<usize> {
    let number = call.int(1);
    if number != 0 && Signal::new(number).is_none() {
        return err(Errno::EINVAL, "no such signal");
    }
    call.thread.parent_death_signal.store(number, Ordering::Relaxed);
    Ok(0)
}

/// At most 15 bytes are read: the string may be longer, or end at the end of a page.
fn set_name(call: &Call<'_>) -> Result<usize> {
    let mut name = [0; 15];
    for (index, byte) in name.iter_mut().enumerate() {
        *byte = user::read(call.addr(1).offset(index))?;
        if *byte == 0 {
            break;
        }
    }
    call.thread.set_name(&name);
    Ok(0)
}

fn write_int(addr: UserAddr, value: i32) -> Result<usize> {
    user::write(addr, &value)?;
    Ok(0)
}

