//! fork(2): a second space with the same content at the same addresses, in the same overlay group.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_abi::boot::ForkCopies;
use occlum_abi::layout::PAGE_SIZE;

use super::commit;
use super::fault::Access;
use super::file::FileIdentity;
use super::overlay::{Group, Overlay, PageCopies, copy_of};
use super::ranges::RangeSet;
use super::space::{AddressSpace, Parts, Space};
use super::territory::Territory;
use super::vma::{OnFork, Prot, VmaSet};
use crate::error::{Errno, Result, err};
use crate::sched::{SpinLock, Waiter, timer};

/// Pages written since the last fork are copied at once if they are no more than this: both sides
/// will write them again, and a copy costs less than a fault.
const EAGER_MAX: usize = 64 * PAGE_SIZE;
/// How often, and how far apart, a program tries to get its addresses: 20 ms, in which any space ends.
const TRIES: usize = 200;
const TRY_AGAIN_NS: u64 = 100_000;
/// A first write makes so much around it writable.
const UNSHARE_SIZE: usize = 4 * PAGE_SIZE;

/// Whether permissions of pages tell who writes first. If not, fork copies whatever may be written, and
/// only pages that can't be written are tracked.
static TRACKS_WRITES: AtomicBool = AtomicBool::new(true);

pub(super) fn set_copies(copies: ForkCopies) {
    TRACKS_WRITES.store(copies == ForkCopies::OnWrite, Ordering::Relaxed);
}

pub(super) fn tracks_writes() -> bool {
    TRACKS_WRITES.load(Ordering::Relaxed)
}

/// Who has fixed addresses that programs are linked at.
static FIXED: SpinLock<Vec<Fixed>> = SpinLock::new(Vec::new());

struct Fixed {
    range: Range<usize>,
    /// The one that came first, alone.
    first: Weak<AddressSpace>,
    /// Since a second came.
    group: Weak<Group>,
}

impl Fixed {
    fn is_gone(&self) -> bool {
        self.first.strong_count() == 0 && self.group.strong_count() == 0
    }
}

impl AddressSpace {
    /// A copy of this space for a child; its pages are copied when one of both writes them. Commitment
    /// is charged in full, so that a write never fails for it: ENOMEM if that does not fit.
    pub fn fork(self: &Arc<Self>) -> Result<Arc<AddressSpace>> {
        let group = Group::of(self)?;
        note_group(self, &group);
        let turn = group.take_turn(self)?;
        // Nobody writes while pages change hands.
        group.shut(self);
        let parts = self.inner.lock().fork(&group);
        let child = parts.map(AddressSpace::from_parts);
        if let Ok(child) = &child {
            group.join(child);
        }
        self.is_shut.store(false, Ordering::SeqCst);
        drop(turn);
        child
    }

    /// A space for a program that must be at `fixed`. It takes turns with others that are there.
    pub fn for_fixed(program: FileIdentity, fixed: Range<usize>) -> Result<Arc<AddressSpace>> {
        let whole = fixed.start & !(PAGE_SIZE - 1)..fixed.end.next_multiple_of(PAGE_SIZE);
        for _ in 0..TRIES {
            if let Some(space) = join_at(program, &fixed)? {
                return Ok(space);
            }
            let mut territory = Territory::fixed(program)?;
            if territory.can_claim(whole.clone()) && territory.claim(whole.clone()).is_ok() {
                territory.give_back(whole);
                let space = AddressSpace::from_parts(Parts::new(territory));
                let first = Arc::downgrade(&space);
                FIXED.lock().push(Fixed { range: fixed, first, group: Weak::new() });
                return Ok(space);
            }
            // Its last owner is just ending, or a new one just beginning.
            drop(territory);
            let soon = timer::now_ns() + TRY_AGAIN_NS;
            // Nothing else ends this wait.
            let _ = Waiter::new().wait(Some(soon), false);
        }
        err(Errno::ENOMEM, "addresses belong to another process")
    }
}

