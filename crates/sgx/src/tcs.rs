//! TCS: one logical processor's way into the enclave.
//!
//! ```text
//!  0 STATE    8 FLAGS    16 OSSA      24 CSSA u32   28 NSSA u32   32 OENTRY
//! 40 AEP     48 OFSBASE  56 OGSBASE   64 FSLIMIT    68 GSLIMIT    72..4096 reserved, zero
//! ```
//! OSSA, OENTRY, OFSBASE and OGSBASE are offsets from the enclave's base.

use bitflags::bitflags;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TcsFlags: u64 {
        const DBGOPTIN = 1 << 0;
        const AEXNOTIFY = 1 << 1;
    }
}

/// TCS, 4096 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Tcs {
    pub state: U64,
    pub flags: U64,
    pub ossa: U64,
    pub cssa: U32,
    pub nssa: U32,
    pub oentry: U64,
    pub aep: U64,
    pub ofs_base: U64,
    pub ogs_base: U64,
    /// Used by 32-bit enclaves only.
    pub fs_limit: U32,
    pub gs_limit: U32,
    reserved: [u8; 4024],
}

const _: () = assert!(size_of::<Tcs>() == 4096);

/// Why EADD would refuse a TCS (#GP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcsError {
    #[error("reserved bytes or flags of the TCS are not zero")]
    Reserved,
    #[error("TCS.OSSA {0:#x} is not page-aligned")]
    Ossa(u64),
}

impl Tcs {
    /// The page as EADD stores it: STATE, CSSA, AEP and DBGOPTIN begin at zero. This is what EEXTEND
    /// then measures.
    pub fn as_added(&self) -> Tcs {
        let flags = self.flags.get() & !TcsFlags::DBGOPTIN.bits();
        Tcs {
            state: 0.into(),
            cssa: 0.into(),
            aep: 0.into(),
            flags: flags.into(),
            ..*self
        }
    }

    /// EADD's checks of a 64-bit enclave's TCS.
    pub fn check_eadd(&self) -> Result<(), TcsError> {
        let has_unknown_flags = TcsFlags::from_bits(self.flags.get()).is_none();
        if has_unknown_flags || self.reserved.iter().any(|&byte| byte != 0) {
            return Err(TcsError::Reserved);
        }
        if !self.ossa.get().is_multiple_of(crate::PAGE_SIZE) {
            return Err(TcsError::Ossa(self.ossa.get()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn eadd_clears_what_only_the_cpu_may_set() {
        let mut tcs = Tcs::new_zeroed();
        tcs.state.set(7);
        tcs.cssa.set(1);
        tcs.aep.set(0x1000);
        tcs.flags.set(3);
        tcs.nssa.set(2);
        let added = tcs.as_added();
        assert_eq!(
            (added.state.get(), added.cssa.get(), added.aep.get()),
            (0, 0, 0)
        );
        assert_eq!((added.flags.get(), added.nssa.get()), (2, 2));
    }

    #[test]
    fn eadd_refuses_reserved_bytes_and_an_unaligned_ssa() {
        let mut tcs = Tcs::new_zeroed();
        assert_eq!(tcs.check_eadd(), Ok(()));
        tcs.ossa.set(0x1001);
        assert_eq!(tcs.check_eadd(), Err(TcsError::Ossa(0x1001)));
        for at in [8, 72, 4095] {
            let mut tcs = Tcs::new_zeroed();
            tcs.as_mut_bytes()[at] = 0x80;
            assert_eq!(tcs.check_eadd(), Err(TcsError::Reserved), "byte {at}");
        }
    }
}
