//! The system-call trace, readable like strace's.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

use occlum_abi::Errno;
use occlum_enclave::log;

use super::{Arg, Call, Syscall, TABLE_SIZE};
use crate::error::Result;
use crate::process::Thread;
use crate::user;

/// A line when the call starts: it may block, or never return.
pub(super) fn enter(call: &Call<'_>, row: &Syscall) {
    log!(Trace, "[{}] {}({}) ...", call.thread.tid(), row.name, arguments(call, row));
}

/// A line with the result.
pub(super) fn leave(call: &Call<'_>, row: &Syscall, result: &Result<usize>) {
    let shown = match result {
        Ok(value) if *value > 0xffff_ffff => format!("{value:#x}"),
        Ok(value) => format!("{value}"),
        Err(error) => format!("-1 {error:?}"),
    };
    log!(Trace, "[{}] {}({}) = {}", call.thread.tid(), row.name, arguments(call, row), shown);
}

/// A call that is not in the table: named once.
pub(super) fn unknown(thread: &Thread, number: usize, args: &[u64; 6]) {
    static SEEN: [AtomicU64; TABLE_SIZE / 64] = [const { AtomicU64::new(0) }; TABLE_SIZE / 64];
    let is_new = match SEEN.get(number / 64) {
        Some(word) => word.fetch_or(1 << (number % 64), Ordering::Relaxed) & (1 << (number % 64)) == 0,
        None => true,
    };
    if is_new {
        log!(Warn, "system call {number} is not supported (ENOSYS); process {}", thread.process().pid());
    }
    log!(Trace, "[{}] syscall_{number}({:#x}, {:#x}, {:#x}) = -1 ENOSYS", thread.tid(), args[0], args[1], args[2]);
}

fn arguments(call: &Call<'_>, row: &Syscall) -> String {
    let mut text = String::new();
    for (index, kind) in row.args.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        append(&mut text, call, index, *kind);
    }
    text
}

fn append(text: &mut String, call: &Call<'_>, index: usize, kind: Arg) {
    // Writing to a String can't fail.
    let _ = match kind {
        Arg::Int | Arg::Fd | Arg::Signal => write!(text, "{}", call.int(index)),
        Arg::Uint => write!(text, "{}", call.args[index]),
        Arg::Hex => write!(text, "{:#x}", call.args[index]),
        Arg::Octal => write!(text, "{:#o}", call.uint(index)),
        Arg::Ptr if call.args[index] == 0 => write!(text, "NULL"),
        Arg::Ptr => write!(text, "{:#x}", call.args[index]),
        Arg::Path => match user::read_c_string(call.addr(index), 4096, Errno::ENAMETOOLONG) {
            Ok(path) => write!(text, "\"{}\"", path.escape_ascii()),
            Err(_) => write!(text, "{:#x}", call.args[index]),
        },
    };
}
