//! The SGX CPU, as the host drives it.
//!
//! [`Cpu`] is one logical processor that has found a TCS. [`software`] implements it on any x86-64
//! machine; what it means is in `docs/design/software-cpu.md`.
//!
//! - [`enclave`]: ECREATE, EADD, EEXTEND, EINIT
//! - [`software`]: a logical processor
//! - `asm`: EENTER, EEXIT, ERESUME
//! - `signal`: asynchronous exits
//! - `leaf`: EREPORT and EGETKEY
//! - `frame`: the hidden state and its memory

mod asm;
pub mod enclave;
mod frame;
mod leaf;
mod signal;
pub mod software;

pub use frame::{AexCause, HostThread};
use occlum_sgx::ssa::Gprsgx;

/// What goes in with EENTER (the first three) and comes out with EEXIT (all).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
}

/// How the enclave was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// EEXIT; the registers hold what it passed.
    Eexit,
    /// Asynchronously, by an exception or an interrupt.
    Aex(AexCause),
}

/// The instruction would raise #GP, or the enclave broke the rules on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("EENTER: no SSA frame is free (CSSA {cssa}, NSSA {nssa})")]
    NoFrame { cssa: u32, nssa: u32 },
    #[error("ERESUME: no SSA frame is in use")]
    NothingToResume,
    #[error("the enclave left by EEXIT without restoring RSP")]
    LeftAstray,
}

pub trait Cpu {
    /// EENTER through this processor's TCS.
    fn enter(&mut self, registers: &mut Registers) -> Result<Exit, Refused>;

    /// ERESUME of the frame that was saved last; `registers` receives what a later EEXIT passes.
    fn resume(&mut self, registers: &mut Registers) -> Result<Exit, Refused>;

    /// The registers saved in an SSA frame, if the enclave was built to be debugged.
    fn saved_registers(&self, frame: u32) -> Option<Gprsgx>;
}
