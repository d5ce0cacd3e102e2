//! REPORT and TARGETINFO: what EREPORT makes, and for whom.
//!
//! ```text
//! REPORT (432)                                          TARGETINFO (512)
//!   0 CPUSVN[16]      16 MISCSELECT    32 ISVEXTPRODID     0 MRENCLAVE   32 ATTRIBUTES
//!  48 ATTRIBUTES      64 MRENCLAVE    128 MRSIGNER        50 CONFIGSVN   52 MISCSELECT
//! 192 CONFIGID[64]   256 ISVPRODID    258 ISVSVN          64 CONFIGID[64]
//! 260 CONFIGSVN      304 ISVFAMILYID  320 REPORTDATA[64]
//! 384 KEYID[32]      416 MAC[16] = AES-128-CMAC over [0, 384)
//! ```

use crate::attributes::Attributes;
use crate::einit::Enclave;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a MAC covers.
pub(crate) const REPORT_BODY_SIZE: usize = 384;

/// REPORT, 432 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Report {
    pub cpu_svn: [u8; 16],
    pub miscselect: U32,
    reserved_20: [u8; 12],
    pub isv_ext_prod_id: [u8; 16],
    pub attributes: Attributes,
    pub mrenclave: [u8; 32],
    reserved_96: [u8; 32],
    pub mrsigner: [u8; 32],
    reserved_160: [u8; 32],
    pub config_id: [u8; 64],
    pub isv_prod_id: U16,
    pub isv_svn: U16,
    pub config_svn: U16,
    reserved_262: [u8; 42],
    pub isv_family_id: [u8; 16],
    pub report_data: [u8; 64],
    pub key_id: [u8; 32],
    pub mac: [u8; 16],
}

/// TARGETINFO, 512 bytes: the enclave that is to verify a report.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct TargetInfo {
    pub mrenclave: [u8; 32],
    pub attributes: Attributes,
    reserved_48: [u8; 2],
    pub config_svn: U16,
    pub miscselect: U32,
    reserved_56: [u8; 8],
    pub config_id: [u8; 64],
    reserved_128: [u8; 384],
}

const _: () = assert!(size_of::<Report>() == 432 && size_of::<TargetInfo>() == 512);

impl Report {
    /// A report about `enclave`, without what the CPU adds: CPUSVN, KEYID and MAC.
    pub(crate) fn unsigned(enclave: &Enclave, report_data: &[u8; 64]) -> Report {
        let secs = &enclave.secs;
        Report {
            miscselect: secs.miscselect,
            isv_ext_prod_id: enclave.isv_ext_prod_id,
            attributes: secs.attributes,
            mrenclave: secs.mrenclave,
            mrsigner: secs.mrsigner,
            config_id: secs.config_id,
            isv_prod_id: secs.isv_prod_id,
            isv_svn: secs.isv_svn,
            config_svn: secs.config_svn,
            isv_family_id: enclave.isv_family_id,
            report_data: *report_data,
            ..Report::new_zeroed()
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.as_bytes()[..REPORT_BODY_SIZE]
    }
}

impl TargetInfo {
    /// TARGETINFO that makes a report one for `enclave`.
    pub fn of(enclave: &Enclave) -> TargetInfo {
        TargetInfo {
            mrenclave: enclave.secs.mrenclave,
            attributes: enclave.secs.attributes,
            config_svn: enclave.secs.config_svn,
            miscselect: enclave.secs.miscselect,
            config_id: enclave.secs.config_id,
            ..TargetInfo::new_zeroed()
        }
    }

    pub(crate) fn reserved_is_zero(&self) -> bool {
        self.reserved_48 == [0; 2] && self.reserved_56 == [0; 8] && self.reserved_128 == [0; 384]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_stand_where_the_sdm_says() {
        assert_eq!(offset_of!(Report, isv_ext_prod_id), 32);
        assert_eq!(offset_of!(Report, mrenclave), 64);
        assert_eq!(offset_of!(Report, mrsigner), 128);
        assert_eq!(offset_of!(Report, config_id), 192);
        assert_eq!(offset_of!(Report, isv_prod_id), 256);
        assert_eq!(offset_of!(Report, isv_family_id), 304);
        assert_eq!(offset_of!(Report, report_data), 320);
        assert_eq!(offset_of!(Report, key_id), REPORT_BODY_SIZE);
        assert_eq!(offset_of!(Report, mac), 416);
        assert_eq!(offset_of!(TargetInfo, config_svn), 50);
        assert_eq!(offset_of!(TargetInfo, miscselect), 52);
        assert_eq!(offset_of!(TargetInfo, config_id), 64);
    }
}
