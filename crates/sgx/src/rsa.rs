//! RSA-3072 with exponent 3, as far as SIGSTRUCT needs it: public values only, so nothing here has
//! to take constant time.
//!
//! Q1 and Q2 spare EINIT its divisions: with S the signature and N the modulus,
//! `Q1 = S*S div N` and `Q2 = (S*S*S - Q1*S*N) div N`, which is `S * (S*S mod N) div N`.

use crypto_bigint::{NonZero, U3072, U6144};

const SIZE: usize = 384;
type Number = [u8; SIZE];

/// DER of DigestInfo for SHA-256, up to the digest (RFC 8017, section 9.2).
const SHA256_DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// What a signature says under the public key.
pub struct Opened {
    pub q1: Number,
    pub q2: Number,
    /// The encoded message, big-endian: compare with [`encoded`].
    pub message: Number,
}

/// Computes `S*S*S mod N`, and Q1 and Q2 on the way. All numbers are little-endian. `None` if the
/// signature is not a number below the modulus.
pub fn open(modulus: &Number, signature: &Number) -> Option<Opened> {
    let modulus: NonZero<U3072> = Option::from(NonZero::new(U3072::from_le_slice(modulus)))?;
    let signature = U3072::from_le_slice(signature);
    if signature >= *modulus {
        return None;
    }
    let (q1, square) = multiply_and_divide(&signature, &signature, &modulus);
    let (q2, cube) = multiply_and_divide(&signature, &square, &modulus);
    Some(Opened {
        q1: q1.to_le_bytes().into(),
        q2: q2.to_le_bytes().into(),
        message: cube.to_be_bytes().into(),
    })
}

/// EMSA-PKCS1-v1_5 of a message with this SHA-256, big-endian.
pub fn encoded(sha256: &[u8; 32]) -> Number {
    let mut message = [0xFF; SIZE];
    let digest_info = SIZE - 32 - SHA256_DIGEST_INFO.len();
    message[0] = 0;
    message[1] = 1;
    message[digest_info - 1] = 0;
    message[digest_info..SIZE - 32].copy_from_slice(&SHA256_DIGEST_INFO);
    message[SIZE - 32..].copy_from_slice(sha256);
    message
}

/// Quotient and remainder of `a * b / modulus`, for `a` and `b` below the modulus.
fn multiply_and_divide(a: &U3072, b: &U3072, modulus: &NonZero<U3072>) -> (U3072, U3072) {
    let product: U6144 = a.concatenating_mul(b);
    let (quotient, remainder) = product.div_rem_vartime(modulus);
    (quotient.resize(), remainder)
}
