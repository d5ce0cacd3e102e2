//! `siginfo_t`, kept as the bytes a program sees.
//!
//! ```text
//!   0 si_signo   4 si_errno   8 si_code  12 padding
//!  16 kill, sigqueue, SIGCHLD: si_pid   20 si_uid
//!  24 sigqueue: si_value;  SIGCHLD: si_status  32 si_utime  40 si_stime
//!  16 timers: si_timerid  20 si_overrun  24 si_value
//!  16 faults: si_addr
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Signal;

/// Sent by kill(2).
pub const SI_USER: i32 = 0;
/// Sent by the kernel.
pub const SI_KERNEL: i32 = 0x80;
pub const SI_QUEUE: i32 = -1;
pub const SI_TIMER: i32 = -2;
/// A message came to a POSIX message queue.
pub const SI_MESGQ: i32 = -3;
/// Sent by tkill(2) or tgkill(2).
pub const SI_TKILL: i32 = -6;

pub const SEGV_MAPERR: i32 = 1;
pub const SEGV_ACCERR: i32 = 2;
pub const BUS_ADRALN: i32 = 1;
pub const BUS_ADRERR: i32 = 2;
pub const ILL_ILLOPN: i32 = 2;
pub const TRAP_BRKPT: i32 = 1;
pub const TRAP_TRACE: i32 = 2;
pub const FPE_INTDIV: i32 = 1;
pub const FPE_FLTDIV: i32 = 3;
pub const FPE_FLTOVF: i32 = 4;
pub const FPE_FLTUND: i32 = 5;
pub const FPE_FLTRES: i32 = 6;
pub const FPE_FLTINV: i32 = 7;

pub const CLD_EXITED: i32 = 1;
pub const CLD_KILLED: i32 = 2;
pub const CLD_DUMPED: i32 = 3;
pub const CLD_STOPPED: i32 = 5;
pub const CLD_CONTINUED: i32 = 6;

/// A signal and what it carries; 128 bytes as in user memory.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    padding: i32,
    /// Bytes 16 to 127.
    fields: [u64; 14],
}

const _: () = assert!(size_of::<SigInfo>() == 128);

impl SigInfo {
    fn new(signal: Signal, code: i32) -> SigInfo {
        SigInfo { signo: signal.number(), code, ..SigInfo::default() }
    }

    /// From the kernel, about nothing in particular.
    pub fn kernel(signal: Signal) -> SigInfo {
        SigInfo::new(signal, SI_KERNEL)
    }

    /// From a process: kill (`SI_USER`), tgkill (`SI_TKILL`).
    pub fn from_process(signal: Signal, code: i32, pid: u32, uid: u32) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.fields[0] = pair(pid, uid);
        info
    }

    /// From a processor exception.
    pub fn fault(signal: Signal, code: i32, address: usize) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.fields[0] = address as u64;
        info
    }

    /// About a child; times in clock ticks.
    pub fn child(code: i32, pid: u32, uid: u32, status: i32, times: (u64, u64)) -> SigInfo {
        let mut info = SigInfo::new(Signal::CHLD, code);
        info.fields[0] = pair(pid, uid);
        info.fields[1] = u64::from(status as u32);
        info.fields[2] = times.0;
        info.fields[3] = times.1;
        info
    }

    /// From a POSIX message queue; who sent the message, and what mq_notify was given.
    pub fn message_queue(signal: Signal, pid: u32, uid: u32, value: u64) -> SigInfo {
        let mut info = SigInfo::from_process(signal, SI_MESGQ, pid, uid);
        info.fields[1] = value;
        info
    }

    /// From a POSIX timer.
    pub fn timer(signal: Signal, id: u32, overrun: u32, value: u64) -> SigInfo {
        let mut info = SigInfo::new(signal, SI_TIMER);
        info.fields[0] = pair(id, overrun);
        info.fields[1] = value;
        info
    }

    /// About a descriptor that became ready (F_SETSIG): `POLL_*`, poll's bits.
    pub fn about_file(signal: Signal, code: i32, band: u64, fd: i32) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.fields[0] = band;
        info.fields[1] = u64::from(fd as u32);
        info
    }

    /// The signal; `None` only for a record whose number nobody checked.
    pub fn signal(&self) -> Option<Signal> {
        Signal::new(self.signo)
    }

    /// Of a POSIX timer's signal.
    pub fn timer_id(&self) -> u32 {
        self.fields[0] as u32
    }

    pub fn set_overrun(&mut self, overrun: u32) {
        self.fields[0] = pair(self.timer_id(), overrun);
    }

    pub fn pid(&self) -> u32 {
        self.fields[0] as u32
    }

    pub fn uid(&self) -> u32 {
        (self.fields[0] >> 32) as u32
    }

    /// `si_value`, or `si_status` in the lower half.
    pub fn value(&self) -> u64 {
        self.fields[1]
    }

    /// `si_addr` of a fault.
    pub fn address(&self) -> u64 {
        self.fields[0]
    }

    /// Raw 8-byte word at byte `16 + 8 * index`, for `signalfd_siginfo`.
    pub fn word(&self, index: usize) -> u64 {
        self.fields.get(index).copied().unwrap_or(0)
    }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
