//! The system as a whole, and what a process is to it: uname(2), sysinfo(2), prctl(2), arch_prctl(2).

use core::sync::atomic::Ordering;

use occlum_enclave::{host, vcpu};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::mm::Usage;
use crate::process::credentials::{Capability, SECBIT_KEEP_CAPS};
use crate::process::{Credentials, system, tree, user_loop};
use crate::sched::{run, timer};
use crate::signal::Signal;
use crate::user::{self, UserAddr};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(63, "uname", &[Arg::Ptr], sys_uname),
    Syscall::full(99, "sysinfo", &[Arg::Ptr], sys_sysinfo)
        .but("no load averages"),
    Syscall::full(103, "syslog", &[Arg::Int, Arg::Ptr, Arg::Int], sys_syslog)
        .never("the kernel's log is the host's"),
    Syscall::full(135, "personality", &[Arg::Hex], sys_personality)
        .but("remembered, without effect"),
    Syscall::full(157, "prctl", &[Arg::Int, Arg::Hex, Arg::Hex, Arg::Hex, Arg::Hex], sys_prctl)
        .but("names, death signal, subreaper, dumpable, capabilities, no_new_privs, timer slack"),
    Syscall::full(158, "arch_prctl", &[Arg::Hex, Arg::Ptr], sys_arch_prctl)
        .but("FS only: GS is the kernel's"),
    Syscall::full(170, "sethostname", &[Arg::Ptr, Arg::Uint], sys_sethostname),
    Syscall::full(171, "setdomainname", &[Arg::Ptr, Arg::Uint], sys_setdomainname),
    Syscall::full(324, "membarrier", &[Arg::Int, Arg::Hex, Arg::Int], sys_membarrier)
        .but("no RSEQ commands"),
    Syscall::full(334, "rseq", &[Arg::Ptr, Arg::Uint, Arg::Hex, Arg::Hex], sys_rseq)
        .never("restartable sequences would need a check at every switch"),
];

const UTS_FIELD: usize = 65;

fn sys_uname(call: &mut Call<'_>) -> Result<usize> {
    let hostname = system::hostname();
    let domain = system::domain();
    let fields: [&[u8]; 6] = [
        system::SYSTEM_NAME.as_bytes(),
        &hostname,
        system::RELEASE.as_bytes(),
        system::VERSION.as_bytes(),
        system::MACHINE.as_bytes(),
        &domain,
    ];
    let mut bytes = [0; UTS_FIELD * 6];
    for (place, field) in bytes.chunks_exact_mut(UTS_FIELD).zip(fields) {
        let size = field.len().min(UTS_FIELD - 1);
        place[..size].copy_from_slice(&field[..size]);
    }
    user::write_bytes(call.addr(0), &bytes)?;
    Ok(0)
}

fn read_name(call: &Call<'_>) -> Result<alloc::vec::Vec<u8>> {
    if !call.thread.credentials().has(Capability::SysAdmin) {
        return err(Errno::EPERM, "needs CAP_SYS_ADMIN");
    }
    let size = call.int(1);
    if size < 0 || size as usize > system::HOSTNAME_MAX {
        return err(Errno::EINVAL, "name too long");
    }
    let mut name = alloc::vec![0; size as usize];
    user::read_bytes(call.addr(0), &mut name)?;
    Ok(name)
}

fn sys_sethostname(call: &mut Call<'_>) -> Result<usize> {
    system::set_hostname(&read_name(call)?);
    Ok(0)
}

fn sys_setdomainname(call: &mut Call<'_>) -> Result<usize> {
    system::set_domain(&read_name(call)?);
    Ok(0)
}

/// `struct sysinfo`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SysInfo {
    uptime_s: i64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    processes: u16,
    padding: [u16; 3],
    total_high: u64,
    free_high: u64,
    unit: u32,
    end: u32,
}

const _: () = assert!(size_of::<SysInfo>() == 112);

fn sys_sysinfo(call: &mut Call<'_>) -> Result<usize> {
    let memory = Usage::now();
    let info = SysInfo {
        uptime_s: (timer::now_ns() / 1_000_000_000) as i64,
        total_ram: memory.limit as u64,
        free_ram: memory.available() as u64,
        processes: u16::try_from(tree::thread_count()).unwrap_or(u16::MAX),
        unit: 1,
        ..SysInfo::default()
    };
    user::write(call.addr(0), &info)?;
    Ok(0)
}

fn sys_syslog(_: &mut Call<'_>) -> Result<usize> {
    err(Errno::EPERM, "the kernel's log is the host's")
}

const PERSONALITY_QUERY: u32 = 0xffff_ffff;

fn sys_personality(call: &mut Call<'_>) -> Result<usize> {
    let process = call.thread.process();
    let old = process.personality.load(Ordering::Relaxed);
    if call.uint(0) != PERSONALITY_QUERY {
        process.personality.store(call.uint(0), Ordering::Relaxed);
    }
    Ok(old as usize)
}

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
/// Linux: TASK_SIZE_MAX
const ADDRESS_END: u64 = (1 << 47) - 4096;

fn sys_arch_prctl(call: &mut Call<'_>) -> Result<usize> {
    match call.args[0] {
        ARCH_SET_FS if call.args[1] >= ADDRESS_END => err(Errno::EPERM, "thread pointer out of range"),
        ARCH_SET_FS => {
            call.context.set_fs_base(call.args[1]);
            Ok(0)
        }
        ARCH_GET_FS => {
            let base = call.context.fs_base();
            user::write(call.addr(1), &base)?;
            Ok(0)
        }
        ARCH_SET_GS => err(Errno::EPERM, "GS is the kernel's"),
        ARCH_GET_GS => {
            user::write(call.addr(1), &0u64)?;
            Ok(0)
        }
        _ => err(Errno::EINVAL, "unknown arch_prctl"),
    }
}

