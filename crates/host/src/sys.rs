//! System calls and instructions that have no safe wrapper elsewhere.

use occlum_abi::layout;
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::ptr;

/// The signal that interrupts a vCPU. Ignored by default, so a late one is harmless, and not queued,
/// so that a vCPU which was off its processor for long finds one of them and not hundreds.
pub const KICK: i32 = libc::SIGURG;

const XSTATE_AMX: u64 = 0b11 << 17;
const HWCAP2_FSGSBASE: u64 = 1 << 1;

/// Whether RDFSBASE and its siblings may be used (Linux 5.9 and a CPU of 2012 or later).
pub fn has_fsgsbase() -> bool {
    hwcap().1 & HWCAP2_FSGSBASE != 0
}

/// AT_HWCAP and AT_HWCAP2.
pub fn hwcap() -> (u64, u64) {
    let (first, second) = rustix::param::linux_hwcap();
    (first as u64, second as u64)
}

/// The FS base of this thread. Needs `has_fsgsbase`.
pub fn fs_base() -> u64 {
    let base: u64;
    // SAFETY: reads a register.
    unsafe {
        std::arch::asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags))
    };
    base
}

/// The processor states that the process may use: XCR0 without AMX, which needs a permission.
pub fn usable_xfrm() -> u64 {
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return 0;
    }
    let (low, high): (u32, u32);
    // SAFETY: XGETBV exists where OSXSAVE is set.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    (u64::from(high) << 32 | u64::from(low)) & !XSTATE_AMX
}

/// EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let answer = __cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// Bytes of an XSAVE area in standard format (CPUID leaf 0DH).
pub fn xsave_size(xfrm: u64) -> u64 {
    const LEGACY_AND_HEADER: u64 = 576;
    (2..63)
        .filter(|component| xfrm & 1 << component != 0)
        .map(|component| __cpuid_count(0xD, component))
        .map(|leaf| u64::from(leaf.ebx) + u64::from(leaf.eax))
        .fold(LEGACY_AND_HEADER, u64::max)
}

/// Makes every system call of this thread from an address below `layout::ELRANGE_END` a SIGSYS
/// (Syscall User Dispatch, Linux 5.11).
pub fn refuse_calls_from_enclave() -> Result<(), Errno> {
    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    const PR_SYS_DISPATCH_ON: u64 = 1;
    /// What the selector says, for ever: refuse.
    static BLOCK: u8 = 1;
    const ALLOWED_FROM: u64 = layout::ELRANGE_END as u64;
    const ALLOWED_SIZE: u64 = 1 << 63;
    // SAFETY: affects only calls from addresses where no host code is.
    check(unsafe {
        libc::prctl(
            PR_SET_SYSCALL_USER_DISPATCH,
            PR_SYS_DISPATCH_ON,
            ALLOWED_FROM,
            ALLOWED_SIZE,
            &raw const BLOCK,
        )
    })
}

/// Closes the two ways past `refuse_calls_from_enclave` for this thread and those it starts: SYSENTER,
/// which on Intel CPUs reports an address in the vDSO, and the vsyscall page. Both become SIGSYS.
/// The filter looks at the address for three calls only, so the kernel answers all others from its
/// cache of filter results.
pub fn refuse_detours() -> Result<(), Errno> {
    const ARCH_X86_64: u32 = 0xC000_003E;
    const VSYSCALLS: [u32; 3] = [
        libc::SYS_gettimeofday as u32,
        libc::SYS_time as u32,
        libc::SYS_getcpu as u32,
    ];
    const NR: u32 = 0;
    const ARCH: u32 = 4;
    const RIP_HIGH: u32 = 12;
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let jump_if = |value, then, otherwise| {
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            then,
            otherwise,
            value,
        )
    };
    let answer = |action| statement(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let filter = [
        load(ARCH),
        jump_if(ARCH_X86_64, 0, 7),
        load(NR),
        jump_if(VSYSCALLS[0], 3, 0),
        jump_if(VSYSCALLS[1], 2, 0),
        jump_if(VSYSCALLS[2], 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        load(RIP_HIGH),
        jump_if(0xFFFF_FFFF, 0, 1),
        answer(libc::SECCOMP_RET_TRAP),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    install_filter(&filter)
}

fn statement(code: u32, then: u8, otherwise: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: then,
        jf: otherwise,
        k,
    }
}

fn install_filter(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program is valid for the call; it refuses nothing that this program does.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let result = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        );
        check(result as i32)
    }
}

/// The kernel's own form of `struct sigaction`.
#[repr(C)]
struct SignalAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

impl SignalAction {
    /// SIG_DFL or SIG_IGN.
    fn without_code(handler: usize) -> SignalAction {
        SignalAction {
            handler,
            flags: 0,
            restorer: 0,
            mask: 0,
        }
    }
}

/// Installs a handler that runs on the signal stack with nothing blocked.
///
/// # Safety
/// `handler` and `restorer` are code fit for it, and every thread that gets the signal has its stack.
pub unsafe fn set_handler(signal: i32, handler: usize, restorer: usize) -> Result<(), Errno> {
    const SA_RESTORER: u64 = 0x0400_0000;
    let flags = (libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER) as u64 | SA_RESTORER;
    // SAFETY: the caller's.
    unsafe {
        set_action(
            signal,
            &SignalAction {
                handler,
                flags,
                restorer,
                mask: 0,
            },
        )
    }
}

