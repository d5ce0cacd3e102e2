//! The State Save Area frame, where an asynchronous exit (AEX) saves the interrupted state.
//!
//! ```text
//! 0                                  frame size - 200     - 184                frame size
//! +------------------------------- - - ---+---------------+--------------------+
//! | XSAVE area, standard format           | EXINFO        | GPRSGX             |
//! +------------------------------- - - ---+---------------+--------------------+
//!                                           (if MISCSELECT.EXINFO)
//! ```

use crate::attributes::Miscselect;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub const GPRSGX_SIZE: usize = size_of::<Gprsgx>();
pub const EXINFO_SIZE: usize = size_of::<Exinfo>();

/// Bytes that the MISC region takes.
pub const fn misc_size(miscselect: Miscselect) -> usize {
    if miscselect.contains(Miscselect::EXINFO) {
        EXINFO_SIZE
    } else {
        0
    }
}

/// The general registers, the last 184 bytes of a frame.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Gprsgx {
    pub rax: U64,
    pub rcx: U64,
    pub rdx: U64,
    pub rbx: U64,
    pub rsp: U64,
    pub rbp: U64,
    pub rsi: U64,
    pub rdi: U64,
    pub r8: U64,
    pub r9: U64,
    pub r10: U64,
    pub r11: U64,
    pub r12: U64,
    pub r13: U64,
    pub r14: U64,
    pub r15: U64,
    pub rflags: U64,
    pub rip: U64,
    /// RSP and RBP outside, restored by the exit.
    pub ursp: U64,
    pub urbp: U64,
    pub exit_info: U32,
    reserved: [u8; 3],
    pub aex_notify: u8,
    pub fs_base: U64,
    pub gs_base: U64,
}

/// Where a #PF or #GP happened, the 16 bytes below GPRSGX. The address is 0 for #GP.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Exinfo {
    pub address: U64,
    /// Bits of a #PF: present 0, write 1, user 2, reserved 3, fetch 4, protection key 5, SGX 15.
    pub error_code: U32,
    reserved: [u8; 4],
}

/// GPRSGX.EXITINFO, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitInfo {
    pub vector: u8,
    pub exit_type: ExitType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitType {
    Hardware = 3,
    /// #BP and #OF.
    Software = 6,
}

impl ExitInfo {
    const VALID: u32 = 1 << 31;

    /// The exception a frame reports. `None`: the exit had another cause (an interrupt), or one that
    /// the architecture does not report.
    pub fn from_bits(bits: u32) -> Option<ExitInfo> {
        let exit_type = match bits >> 8 & 7 {
            3 => ExitType::Hardware,
            6 => ExitType::Software,
            _ => return None,
        };
        (bits & Self::VALID != 0).then_some(ExitInfo {
            vector: bits as u8,
            exit_type,
        })
    }

    pub fn bits(self) -> u32 {
        Self::VALID | (self.exit_type as u32) << 8 | u32::from(self.vector)
    }

    /// What an AEX reports for exception `vector`: 0 for those it does not report.
    pub fn reported(vector: u8, miscselect: Miscselect) -> u32 {
        let exit_type = match vector {
            0 | 1 | 5 | 6 | 16 | 17 | 19 => ExitType::Hardware,
            3 => ExitType::Software,
            13 | 14 if miscselect.contains(Miscselect::EXINFO) => ExitType::Hardware,
            _ => return 0,
        };
        ExitInfo { vector, exit_type }.bits()
    }
}

const _: () = assert!(GPRSGX_SIZE == 184 && EXINFO_SIZE == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn registers_stand_where_the_sdm_says() {
        assert_eq!(offset_of!(Gprsgx, rsp), 32);
        assert_eq!(offset_of!(Gprsgx, r8), 64);
        assert_eq!(offset_of!(Gprsgx, r15), 120);
        assert_eq!(offset_of!(Gprsgx, rflags), 128);
        assert_eq!(offset_of!(Gprsgx, rip), 136);
        assert_eq!(offset_of!(Gprsgx, urbp), 152);
        assert_eq!(offset_of!(Gprsgx, exit_info), 160);
        assert_eq!(offset_of!(Gprsgx, aex_notify), 167);
        assert_eq!(offset_of!(Gprsgx, gs_base), 176);
    }

    #[test]
    fn page_faults_are_reported_only_with_exinfo() {
        assert_eq!(ExitInfo::reported(14, Miscselect::empty()), 0);
        assert_eq!(ExitInfo::reported(14, Miscselect::EXINFO), 0x8000_030E);
        assert_eq!(ExitInfo::reported(3, Miscselect::empty()), 0x8000_0603);
        assert_eq!(ExitInfo::reported(2, Miscselect::EXINFO), 0);
    }

    #[test]
    fn exit_info_survives_encoding() {
        for vector in 0..=255 {
            for exit_type in [ExitType::Hardware, ExitType::Software] {
                let info = ExitInfo { vector, exit_type };
                assert_eq!(ExitInfo::from_bits(info.bits()), Some(info));
                assert_eq!(ExitInfo::from_bits(info.bits() & !(1 << 31)), None);
            }
        }
        assert_eq!(ExitInfo::from_bits(1 << 31), None);
    }
}