const PR_SET_PDEATHSIG: i32 = 1;
const PR_GET_PDEATHSIG: i32 = 2;
const PR_GET_DUMPABLE: i32 = 3;
const PR_SET_DUMPABLE: i32 = 4;
const PR_GET_KEEPCAPS: i32 = 7;
const PR_SET_KEEPCAPS: i32 = 8;
const PR_SET_NAME: i32 = 15;
const PR_GET_NAME: i32 = 16;
const PR_GET_SECCOMP: i32 = 21;
const PR_CAPBSET_READ: i32 = 23;
const PR_CAPBSET_DROP: i32 = 24;
const PR_GET_TSC: i32 = 25;
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
        PR_GET_SECCOMP => Ok(0),
        PR_GET_TSC => write_int(call.addr(1), 1),
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
        PR_GET_THP_DISABLE if call.args[1..5] == [0; 4] => Ok(0),
        PR_SET_THP_DISABLE if call.args[2..5] == [0; 3] => Ok(0),
        // Names of anonymous mappings are for people; Linux without CONFIG_ANON_VMA_NAME refuses.
        PR_SET_VMA => err(Errno::EINVAL, "mappings have no names"),
        _ => capabilities_prctl(call),
    }
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
        PR_SET_KEEPCAPS if arg <= 1 => {
            let keep = if arg == 1 { SECBIT_KEEP_CAPS } else { 0 };
            let securebits = old.securebits & !SECBIT_KEEP_CAPS | keep;
            thread.set_credentials(Credentials { securebits, ..(*old).clone() });
            Ok(0)
        }
        PR_GET_SECUREBITS => Ok(old.securebits as usize),
        PR_SET_SECUREBITS if old.has(Capability::Setpcap) && arg <= 0xff => {
            thread.set_credentials(Credentials { securebits: arg as u32, ..(*old).clone() });
            Ok(0)
        }
        PR_SET_SECUREBITS => err(Errno::EPERM, "needs CAP_SETPCAP"),
        PR_CAP_AMBIENT => ambient_prctl(call, &old),
        _ => err(Errno::EINVAL, "unknown prctl"),
    }
}

const PR_CAP_AMBIENT_IS_SET: u64 = 1;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
const PR_CAP_AMBIENT_LOWER: u64 = 3;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;

fn ambient_prctl(call: &Call<'_>, old: &Credentials) -> Result<usize> {
    let capability = call.args[2];
    if capability > 40 && call.args[1] != PR_CAP_AMBIENT_CLEAR_ALL {
        return err(Errno::EINVAL, "unknown capability");
    }
    let bit = 1u64 << (capability & 63);
    let ambient = match call.args[1] {
        PR_CAP_AMBIENT_IS_SET => return Ok(usize::from(old.ambient & bit != 0)),
        PR_CAP_AMBIENT_RAISE if old.permitted & old.inheritable & bit == 0 => {
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

const MEMBARRIER_CMD_QUERY: i32 = 0;
const MEMBARRIER_GLOBAL: i32 = 1;
const MEMBARRIER_GLOBAL_EXPEDITED: i32 = 2;
const MEMBARRIER_REGISTER_GLOBAL_EXPEDITED: i32 = 4;
const MEMBARRIER_PRIVATE_EXPEDITED: i32 = 8;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: i32 = 16;
const MEMBARRIER_PRIVATE_EXPEDITED_SYNC_CORE: i32 = 32;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: i32 = 64;
const MEMBARRIER_SUPPORTED: usize = 127;

fn sys_membarrier(call: &mut Call<'_>) -> Result<usize> {
    if call.uint(1) != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    let process = call.thread.process();
    let registered = process.membarrier.load(Ordering::Relaxed);
    let command = call.int(0);
    match command {
        MEMBARRIER_CMD_QUERY => Ok(MEMBARRIER_SUPPORTED),
        MEMBARRIER_REGISTER_GLOBAL_EXPEDITED
        | MEMBARRIER_REGISTER_PRIVATE_EXPEDITED
        | MEMBARRIER_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE => {
            process.membarrier.fetch_or(command as u32, Ordering::Relaxed);
            Ok(0)
        }
        // The registration's number is twice the command's.
        MEMBARRIER_PRIVATE_EXPEDITED | MEMBARRIER_PRIVATE_EXPEDITED_SYNC_CORE
            if registered & (command as u32) << 1 == 0 =>
        {
            err(Errno::EPERM, "not registered")
        }
        MEMBARRIER_GLOBAL
        | MEMBARRIER_GLOBAL_EXPEDITED
        | MEMBARRIER_PRIVATE_EXPEDITED
        | MEMBARRIER_PRIVATE_EXPEDITED_SYNC_CORE => {
            interrupt_other_vcpus();
            Ok(0)
        }
        _ => err(Errno::EINVAL, "unknown membarrier command"),
    }
}

/// An interrupted vCPU goes through an exit and a resume, which order memory and serialise. One that
/// sleeps did so when it went to sleep.
fn interrupt_other_vcpus() {
    core::sync::atomic::fence(Ordering::SeqCst);
    for index in (0..vcpu::count()).filter(|&index| index != vcpu::index()) {
        let before = user_loop::interrupts(index);
        vcpu::set_pending(index, vcpu::PENDING_KICK);
        host::kick(index);
        while user_loop::interrupts(index) == before && !run::is_vcpu_parked(index) {
            // Two vCPUs may wait for each other here.
            user_loop::count_interrupt();
            core::hint::spin_loop();
        }
    }
    core::sync::atomic::fence(Ordering::SeqCst);
}

fn sys_rseq(_: &mut Call<'_>) -> Result<usize> {
    err(Errno::ENOSYS, "not supported")
}
