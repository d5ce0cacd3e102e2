//! The low layer inside the enclave: the only crate of the kernel image with `unsafe`.
//!
//! It turns the SGX machine into safe things the kernel is written with:
//! - [`user`]: run a user context until it traps ([`user::UserContext::run`])
//! - [`task`]: kernel tasks with stacks of their own, and the switch between them
//! - [`vcpu`]: the virtual CPU this code runs on
//! - [`usermem`]: copies to and from user memory, with faults as errors
//! - [`host`]: ocalls; everything the host says is [`host::Untrusted`]
//! - [`key`]: keys from the CPU
//! - [`pages`]: page-aligned kernel memory outside the heap
//! - [`vector`]: where wide vector instructions are allowed
//! - [`rand`], [`time`], [`log`]: what the CPU offers
//!
//! Life cycle of a vCPU: EENTER at `enclave_entry` (assembly in `entry.rs`) on the idle stack, then
//! `start::start_vcpu`, then the kernel's `main` (vCPU 0) or `vcpu_main`. From there on it leaves only
//! by ocalls and AEX. An AEX enters `exception.rs` on the second SSA frame, which edits the first
//! frame so that ERESUME continues in the kernel (two-step exceptions).
//!
//! Invariants every module keeps:
//! - GS base is the vCPU page; FS base and the vector state beyond XMM belong to the user context
//!   that is *resident* on the vCPU (`user.rs`).
//! - Kernel code is never preempted: an interrupt of kernel code only sets a flag.
//! - User and host memory are touched only through `copy.rs`, never by reference.
#![no_std]
#![warn(missing_docs)]

extern crate alloc;

mod copy;
mod entry;
mod exception;
mod heap;
mod lang;
mod start;
mod stack;

pub mod host;
pub mod key;
pub mod log;
pub mod pages;
pub mod rand;
pub mod task;
pub mod time;
pub mod user;
pub mod usermem;
pub mod vcpu;
pub mod vector;

pub use heap::HeapUsage;
pub use start::{Boot, cannot_start, permitted_level};

/// Names the kernel's entry points; used once, by the crate that links the image.
///
/// `main(Boot)` runs on vCPU 0 when memory works; `vcpu_main(index)` runs on every other vCPU, after
/// `main` called [`vcpu::release_others`]; `task_exit()` is called on a finished task's stack.
#[macro_export]
macro_rules! entry {
    (main = $main:path, vcpu_main = $vcpu_main:path, task_exit = $task_exit:path) => {
        #[unsafe(no_mangle)]
        fn occlum_kernel_main(boot: $crate::Boot) -> ! {
            $main(boot)
        }
        #[unsafe(no_mangle)]
        fn occlum_kernel_vcpu_main(index: usize) -> ! {
            $vcpu_main(index)
        }
        #[unsafe(no_mangle)]
        fn occlum_kernel_task_exit() -> ! {
            $task_exit()
        }
    };
}

// Defined by `entry!`, whose expansion is type-checked against these signatures.
unsafe extern "Rust" {
    safe fn occlum_kernel_main(boot: Boot) -> !;
    safe fn occlum_kernel_vcpu_main(index: usize) -> !;
    safe fn occlum_kernel_task_exit() -> !;
}
