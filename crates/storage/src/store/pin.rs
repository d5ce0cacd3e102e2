//! [`Pin`]: what somebody keeps elsewhere to refuse an older store.

use core::fmt;
use core::str::FromStr;

use super::error::{Result, StoreError};
use super::pointer::{TAG_SIZE, Tag};

/// Store id (16), seq (8) and tag (16) of a commit; written as 80 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    pub store_id: [u8; 16],
    pub seq: u64,
    pub tag: Tag,
}

const SIZE: usize = 16 + 8 + TAG_SIZE;

impl Pin {
    /// Whether a store whose last commit is `found` is this one or a later one.
    pub fn check(&self, found: &Pin) -> Result<()> {
        if self.store_id != found.store_id {
            return Err(StoreError::OtherStore);
        }
        if found.seq < self.seq || found.seq == self.seq && found.tag != self.tag {
            return Err(StoreError::RolledBack {
                pinned: self.seq,
                found: found.seq,
            });
        }
        Ok(())
    }

    fn bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..16].copy_from_slice(&self.store_id);
        bytes[16..24].copy_from_slice(&self.seq.to_be_bytes());
        bytes[24..].copy_from_slice(&self.tag);
        bytes
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Pin {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Pin> {
        let mut bytes = [0; SIZE];
        if text.len() != 2 * SIZE || !text.is_ascii() {
            return Err(StoreError::Invalid);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let digits = core::str::from_utf8(digits).map_err(|_| StoreError::Invalid)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| StoreError::Invalid)?;
        }
        let mut pin = Pin {
            store_id: [0; 16],
            seq: 0,
            tag: [0; TAG_SIZE],
        };
        let mut seq = [0; 8];
        pin.store_id.copy_from_slice(&bytes[..16]);
        seq.copy_from_slice(&bytes[16..24]);
        pin.seq = u64::from_be_bytes(seq);
        pin.tag.copy_from_slice(&bytes[24..]);
        Ok(pin)
    }
}
