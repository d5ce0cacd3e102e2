//! Randomness from the CPU, the only source the host can't choose.

use core::arch::x86_64::_rdrand64_step;

/// One value from RDRAND.
///
/// # Panics
/// If RDRAND fails 1,000 times in a row: the CPU is broken, and nothing here may go on without it.
pub fn hardware_u64() -> u64 {
    for _ in 0..1000 {
        let mut value = 0;
        // SAFETY: every CPU with SGX has RDRAND; the software CPU's loader checks for it.
        if unsafe { rdrand(&mut value) } {
            return value;
        }
        core::hint::spin_loop();
    }
    panic!("RDRAND does not deliver");
}

#[target_feature(enable = "rdrand")]
fn rdrand(value: &mut u64) -> bool {
    _rdrand64_step(value) == 1
}
