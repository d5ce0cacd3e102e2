//! The key of a store from the CPU's seal keys. In a file of its own because the kernel (EGETKEY) and the owner of
//! a simulated instance (the simulated CPU) must come to the same.

/// KEYIDs of the two seal keys of 128 bits from which one store key is made.
pub const KEY_IDS: [&[u8; 32]; 2] = [
    b"occlum store key 1, first half  ",
    b"occlum store key 1, second half ",
];

/// BLAKE3 in key-derivation mode over both seal keys, in the order of [`KEY_IDS`].
pub fn store_key(seal_keys: &[[u8; 16]; 2]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("occlum store key 1: from seal keys");
    for key in seal_keys {
        hasher.update(key);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_count() {
        let [one, other] = [[1; 16], [2; 16]];
        assert_ne!(store_key(&[one, other]), store_key(&[other, one]));
        assert_ne!(store_key(&[one, other]), store_key(&[one, one]));
    }
}
