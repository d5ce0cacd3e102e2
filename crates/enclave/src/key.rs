//! EGETKEY: keys that only this enclave, or only enclaves of one signer, can get.

use core::arch::asm;

use occlum_abi::layout::SIM_ENCLU_GATE;

use crate::start;

const EGETKEY: u32 = 1;

/// KEYREQUEST, aligned as the instruction demands.
#[derive(Clone, Debug)]
#[repr(C, align(512))]
pub struct AlignedRequest(pub [u8; 512]);

#[repr(C, align(16))]
struct Output([u8; 16]);

/// The CPU refused; the number is EGETKEY's error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError(pub u32);

/// The key that `request` (KEYREQUEST, SDM volume 3, 35.17) describes.
pub fn egetkey(request: &AlignedRequest) -> Result<[u8; 16], KeyError> {
    let mut output = Output([0; 16]);
    let error = enclu(EGETKEY, &raw const *request as u64, &raw mut output as u64);
    if error == 0 { Ok(output.0) } else { Err(KeyError(error)) }
}

/// ENCLU with a leaf that returns; gives RAX.
fn enclu(leaf: u32, rbx: u64, rcx: u64) -> u32 {
    let error: u64;
    // SAFETY: EGETKEY reads the request and writes the key, both owned by the caller. RBX is the compiler's, so
    // it is swapped in and out. The software CPU's gate keeps every register but RAX, R11 and flags.
    unsafe {
        if start::is_simulated() {
            asm!(
                "xchg {rbx}, rbx", "call {gate}", "xchg {rbx}, rbx",
                rbx = inout(reg) rbx => _, gate = in(reg) SIM_ENCLU_GATE,
                inout("rax") u64::from(leaf) => error, in("rcx") rcx, out("r11") _,
            );
        } else {
            asm!(
                "xchg {rbx}, rbx", ".byte 0x0f, 0x01, 0xd7", "xchg {rbx}, rbx",
                rbx = inout(reg) rbx => _, inout("rax") u64::from(leaf) => error, in("rcx") rcx,
            );
        }
    }
    error as u32
}
