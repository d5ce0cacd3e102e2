//! Asynchronous exits: a signal that arrives while the processor is in the enclave is saved as the
//! architecture saves an interrupted enclave, and becomes [`super::Exit::Aex`].
//!
//! The handler runs on the thread's own signal stack with no signal blocked, and after an AEX its
//! signal frame is simply left: everything in it has gone to the SSA frame. Signals that arrive outside
//! the enclave mean nothing (a kick) or the end of the process.

use super::asm;
use super::frame::{AexCause, HostThread};
use crate::sys;
use crate::terminal;
use occlum_sgx::attributes::Miscselect;
use occlum_sgx::ssa::{self, Exinfo, ExitInfo, Gprsgx};
use rustix::io::Errno;
use std::io::Write;

const SIGNALS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
    sys::KICK,
];

const INVALID_OPCODE: u8 = 6;
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;
/// Error code of an instruction fetch, in user mode, from a page that is there.
const FETCH_FAULT: u32 = 0b1_0101;

/// si_code of SIGSYS.
const SYS_SECCOMP: i32 = 1;
const SYS_USER_DISPATCH: i32 = 2;
const ARCH_X86_64: u32 = 0xC000_003E;
/// Bytes of SYSCALL and of INT 0x80.
const CALL_SIZE: u64 = 2;

/// `_fpx_sw_bytes` in the legacy region of a signal frame's XSAVE area (asm/sigcontext.h).
const FRAME_MAGIC_AT: usize = 464;
const FRAME_MAGIC: u32 = 0x4650_5853;
const FRAME_SIZE_AT: usize = 480;
const LEGACY_SIZE: usize = 512;
const XSTATE_BV_AT: usize = 512;
const XSAVE_HEADER_SIZE: usize = 64;
const LEGACY_STATES: u64 = 0b11;

/// Directs the signals that matter to the CPU, for the whole process.
pub fn install_handlers() -> Result<(), Errno> {
    let (handler, restorer) = asm::signal_addresses();
    for signal in SIGNALS {
        // SAFETY: the entry is written for this; threads without their own block get none of these
        // signals (the kick goes to vCPUs, and an exception elsewhere ends the process anyway).
        unsafe { sys::set_handler(signal, handler, restorer)? };
    }
    Ok(())
}

/// Called by `cpu_signal_entry`. Returns 1 if this was an AEX, 0 to continue where the signal came.
pub extern "C" fn signal_handler(
    info: *const libc::siginfo_t,
    context: *mut libc::ucontext_t,
    thread: *mut HostThread,
    fs_base: u64,
    gs_base: u64,
    was_inside: u32,
) -> u32 {
    // SAFETY: the kernel's signal frame, and this thread's block; nobody else uses them meanwhile.
    let (info, context, thread) = unsafe { (SignalInfo::read(info), &*context, &mut *thread) };
    let mut state = Interrupted {
        context,
        registers: context.uc_mcontext.gregs,
        fs_base,
        gs_base,
    };
    if was_inside == 0 || asm::is_transition(state.register(libc::REG_RIP)) {
        return outside(&info, &state);
    }
    if info.is_sent() && info.signal != sys::KICK {
        return end_by(info.signal);
    }
    thread.aex = cause(&info, &mut state);
    save(&state, thread);
    thread.select_frame(thread.cssa + 1);
    1
}

/// The fields of siginfo_t that matter here.
struct SignalInfo {
    signal: i32,
    code: i32,
    /// Of SIGSYS only.
    call_address: u64,
    arch: u32,
}

impl SignalInfo {
    /// # Safety
    /// `info` is what the kernel gave the handler.
    unsafe fn read(info: *const libc::siginfo_t) -> SignalInfo {
        let at = |offset: usize| info.cast::<u8>().wrapping_add(offset);
        // SAFETY: 128 bytes, aligned to 8; the fields after si_code are a union of plain numbers.
        unsafe {
            SignalInfo {
                signal: (*info).si_signo,
                code: (*info).si_code,
                call_address: at(16).cast::<u64>().read(),
                arch: at(28).cast::<u32>().read(),
            }
        }
    }

    /// Sent by a process rather than raised by an instruction.
    fn is_sent(&self) -> bool {
        self.code <= 0
    }
}

struct Interrupted<'a> {
    context: &'a libc::ucontext_t,
    registers: [i64; 23],
    fs_base: u64,
    gs_base: u64,
}

impl Interrupted<'_> {
    fn register(&self, index: i32) -> u64 {
        self.registers[index as usize].cast_unsigned()
    }

    fn set_register(&mut self, index: i32, value: u64) {
        self.registers[index as usize] = value.cast_signed();
    }
}

/// What happened, in the architecture's terms; moves RIP where an instruction did more than it may.
fn cause(info: &SignalInfo, state: &mut Interrupted) -> AexCause {
    let exception = |vector: u8, error, address| AexCause {
        signal: info.signal,
        vector: vector.into(),
        error,
        address,
    };
    match (info.signal, info.code) {
        (sys::KICK, _) => AexCause {
            signal: info.signal,
            vector: -1,
            error: 0,
            address: 0,
        },
        (libc::SIGSYS, SYS_USER_DISPATCH) => {
            let rip = state.register(libc::REG_RIP);
            state.set_register(libc::REG_RIP, rip.wrapping_sub(CALL_SIZE));
            exception(INVALID_OPCODE, 0, 0)
        }
        (libc::SIGSYS, SYS_SECCOMP) if info.arch == ARCH_X86_64 => {
            // A call of the vsyscall page, which the kernel has already returned from.
            let rsp = state.register(libc::REG_RSP);
            state.set_register(libc::REG_RSP, rsp.wrapping_sub(8));
            state.set_register(libc::REG_RIP, info.call_address);
            exception(PAGE_FAULT, FETCH_FAULT, info.call_address)
        }
        (libc::SIGSYS, _) => {
            // SYSENTER, which saves no RIP.
            state.set_register(libc::REG_RIP, 0);
            exception(INVALID_OPCODE, 0, 0)
        }
        _ => {
            let vector = state.register(libc::REG_TRAPNO) as u8;
            let error = state.register(libc::REG_ERR) as u32;
            let address = if vector == PAGE_FAULT {
                state.register(libc::REG_CR2)
            } else {
                0
            };
            exception(vector, error, address)
        }
    }
}

