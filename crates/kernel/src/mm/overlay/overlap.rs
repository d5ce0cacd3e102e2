//! What the member in place owes the others when it makes pages, writes them, and gives them up.

use alloc::vec::Vec;
use core::ops::Range;

use occlum_abi::Errno;

use super::group::Group;
use super::PageCopies;
use crate::error::{Error, Result};
use crate::mm::commit;
use crate::mm::grant::set_host_prot;
use crate::mm::ranges::RangeSet;
use crate::mm::space::Space;
use crate::mm::vma::Prot;

impl Space {
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
            commit::release(self.granted.remove(part));
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
    pub(super) fn adopt(&mut self, range: Range<usize>) {
        for part in self.territory.warm.missing(range) {
            self.territory.keep_or_release(part);
        }
    }
}
