//! Intel SGX as data: the structures of the Software Developer's Manual (SDM, volume 3D), what is
//! measured, what is signed, and how keys and reports come about. No instruction is executed here.
//!
//! | to do this | use |
//! |---|---|
//! | read or write an enclave image | [`sgxs::Reader`], [`sgxs::Writer`] |
//! | compute MRENCLAVE | [`measure::Measurement`] |
//! | make, sign and verify a SIGSTRUCT | [`sigstruct::SigStruct`] |
//! | decide what ECREATE, EADD and EINIT would | [`ecreate::check`], [`secinfo::SecInfo::check_eadd`], [`einit::check`] |
//! | EREPORT, EGETKEY of a simulated CPU | [`keys::SimulatedCpu`] |
//!
//! The structures are plain bytes (`repr(C)`, alignment 1, little-endian fields), so they are read
//! from and written to memory without copying: [`FromBytes`], [`FromZeros`] and [`IntoBytes`] do it.
//! Integer fields have `get()` and `set()`. Reserved bytes are private; where the architecture wants
//! them zero, the type's `check` says so.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod attributes;
pub mod ecreate;
pub mod einit;
pub mod keyrequest;
pub mod keys;
pub mod measure;
pub mod report;
mod rsa;
pub mod secinfo;
pub mod secs;
pub mod sgxs;
pub mod sigstruct;
pub mod ssa;
pub mod tcs;

pub use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes of one enclave page.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes that one EEXTEND measures.
pub const CHUNK_SIZE: u64 = 256;
