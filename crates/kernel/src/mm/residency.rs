//! Being in place: before a task runs user code or touches user memory, the memory of its process must
//! stand at its addresses, which members of an overlay group take turns at (`overlay/`).
//!
//! A task enters when it needs to, and is out again as soon as it leaves its vCPU (`sched/presence.rs`).
//! So one that waits in the kernel is in nobody's way. Entering may wait for another member's time
//! slice: it is done where a fault may be resolved, with no lock held. For spaces without a group it
//! costs two memory accesses after each time the task was off its vCPU.

use core::result::Result as Outcome;
use core::sync::atomic::Ordering;

use occlum_enclave::host::HostSlice;
use occlum_enclave::log;
use occlum_enclave::usermem::{self, Fault};

use super::{AddressSpace, FaultOutcome};
use super::space::Space;
use crate::error::Result;
use crate::sched::mutex::MutexGuard;
use crate::sched::presence;

/// Whether the current task may touch user memory now: it is the memory of its process.
#[inline]
pub fn is_here() -> bool {
    presence::is_in() || is_undisturbed()
}

/// Enters if no other member took the turn while the task was off its vCPU. Never waits.
#[cold]
fn is_undisturbed() -> bool {
    super::current().is_some_and(|space| space.try_enter())
}

/// Puts the memory of the current task in place.
pub fn enter() -> FaultOutcome {
    let Some(space) = super::current() else { return FaultOutcome::NoMapping };
    match space.enter() {
        Ok(()) => FaultOutcome::Resolved,
        Err(error) => {
            log!(Error, "no memory to put a process in place: {error:?}");
            FaultOutcome::OutOfMemory
        }
    }
}

/// The current task goes on with another space.
pub fn leave() {
    presence::leave();
}

/// [`usermem::read`] for the current process; a fault if its memory is not in place.
#[inline]
pub fn read(addr: usize, buf: &mut [u8]) -> Outcome<(), Fault> {
    if is_here() { usermem::read(addr, buf) } else { Err(Fault { address: addr }) }
}

/// [`usermem::write`], likewise.
#[inline]
pub fn write(addr: usize, bytes: &[u8]) -> Outcome<(), Fault> {
    if is_here() { usermem::write(addr, bytes) } else { Err(Fault { address: addr }) }
}

/// [`usermem::copy_to_host`], likewise.
#[inline]
pub fn copy_to_host(addr: usize, to: &HostSlice) -> Outcome<(), Fault> {
    if is_here() { usermem::copy_to_host(addr, to) } else { Err(Fault { address: addr }) }
}

/// [`usermem::copy_from_host`], likewise.
#[inline]
pub fn copy_from_host(addr: usize, from: &HostSlice) -> Outcome<(), Fault> {
    if is_here() { usermem::copy_from_host(addr, from) } else { Err(Fault { address: addr }) }
}

/// [`usermem::fill`], likewise.
#[inline]
pub fn fill(addr: usize, byte: u8, size: usize) -> Outcome<(), Fault> {
    if is_here() { usermem::fill(addr, byte, size) } else { Err(Fault { address: addr }) }
}

/// [`usermem::load_u32`], likewise.
#[inline]
pub fn load_u32(addr: usize) -> Outcome<u32, Fault> {
    if is_here() { usermem::load_u32(addr) } else { Err(Fault { address: addr }) }
}

/// [`usermem::compare_exchange_u32`], likewise.
#[inline]
pub fn compare_exchange_u32(addr: usize, expected: u32, new: u32) -> Outcome<u32, Fault> {
    if is_here() { usermem::compare_exchange_u32(addr, expected, new) } else { Err(Fault { address: addr }) }
}

/// Ids of spaces that began as members of a group have this bit: what is private to them is at
/// addresses that others have too.
pub(super) const OVERLAID: usize = 1 << 62;
const TAGS: usize = (1 << 21) - 1;

/// What tells the futex at `addr` from those that other processes have there: 0 for shared memory and
/// in spaces that began without a group.
pub fn futex_tag(addr: usize) -> usize {
    let key = presence::key();
    if key != 0 && key & OVERLAID == 0 {
        return 0;
    }
    super::current().map_or(0, |space| space.futex_tag(addr))
}

impl AddressSpace {
    fn futex_tag(&self, addr: usize) -> usize {
        if self.id & OVERLAID == 0 {
            return 0;
        }
        let is_global = self.inner.lock().vmas.at(addr).is_some_and(|vma| vma.is_global());
        if is_global { 0 } else { (self.id & !OVERLAID) % TAGS + 1 }
    }

    /// Puts this space in place until the current task leaves its vCPU.
    pub(super) fn enter(&self) -> Result<()> {
        if presence::is_in_as(self.id) {
            return Ok(());
        }
        loop {
            if self.try_enter() {
                return Ok(());
            }
            match self.group.get() {
                Some(group) => drop(group.take_turn(self)?),
                None => self.unfold()?,
            }
        }
    }

    fn try_enter(&self) -> bool {
        presence::enter(self.id);
        if self.is_shut.load(Ordering::SeqCst) {
            presence::leave();
            return false;
        }
        if !self.was_entered.load(Ordering::Relaxed) {
            self.was_entered.store(true, Ordering::Relaxed);
        }
        true
    }

    /// Locks this space while it is in place, which it then is until the lock is given up.
    pub(super) fn lock_resident(&self) -> Result<MutexGuard<'_, Space>> {
        loop {
            self.enter()?;
            let mut space = self.inner.lock();
            if space.overlay.is_in_place && !space.is_folded {
                // The caller is about to change something.
                space.overlay.layout = None;
                return Ok(space);
            }
        }
    }
}