/// Back to the default action.
pub fn reset_handler(signal: i32) -> Result<(), Errno> {
    // SAFETY: the default action runs no code of ours.
    unsafe { set_action(signal, &SignalAction::without_code(libc::SIG_DFL)) }
}

/// Whether a signal is ignored, as under nohup(1).
pub fn is_ignored(signal: i32) -> Result<bool, Errno> {
    let mut action = SignalAction::without_code(libc::SIG_DFL);
    let none = ptr::null::<u8>();
    // SAFETY: as in `set_action`; only the old action is asked for.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, none, &raw mut action, 8) };
    check(result as i32)?;
    Ok(action.handler == libc::SIG_IGN)
}

/// Ignores a signal.
pub fn ignore(signal: i32) -> Result<(), Errno> {
    // SAFETY: runs no code of ours.
    unsafe { set_action(signal, &SignalAction::without_code(libc::SIG_IGN)) }
}

/// # Safety
/// As `set_handler`.
unsafe fn set_action(signal: i32, action: &SignalAction) -> Result<(), Errno> {
    // Not through libc: its restorer would lie outside the code that `asm::is_transition` knows.
    // SAFETY: the structure is the kernel's; its mask has 8 bytes.
    check(
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action, ptr::null::<u8>(), 8) }
            as i32,
    )
}

/// Sets this thread's signal stack, or takes it away.
///
/// # Safety
/// The memory stays as long as the thread or until the stack is taken away.
pub unsafe fn set_signal_stack(stack: Option<(usize, usize)>) -> Result<(), Errno> {
    let (start, size) = stack.unwrap_or((0, 0));
    let flags = if stack.is_some() { 0 } else { libc::SS_DISABLE };
    let stack = libc::stack_t {
        ss_sp: ptr::without_provenance_mut(start),
        ss_flags: flags,
        ss_size: size,
    };
    // SAFETY: the caller's.
    check(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) })
}

/// Blocks every signal in this thread.
pub fn block_signals() {
    // SAFETY: fills and uses a local set. It fails only for arguments other than these.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
    }
}

/// Blocks these signals in this thread and those it starts; gives what waits for one of them.
pub fn take_signals(signals: &[i32]) -> SignalSet {
    // SAFETY: fills and uses a local set. It fails only for arguments other than these.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        SignalSet(set)
    }
}

/// Signals that are blocked in all threads.
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Waits for one of them to come to the process.
    pub fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: both are this function's; an error is a signal outside the set that interrupted.
        while unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } != 0 {}
        signal
    }

    /// Lets them through in this thread again.
    pub fn release(&self) {
        // SAFETY: the set is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Lets this thread's sleeps end when they should (the default is up to 50 us later).
pub fn be_punctual() {
    // SAFETY: a number for this thread only. If it fails, sleeps are a bit longer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// Allows as many descriptors as this process may have: each socket of a program is one.
pub fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where that is refused, programs meet the lower limit.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

/// Sends a signal to one thread of this process.
pub fn signal_thread(thread: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: names a thread by number.
    check(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) } as i32)
}

/// This thread's number.
pub fn thread_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Ends the process at once, without destructors: vCPU threads may be in the enclave.
pub fn exit(status: i32) -> ! {
    // SAFETY: no Rust value is used afterwards.
    unsafe { libc::_exit(status) }
}

fn check(result: i32) -> Result<(), Errno> {
    if result >= 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Whether a request that `terminal_request` takes changes the terminal's settings.
pub fn is_terminal_change(request: u32) -> bool {
    [libc::TCSETS, libc::TCSETSW, libc::TCSETSF].contains(&u64::from(request))
}

/// Terminal requests the enclave may make, with the bytes they read or write.
const TERMINAL_REQUESTS: [(u64, usize); 8] = [
    (libc::TCGETS, TERMIOS_SIZE),
    (libc::TCSETS, TERMIOS_SIZE),
    (libc::TCSETSW, TERMIOS_SIZE),
    (libc::TCSETSF, TERMIOS_SIZE),
    (libc::TIOCGWINSZ, size_of::<libc::winsize>()),
    (libc::TIOCSWINSZ, size_of::<libc::winsize>()),
    (libc::TIOCGPGRP, size_of::<libc::pid_t>()),
    (libc::FIONREAD, size_of::<libc::c_int>()),
];

/// `struct termios` of the kernel.
const TERMIOS_SIZE: usize = 36;

/// ioctl(2), for requests in the table only: their argument is a structure of known size in `buffer`.
pub fn terminal_request(file: impl AsFd, request: u32, buffer: &mut [u8]) -> Result<(), Errno> {
    let known = TERMINAL_REQUESTS
        .iter()
        .find(|(known, _)| *known == u64::from(request));
    let (request, size) = known.ok_or(Errno::NOTTY)?;
    if buffer.len() < *size {
        return Err(Errno::INVAL);
    }
    // SAFETY: the request reads or writes no more than the table says.
    check(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), *request, buffer.as_mut_ptr()) })
}

/// getdents64(2): raw directory entries.
pub fn directory_entries(directory: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: writes no more than the buffer's size.
    let result =
        unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
    check(result as i32)?;
    Ok(result as usize)
}
