//! CPU features for cryptographic crates inside the enclave, without CPUID.
//!
//! Which features may be used is decided once at start by [`allow`], from the vector state the enclave
//! was given (XFRM) and what every CPU with SGX has. Until then nothing beyond the baseline is used.
#![no_std]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

static ALLOWED: AtomicU64 = AtomicU64::new(0);

/// XFRM bits: AVX state; opmask, upper ZMM halves and upper ZMM registers.
const XFRM_AVX: u64 = 1 << 2;
const XFRM_AVX512: u64 = 0b111 << 5;

const BASELINE: u64 = 1 << 0;
const SGX_CPU: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const AVX512: u64 = 1 << 3;

/// Allows what a CPU with SGX and this XFRM has.
pub fn allow(xfrm: u64) {
    let mut allowed = BASELINE | SGX_CPU;
    if xfrm & XFRM_AVX != 0 {
        allowed |= AVX;
    }
    if xfrm & XFRM_AVX512 == XFRM_AVX512 {
        allowed |= AVX512;
    }
    ALLOWED.store(allowed, Ordering::Relaxed);
}

/// The class a target feature belongs to; 0 for one that is never used here.
const fn class_of(feature: &str) -> u64 {
    match feature.as_bytes() {
        b"sse" | b"sse2" => BASELINE,
        b"sse3" | b"ssse3" | b"sse4.1" | b"sse4.2" | b"aes" | b"pclmulqdq" | b"rdrand"
        | b"rdseed" | b"popcnt" => SGX_CPU,
        b"avx" | b"avx2" | b"bmi1" | b"bmi2" => AVX,
        b"avx512f" | b"avx512vl" => AVX512,
        _ => 0,
    }
}

/// Whether all of `features` may be used.
pub fn has(features: &[&str]) -> bool {
    let allowed = ALLOWED.load(Ordering::Relaxed);
    features.iter().all(|feature| {
        let class = class_of(feature);
        class != 0 && allowed & class == class
    })
}

/// `new!(name, "feature", ...)`: a module that says whether the features may be used.
#[macro_export]
macro_rules! new {
    ($name:ident, $($feature:tt),+ $(,)?) => {
        mod $name {
            /// Proof that the question was asked.
            #[derive(Copy, Clone, Debug)]
            pub struct InitToken(());

            #[allow(dead_code)]
            impl InitToken {
                pub fn init() -> Self {
                    InitToken(())
                }

                pub fn init_get() -> (Self, bool) {
                    (InitToken(()), get())
                }

                pub fn get(&self) -> bool {
                    get()
                }
            }

            #[allow(dead_code)]
            pub fn init_get() -> (InitToken, bool) {
                (InitToken(()), get())
            }

            #[allow(dead_code)]
            pub fn init() -> InitToken {
                InitToken(())
            }

            #[allow(dead_code)]
            pub fn get() -> bool {
                $crate::has(&[$($feature),+])
            }
        }
    };
}
