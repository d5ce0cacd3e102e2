//! KEYREQUEST: which key EGETKEY is to derive, and what from.
//!
//! ```text
//!  0 KEYNAME u16    2 KEYPOLICY u16   4 ISVSVN u16   8 CPUSVN[16]   24 ATTRIBUTEMASK[16]
//! 40 KEYID[32]     72 MISCMASK u32   76 CONFIGSVN u16               78..512 reserved, zero
//! ```

use crate::attributes::Attributes;
use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum KeyName {
    EinitToken = 0,
    Provision = 1,
    ProvisionSeal = 2,
    Report = 3,
    Seal = 4,
}

bitflags! {
    /// What else a seal key depends on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KeyPolicy: u16 {
        const MRENCLAVE = 1 << 0;
        const MRSIGNER = 1 << 1;
        const NOISVPRODID = 1 << 2;
        const CONFIGID = 1 << 3;
        const ISVFAMILYID = 1 << 4;
        const ISVEXTPRODID = 1 << 5;
        /// What only an enclave with the KSS attribute may ask for.
        const KSS = 0b11_1100;
    }
}

/// KEYREQUEST, 512 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct KeyRequest {
    pub name: U16,
    pub policy: U16,
    pub isv_svn: U16,
    reserved_6: [u8; 2],
    pub cpu_svn: [u8; 16],
    pub attribute_mask: Attributes,
    pub key_id: [u8; 32],
    pub misc_mask: U32,
    pub config_svn: U16,
    reserved_78: [u8; 434],
}

const _: () = assert!(size_of::<KeyRequest>() == 512);

impl KeyRequest {
    pub fn new(name: KeyName, policy: KeyPolicy) -> KeyRequest {
        KeyRequest {
            name: (name as u16).into(),
            policy: policy.bits().into(),
            ..KeyRequest::new_zeroed()
        }
    }

    pub fn name(&self) -> Option<KeyName> {
        match self.name.get() {
            0 => Some(KeyName::EinitToken),
            1 => Some(KeyName::Provision),
            2 => Some(KeyName::ProvisionSeal),
            3 => Some(KeyName::Report),
            4 => Some(KeyName::Seal),
            _ => None,
        }
    }

    /// `None` if reserved bits are set.
    pub fn policy(&self) -> Option<KeyPolicy> {
        KeyPolicy::from_bits(self.policy.get())
    }

    pub(crate) fn reserved_is_zero(&self) -> bool {
        self.reserved_6 == [0; 2] && self.reserved_78.iter().all(|&byte| byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_stand_where_the_sdm_says() {
        assert_eq!(offset_of!(KeyRequest, isv_svn), 4);
        assert_eq!(offset_of!(KeyRequest, cpu_svn), 8);
        assert_eq!(offset_of!(KeyRequest, attribute_mask), 24);
        assert_eq!(offset_of!(KeyRequest, key_id), 40);
        assert_eq!(offset_of!(KeyRequest, misc_mask), 72);
        assert_eq!(offset_of!(KeyRequest, config_svn), 76);
    }
}