/// A space in the group of those who have fixed addresses; who has them alone founds one.
fn join_at(program: FileIdentity, fixed: &Range<usize>) -> Result<Option<Arc<AddressSpace>>> {
    let touches = |known: &Fixed| known.range.start < fixed.end && fixed.start < known.range.end;
    let (first, group) = {
        let mut known = FIXED.lock();
        known.retain(|known| !known.is_gone());
        let Some(found) = known.iter().find(|known| touches(known)) else { return Ok(None) };
        (found.first.upgrade(), found.group.upgrade())
    };
    let group = match (group, &first) {
        (Some(group), _) => group,
        (None, Some(first)) => Group::of(first)?,
        (None, None) => return Ok(None),
    };
    if let Some(first) = &first {
        note_group(first, &group);
    }
    let overlay = Overlay::waiting(group.clone());
    let space =
        AddressSpace::from_parts(Parts { overlay, ..Parts::new(Territory::vagrant(program)) });
    Ok(group.join(&space).then_some(space))
}

/// Whoever has fixed addresses has founded a group.
fn note_group(first: &AddressSpace, group: &Arc<Group>) {
    for known in FIXED.lock().iter_mut().filter(|known| known.first.ptr_eq(&first.this)) {
        known.group = Arc::downgrade(group);
    }
}

impl Space {
    fn fork(&mut self, group: &Arc<Group>) -> Result<Parts> {
        let vmas = self.vmas.forked();
        let mut territory = self.territory.heir();
        for skipped in self.vmas.iter().filter(|vma| vma.on_fork.is_skipped && !vma.is_global()) {
            territory.give_back(skipped.range());
        }
        let granted = self.granted_to_child(&vmas);
        commit::grant(granted.size())?;
        let shared = self.share(&granted);
        let (saved, tracked) = shared.inspect_err(|_| commit::release(granted.size()))?;
        Ok(Parts {
            vmas,
            granted,
            brk: self.brk,
            stubs: self.stubs.clone(),
            limits: self.limits,
            overlay: Overlay { saved, tracked, ..Overlay::waiting(group.clone()) },
            ..Parts::new(territory)
        })
    }

    fn granted_to_child(&self, vmas: &VmaSet) -> RangeSet {
        let copied = vmas.iter().filter(|vma| !vma.is_global() && vma.on_fork == OnFork::COPY);
        copied.flat_map(|vma| self.granted.within(vma.range())).collect()
    }

    /// Copies a few pages for the child, and shares the others with it. Gives the copies, and what is
    /// shared.
    fn share(&mut self, pages: &RangeSet) -> Result<(PageCopies, RangeSet)> {
        let mut copies = BTreeMap::new();
        let mut tracked = pages.clone();
        let written = self.written(pages);
        let size: usize = written.iter().map(|part| part.end - part.start).sum();
        if size <= EAGER_MAX || !tracks_writes() {
            for part in written {
                for page in part.clone().step_by(PAGE_SIZE) {
                    copies.insert(page, copy_of(page)?);
                }
                tracked.remove(part);
            }
        }
        let before = self.layout();
        self.overlay.layout = None;
        for part in tracked.iter() {
            self.overlay.tracked.insert(part);
        }
        before.change_to(&self.layout(), self.territory.owned())?;
        Ok((copies, tracked))
    }

    /// Which of these pages this space alone may write without a fault.
    fn written(&self, pages: &RangeSet) -> Vec<Range<usize>> {
        let writable = self.vmas.iter().filter(|vma| vma.prot.contains(Prot::WRITE) && !vma.is_global());
        let parts = writable.flat_map(|vma| pages.within(vma.range()));
        parts.flat_map(|part| self.overlay.tracked.missing(part)).collect()
    }

    /// A fault at a granted page: the first write after a fork. Says whether it was that.
    pub fn unshare_at(&mut self, page: usize, access: Access) -> Result<bool> {
        if access != Access::Write || self.overlay.tracked.at(page).is_none() {
            return Ok(false);
        }
        let Some(vma) = self.vmas.at(page) else { return Ok(false) };
        let first = page & !(UNSHARE_SIZE - 1);
        let cluster = first.max(vma.start)..(first + UNSHARE_SIZE).min(vma.end);
        self.unshare(cluster)?;
        Ok(true)
    }
}
