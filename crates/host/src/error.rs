//! What can go wrong before the enclave runs, and what the person at the terminal reads.

use crate::cpu::enclave::CpuError;
use rustix::io::Errno;
use std::path::PathBuf;

/// Exit status when the host program itself fails, or the enclave stops: neither the program's own
/// status nor 126/127, which say that the program could not be started.
pub const EXIT_STATUS: i32 = 125;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{}: {source}", .path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {problem}", .path.display())]
    Image { path: PathBuf, problem: String },
    #[error("{0}")]
    Cpu(#[from] CpuError),
    #[error("{what}: {errno}")]
    System { what: &'static str, errno: Errno },
}
