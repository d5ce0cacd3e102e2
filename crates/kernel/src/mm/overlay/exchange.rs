//! Exchanging the pages of the member in place for those of the next.
//!
//! A page that only the two of them have is swapped with the buffer that holds the other's content: nothing
//! is allocated and nothing looked up. Where others may have the page, too, its content is copied for them first.
//!
//! What fails is undone: contents first, then permissions. If that can't be done either, the content
//! in place is nobody's, and the group is [`Failure::Broken`].

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::{log, usermem};

use super::group::Group;
use super::{PageCopies, SavedPage, copy_of, new_page};
use crate::error::{Error, Result};
use crate::mm::grant::{no_host_memory, set_host_prot};
use crate::mm::layout::Layout;
use crate::mm::ranges::RangeSet;
use crate::mm::space::Space;
use crate::mm::vma::Prot;

/// Why a member is not in place.
pub(super) enum Failure {
    /// All is as it was.
    Undone(Error),
    /// What stands in place is lost.
    Broken(Error),
}

/// What was done to pages, to be undone from.
#[derive(Default)]
struct Done {
    /// What stood at pages that were swapped, in their order.
    swapped: Vec<(usize, SavedPage)>,
    /// What was put at the others.
    put: Vec<(usize, SavedPage)>,
}

impl Group {
    /// Exchanges pages and permissions; those in place are shown as `before` says.
    pub(super) fn switch(
        &self,
        mut from: Option<&mut Space>,
        before: &Layout,
        to: &mut Space,
    ) -> core::result::Result<(), Failure> {
        let runs = runs_of(to.overlay.saved.keys().copied());
        let after = to.layout_alone(&runs);
        let must_open = |run: &&Range<usize>| !(before.is_writable(run) && after.is_writable(run));
        let opened: Vec<_> = runs.iter().filter(must_open).map(|run| (run.clone(), Prot::READ_WRITE)).collect();
        let mut done = Done::default();
        let switched = open(&opened)
            .and_then(|()| self.exchange(from.as_deref_mut(), to, &mut done))
            .and_then(|()| before.with(&opened).change_to(&after, to.territory.owned()));
        for run in &runs {
            to.territory.warm.remove(run.clone());
        }
        let Err(error) = switched else {
            if let Some(from) = from {
                from.overlay.saved.extend(done.swapped);
            }
            to.overlay.layout = Some(after);
            return Ok(());
        };
        to.overlay.layout = None;
        // What was warm may be so no longer.
        self.orphans.lock().extend(runs);
        let undone = open(&opened).and_then(|()| undo_exchange(from, to, done));
        let undone =
            undone.and_then(|()| after.with(&opened).change_to(before, to.territory.owned()));
        match undone {
            Ok(()) => Err(Failure::Undone(error)),
            Err(_) => Err(Failure::Broken(error)),
        }
    }

    /// Puts what `to` has saved in place, and saves what stood there for those who have it.
    fn exchange(&self, mut from: Option<&mut Space>, to: &mut Space, done: &mut Done) -> Result<()> {
        let (alone, common) = to.overlay.pages_by_owner(from.as_deref());
        let mut spare = new_page()?;
        if let Err(error) = self.save_displaced(from.as_deref_mut(), to.id, &common) {
            if let Some(from) = from {
                from.overlay.saved.clear();
            }
            return Err(error);
        }
        let mut alone = alone.iter().peekable();
        while let Some((page, content)) = to.overlay.saved.pop_first() {
            while alone.next_if(|range| range.end <= page).is_some() {}
            if alone.peek().is_some_and(|range| range.contains(&page)) {
                if let Err(content) = swap(page, content, &mut spare, &mut done.swapped) {
                    to.overlay.saved.insert(page, content);
                    return Err(no_host_memory());
                }
            } else {
                let put = usermem::write(page, &content);
                done.put.push((page, content));
                put.map_err(|_| no_host_memory())?;
            }
        }
        Ok(())
    }

