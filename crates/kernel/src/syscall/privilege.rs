//! Calls that are root's on Linux and that an enclave has nothing for: who may not gets Linux's refusal, root an
//! honest one. And the clocks, which are the host's: they can be asked, not set.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::process::credentials::Capability;
use crate::time::clock::{CLOCK_REALTIME, Clock};
use crate::user::{self, UserAddr};

use Arg::{Fd, Hex, Int, Path, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(101, "ptrace", &[Int, Int, Ptr, Ptr], sys_absent).never("no process traces another (ENOSYS)"),
    Syscall::full(153, "vhangup", &[], sys_vhangup).never("terminals hang up when their master is closed"),
    Syscall::full(154, "modify_ldt", &[Int, Ptr, Uint], sys_absent).never("no segments (ENOSYS)"),
    Syscall::full(155, "pivot_root", &[Path, Path], sys_pivot_root).never("the root is measured"),
    Syscall::full(159, "adjtimex", &[Ptr], sys_adjtimex).but(ASKED_ONLY),
    Syscall::full(163, "acct", &[Path], sys_acct).never("no accounting (ENOSYS)"),
    Syscall::full(167, "swapon", &[Path, Hex], sys_swap).never("enclaves don't swap"),
    Syscall::full(168, "swapoff", &[Path], sys_swap).never("enclaves don't swap"),
    Syscall::full(169, "reboot", &[Hex, Hex, Hex, Ptr], sys_reboot).never("the instance ends with its first program"),
    Syscall::full(172, "iopl", &[Int], sys_ports).never("no I/O ports"),
    Syscall::full(173, "ioperm", &[Hex, Hex, Int], sys_ports).never("no I/O ports"),
    Syscall::full(175, "init_module", &[Ptr, Uint, Ptr], sys_module).never("no modules"),
    Syscall::full(176, "delete_module", &[Ptr, Hex], sys_module).never("no modules"),
    Syscall::full(179, "quotactl", &[Hex, Path, Int, Ptr], sys_absent).never("no quotas (ENOSYS)"),
    Syscall::full(246, "kexec_load", &[Hex, Hex, Ptr, Hex], sys_kexec).never("no other kernel"),
    Syscall::full(248, "add_key", &[Ptr, Ptr, Ptr, Uint, Int], sys_absent).never("no keyrings (ENOSYS)"),
    Syscall::full(249, "request_key", &[Ptr, Ptr, Ptr, Int], sys_absent).never("no keyrings (ENOSYS)"),
    Syscall::full(250, "keyctl", &[Int, Hex, Hex, Hex, Hex], sys_absent).never("no keyrings (ENOSYS)"),
    Syscall::full(305, "clock_adjtime", &[Int, Ptr], sys_clock_adjtime).but(ASKED_ONLY),
    Syscall::full(308, "setns", &[Fd, Hex], sys_setns).never("no namespaces"),
    Syscall::full(313, "finit_module", &[Fd, Ptr, Hex], sys_module).never("no modules"),
];

const ASKED_ONLY: &str = "can be asked, not set: the clocks are the host's";

fn sys_absent(_: &mut Call<'_>) -> Result<usize> {
    err(Errno::ENOSYS, "not in this kernel")
}

/// EPERM for all, with a reason that tells the two cases apart.
fn refuse(call: &Call<'_>, capability: Capability, why: &'static str) -> Result<usize> {
    match call.thread.credentials().has(capability) {
        true => err(Errno::EPERM, why),
        false => err(Errno::EPERM, "a capability is missing"),
    }
}

fn sys_vhangup(call: &mut Call<'_>) -> Result<usize> {
    refuse(call, Capability::SysTtyConfig, "no hang-up of terminals")
}

fn sys_pivot_root(call: &mut Call<'_>) -> Result<usize> {
    refuse(call, Capability::SysAdmin, "the root stays")
}

fn sys_acct(call: &mut Call<'_>) -> Result<usize> {
    match call.thread.credentials().has(Capability::SysPacct) {
        true => err(Errno::ENOSYS, "no accounting"),
        false => err(Errno::EPERM, "needs CAP_SYS_PACCT"),
    }
}

fn sys_swap(call: &mut Call<'_>) -> Result<usize> {
    refuse(call, Capability::SysAdmin, "enclaves don't swap")
}

fn sys_reboot(call: &mut Call<'_>) -> Result<usize> {
    const MAGIC: u32 = 0xfee1_dead;
    const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    let is_allowed = call.thread.credentials().has(Capability::SysBoot);
    if is_allowed && (call.uint(0) != MAGIC || !MAGIC2.contains(&call.uint(1))) {
        return err(Errno::EINVAL, "not the magic numbers");
    }
    err(Errno::EPERM, "nothing to reboot")
}

fn sys_ports(call: &mut Call<'_>) -> Result<usize> {
    refuse(call, Capability::SysAdmin, "no I/O ports")
}

fn sys_module(call: &mut Call<'_>) -> Result<usize> {
    refuse(call, Capability::SysAdmin, "no modules")
}

fn sys_kexec(call: &mut Call<'_>) -> Result<usize> {
    refuse(call, Capability::SysBoot, "no other kernel")
}

fn sys_setns(call: &mut Call<'_>) -> Result<usize> {
    call.thread.files().get(call.int(0))?;
    err(Errno::EINVAL, "no namespaces")
}

/// `struct timex`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Timex {
    modes: u32,
    pad: u32,
    offset: i64,
    frequency: i64,
    max_error: i64,
    estimated_error: i64,
    status: i32,
    pad2: i32,
    constant: i64,
    precision: i64,
    tolerance: i64,
    seconds: u64,
    microseconds: u64,
    tick: i64,
    rest: [u64; 14],
}

const _: () = assert!(size_of::<Timex>() == 208);

/// The clock is not synchronised, for all the kernel knows: the state adjtimex(2) gives then.
const TIME_ERROR: usize = 5;
const STA_UNSYNC: i32 = 0x40;
/// NTP_PHASE_LIMIT and MAXFREQ_SCALED of Linux.
const MAX_ERROR_US: i64 = 16_000_000;
const MAX_FREQUENCY: i64 = 32_768_000;

fn sys_adjtimex(call: &mut Call<'_>) -> Result<usize> {
    ask_clock(call.addr(0))
}

fn sys_clock_adjtime(call: &mut Call<'_>) -> Result<usize> {
    let (_, _) = Clock::find(call.int(0), call.thread)?;
    if call.int(0) != CLOCK_REALTIME {
        return err(Errno::EOPNOTSUPP, "not a clock that is adjusted");
    }
    ask_clock(call.addr(1))
}

fn ask_clock(addr: UserAddr) -> Result<usize> {
    const ADJ_OFFSET_SS_READ: u32 = 0xa001;
    let modes: u32 = user::read(addr)?;
    if modes != 0 && modes != ADJ_OFFSET_SS_READ {
        return err(Errno::EPERM, "the clocks are the host's");
    }
    let now = Clock::Realtime.now_ns();
    let timex = Timex {
        modes,
        max_error: MAX_ERROR_US,
        estimated_error: MAX_ERROR_US,
        status: STA_UNSYNC,
        constant: 2,
        precision: 1,
        tolerance: MAX_FREQUENCY,
        seconds: now / 1_000_000_000,
        microseconds: now / 1000 % 1_000_000,
        tick: 10_000,
        ..Timex::default()
    };
    user::write(addr, &timex)?;
    Ok(TIME_ERROR)
}