/// Fills the current SSA frame. URSP and URBP are there since the enclave was entered.
fn save(state: &Interrupted, thread: &HostThread) {
    let miscselect = Miscselect::from_bits_retain(thread.miscselect);
    // SAFETY: the frame is enclave memory that EENTER has checked to exist; nobody is in the enclave
    // on this TCS. The XSAVE area ends before the MISC region: ECREATE has checked it.
    unsafe {
        save_general(
            state,
            &mut *(thread.gprsgx as *mut Gprsgx),
            &thread.aex,
            miscselect,
        );
        if miscselect.contains(Miscselect::EXINFO) {
            let exinfo = thread.gprsgx - ssa::EXINFO_SIZE as u64;
            save_exinfo(&mut *(exinfo as *mut Exinfo), &thread.aex);
        }
        let area = state.context.uc_mcontext.fpregs.cast::<u8>();
        save_extended(area, thread.frame as *mut u8, thread);
    }
}

fn save_general(state: &Interrupted, to: &mut Gprsgx, cause: &AexCause, miscselect: Miscselect) {
    let get = |index| state.register(index).into();
    to.rax = get(libc::REG_RAX);
    to.rcx = get(libc::REG_RCX);
    to.rdx = get(libc::REG_RDX);
    to.rbx = get(libc::REG_RBX);
    to.rsp = get(libc::REG_RSP);
    to.rbp = get(libc::REG_RBP);
    to.rsi = get(libc::REG_RSI);
    to.rdi = get(libc::REG_RDI);
    to.r8 = get(libc::REG_R8);
    to.r9 = get(libc::REG_R9);
    to.r10 = get(libc::REG_R10);
    to.r11 = get(libc::REG_R11);
    to.r12 = get(libc::REG_R12);
    to.r13 = get(libc::REG_R13);
    to.r14 = get(libc::REG_R14);
    to.r15 = get(libc::REG_R15);
    to.rflags = get(libc::REG_EFL);
    to.rip = get(libc::REG_RIP);
    to.fs_base = state.fs_base.into();
    to.gs_base = state.gs_base.into();
    let reported = u8::try_from(cause.vector).map(|vector| ExitInfo::reported(vector, miscselect));
    to.exit_info = reported.unwrap_or(0).into();
}

fn save_exinfo(to: &mut Exinfo, cause: &AexCause) {
    let is_reported = [GENERAL_PROTECTION, PAGE_FAULT]
        .map(i32::from)
        .contains(&cause.vector);
    to.address = if is_reported { cause.address } else { 0 }.into();
    to.error_code = if is_reported { cause.error } else { 0 }.into();
}

/// Copies the XSAVE area of a signal frame, which is in standard format.
///
/// # Safety
/// `from` is the area of a signal frame; `to` has room for `thread.xsave_size` bytes.
unsafe fn save_extended(from: *const u8, to: *mut u8, thread: &HostThread) {
    let size = thread.xsave_size as usize;
    // SAFETY: the caller's; all of it is plain bytes, and both ends are aligned to 64.
    unsafe {
        let has_extended = from.add(FRAME_MAGIC_AT).cast::<u32>().read() == FRAME_MAGIC;
        let saved = if has_extended {
            from.add(FRAME_SIZE_AT).cast::<u32>().read() as usize
        } else {
            LEGACY_SIZE
        };
        std::ptr::copy_nonoverlapping(from, to, saved.min(size));
        let states = to.add(XSTATE_BV_AT).cast::<u64>();
        if has_extended {
            states.write(states.read() & thread.xfrm);
        } else {
            states.write_bytes(0, XSAVE_HEADER_SIZE / 8);
            states.write(LEGACY_STATES);
        }
    }
}

/// A signal that came while host code ran.
fn outside(info: &SignalInfo, state: &Interrupted) -> u32 {
    if info.signal == sys::KICK {
        return 0;
    }
    if !info.is_sent() {
        let rip = state.register(libc::REG_RIP);
        let place = if asm::is_transition(rip) {
            " while resuming the enclave: its saved state can't be loaded"
        } else {
            ""
        };
        let (signal, address) = (info.signal, state.register(libc::REG_CR2));
        let mut line = [0; 200];
        let mut rest = &mut line[..];
        // A line too long is cut.
        let _ = writeln!(
            rest,
            "error: occlum-host: signal {signal} at {rip:#x}, address {address:#x}{place}"
        );
        let unused = rest.len();
        let _ = rustix::io::write(rustix::stdio::stderr(), &line[..line.len() - unused]);
    }
    end_by(info.signal)
}

/// Ends the process as the signal's default action does: the instruction that raised it is executed
/// again, or the signal is sent again.
fn end_by(signal: i32) -> u32 {
    terminal::restore();
    let _ = sys::reset_handler(signal);
    let _ = sys::signal_thread(sys::thread_id(), signal);
    0
}
