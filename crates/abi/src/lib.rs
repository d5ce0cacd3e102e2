//! What the kernel inside the enclave and the host outside must agree on.
//!
//! - [`layout`]: where everything stands in the enclave's linear range
//! - [`boot`]: the measured boot configuration, and what the (untrusted) host hands over at entry
//! - [`control`]: what the host asks of a running kernel
//! - [`ocall`]: the calls the kernel makes to the host, with their register convention
//! - [`errno`]: Linux error numbers
//!
//! A leaf: it depends on nothing of ours, holds no code that runs, and both sides include it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod boot;
pub mod control;
pub mod errno;
pub mod layout;
pub mod ocall;

pub use errno::Errno;
