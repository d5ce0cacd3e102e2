//! Overlay groups: spaces that own the same addresses and take turns (fork(2), programs linked at
//! fixed addresses). `docs/design/fork.md` has the pictures.
//!
//! One member is *in place*: its private pages stand at their addresses, and the host's page
//! tables say what its mappings say. Of every other member, pages that differ from what stands there
//! are *saved* in kernel memory.
//!
//! Invariants, for a group's members M and N:
//! - the member in place has nothing saved, and holds the group's addresses and warm pages;
//! - a page granted to M and not saved by it stands in place with M's content;
//! - if such a page is M's and N's, both *track* it, and tracked pages are not writable at the host;
//! - warm pages are nobody's; pages of members that ended are *orphans* until the next that needs to
//!   know finds out whether they still are somebody else's.
//!
//! Lock order: [`Group::turn`], then the space in place, then other members; `members`, `orphans` and
//! `estate` are leaves. Nobody waits for a turn with the lock of a space, or with any lock of the file
//! layer. Switching waits for the lock of the space in place, so what a system call does under it is
//! done to pages in place from its beginning to its end.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use occlum_abi::Errno;
use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::pages::Pages;
use occlum_enclave::usermem;

use super::grant::{no_host_memory, set_host_prot};
use super::layout::Layout;
use super::ranges::RangeSet;
use super::space::{AddressSpace, Space};
use super::territory::Estate;
use super::vma::Prot;
use crate::error::{Error, Result};
use crate::sched::mutex::MutexGuard;
use crate::sched::presence::{self, DEPARTURES, Urgency};
use crate::sched::{Mutex, SpinLock, WaitQueue, timer};

/// How long a member may run while others wait, at least.
const SLICE_NS: u64 = 2_000_000;
/// A turn is this many times as long as it took to put the member in place, so that members with much
/// memory of their own don't spend their time changing places; but never longer than the limit.
const TURN_PER_COST: u64 = 10;
const TURN_MAX_NS: u64 = 300_000_000;

/// The content of a page that is not in place; several members may have it.
pub(super) type SavedPage = Arc<Pages>;

/// What a space has as a member of a group. A space without a group is always in place.
pub(super) struct Overlay {
    pub group: Option<Arc<Group>>,
    pub is_in_place: bool,
    pub saved: BTreeMap<usize, SavedPage>,
    /// Granted pages that other members may have in place too.
    pub tracked: RangeSet,
}

impl Overlay {
    pub fn none() -> Overlay {
        Overlay { group: None, is_in_place: true, saved: BTreeMap::new(), tracked: RangeSet::new() }
    }

    /// For a new member, which waits for its first turn.
    pub fn waiting(group: Arc<Group>) -> Overlay {
        Overlay { group: Some(group), is_in_place: false, ..Overlay::none() }
    }
}

/// When the turn of a member ends that was put in place since `begun_ns`.
fn end_of_turn(begun_ns: u64) -> u64 {
    let now = timer::now_ns();
    let cost = now.saturating_sub(begun_ns);
    now + cost.saturating_mul(TURN_PER_COST).clamp(SLICE_NS, TURN_MAX_NS)
}

/// Spaces that take turns.
pub(super) struct Group {
    /// Who is in place; held by who changes that.
    pub turn: Mutex<Turn>,
    members: SpinLock<Members>,
    /// In place, left by members that ended.
    orphans: SpinLock<RangeSet>,
    /// Left by a member that ended in place, for the next.
    estate: SpinLock<Option<(Estate, Layout)>>,
    estate_left: WaitQueue,
}

#[derive(Default)]
struct Members {
    list: Vec<(usize, Weak<AddressSpace>)>,
    /// The last one has left: nobody can join.
    is_closed: bool,
}

pub(super) struct Turn {
    id: usize,
    space: Weak<AddressSpace>,
    /// Until then it need not give way.
    ends_ns: u64,
}

impl Group {
    /// The group of `space`, which it founds if it has none.
    pub fn of(space: &Arc<AddressSpace>) -> Result<Arc<Group>> {
        let mut inner = loop {
            space.unfold()?;
            let inner = space.inner.lock();
            if let Some(group) = &inner.overlay.group {
                return Ok(group.clone());
            }
            if !inner.is_folded {
                break inner;
            }
        };
        let first = (space.id, Arc::downgrade(space));
        let group = Arc::new(Group {
            turn: Mutex::new(Turn { id: first.0, space: first.1.clone(), ends_ns: 0 }),
            members: SpinLock::new(Members { list: alloc::vec![first], is_closed: false }),
            orphans: SpinLock::new(RangeSet::new()),
            estate: SpinLock::new(None),
            estate_left: WaitQueue::new(),
        });
        inner.overlay.group = Some(group.clone());
        space.group.call_once(|| group.clone());
        Ok(group)
    }

