//! System calls: one table for dispatch, support level, tracing and the generated documentation.
//!
//! Each family has a file whose `CALLS` lists its rows; handlers are named `sys_<name>`. Nothing
//! else in the kernel imports this module.

mod across;
mod directory;
mod event;
mod fd;
mod file;
mod futex;
mod identity;
mod inotify;
mod ipc;
mod limits;
mod memory;
mod message;
mod mount;
mod mqueue;
mod name;
mod path;
mod poll;
mod prctl;
mod privilege;
mod process;
mod schedule;
mod signal;
mod socket;
mod splice;
mod stat;
mod system;
mod time;
mod trace;

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use occlum_abi::Errno;
use occlum_enclave::user::UserContext;
use spin::Once;

use crate::error::{Restart, Result};
use crate::outside;
use crate::process::Thread;
use crate::user::UserAddr;
use crate::vfs::sigio;

/// How far a call is supported; shown in `docs/syscalls.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Full,
    /// What is missing.
    Partial(&'static str),
    /// Why it always fails (with an errno that Linux may give).
    No(&'static str),
}

/// How the trace prints an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    Int,
    Uint,
    Hex,
    Octal,
    Ptr,
    Fd,
    /// NUL-terminated string in user memory.
    Path,
    /// Signal number, printed by name.
    Signal,
}

/// One row of the table.
pub struct Syscall {
    pub number: usize,
    pub name: &'static str,
    pub args: &'static [Arg],
    pub handler: Handler,
    pub support: Support,
}

impl Syscall {
    /// A row of a call that does all that its manual page says.
    const fn full(number: usize, name: &'static str, args: &'static [Arg], handler: Handler) -> Syscall {
        Syscall { number, name, args, handler, support: Support::Full }
    }

    /// The same row for a call of which `missing` is missing.
    const fn but(self, missing: &'static str) -> Syscall {
        Syscall { support: Support::Partial(missing), ..self }
    }

    /// The same row for a call that always fails.
    const fn never(self, why: &'static str) -> Syscall {
        Syscall { support: Support::No(why), ..self }
    }
}

pub type Handler = fn(&mut Call<'_>) -> Result<usize>;

/// One system call in progress.
pub struct Call<'a> {
    pub thread: &'a Arc<Thread>,
    /// Registers of the caller; RIP is where it continues.
    pub context: &'a mut UserContext,
    /// RDI, RSI, RDX, R10, R8, R9.
    pub args: [u64; 6],
}

impl Call<'_> {
    /// Argument as a C `int` (upper half ignored, as in Linux).
    pub fn int(&self, index: usize) -> i32 {
        self.args[index] as i32
    }

    /// Argument as a C `unsigned int`.
    pub fn uint(&self, index: usize) -> u32 {
        self.args[index] as u32
    }

    /// Argument as `size_t` or `unsigned long`.
    pub fn size(&self, index: usize) -> usize {
        self.args[index] as usize
    }

    /// Argument as `long` or `off_t`.
    pub fn long(&self, index: usize) -> i64 {
        self.args[index] as i64
    }

    pub fn addr(&self, index: usize) -> UserAddr {
        UserAddr(self.args[index] as usize)
    }
}

/// Every family of calls.
const FAMILIES: &[&[Syscall]] = &[
    across::CALLS,
    directory::CALLS,
    event::CALLS,
    fd::CALLS,
    file::CALLS,
    futex::CALLS,
    identity::CALLS,
    inotify::CALLS,
    ipc::CALLS,
    limits::CALLS,
    memory::CALLS,
    mount::CALLS,
    mqueue::CALLS,
    name::CALLS,
    poll::CALLS,
    prctl::CALLS,
    privilege::CALLS,
    process::CALLS,
    schedule::CALLS,
    signal::CALLS,
    socket::CALLS,
    splice::CALLS,
    stat::CALLS,
    system::CALLS,
    time::CALLS,
];

const TABLE_SIZE: usize = 512;

static TABLE: Once<Vec<Option<&'static Syscall>>> = Once::new();

fn table() -> &'static [Option<&'static Syscall>] {
    TABLE.call_once(|| {
        let mut table = vec![None; TABLE_SIZE];
        for call in FAMILIES.iter().copied().flatten() {
            assert!(table[call.number].is_none(), "two rows for {}", call.name);
            table[call.number] = Some(call);
        }
        table
    })
}

/// Serves the system call in `context`'s registers and stores its result in RAX. Says whether the call
/// is to run again if a signal ended it.
pub fn dispatch(thread: &Arc<Thread>, context: &mut UserContext) -> Restart {
    let number = context.regs.rax as usize;
    let regs = &context.regs;
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
    let Some(row) = table().get(number).copied().flatten() else {
        trace::unknown(thread, number, &args);
        context.regs.rax = Errno::ENOSYS.to_ret() as u64;
        return Restart::Never;
    };
    let mut call = Call { thread, context, args };
    let entered = trace::is_traced(number).then(|| trace::enter(&call, row));
    let result = (row.handler)(&mut call);
    sigio::send_noted();
    if let Some(entered) = entered {
        trace::leave(&call, row, entered, &result);
    }
    let (value, restart) = match result {
        Ok(value) => (value as u64, Restart::Never),
        Err(error) => {
            if error.errno == Errno::ENOSYS {
                outside::count_unsupported(number, row.name);
            }
            (error.errno.to_ret() as u64, error.restart)
        }
    };
    context.regs.rax = value;
    restart
}
