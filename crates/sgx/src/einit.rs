//! EINIT: an enclave that is built becomes one that can be entered, if its SIGSTRUCT says so.

use crate::attributes::{AttributeFlags, Attributes};
use crate::secs::Secs;
use crate::sigstruct::{SigStruct, SigStructError};

/// Evidence of a successful EINIT: the identity that keys and reports are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enclave {
    /// With INIT, MRSIGNER, ISVPRODID and ISVSVN as EINIT sets them.
    pub secs: Secs,
    pub isv_family_id: [u8; 16],
    pub isv_ext_prod_id: [u8; 16],
}

/// In the order in which EINIT checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EinitError {
    #[error("{0}")]
    SigStruct(SigStructError),
    #[error("ISVFAMILYID and ISVEXTPRODID need the KSS attribute")]
    ProductIdsWithoutKss,
    #[error("the enclave's MRENCLAVE is {}, but {} was signed", Hex(.measured), Hex(.signed))]
    Measurement {
        measured: [u8; 32],
        signed: [u8; 32],
    },
    #[error(
        "the enclave's ATTRIBUTES {has:x?} are not the signed ones, {signed:x?} under mask {mask:x?}"
    )]
    Attributes {
        has: Attributes,
        signed: Attributes,
        mask: Attributes,
    },
    #[error(
        "the enclave's MISCSELECT {has:#x} is not the signed one, {signed:#x} under mask {mask:#x}"
    )]
    Miscselect { has: u32, signed: u32, mask: u32 },
}

impl EinitError {
    /// The error code that EINIT leaves in RAX.
    pub fn code(&self) -> u32 {
        match self {
            EinitError::SigStruct(SigStructError::Signature) => 8,
            EinitError::SigStruct(_) | EinitError::ProductIdsWithoutKss => 1,
            EinitError::Measurement { .. } => 4,
            EinitError::Attributes { .. } | EinitError::Miscselect { .. } => 2,
        }
    }
}

/// EINIT of an enclave whose SECS holds the final MRENCLAVE, on a CPU under flexible launch control
/// (no launch token).
pub fn check(secs: &Secs, sigstruct: &SigStruct) -> Result<Enclave, EinitError> {
    sigstruct.verify().map_err(EinitError::SigStruct)?;
    check_product_ids(secs, sigstruct)?;
    check_measurement(secs, sigstruct)?;
    check_attributes(secs, sigstruct)?;
    check_miscselect(secs, sigstruct)?;
    Ok(initialised(secs, sigstruct))
}

fn check_product_ids(secs: &Secs, sigstruct: &SigStruct) -> Result<(), EinitError> {
    let has_ids = sigstruct.isv_family_id != [0; 16] || sigstruct.isv_ext_prod_id != [0; 16];
    if has_ids && !secs.attributes.contains(AttributeFlags::KSS) {
        return Err(EinitError::ProductIdsWithoutKss);
    }
    Ok(())
}

fn check_measurement(secs: &Secs, sigstruct: &SigStruct) -> Result<(), EinitError> {
    let (measured, signed) = (secs.mrenclave, sigstruct.enclave_hash);
    if measured != signed {
        return Err(EinitError::Measurement { measured, signed });
    }
    Ok(())
}

fn check_attributes(secs: &Secs, sigstruct: &SigStruct) -> Result<(), EinitError> {
    let (has, signed, mask) = (
        secs.attributes,
        sigstruct.attributes,
        sigstruct.attribute_mask,
    );
    if has.masked(&mask) != signed.masked(&mask) {
        return Err(EinitError::Attributes { has, signed, mask });
    }
    Ok(())
}

fn check_miscselect(secs: &Secs, sigstruct: &SigStruct) -> Result<(), EinitError> {
    let (has, signed) = (secs.miscselect.get(), sigstruct.miscselect.get());
    let mask = sigstruct.misc_mask.get();
    if has & mask != signed & mask {
        return Err(EinitError::Miscselect { has, signed, mask });
    }
    Ok(())
}

fn initialised(secs: &Secs, sigstruct: &SigStruct) -> Enclave {
    let mut secs = *secs;
    secs.attributes.flags |= AttributeFlags::INIT.bits();
    secs.mrsigner = sigstruct.mrsigner();
    secs.isv_prod_id = sigstruct.isv_prod_id;
    secs.isv_svn = sigstruct.isv_svn;
    Enclave {
        secs,
        isv_family_id: sigstruct.isv_family_id,
        isv_ext_prod_id: sigstruct.isv_ext_prod_id,
    }
}

struct Hex<'a>(&'a [u8; 32]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
