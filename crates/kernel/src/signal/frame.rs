//! The stack frame of a signal handler, byte for byte as Linux on x86-64 lays it out, and the way back.
//!
//! ```text
//! high  FP_XSTATE_MAGIC2        4 bytes
//!       XSAVE area              64-byte aligned; bytes 464..512 describe it (fpx_sw_bytes)
//!       ...                     padding
//!       siginfo                 128
//!       ucontext                304: flags, link, stack, mcontext (256), sigmask
//! low   pretcode                8: address of the restorer; RSP at handler entry, 8 mod 16
//! ```

use alloc::vec::Vec;

use occlum_abi::Errno;
use occlum_enclave::user::{self as cpu, Regs, USER_RFLAGS, UserContext};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::action::{SA_ONSTACK, SA_RESTORER};
use super::state::{AltStack, SS_AUTODISARM};
use super::{Action, SigInfo, SigSet, Signal, mask};
use crate::error::{Result, err};
use crate::mm;
use crate::process::Thread;
use crate::user::{self, UserAddr};

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;

/// `struct sigcontext`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MachineContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    rflags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    error: u64,
    trap_number: u64,
    old_mask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Frame {
    return_address: u64,
    flags: u64,
    link: u64,
    stack: AltStack,
    machine: MachineContext,
    mask: u64,
    info: SigInfo,
}

const _: () = assert!(size_of::<MachineContext>() == 256);
const _: () = assert!(size_of::<Frame>() == 440);

impl Default for Frame {
    fn default() -> Frame {
        Frame {
            return_address: 0,
            flags: 0,
            link: 0,
            stack: AltStack::default(),
            machine: MachineContext::default(),
            mask: 0,
            info: SigInfo::default(),
        }
    }
}

/// `struct _fpx_sw_bytes`, in the part of the FXSAVE area that is software's.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SoftwareBytes {
    magic1: u32,
    extended_size: u32,
    features: u64,
    xstate_size: u32,
    padding: [u32; 7],
}

const _: () = assert!(size_of::<SoftwareBytes>() == 48);

const SW_BYTES_AT: usize = 464;
const FXSAVE_SIZE: usize = 512;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
const MAGIC2_SIZE: usize = 4;
const RED_ZONE: u64 = 128;

/// AT_MINSIGSTKSZ: what the largest frame takes, with its alignment.
pub fn max_size() -> usize {
    let (_, xsave_size) = cpu::xsave_layout();
    (size_of::<Frame>() + 16 + 63 + xsave_size + MAGIC2_SIZE).next_multiple_of(16)
}

/// Makes the thread run the handler of `signal`; `return_mask` is what sigreturn restores.
pub fn push(
    thread: &Thread,
    context: &mut UserContext,
    signal: Signal,
    info: &SigInfo,
    action: &Action,
    return_mask: SigSet,
) -> Result<()> {
    if !action.has(SA_RESTORER) {
        return err(Errno::EFAULT, "no restorer");
    }
    let place = place_frame(thread, context, action)?;
    let fault = *thread.signals().last_fault.lock();
    let fpstate = write_vector_state(context, place.fpstate)?;
    let regs = show_original_rip(thread, &context.regs);
    let mut machine = machine_context(&regs);
    machine.error = fault.error_code;
    machine.trap_number = fault.trap_number;
    machine.cr2 = fault.address;
    machine.old_mask = return_mask.0;
    machine.fpstate = fpstate;
    let frame = Frame {
        return_address: action.restorer,
        flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
        link: 0,
        stack: reported_stack(thread, context.regs.rsp),
        machine,
        mask: return_mask.0,
        info: *info,
    };
    user::write(UserAddr(place.frame as usize), &frame)?;
    enter_handler(context, place.frame, signal, action);
    Ok(())
}

/// rt_sigreturn: takes back what the handler left in the frame; gives RAX.
pub fn pop(thread: &Thread, context: &mut UserContext) -> Result<u64> {
    let at = context.regs.rsp.wrapping_sub(8);
    let frame: Frame = user::read(UserAddr(at as usize))?;
    let machine = &frame.machine;
    let state = match machine.fpstate {
        0 => None,
        address => Some(read_vector_state(UserAddr(address as usize))?),
    };
    mask::set(thread, SigSet(frame.mask));
    match state {
        Some(state) => context.set_vector_state(&state),
        None => context.reset_vector_state(),
    }
    let rip = mm::patched_rip(thread.space(), machine.rip as usize);
    restore_registers(&mut context.regs, machine);
    context.regs.rip = rip as u64;
    // A stack that is no longer valid is left as it was, as in Linux.
    let _ = super::stack::set(thread, frame.stack, machine.rsp);
    Ok(machine.rax)
}

struct Place {
    frame: u64,
    fpstate: u64,
}