    /// Adds a member; false if the group has ended.
    pub fn join(&self, space: &Arc<AddressSpace>) -> bool {
        let mut members = self.members.lock();
        if !members.is_closed {
            members.list.push((space.id, Arc::downgrade(space)));
        }
        !members.is_closed
    }

    /// All members but one.
    pub fn others(&self, than: usize) -> Vec<Arc<AddressSpace>> {
        loop {
            let mut is_leaving = false;
            let living = {
                let members = self.members.lock();
                let others = members.list.iter().filter(|(id, _)| *id != than);
                let living = others.filter_map(|(_, space)| {
                    let space = space.upgrade();
                    is_leaving |= space.is_none();
                    space
                });
                living.collect()
            };
            if !is_leaving {
                return living;
            }
            // Its pages count until they are orphans, a few instructions from now.
            core::hint::spin_loop();
        }
    }

    /// Puts `space` in place, if it is not, after the one that is had its time. Fails with ENOMEM.
    pub fn take_turn(&self, space: &AddressSpace) -> Result<MutexGuard<'_, Turn>> {
        let mut turn = self.turn.lock();
        if turn.id == space.id {
            return Ok(turn);
        }
        let begun_ns = match turn.space.upgrade() {
            Some(resident) => self.replace(&resident, space, turn.ends_ns)?,
            None => self.succeed(space)?,
        };
        *turn = Turn { id: space.id, space: space.this.clone(), ends_ns: end_of_turn(begun_ns) };
        space.is_shut.store(false, Ordering::SeqCst);
        Ok(turn)
    }

    /// Makes all tasks of `space` leave user mode and user memory, until its door opens again.
    pub fn shut(&self, space: &AddressSpace) {
        space.is_shut.store(true, Ordering::SeqCst);
        presence::leave();
        let is_gone = || (!presence::ask(space.id, Urgency::Urgent)).then_some(());
        if let Err(error) = DEPARTURES.wait_until(None, false, is_gone) {
            unreachable!("an endless uninterruptible wait ended: {error:?}");
        }
    }

    /// Returns when it began to exchange pages.
    fn replace(&self, resident: &AddressSpace, space: &AddressSpace, ends_ns: u64) -> Result<u64> {
        presence::leave();
        let is_gone = || (!presence::ask(resident.id, Urgency::Patient)).then_some(());
        // Whether it left or its time is over: next it is made to.
        let _ = DEPARTURES.wait_until(Some(ends_ns), false, is_gone);
        self.shut(resident);
        let begun_ns = timer::now_ns();
        let mut from = resident.inner.lock();
        let mut to = space.inner.lock();
        let before = from.layout();
        to.territory.take_estate(from.territory.give_estate());
        let switched = self.switch(Some((&mut from, resident.id)), &before, &mut to, space.id);
        if let Err(error) = switched {
            from.territory.take_estate(to.territory.give_estate());
            resident.is_shut.store(false, Ordering::SeqCst);
            return Err(error);
        }
        from.overlay.is_in_place = false;
        to.overlay.is_in_place = true;
        Ok(begun_ns)
    }

    /// The member in place has ended: goes on with what it left. Returns when it began.
    fn succeed(&self, space: &AddressSpace) -> Result<u64> {
        let left = self.estate_left.wait_until(None, false, || self.estate.lock().take());
        let Ok((estate, before)) = left else {
            unreachable!("an endless uninterruptible wait ended");
        };
        let begun_ns = timer::now_ns();
        let mut to = space.inner.lock();
        to.territory.take_estate(estate);
        if let Err(error) = self.switch(None, &before, &mut to, space.id) {
            *self.estate.lock() = Some((to.territory.give_estate(), before));
            return Err(error);
        }
        to.overlay.is_in_place = true;
        Ok(begun_ns)
    }

    /// Exchanges pages and permissions. If it fails for want of kernel memory nothing has changed.
    fn switch(
        &self,
        from: Option<(&mut Space, usize)>,
        before: &Layout,
        to: &mut Space,
        to_id: usize,
    ) -> Result<()> {
        let runs = runs_of(to.overlay.saved.keys().copied());
        for run in &runs {
            to.overlay.tracked.remove(run.clone());
            to.territory.warm.remove(run.clone());
        }
        let after = to.layout();
        let must_open = |run: &&Range<usize>| !(before.is_writable(run) && after.is_writable(run));
        let opened: Vec<_> = runs.iter().filter(must_open).cloned().collect();
        for run in &opened {
            set_host_prot(run, Prot::READ_WRITE)?;
        }
        let meanwhile = before.with(&opened, Prot::READ_WRITE);
        if let Err(error) = self.save_displaced(from, to_id, &runs) {
            meanwhile.change_to(before, to.territory.owned())?;
            // What was warm may be so no longer.
            let mut orphans = self.orphans.lock();
            runs.into_iter().for_each(|run| {
                orphans.insert(run);
            });
            return Err(error);
        }
        for (page, content) in core::mem::take(&mut to.overlay.saved) {
            usermem::write(page, &content).map_err(|_| no_host_memory())?;
        }
        meanwhile.change_to(&after, to.territory.owned())
    }

    /// Saves what stands in `runs` for the members who have it.
    fn save_displaced(
        &self,
        from: Option<(&mut Space, usize)>,
        to_id: usize,
        runs: &[Range<usize>],
    ) -> Result<()> {
        let mut copies = PageCopies::default();
        let Some((from, from_id)) = from else {
            return self.save_for_others(&runs.iter().cloned().collect(), &[to_id], &mut copies);
        };
        // Others may have what the member in place tracks, or does not have.
        let mut others = RangeSet::new();
        let mut saved = Ok(());
        for run in runs {
            let missing = from.granted.missing(run.clone());
            let tracked = from.overlay.tracked.within(run.clone());
            for part in missing.into_iter().chain(tracked) {
                others.insert(part);
            }
            saved = saved.and_then(|()| from.save(run.clone(), &mut copies));
        }
        saved = saved.and_then(|()| self.save_for_others(&others, &[from_id, to_id], &mut copies));
        if saved.is_err() {
            from.overlay.saved.clear();
        }
        saved
    }

    /// Saves pages in place for all members that have them, but for those excepted.
    fn save_for_others(&self, ranges: &RangeSet, except: &[usize], pages: &mut PageCopies) -> Result<()> {
        if ranges.size() == 0 {
            return Ok(());
        }
        for member in self.others(except[0]) {
            if except.contains(&member.id) {
                continue;
            }
            let mut space = member.inner.lock();
            for range in ranges.iter() {
                space.save(range, pages)?;
            }
        }
        Ok(())
    }

    /// `space` ends.
    pub fn leave(&self, space: &AddressSpace) {
        let mut inner = space.inner.lock();
        self.orphan(&mut inner);
        let layout = if inner.overlay.is_in_place { inner.layout() } else { Layout::default() };
        super::commit::release(inner.granted.size());
        inner.granted = RangeSet::new();
        inner.overlay.saved.clear();
        let is_last = {
            let mut members = self.members.lock();
            members.list.retain(|(id, _)| *id != space.id);
            members.is_closed = members.list.is_empty();
            members.is_closed
        };
        if is_last {
            self.wind_up(&mut inner, layout);
        } else if inner.overlay.is_in_place {
            *self.estate.lock() = Some((inner.territory.give_estate(), layout));
            self.estate_left.wake_all();
        }
        inner.overlay = Overlay::none();
    }

    /// The last member gives everything up.
    fn wind_up(&self, last: &mut Space, layout: Layout) {
        let mut layout = layout;
        while !last.overlay.is_in_place {
            // Who was in place has left the list of members, and is about to leave its estate.
            let Some((estate, before)) = self.estate.lock().take() else {
                core::hint::spin_loop();
                continue;
            };
            last.territory.take_estate(estate);
            layout = before;
            last.overlay.is_in_place = true;
        }
        last.overlay.saved.clear();
        let closed = layout.change_to(&Layout::default(), last.territory.owned());
        let orphans = core::mem::take(&mut *self.orphans.lock());
        for range in orphans.iter() {
            match closed {
                Ok(()) => last.adopt(range),
                // Accessible pages with old content: never used again.
                Err(_) => last.territory.abandon(range),
            }
        }
    }

    /// Pages in place that only a member that ends has become orphans.
    fn orphan(&self, space: &mut Space) {
        let mut orphans = self.orphans.lock();
        for part in space.granted.iter() {
            for mine in space.in_place(part) {
                orphans.insert(mine);
            }
        }
    }
}

