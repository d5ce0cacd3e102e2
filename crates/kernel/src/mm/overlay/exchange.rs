//! Exchanging the pages of the member in place for those of the next.

use alloc::vec::Vec;
use core::ops::Range;

use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::usermem;

use super::group::Group;
use super::PageCopies;
use crate::error::Result;
use crate::mm::grant::{no_host_memory, set_host_prot};
use crate::mm::layout::Layout;
use crate::mm::ranges::RangeSet;
use crate::mm::space::Space;
use crate::mm::vma::Prot;

impl Group {
    /// Exchanges pages and permissions. If it fails for want of kernel memory nothing has changed.
    pub(super) fn switch(
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
