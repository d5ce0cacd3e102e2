//! What ECREATE accepts (SDM 3D, "ECREATE": every refusal is a #GP).

use crate::PAGE_SIZE;
use crate::attributes::{AttributeFlags, Miscselect, Xfrm};
use crate::secs::Secs;
use crate::ssa;

/// What the CPU supports, as CPUID leaf 12H tells it.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    pub attributes: AttributeFlags,
    pub xfrm: Xfrm,
    pub miscselect: Miscselect,
    /// log2 of the largest 64-bit enclave in bytes.
    pub max_size_bits: u32,
    /// Bytes of an XSAVE area (standard format) for the XFRM that is asked for. Differs between CPU
    /// makers, so it is asked of the CPU.
    pub xsave_size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EcreateError {
    #[error(
        "SECS.SIZE is {0:#x}; it must be a power of two, at least 8192 and what the CPU allows"
    )]
    Size(u64),
    #[error("SECS.BASEADDR {base:#x} is not a multiple of SECS.SIZE {size:#x}")]
    Base { base: u64, size: u64 },
    #[error("SECS.SSAFRAMESIZE is {has} bytes; XSAVE area, MISC and GPRSGX need {needs}")]
    SsaFrameSize { has: u64, needs: u64 },
    #[error("SECS.MISCSELECT {0:#x} has bits the CPU does not support")]
    Miscselect(u32),
    #[error("SECS.ATTRIBUTES {0:#x} has bits that are reserved, the CPU's own, or not supported")]
    Attributes(u64),
    #[error("SECS.XFRM {0:#x} is not a legal or supported XCR0")]
    Xfrm(u64),
    #[error("SECS.CONFIGID and CONFIGSVN need the KSS attribute")]
    ConfigWithoutKss,
    #[error("reserved bytes of SECS are not zero")]
    Reserved,
}

/// Whether ECREATE would start an enclave from this SECS. 64-bit enclaves only.
pub fn check(secs: &Secs, cpu: &Capabilities) -> Result<(), EcreateError> {
    check_range(secs, cpu)?;
    check_features(secs, cpu)?;
    check_ssa_frame(secs, cpu)?;
    let has_config = secs.config_id != [0; 64] || secs.config_svn.get() != 0;
    if has_config && !secs.attributes.contains(AttributeFlags::KSS) {
        return Err(EcreateError::ConfigWithoutKss);
    }
    if !secs.reserved_is_zero() {
        return Err(EcreateError::Reserved);
    }
    Ok(())
}

fn check_range(secs: &Secs, cpu: &Capabilities) -> Result<(), EcreateError> {
    let (size, base) = (secs.size.get(), secs.base.get());
    if !size.is_power_of_two() || size < 2 * PAGE_SIZE || size.ilog2() > cpu.max_size_bits {
        return Err(EcreateError::Size(size));
    }
    if !base.is_multiple_of(size) {
        return Err(EcreateError::Base { base, size });
    }
    Ok(())
}

fn check_features(secs: &Secs, cpu: &Capabilities) -> Result<(), EcreateError> {
    let flags = secs.attributes.flags();
    let is_supported = cpu
        .attributes
        .difference(AttributeFlags::INIT)
        .contains(flags);
    if !is_supported || !flags.contains(AttributeFlags::MODE64BIT) {
        return Err(EcreateError::Attributes(flags.bits()));
    }
    let xfrm = secs.attributes.xfrm();
    if !xfrm.is_legal() || !cpu.xfrm.contains(xfrm) {
        return Err(EcreateError::Xfrm(xfrm.bits()));
    }
    let miscselect = secs.miscselect.get();
    if !cpu
        .miscselect
        .contains(Miscselect::from_bits_retain(miscselect))
    {
        return Err(EcreateError::Miscselect(miscselect));
    }
    Ok(())
}

