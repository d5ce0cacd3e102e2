//! The system-call trace, readable like strace's.
//!
//! A call is one line when it returns, or when it starts if it never does. Lines go to the host
//! (`outside::trace`), if it asked for them, and to the log at its most detailed level.
//!
//! - [`shape`]: how arguments of the common calls are shown; others by their row in the table

mod shape;

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use occlum_abi::boot::LogLevel;
use occlum_enclave::log;
use spin::Once;

use super::{Call, Syscall, TABLE_SIZE, table};
use crate::error::Result;
use crate::outside;
use crate::process::Thread;
use crate::sched::timer;

const WORDS: usize = TABLE_SIZE / 64;

/// Bit n: the host wants to see call n.
static WANTED: Once<[u64; WORDS]> = Once::new();

/// Whether a call is traced.
#[inline]
pub(super) fn is_traced(number: usize) -> bool {
    (outside::is_traced() && is_wanted(number)) || log::enabled(LogLevel::Trace)
}

fn is_wanted(number: usize) -> bool {
    let wanted = WANTED.call_once(|| {
        let mut wanted = [0; WORDS];
        for row in table().iter().flatten().filter(|row| outside::is_call_wanted(row.name)) {
            wanted[row.number / 64] |= 1 << (row.number % 64);
        }
        wanted
    });
    wanted.get(number / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
}

/// A call in progress.
pub(super) struct Entered {
    start_ns: u64,
    /// As far as arguments can be shown before it runs.
    text: String,
}

/// To be called before the call runs.
pub(super) fn enter(call: &Call<'_>, row: &Syscall) -> Entered {
    let entered = Entered { start_ns: timer::now_ns(), text: shape::before(call, row) };
    if matches!(row.name, "exit" | "exit_group") {
        tell(call.thread, entered.start_ns, 0, &format!("{}) = ?", entered.text));
    }
    entered
}

/// To be called when it has returned.
pub(super) fn leave(call: &Call<'_>, row: &Syscall, entered: Entered, result: &Result<usize>) {
    if matches!(row.name, "exit" | "exit_group") {
        return;
    }
    let mut text = entered.text;
    shape::after(&mut text, call, row, result);
    // Writing to a String can't fail.
    let _ = match result {
        Ok(value) if shape::gives_address(row.name) => write!(text, ") = {value:#x}"),
        Ok(value) => write!(text, ") = {value}"),
        Err(error) if error.why.is_empty() => write!(text, ") = -1 {}", error.errno),
        Err(error) => write!(text, ") = -1 {} ({})", error.errno, error.why),
    };
    let duration_ns = timer::now_ns().saturating_sub(entered.start_ns);
    tell(call.thread, entered.start_ns, duration_ns, &text);
}

fn tell(thread: &Thread, start_ns: u64, duration_ns: u64, text: &str) {
    log!(Trace, "[{}] {text}", thread.tid());
    outside::trace(thread.tid(), start_ns, duration_ns, text);
}

/// A call that is not in the table: named once in the log.
pub(super) fn unknown(thread: &Thread, number: usize, args: &[u64; 6]) {
    if outside::count_unsupported(number, "") == 0 {
        log!(Warn, "system call {number} is not supported (ENOSYS); process {}", thread.process().pid());
    }
    if outside::is_traced() || log::enabled(LogLevel::Trace) {
        let text = format!("syscall_{number}({:#x}, {:#x}, {:#x}) = -1 ENOSYS", args[0], args[1], args[2]);
        tell(thread, timer::now_ns(), 0, &text);
    }
}
