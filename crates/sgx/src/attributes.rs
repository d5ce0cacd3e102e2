//! ATTRIBUTES, XFRM and MISCSELECT (SDM 3D, "Attributes" and "SECS.MISCSELECT").
//!
//! ```text
//! 0        8        16
//! +--------+--------+
//! | flags  | XFRM   |
//! +--------+--------+
//! ```

use bitflags::bitflags;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    /// The low half of ATTRIBUTES.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AttributeFlags: u64 {
        /// Set by EINIT; never by software.
        const INIT = 1 << 0;
        /// The enclave's memory may be read and written with EDBGRD/EDBGWR.
        const DEBUG = 1 << 1;
        const MODE64BIT = 1 << 2;
        const PROVISIONKEY = 1 << 4;
        const EINITTOKENKEY = 1 << 5;
        const CET = 1 << 6;
        /// Key separation and sharing: CONFIGID, family and extended product ids.
        const KSS = 1 << 7;
        const AEXNOTIFY = 1 << 10;
    }

    /// The processor states an enclave runs with, as in XCR0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Xfrm: u64 {
        const X87 = 1 << 0;
        const SSE = 1 << 1;
        const AVX = 1 << 2;
        const MPX = 0b11 << 3;
        /// Opmask, upper halves of ZMM0-15, ZMM16-31.
        const AVX512 = 0b111 << 5;
        const PKRU = 1 << 9;
        /// XTILECFG and XTILEDATA.
        const AMX = 0b11 << 17;
        /// Bits 1:0, which every enclave has.
        const LEGACY = 0b11;
    }

    /// What else an asynchronous exit saves in the SSA frame.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Miscselect: u32 {
        /// Address and error code of #PF and #GP.
        const EXINFO = 1 << 0;
    }
}

/// ATTRIBUTES, 16 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Attributes {
    pub flags: U64,
    pub xfrm: U64,
}

impl Attributes {
    pub fn new(flags: AttributeFlags, xfrm: Xfrm) -> Attributes {
        Attributes {
            flags: flags.bits().into(),
            xfrm: xfrm.bits().into(),
        }
    }

    /// The flags; bits without a name are kept.
    pub fn flags(&self) -> AttributeFlags {
        AttributeFlags::from_bits_retain(self.flags.get())
    }

    /// The state components; bits without a name are kept.
    pub fn xfrm(&self) -> Xfrm {
        Xfrm::from_bits_retain(self.xfrm.get())
    }

    pub fn contains(&self, flags: AttributeFlags) -> bool {
        self.flags().contains(flags)
    }

    /// Bit by bit `self & mask`.
    pub fn masked(&self, mask: &Attributes) -> Attributes {
        Attributes {
            flags: (self.flags.get() & mask.flags.get()).into(),
            xfrm: (self.xfrm.get() & mask.xfrm.get()).into(),
        }
    }
}

impl Xfrm {
    /// Whether XCR0 may hold this combination: x87 and SSE always, the parts of MPX, AVX-512 and AMX
    /// only together, AVX-512 only with AVX.
    pub fn is_legal(self) -> bool {
        let whole = |part: Xfrm| !self.intersects(part) || self.contains(part);
        Xfrm::from_bits(self.bits()).is_some()
            && self.contains(Xfrm::LEGACY)
            && [Xfrm::MPX, Xfrm::AVX512, Xfrm::AMX].into_iter().all(whole)
            && (!self.intersects(Xfrm::AVX512) || self.contains(Xfrm::AVX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xfrm_is_legal_only_in_combinations_that_xcr0_allows() {
        for legal in [0x3, 0x7, 0xE7, 0x207, 0x2E7, 0x6_02E7, 0x1F] {
            assert!(Xfrm::from_bits_retain(legal).is_legal(), "{legal:#x}");
        }
        for illegal in [
            0,
            1,
            2,
            0x4,
            0x6,
            0xE3,
            0x27,
            0x67,
            0xB,
            0x2_0007,
            0x103,
            1 << 63 | 3,
        ] {
            assert!(!Xfrm::from_bits_retain(illegal).is_legal(), "{illegal:#x}");
        }
    }
}