/// Copies of pages in place that were already made, by address: one serves all members.
pub(super) type PageCopies = BTreeMap<usize, SavedPage>;

impl Space {
    /// The parts of granted pages inside `range` that stand in place.
    pub fn in_place(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        for granted in self.granted.within(range) {
            let mut at = granted.start;
            for (&page, _) in self.overlay.saved.range(granted.clone()) {
                if page > at {
                    parts.push(at..page);
                }
                at = page + PAGE_SIZE;
            }
            if at < granted.end {
                parts.push(at..granted.end);
            }
        }
        parts
    }

    /// Saves what this member has in place; the pages must be readable at the host.
    pub fn save(&mut self, range: Range<usize>, pages: &mut PageCopies) -> Result<()> {
        for part in self.in_place(range) {
            for page in part.step_by(PAGE_SIZE) {
                let copy = match pages.get(&page) {
                    Some(copy) => copy.clone(),
                    None => {
                        let copy = copy_of(page)?;
                        pages.insert(page, copy.clone());
                        copy
                    }
                };
                self.overlay.saved.insert(page, copy);
            }
        }
        Ok(())
    }

    /// Before pages that this space (in place) has not are made for it: what others have there is
    /// saved, and what stands there is warm.
    pub fn make_room(&mut self, range: &Range<usize>) -> Result<()> {
        let Some(group) = self.overlay.group.clone() else { return Ok(()) };
        self.adopt_orphans(&group);
        let needed = self.needed_by_others(&group, range.clone());
        if needed.size() == 0 {
            return Ok(());
        }
        for part in needed.iter() {
            set_host_prot(&part, Prot::READ)?;
        }
        group.save_for_others(&needed, &[self.id], &mut PageCopies::default())?;
        for part in needed.iter() {
            set_host_prot(&part, Prot::NONE)?;
            self.adopt(part);
        }
        Ok(())
    }

