//! Folding: memory of processes that sleep is put away while there is too much of it.
//!
//! The host has a bound on its mappings (vm.max_map_count, 65530), and `user_space_size` is a bound on
//! pages. A process has some ten mappings and its own copy of its text, even if it only sleeps. A space
//! is *folded* when none of its tasks is on a vCPU: all its pages become inaccessible, which leaves one mapping
//! or two, and, if memory is short, pages of files that can't change are given back. Its next task that
//! enters unfolds it (`residency.rs`), and faults bring the file pages back.
//!
//! Members of overlay groups are not folded: they have `overlay.rs`.
//!
//! Whoever folds may hold a space's lock, so it only tries the lock of the other. `SPACES` is a leaf lock.

use alloc::collections::BTreeMap;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use occlum_enclave::host;

use super::commit;
use super::layout::Layout;
use super::space::{AddressSpace, Space};
use super::vma::Source;
use crate::error::Result;
use crate::sched::presence::{self, Urgency};
use crate::sched::{SpinLock, timer};

/// Spaces that are not folded, by the order in which they were looked at.
static SPACES: SpinLock<Candidates> = SpinLock::new(Candidates { next: 1, list: BTreeMap::new() });

struct Candidates {
    next: usize,
    list: BTreeMap<usize, Candidate>,
}

struct Candidate {
    space: Weak<AddressSpace>,
    looked_ns: u64,
}

/// About as many mappings as the host has for user memory.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);
/// With more than this some spaces are folded: a quarter of what the host allows, since ten thousand that are
/// folded need as many, their kernel stacks twice as many, and counting is rough.
const MAPPINGS_MAX: usize = 15_000;
/// How many spaces are looked at each time there is too much.
const LOOKS: usize = 8;
/// A space is folded when none of its tasks entered for at least so long.
const SLEEP_NS: u64 = 5_000_000;

impl AddressSpace {
    /// It may be folded if it sleeps from now on.
    pub(super) fn may_be_folded(&self) {
        let candidate = Candidate { space: self.this.clone(), looked_ns: timer::now_ns() };
        let mut spaces = SPACES.lock();
        let number = spaces.next;
        spaces.next += 1;
        // Still there if nobody took it out to look at it.
        let before = self.candidate.swap(number, Ordering::Relaxed);
        spaces.list.remove(&before);
        spaces.list.insert(number, candidate);
    }

    /// It ends.
    pub(super) fn is_no_candidate(&self) {
        SPACES.lock().list.remove(&self.candidate.load(Ordering::Relaxed));
    }

    /// Puts the pages back for a task that is about to use them.
    pub(super) fn unfold(&self) -> Result<()> {
        let mut space = self.inner.lock();
        if space.is_folded {
            Layout::default().change_to(&space.layout(), space.territory.owned())?;
            space.is_folded = false;
            space.weigh();
            self.may_be_folded();
        }
        if space.overlay.group.is_none() {
            self.is_shut.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Folds the space if none of its tasks is there.
    fn try_fold(&self, haste: Haste) -> Folding {
        let was_entered = self.was_entered.swap(false, Ordering::Relaxed);
        if was_entered && haste == Haste::Patient {
            return Folding::Later;
        }
        let Some(mut space) = self.inner.try_lock() else { return Folding::Later };
        if space.overlay.group.is_some() || space.is_folded {
            return Folding::Never;
        }
        self.is_shut.store(true, Ordering::SeqCst);
        if presence::ask(self.id, Urgency::Patient) {
            self.is_shut.store(false, Ordering::SeqCst);
            return Folding::Later;
        }
        space.fold();
        Folding::Done
    }
}

/// Whether spaces are spared that ran of late.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    Patient,
    Urgent,
}

enum Folding {
    Done,
    /// Someone is there.
    Later,
    /// It is a group's, or folded already.
    Never,
}

impl Space {
    fn fold(&mut self) {
        if commit::is_short() {
            self.drop_file_pages();
        }
        // What could not be closed stays open; unfolding sets all permissions again.
        let _ = self
            .close_standing(&(0..usize::MAX), |_, _| false)
            .and_then(|()| self.layout().change_to(&Layout::default(), self.territory.owned()));
        self.is_folded = true;
        self.weigh();
    }

    /// Gives back pages that can be read again.
    fn drop_file_pages(&mut self) {
        let is_clean = |source: &Source| matches!(source, Source::File { file, .. } if file.is_unchanging());
        let clean = self.vmas.iter().filter(|vma| vma.is_pristine && is_clean(&vma.source));
        let parts: Vec<_> = clean.flat_map(|vma| self.granted.within(vma.range())).collect();
        for part in parts {
            if host::release_user(part.start, part.end - part.start).is_ok() {
                commit::release(self.granted.remove(part));
            }
        }
    }

    /// Notes how many mappings the host has for this space, about: each run of pages has neighbours that
    /// are inaccessible, each mapping permissions of its own.
    pub fn weigh(&mut self) {
        let weight = if self.is_folded { 1 } else { self.vmas.len() + self.granted.parts() };
        MAPPINGS.fetch_add(weight, Ordering::Relaxed);
        MAPPINGS.fetch_sub(core::mem::replace(&mut self.weight, weight), Ordering::Relaxed);
    }

    /// The space is gone.
    pub fn weigh_nothing(&mut self) {
        MAPPINGS.fetch_sub(core::mem::take(&mut self.weight), Ordering::Relaxed);
    }
}

/// Folds some spaces if there is too much of anything. Called before pages are made.
pub(super) fn relieve() {
    if MAPPINGS.load(Ordering::Relaxed) > MAPPINGS_MAX || commit::is_short() {
        fold_some(LOOKS, Haste::Patient);
    }
}

/// There is no memory: folds all that can be. The space that needs it is locked, and so left alone.
pub(super) fn reclaim() {
    let all = SPACES.lock().list.len();
    fold_some(all, Haste::Urgent);
}

fn fold_some(looks: usize, haste: Haste) {
    let now_ns = timer::now_ns();
    for _ in 0..looks {
        let oldest = {
            let mut spaces = SPACES.lock();
            let Some(first) = spaces.list.first_entry() else { return };
            let is_due = now_ns.saturating_sub(first.get().looked_ns) >= SLEEP_NS;
            if haste == Haste::Patient && !is_due {
                return;
            }
            first.remove()
        };
        let Some(space) = oldest.space.upgrade() else { continue };
        if let Folding::Later = space.try_fold(haste) {
            space.may_be_folded();
        }
    }
}
