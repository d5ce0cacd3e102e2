//! Lies about what the kernel is told at its first entry.

use crate::lie::Lie;
use occlum_abi::boot::HostInfo;
use occlum_abi::layout::{ELRANGE_END, KERNEL_BASE, MAX_VCPUS, PAGE_SIZE, USER_BASE};
use occlum_host::cpu::Registers;
use std::sync::Arc;

struct Handover(fn(&mut Registers, &mut HostInfo));

impl Lie for Handover {
    fn hand_over(&self, registers: &mut Registers, info: &mut HostInfo) {
        (self.0)(registers, info);
    }
}

/// The first byte that no host memory may be at.
const NOT_CANONICAL: u64 = 1 << 47;
const PAGE: u64 = PAGE_SIZE as u64;
/// Just above the enclave the host has only the gate: nothing is at this page.
const NOTHING_THERE: u64 = ELRANGE_END as u64 + 0x10_0000;
const AVX: u64 = 4;

#[rustfmt::skip]
const LIES: &[(&str, Handover)] = &[
    ("other-command", Handover(|registers, _| registers.rdi = 77)),
    ("info-inside-the-enclave", Handover(|registers, _| registers.rsi = KERNEL_BASE as u64)),
    ("info-in-user-memory", Handover(|registers, _| registers.rsi = USER_BASE as u64)),
    ("info-across-the-enclaves-end", Handover(|registers, _| registers.rsi = ELRANGE_END as u64 - 8)),
    ("info-not-canonical", Handover(|registers, _| registers.rsi = NOT_CANONICAL)),
    ("info-at-the-end-of-addresses", Handover(|registers, _| registers.rsi = u64::MAX - 7)),
    ("info-not-there", Handover(|registers, _| registers.rsi = NOTHING_THERE)),
    ("info-null", Handover(|registers, _| registers.rsi = 0)),
    ("other-version", Handover(|_, info| info.version += 1)),
    ("no-vcpus", Handover(|_, info| info.vcpus = 0)),
    ("more-vcpus-than-measured", Handover(|_, info| info.vcpus = MAX_VCPUS as u32 + 1)),
    ("more-vcpus-enter-than-told", Handover(|_, info| info.vcpus = 1)),
    ("shared-page-inside-the-enclave", Handover(|_, info| info.shared = KERNEL_BASE as u64)),
    ("shared-page-misaligned", Handover(|_, info| info.shared += 8)),
    ("shared-page-not-there", Handover(|_, info| info.shared = NOTHING_THERE)),
    ("staging-inside-the-enclave", Handover(|_, info| info.staging = KERNEL_BASE as u64)),
    ("staging-across-the-enclaves-end", Handover(|_, info| info.staging = ELRANGE_END as u64 - PAGE)),
    ("staging-misaligned", Handover(|_, info| info.staging += 8)),
    ("staging-small", Handover(|_, info| info.staging_size = 64)),
    ("staging-huge", Handover(|_, info| info.staging_size = 1 << 40)),
    ("staging-wraps-around", Handover(|_, info| info.staging_size = u64::MAX / 2 + 1)),
    ("staging-not-there", Handover(|_, info| info.staging = NOTHING_THERE)),
    ("xfrm-without-sse", Handover(|_, info| info.xfrm &= !2)),
    ("xfrm-without-avx", Handover(|_, info| info.xfrm &= !AVX)),
    ("xsave-size-zero", Handover(|_, info| info.xsave_size = 0)),
    ("xsave-size-of-less-state", Handover(|_, info| info.xsave_size = 576)),
    ("xsave-size-huge", Handover(|_, info| info.xsave_size = 1 << 20)),
    ("image-inside-the-enclave", Handover(|_, info| info.image = KERNEL_BASE as u64)),
    ("image-into-the-enclave", Handover(|_, info| info.image = ELRANGE_END as u64 - PAGE)),
    ("image-wraps-around", Handover(|_, info| info.image_size = u64::MAX)),
    ("image-not-there", Handover(|_, info| info.image = NOTHING_THERE)),
    ("image-empty", Handover(|_, info| info.image_size = 0)),
    ("image-shorter", Handover(|_, info| info.image_size /= 2)),
    ("image-longer", Handover(|_, info| info.image_size += 1 << 30)),
    ("request-inside-the-enclave", Handover(|_, info| info.request = KERNEL_BASE as u64)),
    ("request-too-large", Handover(|_, info| info.request_size = 1 << 40)),
    ("request-longer-than-it-is", Handover(|_, info| info.request_size += 1 << 20)),
    ("request-cut-short", Handover(|_, info| info.request_size /= 2)),
    ("request-empty", Handover(|_, info| info.request_size = 0)),
    ("request-is-something-else", Handover(|_, info| info.request = info.image)),
];

pub fn find(name: &str) -> Option<Arc<dyn Lie>> {
    let (_, lie) = LIES.iter().find(|(known, _)| *known == name)?;
    Some(Arc::new(Handover(lie.0)))
}

pub fn names() -> impl Iterator<Item = String> {
    LIES.iter().map(|(name, _)| (*name).into())
}