fn place_frame(thread: &Thread, context: &UserContext, action: &Action) -> Result<Place> {
    let (_, xsave_size) = cpu::xsave_layout();
    let alt = *thread.signals().alt_stack.lock();
    let was_on_alt = alt.is_in_use(context.regs.rsp);
    let mut sp = context.regs.rsp.wrapping_sub(RED_ZONE);
    let switches = action.has(SA_ONSTACK) && alt.is_enabled() && !was_on_alt;
    if switches {
        sp = alt.sp.wrapping_add(alt.size);
    }
    let fpstate = sp.wrapping_sub((xsave_size + MAGIC2_SIZE) as u64) & !63;
    let frame = (fpstate.wrapping_sub(size_of::<Frame>() as u64) & !15).wrapping_sub(8);
    if (switches || was_on_alt) && !alt.contains(frame) {
        return err(Errno::EFAULT, "alternate signal stack too small");
    }
    Ok(Place { frame, fpstate })
}

/// The stack as ucontext reports it; SS_AUTODISARM disarms it until sigreturn.
fn reported_stack(thread: &Thread, rsp: u64) -> AltStack {
    let mut alt = thread.signals().alt_stack.lock();
    let reported = super::stack::report(&alt, rsp);
    if alt.flags & SS_AUTODISARM != 0 {
        *alt = AltStack::default();
    }
    reported
}

fn write_vector_state(context: &mut UserContext, at: u64) -> Result<u64> {
    let (features, size) = cpu::xsave_layout();
    let description = SoftwareBytes {
        magic1: FP_XSTATE_MAGIC1,
        extended_size: (size + MAGIC2_SIZE) as u32,
        features,
        xstate_size: size as u32,
        padding: [0; 7],
    };
    let base = UserAddr(at as usize);
    user::write_bytes(base, context.vector_state())?;
    user::write(base.offset(SW_BYTES_AT), &description)?;
    user::write(base.offset(size), &FP_XSTATE_MAGIC2)?;
    Ok(at)
}

/// The extended state if the frame says (twice) that it is there, else the FXSAVE part.
fn read_vector_state(at: UserAddr) -> Result<Vec<u8>> {
    let description: SoftwareBytes = user::read(at.offset(SW_BYTES_AT))?;
    let (_, full_size) = cpu::xsave_layout();
    let size = description.xstate_size as usize;
    let is_extended = description.magic1 == FP_XSTATE_MAGIC1
        && (FXSAVE_SIZE + 64..=full_size).contains(&size)
        && description.extended_size as usize >= size + MAGIC2_SIZE
        && user::read::<u32>(at.offset(size))? == FP_XSTATE_MAGIC2;
    let mut state = alloc::vec![0; if is_extended { size } else { FXSAVE_SIZE }];
    user::read_bytes(at, &mut state)?;
    Ok(state)
}

fn show_original_rip(thread: &Thread, regs: &Regs) -> Regs {
    let rip = mm::original_rip(thread.space(), regs.rip as usize) as u64;
    Regs { rip, ..*regs }
}

fn enter_handler(context: &mut UserContext, frame: u64, signal: Signal, action: &Action) {
    let regs = &mut context.regs;
    regs.rdi = signal.number() as u64;
    regs.rsi = frame + core::mem::offset_of!(Frame, info) as u64;
    regs.rdx = frame + core::mem::offset_of!(Frame, flags) as u64;
    regs.rax = 0;
    regs.rsp = frame;
    regs.rip = action.handler;
    const DF_RF_TF: u64 = 1 << 10 | 1 << 16 | 1 << 8;
    regs.rflags &= !DF_RF_TF;
    context.reset_vector_state();
}

fn machine_context(regs: &Regs) -> MachineContext {
    MachineContext {
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rdi: regs.rdi,
        rsi: regs.rsi,
        rbp: regs.rbp,
        rbx: regs.rbx,
        rdx: regs.rdx,
        rax: regs.rax,
        rcx: regs.rcx,
        rsp: regs.rsp,
        rip: regs.rip,
        rflags: regs.rflags,
        cs: USER_CS,
        ss: USER_SS,
        ..MachineContext::default()
    }
}

/// CS and SS are what they are in 64-bit user code, whatever the frame says.
fn restore_registers(regs: &mut Regs, machine: &MachineContext) {
    *regs = Regs {
        r8: machine.r8,
        r9: machine.r9,
        r10: machine.r10,
        r11: machine.r11,
        r12: machine.r12,
        r13: machine.r13,
        r14: machine.r14,
        r15: machine.r15,
        rdi: machine.rdi,
        rsi: machine.rsi,
        rbp: machine.rbp,
        rbx: machine.rbx,
        rdx: machine.rdx,
        rax: machine.rax,
        rcx: machine.rcx,
        rsp: machine.rsp,
        rip: machine.rip,
        rflags: machine.rflags & USER_RFLAGS,
    };
}