    /// Saves what stands in `common` for the members who have it.
    fn save_displaced(&self, from: Option<&mut Space>, to_id: usize, common: &RangeSet) -> Result<()> {
        let mut copies = PageCopies::default();
        let Some(from) = from else {
            return self.save_for_others(common, &[to_id], &mut copies);
        };
        for range in common.iter() {
            from.save(range, &mut copies)?;
        }
        self.save_for_others(common, &[from.id, to_id], &mut copies)
    }

    /// Saves pages in place for all members that have them, but for those excepted.
    pub(super) fn save_for_others(&self, ranges: &RangeSet, except: &[usize], pages: &mut PageCopies) -> Result<()> {
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
}

/// Puts `content` at a page and keeps what stood there: in `spare`, which `content`'s buffer replaces. If the
/// page can't be touched nothing has changed, and the content comes back.
fn swap(
    page: usize,
    content: SavedPage,
    spare: &mut SavedPage,
    swapped: &mut Vec<(usize, SavedPage)>,
) -> core::result::Result<(), SavedPage> {
    let Some(buffer) = Arc::get_mut(spare) else { return Err(content) };
    if usermem::read(page, buffer).is_err() || usermem::write(page, &content).is_err() {
        return Err(content);
    }
    swapped.push((page, core::mem::replace(spare, content)));
    Ok(())
}

fn open(ranges: &[(Range<usize>, Prot)]) -> Result<()> {
    ranges.iter().try_for_each(|(range, prot)| set_host_prot(range, *prot))
}

/// Makes an exchange, or a part of one, not have happened. The pages are writable.
fn undo_exchange(from: Option<&mut Space>, to: &mut Space, done: Done) -> Result<()> {
    log!(Warn, "a switch of processes is undone: {} pages", done.swapped.len() + done.put.len());
    let mut to_saved = core::mem::take(&mut to.overlay.saved);
    for (page, content) in done.swapped {
        // For once a copy: the buffers have moved on.
        to_saved.insert(page, copy_of(page)?);
        usermem::write(page, &content).map_err(|_| no_host_memory())?;
    }
    for (page, content) in done.put {
        if let Some(old) = from.as_ref().and_then(|from| from.overlay.saved.get(&page)) {
            usermem::write(page, old).map_err(|_| no_host_memory())?;
        }
        to_saved.insert(page, content);
    }
    if let Some(from) = from {
        from.overlay.saved.clear();
    }
    to.overlay.saved = to_saved;
    Ok(())
}

impl super::Overlay {
    /// Which saved pages only this member and the one in place have, so that they can be swapped, and which
    /// others may have too.
    fn pages_by_owner(&self, from: Option<&Space>) -> (RangeSet, RangeSet) {
        let unique = self.saved.iter().filter(|(_, content)| Arc::strong_count(content) == 1);
        let mut alone = RangeSet::new();
        if let Some(from) = from {
            for run in runs_of(unique.map(|(&page, _)| page)) {
                alone.extend(from.granted.within(run.clone()));
                for tracked in from.overlay.tracked.within(run) {
                    alone.remove(tracked);
                }
            }
        }
        let mut common = RangeSet::new();
        for run in runs_of(self.saved.keys().copied()) {
            common.extend(alone.missing(run));
        }
        (alone, common)
    }
}

impl Space {
    /// What the host is to show of this space once what it saved stands at `runs`, which are its own then.
    fn layout_alone(&mut self, runs: &[Range<usize>]) -> Arc<Layout> {
        let layout = self.layout();
        let mut changed = Vec::new();
        for run in runs {
            for part in self.overlay.tracked.within(run.clone()) {
                self.overlay.tracked.remove(part.clone());
                changed.extend(self.vmas.parts(part).iter().map(|vma| (vma.range(), vma.prot)));
            }
        }
        if changed.is_empty() { layout } else { Arc::new(layout.with(&changed)) }
    }
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
