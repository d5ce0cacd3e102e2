//! File-system formats for storage that nobody inside the enclave trusts.
//!
//! - [`image`]: the hashed read-only image, `docs/format/image.md`
//! - [`sealing`]: the key of a store from the keys of the CPU
//! - [`store`]: the encrypted read-write store, `docs/format/store.md`
//!
//! A leaf of the project: no knowledge of the kernel, of the host or of Python. Readers are
//! `no_std` and run in the enclave; writers (feature `writer`) run at build time.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "writer"))]
extern crate std;

pub mod image;
pub mod sealing;
pub mod store;
