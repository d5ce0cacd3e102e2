//! Little-endian fields in a row, read with bounds.

use alloc::boxed::Box;

use super::error::{Result, StoreError};
use super::pointer::{POINTER_SIZE, Pointer};

pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn bytes(&mut self, size: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .rest
            .split_at_checked(size)
            .ok_or(StoreError::Malformed("a record ends early"))?;
        self.rest = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn pointer(&mut self) -> Result<Pointer> {
        Ok(Pointer::parse(&self.array::<POINTER_SIZE>()?))
    }

    /// A length byte and a name of 1 to 255 bytes.
    pub fn name(&mut self) -> Result<Box<[u8]>> {
        let size = usize::from(self.u8()?);
        if size == 0 {
            return Err(StoreError::Malformed("a name is empty"));
        }
        self.bytes(size).map(Box::from)
    }

    pub fn end(&self) -> Result<()> {
        match self.rest {
            [] => Ok(()),
            _ => Err(StoreError::Malformed("a record is too long")),
        }
    }
}
