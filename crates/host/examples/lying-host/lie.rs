//! Where a lie can be put in.

use crate::{answer, entry, handover, refusal, world};
use occlum_abi::boot::HostInfo;
use occlum_abi::ocall::Ocall;
use occlum_host::cpu::software::SoftwareCpu;
use occlum_host::cpu::{AexCause, Cpu, Exit, Refused, Registers};
use occlum_host::instance::Instance;
use std::path::Path;
use std::sync::Arc;

/// What a dishonest host does otherwise. Each method as it stands here is the honest way.
pub trait Lie: Send + Sync {
    /// Before any vCPU enters.
    fn prepare(&self, _instance: &Arc<Instance>, _build_dir: &Path) {}

    /// The first entry of a vCPU: what `registers` point to is `info`.
    fn hand_over(&self, _registers: &mut Registers, _info: &mut HostInfo) {}

    /// The result of a call, after it was served.
    fn answer(&self, _asked: &Asked, honest: Registers) -> Registers {
        honest
    }

    /// Immediately before every entry with the result of a call.
    fn before_entry(&self, _instance: &Arc<Instance>) {}

    /// EENTER.
    fn enter(
        &self,
        cpu: &mut SoftwareCpu,
        _vcpu: usize,
        registers: &mut Registers,
    ) -> Result<Exit, Refused> {
        cpu.enter(registers)
    }

    /// How often the kernel's handler is entered after an AEX, before ERESUME.
    fn handler_entries(&self, _cause: &AexCause) -> u32 {
        1
    }
}

/// A call that the kernel made.
pub struct Asked<'a> {
    pub instance: &'a Arc<Instance>,
    pub vcpu: usize,
    pub call: Option<Ocall>,
    pub args: [u64; 5],
}

/// No lie: shows that the double works.
struct Honest;

impl Lie for Honest {}

pub fn find(name: &str) -> Option<Arc<dyn Lie>> {
    if name == "honest" {
        return Some(Arc::new(Honest));
    }
    handover::find(name)
        .or_else(|| answer::find(name))
        .or_else(|| world::find(name))
        .or_else(|| entry::find(name))
        .or_else(|| refusal::find(name))
}

pub fn names() -> impl Iterator<Item = String> {
    std::iter::once("honest".into())
        .chain(handover::names())
        .chain(answer::names())
        .chain(world::names())
        .chain(entry::names())
        .chain(refusal::names())
}
