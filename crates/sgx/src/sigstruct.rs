//! SIGSTRUCT: the signature over an enclave and over what it may be created with.
//!
//! ```text
//!    0 HEADER         16 VENDOR u32    20 DATE u32 (BCD yyyymmdd)    24 HEADER2     40 SWDEFINED u32
//!  128 MODULUS[384]  512 EXPONENT u32 516 SIGNATURE[384]
//!  900 MISCSELECT    904 MISCMASK     912 ISVFAMILYID[16]  928 ATTRIBUTES   944 ATTRIBUTEMASK
//!  960 ENCLAVEHASH  1008 ISVEXTPRODID 1024 ISVPRODID u16  1026 ISVSVN u16
//! 1040 Q1[384]      1424 Q2[384]      1808 end
//! ```
//! Signed are bytes [0, 128) and [900, 1028), with RSA-3072, exponent 3, PKCS #1 v1.5, SHA-256. Big
//! integers are little-endian.
//!
//! Life cycle: [`SigStruct::unsigned`], fill the fields, sign [`SigStruct::signed_bytes`] elsewhere
//! (private keys never come here), [`SigStruct::attach`] the result; later [`SigStruct::parse`] and
//! [`SigStruct::verify`].

use crate::attributes::{Attributes, Miscselect, Xfrm};
use crate::rsa;
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const HEADER: [u8; 16] = [6, 0, 0, 0, 0xE1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
const HEADER2: [u8; 16] = [1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0];
const EXPONENT: u32 = 3;
const VENDOR_INTEL: u32 = 0x8086;

/// Bytes of an RSA-3072 number.
pub const RSA_SIZE: usize = 384;
pub const SIGSTRUCT_SIZE: usize = size_of::<SigStruct>();

/// SIGSTRUCT, 1808 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SigStruct {
    header: [u8; 16],
    /// 0, or 0x8086 for Intel's own enclaves.
    pub vendor: U32,
    /// BCD: 0x20261122 is 22 November 2026.
    pub date: U32,
    header2: [u8; 16],
    pub sw_defined: U32,
    reserved_44: [u8; 84],
    pub modulus: [u8; RSA_SIZE],
    exponent: U32,
    pub signature: [u8; RSA_SIZE],
    pub miscselect: U32,
    pub misc_mask: U32,
    reserved_908: [u8; 4],
    pub isv_family_id: [u8; 16],
    pub attributes: Attributes,
    pub attribute_mask: Attributes,
    pub enclave_hash: [u8; 32],
    reserved_992: [u8; 16],
    pub isv_ext_prod_id: [u8; 16],
    pub isv_prod_id: U16,
    pub isv_svn: U16,
    reserved_1028: [u8; 12],
    pub q1: [u8; RSA_SIZE],
    pub q2: [u8; RSA_SIZE],
}

const _: () = assert!(size_of::<SigStruct>() == 1808);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigStructError {
    #[error("a SIGSTRUCT has 1808 bytes, not {0}")]
    Size(usize),
    #[error("{0} of the SIGSTRUCT is not what the architecture fixes")]
    Format(Field),
    #[error("the SIGSTRUCT's RSA signature does not verify")]
    Signature,
}

/// A field whose value the architecture fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Field {
    #[error("HEADER")]
    Header,
    #[error("VENDOR")]
    Vendor,
    #[error("HEADER2")]
    Header2,
    #[error("EXPONENT")]
    Exponent,
    #[error("a reserved field")]
    Reserved,
}

impl SigStruct {
    /// Nothing but the fixed fields.
    pub fn unsigned() -> SigStruct {
        SigStruct {
            header: HEADER,
            header2: HEADER2,
            exponent: EXPONENT.into(),
            ..SigStruct::new_zeroed()
        }
    }

    /// A SIGSTRUCT with sound fixed fields; its signature is [`SigStruct::verify`]'s business.
    pub fn parse(bytes: &[u8]) -> Result<&SigStruct, SigStructError> {
        let sigstruct =
            SigStruct::ref_from_bytes(bytes).map_err(|_| SigStructError::Size(bytes.len()))?;
        sigstruct.check_format()?;
        Ok(sigstruct)
    }

