//! Where wide vector instructions (AVX and beyond) are allowed in the kernel.
//!
//! The kernel is compiled for baseline x86-64, whose instructions keep the upper halves of the
//! user's vector registers. Cryptography selects wider code at run time, which does not; it runs
//! only inside [`wide`].

use crate::user;

/// Runs `body`, which may use any vector instruction the enclave's XFRM allows. The user's vector
/// state is saved before if it is in the registers.
pub fn wide<R>(body: impl FnOnce() -> R) -> R {
    user::evict_resident();
    let result = body();
    user::reset_vector_registers(user::all_components());
    result
}
