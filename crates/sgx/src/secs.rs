//! SECS: the enclave's own control structure (SDM 3D, "SGX Enclave Control Structure").
//!
//! ```text
//!   0  SIZE          8  BASEADDR     16  SSAFRAMESIZE (pages)   20  MISCSELECT
//!  48  ATTRIBUTES   64  MRENCLAVE   128  MRSIGNER              192  CONFIGID
//! 256  ISVPRODID   258  ISVSVN      260  CONFIGSVN             4096 end; the rest is reserved
//! ```

use crate::attributes::Attributes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// SECS, 4096 bytes. `size` in bytes, `ssa_frame_size` in pages.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Secs {
    pub size: U64,
    pub base: U64,
    pub ssa_frame_size: U32,
    pub miscselect: U32,
    reserved_24: [u8; 24],
    pub attributes: Attributes,
    pub mrenclave: [u8; 32],
    reserved_96: [u8; 32],
    pub mrsigner: [u8; 32],
    reserved_160: [u8; 32],
    pub config_id: [u8; 64],
    pub isv_prod_id: U16,
    pub isv_svn: U16,
    pub config_svn: U16,
    reserved_262: [u8; 3834],
}

const _: () = assert!(size_of::<Secs>() == 4096);

impl Secs {
    /// What software hands to ECREATE; the identity fields are the CPU's to fill.
    pub fn new(
        base: u64,
        size: u64,
        ssa_frame_size: u32,
        miscselect: u32,
        attributes: Attributes,
    ) -> Secs {
        Secs {
            size: size.into(),
            base: base.into(),
            ssa_frame_size: ssa_frame_size.into(),
            miscselect: miscselect.into(),
            attributes,
            ..Secs::new_zeroed()
        }
    }

    pub(crate) fn reserved_is_zero(&self) -> bool {
        self.reserved_24 == [0; 24]
            && self.reserved_96 == [0; 32]
            && self.reserved_160 == [0; 32]
            && self.reserved_262.iter().all(|&byte| byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_stand_where_the_sdm_says() {
        assert_eq!(offset_of!(Secs, miscselect), 20);
        assert_eq!(offset_of!(Secs, attributes), 48);
        assert_eq!(offset_of!(Secs, mrenclave), 64);
        assert_eq!(offset_of!(Secs, mrsigner), 128);
        assert_eq!(offset_of!(Secs, config_id), 192);
        assert_eq!(offset_of!(Secs, isv_prod_id), 256);
        assert_eq!(offset_of!(Secs, config_svn), 260);
    }
}
