//! What the host asks of a running kernel, and what the kernel answers.
//!
//! The host keeps requests in a queue. It announces them by setting [`crate::ocall::SharedPage::requests`]
//! and waking or kicking a vCPU; the kernel fetches one at a time ([`crate::ocall::Ocall::TakeRequest`], a
//! postcard [`Numbered`]) until there is none, and answers with [`crate::ocall::Ocall::Answer`]. All of it is
//! untrusted: entry points and environment rules are applied inside, as for the first program.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::boot::LogLevel;

/// The number under which the kernel tells what becomes of the program of [`crate::boot::RunRequest`], and
/// that it is ready.
pub const FIRST_PROGRAM: u64 = 0;

/// A request with the number that its answers name. The host chooses numbers, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u64,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start a program. -> `Started` or `Refused`; later `Stopped`, `Continued`, and at last `Ended`.
    Start(Start),
    /// Send a signal. -> `Done`, or `Refused` if there is nobody.
    Signal { to: Target, signal: i32 },
    /// -> `Processes`
    Processes,
    /// -> `Metrics`
    Metrics,
    /// -> `Done`; the builder decides how far the level may go.
    SetLogLevel(LogLevel),
    /// SIGTERM to everybody, SIGKILL to who is there after the grace, then `Ocall::Exit`. -> `Done` at once.
    Shutdown { grace_ms: u64 },
    /// Copy a file between a host descriptor and the tree inside; debuggable enclaves only. The kernel
    /// closes the descriptor. -> `Done` or `Refused`
    Copy(Copy),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Absolute path inside the enclave.
    pub path: String,
    /// argv without argv[0]; the kernel sets argv[0] to the path's base name.
    pub args: Vec<Vec<u8>>,
    /// The client's environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Host descriptors for standard input, output and error, the program's from now on.
    pub stdio: [Option<u32>; 3],
    /// Where it starts; empty for the root directory.
    pub directory: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Absolute path inside the enclave.
    pub path: String,
    /// A regular file or a pipe of the host.
    pub file: u32,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Into the enclave, with these permissions.
    In { mode: u32 },
    Out,
}

/// Who gets a signal. A number is that of the `Start` request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The foreground process group of the program's terminal, or the program's group if it has none.
    Foreground(u64),
    /// The program itself.
    Program(u64),
    /// A process by its id inside.
    Process(u32),
    /// All processes.
    Everybody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The kernel takes requests (number `FIRST_PROGRAM`).
    Ready,
    Done,
    Started { pid: u32 },
    /// `code` is the exit status that a shell gives: 127 not found, 126 not executable.
    Refused { message: String, hint: String, code: i32 },
    /// The program was stopped by a signal; `everybody` if no other process can run either.
    Stopped { signal: i32, everybody: bool },
    Continued,
    /// Wait status as of wait4.
    Ended { status: u32 },
    Processes(Vec<Process>),
    /// Names and values; names end in their unit.
    Metrics(Vec<(String, u64)>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub ppid: u32,
    pub pgid: u32,
    pub sid: u32,
    /// As the third field of /proc/PID/stat.
    pub state: u8,
    pub threads: u32,
    pub cpu_ns: u64,
    /// Age.
    pub elapsed_ns: u64,
    pub virtual_bytes: u64,
    pub resident_bytes: u64,
    /// The arguments, each ended by NUL; the name alone if the enclave is not debuggable.
    pub command: Vec<u8>,
}
