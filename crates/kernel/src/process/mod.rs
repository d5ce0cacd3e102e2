//! Processes and threads.
//!
//! - [`thread`]: [`Thread`] and [`ThreadState`], one schedulable flow of a program
//! - [`group`]: [`Process`], a thread group
//! - [`tree`]: the table of all of them: who has which id, whose child is whose
//! - [`user_loop`]: a thread's life: run user code, serve what it traps for, repeat
//! - [`clone`], [`exec`], [`exit`], [`wait`]: how they come and go
//! - [`programs`]: those that the host asked to start
//! - [`core`]: what a crashed program leaves
//! - [`inspect`]: who may look into whose
//! - [`elf`], [`load`], [`stack`]: from a file to a program that runs
//! - `cpuid`: an instruction that is served like a system call
//! - [`credentials`], [`limits`], [`usage`]: what a process may do, and has used; [`cpu_limit`],
//!   [`memory_killer`]: when that is too much
//!
//! A [`Thread`] names what it works with (memory, descriptors, directories) and never changes. What
//! stays the same for the thread's whole life, execve included, is its [`ThreadState`]. A thread that
//! executes a program, or stops sharing something, becomes a new `Thread` with the old `ThreadState`
//! (`ThreadState::replace_with`); so nothing on the hot path takes a lock to find its memory or files.
//!
//! Life of a process: `clone` or `start` enters it into the tree with one thread; when its last thread
//! ends it is a zombie, until its parent waits for it (or does not care). The parent of orphans is
//! process 1, the kernel itself, which never cares: programs never see themselves as init.
//!
//! Lock order: one process's signal lock, then the tree, then one thread list, then leaves (limits,
//! usage, names). Nothing that can free an address space or a file is dropped under any of them.

pub mod clone;
pub mod core;
pub mod cpu_limit;
mod cpuid;
pub mod credentials;
mod debug;
pub mod elf;
pub mod exec;
pub mod exit;
pub mod group;
pub mod groups;
pub mod inspect;
pub mod limits;
pub mod load;
pub mod memory_killer;
pub mod pidfd;
pub mod programs;
pub mod stack;
pub mod start;
pub mod system;
pub mod thread;
pub mod tree;
pub mod usage;
pub mod user_loop;
pub mod wait;

use alloc::sync::Arc;

pub use credentials::Credentials;
pub use group::Process;
pub use limits::{Limit, Resource};
pub use thread::{Thread, ThreadState, Work};
pub use tree::{find_process, find_thread, processes};

use crate::sched::{self, Local};

/// The thread this code runs for, if any.
pub fn current() -> Option<Arc<Thread>> {
    sched::local::<Thread>(Local::Thread)
}