    /// Gives up granted pages that other members have in place: they stay there.
    pub fn part_with(&mut self, range: Range<usize>) -> Result<()> {
        let tracked = self.overlay.tracked.within(range.clone());
        let Some(group) = self.overlay.group.clone().filter(|_| !tracked.is_empty()) else { return Ok(()) };
        let mut needed = RangeSet::new();
        for part in tracked {
            for part in self.needed_by_others(&group, part.clone()).iter() {
                needed.insert(part);
            }
            self.overlay.tracked.remove(part);
        }
        for part in needed.iter() {
            set_host_prot(&part, Prot::NONE)?;
            super::commit::release(self.granted.remove(part));
        }
        Ok(())
    }

    /// Takes addresses away from all members of the group, for what is not swapped. ENOMEM if one of them
    /// has a mapping there.
    pub fn claim_from_others(&self, range: &Range<usize>) -> Result<()> {
        let Some(group) = &self.overlay.group else { return Ok(()) };
        let others = group.others(self.id);
        if others.iter().any(|member| !member.inner.lock().vmas.is_free(range.clone())) {
            return Err(Error::new(Errno::ENOMEM, "another process has a mapping there"));
        }
        for member in others {
            member.inner.lock().territory.give_up_free(range.clone());
        }
        Ok(())
    }

    /// The pages in `range` that other members have in place.
    pub fn needed_by_others(&self, group: &Group, range: Range<usize>) -> RangeSet {
        let mut needed = RangeSet::new();
        for member in group.others(self.id) {
            for part in member.inner.lock().in_place(range.clone()) {
                needed.insert(part);
            }
        }
        needed
    }

    /// Makes granted pages this member's alone, and as writable as their mappings say.
    pub fn unshare(&mut self, range: Range<usize>) -> Result<()> {
        let tracked = self.overlay.tracked.within(range);
        let Some(group) = self.overlay.group.clone().filter(|_| !tracked.is_empty()) else { return Ok(()) };
        let mut shared = RangeSet::new();
        for part in &tracked {
            for vma in self.vmas.parts(part.clone()).iter().filter(|vma| vma.prot.is_none()) {
                set_host_prot(&vma.range(), Prot::READ)?;
            }
            shared.insert(part.clone());
        }
        group.save_for_others(&shared, &[self.id], &mut PageCopies::default())?;
        for part in tracked {
            self.overlay.tracked.remove(part.clone());
            for vma in self.vmas.parts(part) {
                set_host_prot(&vma.range(), vma.prot)?;
            }
        }
        Ok(())
    }

    /// Finds out which pages of members that ended are nobody's.
    fn adopt_orphans(&mut self, group: &Group) {
        let orphans = core::mem::take(&mut *group.orphans.lock());
        if orphans.size() == 0 {
            return;
        }
        let mut free = orphans;
        for granted in self.granted.iter() {
            free.remove(granted);
        }
        for member in group.others(self.id) {
            let space = member.inner.lock();
            let ranges: Vec<_> = free.iter().collect();
            for part in ranges.into_iter().flat_map(|range| space.in_place(range)) {
                free.remove(part);
            }
        }
        free.iter().for_each(|range| self.adopt(range));
    }

    /// Takes inaccessible pages with old content that are nobody's.
    fn adopt(&mut self, range: Range<usize>) {
        for part in self.territory.warm.missing(range) {
            self.territory.keep_or_release(part);
        }
    }
}

/// A copy of the page that stands at an address.
pub(super) fn copy_of(page: usize) -> Result<SavedPage> {
    let mut copy = Pages::new(0).map_err(|_| Error::new(Errno::ENOMEM, "no kernel pages"))?;
    usermem::read(page, &mut copy).map_err(|_| no_host_memory())?;
    Ok(Arc::new(copy))
}

/// Pages as ranges.
fn runs_of(pages: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end = page + PAGE_SIZE,
            _ => runs.push(page..page + PAGE_SIZE),
        }
    }
    runs
}
