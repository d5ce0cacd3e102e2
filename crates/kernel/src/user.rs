//! User memory as system calls see it: an address is an allegation until a copy succeeds.
//!
//! A copy that faults asks the memory manager of the current process to make the page present
//! (lazily loaded files, copy-on-write) and goes on; what it can't provide is EFAULT.

use core::marker::PhantomData;

use alloc::vec;
use alloc::vec::Vec;
use occlum_abi::Errno;
use occlum_enclave::usermem::Fault;
use zerocopy::IntoBytes;

use crate::error::{Error, Result, err};
use crate::mm::{self, residency};

/// An address the application gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct UserAddr(pub usize);

impl UserAddr {
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// `self + offset`; wraps into an address that faults.
    pub fn offset(self, offset: usize) -> UserAddr {
        UserAddr(self.0.checked_add(offset).unwrap_or(usize::MAX))
    }
}

/// What may be copied from and to user memory: plain data without padding or invalid values.
pub trait Plain: Copy + Default + zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable {}

impl<T: Copy + Default + zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable> Plain for T {}

/// `count` values of `T` that the application claims to have at an address.
#[derive(Clone, Copy, Debug)]
pub struct UserSlice<T> {
    addr: UserAddr,
    count: usize,
    marker: PhantomData<T>,
}

impl<T: Plain> UserSlice<T> {
    pub fn new(addr: UserAddr, count: usize) -> UserSlice<T> {
        UserSlice { addr, count, marker: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Copies all values in; EFAULT, or ENOMEM for more than the kernel can hold.
    pub fn copy_in(&self) -> Result<Vec<T>> {
        let mut values: Vec<T> = Vec::new();
        values.try_reserve_exact(self.count).map_err(|_| Error::new(Errno::ENOMEM, "user slice too long"))?;
        values.resize(self.count, T::default());
        read_bytes(self.addr, values.as_mut_slice().as_mut_bytes())?;
        Ok(values)
    }

    /// Copies `values` out; no more than the slice holds.
    pub fn copy_out(&self, values: &[T]) -> Result<()> {
        let count = values.len().min(self.count);
        write_bytes(self.addr, values[..count].as_bytes())
    }
}

/// Reads one value.
pub fn read<T: Plain>(addr: UserAddr) -> Result<T> {
    let mut value = T::default();
    read_bytes(addr, value.as_mut_bytes())?;
    Ok(value)
}

/// Writes one value.
pub fn write<T: Plain>(addr: UserAddr, value: &T) -> Result<()> {
    write_bytes(addr, value.as_bytes())
}

/// Fills `buf` from user memory.
pub fn read_bytes(addr: UserAddr, buf: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match residency::read(addr.offset(done).0, &mut buf[done..]) {
            Ok(()) => return Ok(()),
            Err(fault) => done = resolve(addr, fault, buf.len(), mm::Access::Read)?,
        }
    }
    Ok(())
}

/// Copies `bytes` to user memory.
pub fn write_bytes(addr: UserAddr, bytes: &[u8]) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match residency::write(addr.offset(done).0, &bytes[done..]) {
            Ok(()) => return Ok(()),
            Err(fault) => done = resolve(addr, fault, bytes.len(), mm::Access::Write)?,
        }
    }
    Ok(())
}

/// Zeroes user memory.
pub fn zero(addr: UserAddr, size: usize) -> Result<()> {
    let mut done = 0;
    while done < size {
        match residency::fill(addr.offset(done).0, 0, size - done) {
            Ok(()) => return Ok(()),
            Err(fault) => done = resolve(addr, fault, size, mm::Access::Write)?,
        }
    }
    Ok(())
}

/// Reads an aligned 32-bit word atomically (futex).
pub fn load_u32(addr: UserAddr) -> Result<u32> {
    check_word(addr)?;
    loop {
        match residency::load_u32(addr.0) {
            Ok(value) => return Ok(value),
            Err(fault) => resolve(addr, fault, 4, mm::Access::Read)?,
        };
    }
}

/// Compares and exchanges an aligned 32-bit word; gives the value found there.
pub fn compare_exchange_u32(addr: UserAddr, expected: u32, new: u32) -> Result<u32> {
    check_word(addr)?;
    loop {
        match residency::compare_exchange_u32(addr.0, expected, new) {
            Ok(value) => return Ok(value),
            Err(fault) => resolve(addr, fault, 4, mm::Access::Write)?,
        };
    }
}

/// No present page makes an unaligned word atomic.
fn check_word(addr: UserAddr) -> Result<()> {
    if addr.0.is_multiple_of(4) { Ok(()) } else { err(Errno::EFAULT, "unaligned word") }
}

/// A NUL-terminated string of at most `max` bytes, without the NUL; `too_long` if there is no NUL.
pub fn read_c_string(addr: UserAddr, max: usize, too_long: Errno) -> Result<Vec<u8>> {
    const CHUNK: usize = 256;
    let mut text = Vec::new();
    let mut chunk = vec![0; CHUNK];
    while text.len() <= max {
        let at = addr.offset(text.len());
        // Never cross a page that the string may not reach.
        let size = (4096 - at.0 % 4096).min(CHUNK);
        read_bytes(at, &mut chunk[..size])?;
        if let Some(end) = chunk[..size].iter().position(|&byte| byte == 0) {
            text.extend_from_slice(&chunk[..end]);
            return if text.len() > max { err(too_long, "string too long") } else { Ok(text) };
        }
        text.extend_from_slice(&chunk[..size]);
    }
    err(too_long, "string without end")
}

/// Makes the page at `address` present for an access that faulted; EFAULT if there is nothing to access.
pub fn make_present(address: usize, access: mm::Access) -> Result<()> {
    if mm::resolve_fault(address, access) {
        return Ok(());
    }
    err(Errno::EFAULT, "bad user address")
}

/// After a fault: bytes that are done, if the memory manager could make the page present.
fn resolve(start: UserAddr, fault: Fault, size: usize, access: mm::Access) -> Result<usize> {
    let done = fault.address.saturating_sub(start.0).min(size);
    if mm::resolve_fault(fault.address, access) {
        return Ok(done);
    }
    err(Errno::EFAULT, "bad user address")
}
