//! User memory: which process has what at which address.
//!
//! - [`AddressSpace`]: the mappings of a process; mmap(2) and its family are methods of it
//! - [`fault`]: makes a page present when it is first touched
//! - [`MappableFile`], [`SharedSlot`]: what the file layer gives and gets
//! - [`Usage`]: the bound on all user memory (`commit.rs`)
//! - [`vdso`]: clocks without system calls; [`original_rip`]: patched system calls, seen from outside
//!
//! All processes live in one range, each at addresses of its own (`territory.rs`). A page is *granted*
//! when the host's page tables let user code at it; the invariant is that while user code of a space runs,
//! its granted pages have exactly the permissions of their mapping, and everything else in its territory
//! is inaccessible. Between two runs of a program pages stand as they were (`standing.rs`).
//! Small mappings are granted when made, large ones when touched.
//!
//! Lock order: a space's lock (it sleeps: loading pages reads files), then file locks; the locks in
//! `territory.rs` are leaves. Nothing is called back from under a space lock except [`MappableFile`].

mod advise;
mod anonymous;
mod brk;
mod commit;
mod fault;
mod file;
mod fold;
mod fork;
mod grant;
mod layout;
mod map;
mod overlay;
mod protect;
mod ranges;
mod remap;
mod request;
pub mod residency;
mod revive;
mod shared;
mod site_table;
mod space;
mod standing;
mod stubs;
mod territory;
pub mod vdso;
mod vma;
mod warm;

use alloc::sync::Arc;

use occlum_abi::boot::BootConfig;

pub use advise::Advice;
pub use commit::{Usage, peak as peak_usage};
pub use fault::{Access, FaultOutcome};
pub use file::{FileIdentity, MappableFile};
pub use remap::{Leave, Move};
pub use request::{Backing, Fixed, MapRequest, MemoryLimits, Sharing};
pub use shared::{SharedObject, SharedSlot};
pub use site_table::SiteTable;
pub use space::{AddressSpace, Mapping, SpaceUsage};
pub use stubs::{original_rip, patched_rip};
pub use territory::Placement;
pub use vma::{ForkAdvice, Prot};

use crate::error::Result;
use crate::sched::{self, Local};

pub const PAGE_SIZE: usize = occlum_abi::layout::PAGE_SIZE;

/// Called once at boot, before the first space.
pub fn init(config: &BootConfig) -> Result<()> {
    commit::set_limit(usize::try_from(config.resource_limits.user_space_size).unwrap_or(usize::MAX));
    fork::set_copies(config.fork_copies);
    vdso::init()
}

/// The address space of the current task, if it has one.
pub fn current() -> Option<Arc<AddressSpace>> {
    sched::local::<AddressSpace>(Local::Space)
}

/// Runs `body` with `space` as the one whose memory copies reach and whose faults are resolved.
pub fn within<R>(space: &Arc<AddressSpace>, body: impl FnOnce() -> R) -> R {
    let task = sched::current();
    let old = sched::local::<AddressSpace>(Local::Space);
    residency::leave();
    space.thread_joins();
    sched::set_local(&task, Local::Space, Some(space.clone()));
    let result = body();
    residency::leave();
    space.thread_leaves();
    match old {
        Some(old) => sched::set_local(&task, Local::Space, Some(old)),
        None => sched::set_local(&task, Local::Space, None),
    }
    result
}

/// Tries to make the page at `address` accessible to the current task for `access`.
pub fn fault(address: usize, access: Access) -> FaultOutcome {
    match residency::is_here() {
        true => current().map_or(FaultOutcome::NoMapping, |space| space.fault(address, access)),
        // The memory was not in place: the access is to be tried again.
        false => residency::enter(),
    }
}

/// The same for copies by the kernel: false means EFAULT.
pub fn resolve_fault(address: usize, access: Access) -> bool {
    fault(address, access) == FaultOutcome::Resolved
}