fn check_ssa_frame(secs: &Secs, cpu: &Capabilities) -> Result<(), EcreateError> {
    let miscselect = Miscselect::from_bits_retain(secs.miscselect.get());
    let needs =
        u64::from(cpu.xsave_size) + ssa::GPRSGX_SIZE as u64 + ssa::misc_size(miscselect) as u64;
    let has = u64::from(secs.ssa_frame_size.get()) * PAGE_SIZE;
    if has < needs {
        return Err(EcreateError::SsaFrameSize { has, needs });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Attributes;
    use zerocopy::{FromBytes, IntoBytes};

    const CPU: Capabilities = Capabilities {
        attributes: AttributeFlags::all().difference(AttributeFlags::INIT),
        xfrm: Xfrm::from_bits_retain(0x2E7),
        miscselect: Miscselect::EXINFO,
        max_size_bits: 46,
        xsave_size: 2696,
    };

    fn secs() -> Secs {
        let attributes = Attributes::new(AttributeFlags::MODE64BIT, Xfrm::from_bits_retain(0xE7));
        Secs::new(0, 1 << 45, 4, 1, attributes)
    }

    #[test]
    fn a_sound_secs_is_accepted() {
        assert_eq!(check(&secs(), &CPU), Ok(()));
    }

    #[test]
    fn the_range_must_be_a_naturally_aligned_power_of_two() {
        for size in [0, 4096, 4097, 12288, 1 << 47, (1 << 45) + 4096] {
            let mut secs = secs();
            secs.size.set(size);
            assert_eq!(check(&secs, &CPU), Err(EcreateError::Size(size)));
        }
        let mut secs = secs();
        secs.base.set(1 << 44);
        assert_eq!(
            check(&secs, &CPU),
            Err(EcreateError::Base {
                base: 1 << 44,
                size: 1 << 45
            })
        );
    }

    #[test]
    fn the_ssa_frame_must_hold_all_that_an_exit_saves() {
        let mut secs = secs();
        secs.ssa_frame_size.set(1);
        assert_eq!(check(&secs, &CPU), Ok(()));
        let big = Capabilities {
            xsave_size: 4096 - 199,
            ..CPU
        };
        assert_eq!(
            check(&secs, &big),
            Err(EcreateError::SsaFrameSize {
                has: 4096,
                needs: 4097
            })
        );
        secs.miscselect.set(0);
        assert_eq!(check(&secs, &big), Ok(()));
    }

    #[test]
    fn unsupported_features_are_refused() {
        let mut with = secs();
        with.miscselect.set(2);
        assert_eq!(check(&with, &CPU), Err(EcreateError::Miscselect(2)));
        for flags in [0, 4 | 1, 4 | 8, 4 | 1 << 63] {
            let mut with = secs();
            with.attributes.flags.set(flags);
            assert_eq!(check(&with, &CPU), Err(EcreateError::Attributes(flags)));
        }
        for xfrm in [0x6_00E7, 0x67, 0] {
            let mut with = secs();
            with.attributes.xfrm.set(xfrm);
            assert_eq!(check(&with, &CPU), Err(EcreateError::Xfrm(xfrm)));
        }
    }

    #[test]
    fn a_configuration_id_needs_kss() {
        let mut with = secs();
        with.config_svn.set(1);
        assert_eq!(check(&with, &CPU), Err(EcreateError::ConfigWithoutKss));
        with.attributes = Attributes::new(
            AttributeFlags::MODE64BIT | AttributeFlags::KSS,
            Xfrm::LEGACY,
        );
        assert_eq!(check(&with, &CPU), Ok(()));
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        for at in [24, 47, 96, 160, 262, 4095] {
            let mut with = secs();
            with.as_mut_bytes()[at] = 1;
            assert_eq!(check(&with, &CPU), Err(EcreateError::Reserved), "byte {at}");
        }
        assert!(Secs::ref_from_bytes(&[0; 4095]).is_err());
    }
}
