//! Copies between kernel memory and user memory. User memory is never a Rust reference: it may be
//! unmapped, and other threads of the program write it at any time.
//!
//! These are the raw doors; they know the user *range*, not any process's mappings. The kernel wraps
//! them in its typed `UserSlice`, which asks the memory manager when a copy faults.

use occlum_abi::layout::{USER_BASE, USER_END};

use crate::copy;
use crate::host::HostSlice;

/// A user address that could not be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// First address not accessed.
    pub address: usize,
}

fn check(addr: usize, size: usize) -> Result<(), Fault> {
    let in_range = addr >= USER_BASE && size <= USER_END && addr <= USER_END - size;
    if in_range { Ok(()) } else { Err(Fault { address: addr }) }
}

/// Copies `buf.len()` bytes from user memory. On a fault a prefix of `buf` has been written.
pub fn read(addr: usize, buf: &mut [u8]) -> Result<(), Fault> {
    check(addr, buf.len())?;
    // SAFETY: the destination is ours; the source lies in the user range, which holds no kernel
    // object, and a fault there is reported.
    let left = unsafe { copy::copy_unowned(buf.as_mut_ptr(), addr as *const u8, buf.len()) };
    done(addr, buf.len(), left)
}

/// Copies `bytes` to user memory. On a fault a prefix has been written.
pub fn write(addr: usize, bytes: &[u8]) -> Result<(), Fault> {
    check(addr, bytes.len())?;
    // SAFETY: as in `read`, the other way round: user memory holds no kernel object.
    let left = unsafe { copy::copy_unowned(addr as *mut u8, bytes.as_ptr(), bytes.len()) };
    done(addr, bytes.len(), left)
}

/// Copies user memory out of the enclave, to the start of `to`: data of a call whose content the
/// program has given to the host. On a fault a prefix has been written; what the fault is at, host
/// memory included, looks the same.
pub fn copy_to_host(addr: usize, to: &HostSlice) -> Result<(), Fault> {
    check(addr, to.size())?;
    // SAFETY: the source lies in the user range, the destination outside the enclave.
    let left = unsafe { copy::copy_unowned(to.addr() as *mut u8, addr as *const u8, to.size()) };
    done(addr, to.size(), left)
}

/// Copies all of `from` to user memory, in one pass: the host may change it at any time.
pub fn copy_from_host(addr: usize, from: &HostSlice) -> Result<(), Fault> {
    check(addr, from.size())?;
    // SAFETY: as in `copy_to_host`, the other way round.
    let left = unsafe { copy::copy_unowned(addr as *mut u8, from.addr() as *const u8, from.size()) };
    done(addr, from.size(), left)
}

/// Fills user memory with `byte`.
pub fn fill(addr: usize, byte: u8, size: usize) -> Result<(), Fault> {
    check(addr, size)?;
    // SAFETY: as in `write`.
    let left = unsafe { copy::fill_unowned(addr as *mut u8, byte, size) };
    done(addr, size, left)
}

/// Copies between two user ranges (which must not overlap). On a fault the address is unspecified
/// within either range.
pub fn copy(dst: usize, src: usize, size: usize) -> Result<(), Fault> {
    check(dst, size)?;
    check(src, size)?;
    // SAFETY: both ranges lie in the user range.
    let left = unsafe { copy::copy_unowned(dst as *mut u8, src as *const u8, size) };
    done(dst, size, left)
}

/// Reads an aligned 32-bit word in one access.
pub fn load_u32(addr: usize) -> Result<u32, Fault> {
    check_word(addr)?;
    // SAFETY: as in `read`.
    let result = unsafe { copy::load_unowned(addr as *const u32) };
    atomic_result(addr, result)
}

/// Compares and exchanges an aligned 32-bit word; gives the value found there.
pub fn compare_exchange_u32(addr: usize, expected: u32, new: u32) -> Result<u32, Fault> {
    check_word(addr)?;
    // SAFETY: as in `write`.
    let result = unsafe { copy::cas_unowned(addr as *mut u32, expected, new) };
    atomic_result(addr, result)
}

fn check_word(addr: usize) -> Result<(), Fault> {
    if !addr.is_multiple_of(4) {
        return Err(Fault { address: addr });
    }
    check(addr, 4)
}

fn atomic_result(addr: usize, result: copy::Atomic32) -> Result<u32, Fault> {
    if result.faulted != 0 {
        return Err(Fault { address: addr });
    }
    Ok(result.value as u32)
}

fn done(addr: usize, size: usize, left: usize) -> Result<(), Fault> {
    if left == 0 { Ok(()) } else { Err(Fault { address: addr + (size - left) }) }
}
