//! The system as a whole, and what a process is to it: uname(2), sysinfo(2), prctl(2), arch_prctl(2).

use core::sync::atomic::Ordering;

use occlum_enclave::{host, vcpu};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::mm::Usage;
use crate::process::credentials::Capability;
use crate::process::{system, tree, user_loop};
use crate::sched::{load, run, timer};
use crate::user;

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(63, "uname", &[Arg::Ptr], sys_uname),
    Syscall::full(99, "sysinfo", &[Arg::Ptr], sys_sysinfo),
    Syscall::full(103, "syslog", &[Arg::Int, Arg::Ptr, Arg::Int], sys_syslog)
        .never("the kernel's log is the host's"),
    Syscall::full(135, "personality", &[Arg::Hex], sys_personality)
        .but("remembered, without effect"),
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
        loads: load::averages(),
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
