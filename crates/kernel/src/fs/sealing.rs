//! Keys of stores that the CPU keeps for this enclave.
//!
//! EGETKEY gives 128 bits; two of them, under two key ids, make a store's 256 (see docs/design/files.md). No
//! security version is asked for: a newer version of the program, or of the CPU, must find its data.

use occlum_abi::boot::SealPolicy;
use occlum_enclave::key::{self, AlignedRequest, KeyError};
use occlum_enclave::vector;
use occlum_storage::sealing::{self, KEY_IDS};

/// ```text
/// KEYREQUEST: 0 KEYNAME u16  2 KEYPOLICY u16  8 CPUSVN[16]  24 ATTRIBUTEMASK[16]  40 KEYID[32]
/// ```
const SEAL: u8 = 4;
const MRENCLAVE: u8 = 1;
const MRSIGNER: u8 = 2;
/// INIT and DEBUG: an enclave that can be looked into gets other keys.
const ATTRIBUTE_MASK: u8 = 3;

/// The store key of this enclave under `policy`.
pub fn store_key(policy: SealPolicy) -> Result<[u8; 32], KeyError> {
    let mut halves = [[0; 16]; 2];
    for (half, id) in halves.iter_mut().zip(KEY_IDS) {
        *half = key::egetkey(&request(policy, id))?;
    }
    Ok(vector::wide(|| sealing::store_key(&halves)))
}

fn request(policy: SealPolicy, id: &[u8; 32]) -> AlignedRequest {
    let mut request = AlignedRequest([0; 512]);
    request.0[0] = SEAL;
    request.0[2] = match policy {
        SealPolicy::Mrsigner => MRSIGNER,
        SealPolicy::Mrenclave => MRENCLAVE,
    };
    request.0[24] = ATTRIBUTE_MASK;
    request.0[40..72].copy_from_slice(id);
    request
}
