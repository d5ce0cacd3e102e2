//! Processor exceptions: page faults that memory management resolves, and the rest as signals, with
//! the numbers Linux on x86-64 gives.

use occlum_enclave::user::{Exception, UserContext};

use super::info::{
    BUS_ADRALN, BUS_ADRERR, FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND, FPE_INTDIV,
    ILL_ILLOPN, SEGV_ACCERR, SEGV_MAPERR, TRAP_TRACE,
};
use super::state::FaultRecord;
use super::{SigInfo, Signal, force};
use crate::mm::{self, Access, FaultOutcome};
use crate::process::{Thread, memory_killer};
use crate::user::{self, UserAddr};

/// User mode, in a page fault's error code.
const PF_USER: u32 = 4;

/// Serves an exception in user code: returns with nothing changed if the instruction can run again,
/// else with a signal pending.
pub fn raise(thread: &Thread, context: &mut UserContext, exception: Exception) {
    if exception.vector == Exception::PAGE_FAULT {
        return page_fault(thread, exception);
    }
    let mut exception = exception;
    if exception.vector == Exception::INVALID_OPCODE
        && let Some(error) = forbidden_entry(context.regs.rip as usize)
    {
        exception = Exception { vector: Exception::GENERAL_PROTECTION, error, address: 0 };
    }
    record(thread, exception);
    let (signal, code) = signal_for(exception.vector, context);
    let at = mm::original_rip(thread.space(), context.regs.rip as usize);
    let info = match code {
        Some(code) => SigInfo::fault(signal, code, at),
        None => SigInfo::kernel(signal),
    };
    force(thread, signal, info);
}

fn page_fault(thread: &Thread, exception: Exception) {
    thread.count_fault();
    let access = match exception.error {
        error if error & Exception::PF_FETCH != 0 => Access::Execute,
        error if error & Exception::PF_WRITE != 0 => Access::Write,
        _ => Access::Read,
    };
    let (signal, code) = match mm::fault(exception.address, access) {
        FaultOutcome::Resolved => return,
        FaultOutcome::NoMapping => (Signal::SEGV, SEGV_MAPERR),
        FaultOutcome::NoPermission => (Signal::SEGV, SEGV_ACCERR),
        FaultOutcome::BeyondFile => (Signal::BUS, BUS_ADRERR),
        FaultOutcome::OutOfMemory => return memory_killer::make_room(thread),
    };
    record(thread, exception);
    force(thread, signal, SigInfo::fault(signal, code, exception.address));
}

fn record(thread: &Thread, exception: Exception) {
    let is_page_fault = exception.vector == Exception::PAGE_FAULT;
    let user_bit = if is_page_fault { PF_USER } else { 0 };
    let mut record = thread.signals().last_fault.lock();
    *record = FaultRecord {
        trap_number: u64::from(exception.vector),
        error_code: u64::from(exception.error | user_bit),
        // Like CR2, it keeps the last page fault's address.
        address: if is_page_fault { exception.address as u64 } else { record.address },
    };
}

/// `int 0x80` and `sysenter` lead into the 32-bit kernel interface, which does not exist here: #GP,
/// as on a Linux without it. Gives the error code.
fn forbidden_entry(rip: usize) -> Option<u32> {
    let mut code = [0; 2];
    user::read_bytes(UserAddr(rip), &mut code).ok()?;
    match code {
        // Selector error code: IDT, vector 0x80.
        [0xcd, 0x80] => Some(0x80 << 3 | 2),
        [0x0f, 0x34] => Some(0),
        _ => None,
    }
}

/// The signal, and the code if the signal names the instruction; without, it comes from the kernel
/// about nothing in particular.
fn signal_for(vector: u8, context: &mut UserContext) -> (Signal, Option<i32>) {
    match vector {
        Exception::DIVIDE => (Signal::FPE, Some(FPE_INTDIV)),
        Exception::DEBUG => (Signal::TRAP, Some(TRAP_TRACE)),
        Exception::BREAKPOINT => (Signal::TRAP, None),
        Exception::INVALID_OPCODE => (Signal::ILL, Some(ILL_ILLOPN)),
        Exception::X87 => (Signal::FPE, Some(x87_code(context.vector_state()))),
        Exception::SIMD => (Signal::FPE, Some(simd_code(context.vector_state()))),
        Exception::ALIGNMENT => (Signal::BUS, Some(BUS_ADRALN)),
        // #OF, #BR, #GP and what else there may be.
        _ => (Signal::SEGV, None),
    }
}

fn x87_code(state: &[u8]) -> i32 {
    let control = u16::from_le_bytes([state[0], state[1]]);
    let status = u16::from_le_bytes([state[2], state[3]]);
    float_code(status & !control)
}

fn simd_code(state: &[u8]) -> i32 {
    let mxcsr = u32::from_le_bytes([state[24], state[25], state[26], state[27]]);
    float_code((!(mxcsr >> 7) & mxcsr & 0x3f) as u16)
}

/// From the unmasked exception flags: IE, DE, ZE, OE, UE, PE.
fn float_code(raised: u16) -> i32 {
    match raised {
        flags if flags & 0x01 != 0 => FPE_FLTINV,
        flags if flags & 0x04 != 0 => FPE_FLTDIV,
        flags if flags & 0x08 != 0 => FPE_FLTOVF,
        flags if flags & 0x12 != 0 => FPE_FLTUND,
        flags if flags & 0x20 != 0 => FPE_FLTRES,
        _ => FPE_FLTINV,
    }
}
