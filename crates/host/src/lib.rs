//! The program outside the enclave: loads it, enters it with one thread per vCPU, and serves its calls.
//!
//! - [`args`], [`loader`]: from the command line to an initialised enclave
//! - [`instance`]: what the threads of a running enclave share; [`vcpu`]: one of them
//! - [`ocall`]: what the enclave's kernel asks for; [`ticker`]: what makes it switch tasks;
//!   [`terminal`]: left as it was found
//! - [`requests`]: what is asked of the kernel; [`signals`] and [`server`] are who asks
//! - [`counters`]: how often the enclave was left; [`profile`]: where it was then
//! - [`cpu`]: the SGX CPU (in software)
//! - [`memory`]: the enclave's range and memory shared with it; [`sys`], [`net`]: system calls without a
//!   wrapper
//!
//! Nothing here is trusted by the enclave.

pub mod args;
pub mod counters;
pub mod cpu;
pub mod error;
pub mod instance;
pub mod loader;
pub mod memory;
pub mod net;
pub mod ocall;
pub mod profile;
pub mod requests;
pub mod server;
pub mod signals;
pub mod sys;
pub mod terminal;
pub mod ticker;
pub mod vcpu;