    /// The fixed and reserved fields.
    pub fn check_format(&self) -> Result<(), SigStructError> {
        let checks = [
            (self.header == HEADER, Field::Header),
            (matches!(self.vendor.get(), 0 | VENDOR_INTEL), Field::Vendor),
            (self.header2 == HEADER2, Field::Header2),
            (self.exponent.get() == EXPONENT, Field::Exponent),
            (self.reserved_is_zero(), Field::Reserved),
        ];
        match checks.iter().find(|(is_sound, _)| !is_sound) {
            Some((_, field)) => Err(SigStructError::Format(*field)),
            None => Ok(()),
        }
    }

    /// The fixed fields, then the RSA signature with Q1 and Q2: EINIT's first two checks.
    pub fn verify(&self) -> Result<(), SigStructError> {
        self.check_format()?;
        self.verify_signature()
    }

    /// The 256 bytes that are signed.
    pub fn signed_bytes(&self) -> [u8; 256] {
        let bytes = self.as_bytes();
        let mut signed = [0; 256];
        signed[..128].copy_from_slice(&bytes[..128]);
        signed[128..].copy_from_slice(&bytes[900..1028]);
        signed
    }

    /// Puts modulus and signature (both little-endian) in place and computes Q1 and Q2. A signature
    /// that does not verify is refused.
    pub fn attach(
        mut self,
        modulus: &[u8; RSA_SIZE],
        signature: &[u8; RSA_SIZE],
    ) -> Result<SigStruct, SigStructError> {
        let opened = rsa::open(modulus, signature).ok_or(SigStructError::Signature)?;
        self.modulus = *modulus;
        self.signature = *signature;
        self.q1 = opened.q1;
        self.q2 = opened.q2;
        self.verify()?;
        Ok(self)
    }

    /// MRSIGNER: the hash of the modulus.
    pub fn mrsigner(&self) -> [u8; 32] {
        Sha256::digest(self.modulus).into()
    }

    /// ATTRIBUTES to create the enclave with on a CPU that has `cpu_xfrm` enabled. State components
    /// that the signature does not fix are taken when it names them and the CPU has them; all else is
    /// as signed.
    pub fn attributes_on(&self, cpu_xfrm: Xfrm) -> Attributes {
        let fixed = self.attribute_mask.xfrm.get();
        let offered = fixed | cpu_xfrm.bits();
        let wanted = Attributes {
            flags: self.attributes.flags,
            xfrm: (self.attributes.xfrm.get() & offered).into(),
        };
        Attributes {
            xfrm: drop_split_parts(wanted.xfrm()).bits().into(),
            ..wanted
        }
    }

    pub fn miscselect(&self) -> Miscselect {
        Miscselect::from_bits_retain(self.miscselect.get())
    }

    fn verify_signature(&self) -> Result<(), SigStructError> {
        let opened = rsa::open(&self.modulus, &self.signature).ok_or(SigStructError::Signature)?;
        let message = rsa::encoded(&Sha256::digest(self.signed_bytes()).into());
        if (opened.q1, opened.q2, opened.message) != (self.q1, self.q2, message) {
            return Err(SigStructError::Signature);
        }
        Ok(())
    }

    fn reserved_is_zero(&self) -> bool {
        self.reserved_44 == [0; 84]
            && self.reserved_908 == [0; 4]
            && self.reserved_992 == [0; 16]
            && self.reserved_1028 == [0; 12]
    }
}

/// Without those AVX-512, AMX or MPX parts of which only some are there.
fn drop_split_parts(xfrm: Xfrm) -> Xfrm {
    let whole = |part: Xfrm| {
        if xfrm.contains(part) {
            Xfrm::empty()
        } else {
            part
        }
    };
    xfrm.difference(whole(Xfrm::AVX512))
        .difference(whole(Xfrm::AMX))
        .difference(whole(Xfrm::MPX))
}
