//! SECINFO: what an enclave page is and what may be done with it.
//!
//! ```text
//! 0        8                                64
//! +--------+--------------------------------+
//! | flags  | reserved, zero                 |     flags: R 0, W 1, X 2, PENDING 3, MODIFIED 4,
//! +--------+--------------------------------+            PR 5, page type 15:8
//! ```

use bitflags::bitflags;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Permissions: u64 {
        const R = 1 << 0;
        const W = 1 << 1;
        const X = 1 << 2;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageType {
    Secs = 0,
    Tcs = 1,
    Reg = 2,
    Va = 3,
    Trim = 4,
}

/// SECINFO, 64 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SecInfo {
    pub flags: U64,
    reserved: [u8; 56],
}

/// Why EADD would refuse a SECINFO (#GP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecInfoError {
    #[error("reserved bits of SECINFO are not zero (flags {0:#x})")]
    Reserved(u64),
    #[error("a page of type {0} can't be added; only TCS (1) and REG (2) can")]
    PageType(u8),
    #[error("a page that is writable must be readable")]
    WriteOnly,
}

impl SecInfo {
    const TYPE_SHIFT: u32 = 8;

    pub fn reg(permissions: Permissions) -> SecInfo {
        SecInfo::from_flags(permissions.bits() | (PageType::Reg as u64) << Self::TYPE_SHIFT)
    }

    /// A TCS page has no permissions: EADD clears them.
    pub fn tcs() -> SecInfo {
        SecInfo::from_flags((PageType::Tcs as u64) << Self::TYPE_SHIFT)
    }

    pub fn from_flags(flags: u64) -> SecInfo {
        SecInfo {
            flags: flags.into(),
            reserved: [0; 56],
        }
    }

    pub fn permissions(&self) -> Permissions {
        Permissions::from_bits_truncate(self.flags.get())
    }

    pub fn page_type(&self) -> Option<PageType> {
        match self.type_byte() {
            0 => Some(PageType::Secs),
            1 => Some(PageType::Tcs),
            2 => Some(PageType::Reg),
            3 => Some(PageType::Va),
            4 => Some(PageType::Trim),
            _ => None,
        }
    }

    /// The SECINFO that EADD enters into the page's record and the measurement: a TCS loses its
    /// permissions, other pages keep what was asked for.
    pub fn as_added(&self) -> SecInfo {
        match self.page_type() {
            Some(PageType::Tcs) => SecInfo::tcs(),
            _ => *self,
        }
    }

    /// EADD's checks of SECINFO.
    pub fn check_eadd(&self) -> Result<(), SecInfoError> {
        let flags = self.flags.get();
        let known = Permissions::all().bits() | 0xFF << Self::TYPE_SHIFT;
        if flags & !known != 0 || self.reserved != [0; 56] {
            return Err(SecInfoError::Reserved(flags));
        }
        match self.page_type() {
            Some(PageType::Tcs) => Ok(()),
            Some(PageType::Reg) => self.check_reg(),
            _ => Err(SecInfoError::PageType(self.type_byte())),
        }
    }

    fn check_reg(&self) -> Result<(), SecInfoError> {
        let permissions = self.permissions();
        if permissions.contains(Permissions::W) && !permissions.contains(Permissions::R) {
            return Err(SecInfoError::WriteOnly);
        }
        Ok(())
    }

    fn type_byte(&self) -> u8 {
        (self.flags.get() >> Self::TYPE_SHIFT) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eadd_takes_tcs_and_reg_pages_only() {
        assert_eq!(SecInfo::tcs().check_eadd(), Ok(()));
        assert_eq!(
            SecInfo::reg(Permissions::R | Permissions::X).check_eadd(),
            Ok(())
        );
        assert_eq!(SecInfo::reg(Permissions::empty()).check_eadd(), Ok(()));
        for other in [0, 3, 4, 5, 0xFF] {
            let secinfo = SecInfo::from_flags(other << 8 | 3);
            assert_eq!(
                secinfo.check_eadd(),
                Err(SecInfoError::PageType(other as u8))
            );
        }
    }

    #[test]
    fn eadd_refuses_reserved_bits_and_write_only_pages() {
        for bit in (3..8).chain(16..64) {
            let secinfo = SecInfo::from_flags(0x203 | 1 << bit);
            assert_eq!(
                secinfo.check_eadd(),
                Err(SecInfoError::Reserved(0x203 | 1 << bit))
            );
        }
        assert_eq!(
            SecInfo::reg(Permissions::W).check_eadd(),
            Err(SecInfoError::WriteOnly)
        );
        let mut bytes = [0; 64];
        bytes[0] = 3;
        bytes[1] = 2;
        bytes[63] = 1;
        let secinfo = SecInfo::read_from_bytes(&bytes).unwrap();
        assert_eq!(secinfo.check_eadd(), Err(SecInfoError::Reserved(0x203)));
    }

    #[test]
    fn a_tcs_loses_its_permissions_when_added() {
        assert_eq!(SecInfo::from_flags(0x107).as_added(), SecInfo::tcs());
        let reg = SecInfo::reg(Permissions::R | Permissions::W);
        assert_eq!(reg.as_added(), reg);
    }
}
