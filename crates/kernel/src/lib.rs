//! The operating system inside the enclave.
//!
//! ```text
//! syscall -> process, vfs, mm, signal, time -> sched, fs
//! ```
//! - [`sched`]: tasks on virtual CPUs, waiting, timers, host events
//! - [`mm`]: address spaces; [`user`]: the typed door to user memory
//! - [`vfs`]: names, open files, mounts; `fs`: the file systems and file kinds
//! - [`net`]: sockets; [`ipc`]: System V objects, POSIX message queues
//! - [`process`]: processes, threads, program loading; [`signal`]: signals
//! - [`syscall`]: the table; nothing imports it
//! - [`control`]: serves requests of the host; [`outside`]: what is told to it
//!
//! What needs `unsafe` is in the crate below (`occlum-enclave`); this one forbids it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod control;
pub mod error;
pub mod fs;
pub mod futex;
pub mod ipc;
pub mod mm;
pub mod net;
pub mod outside;
mod overrides;
pub mod process;
pub mod random;
pub mod sched;
pub mod signal;
pub mod syscall;
pub mod time;
pub mod user;
pub mod vfs;

mod boot;

pub use boot::{main, task_exit, vcpu_main};
