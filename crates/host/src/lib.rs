//! The program outside the enclave: loads it, enters it with one thread per vCPU, and serves its calls.
//!
//! - [`cpu`]: the SGX CPU (in software)
//! - [`memory`]: the enclave's range and memory shared with it
//! - [`sys`]: system calls without a safe wrapper
//!
//! Nothing here is trusted by the enclave.

pub mod cpu;
pub mod error;
pub mod memory;
pub mod sys;
