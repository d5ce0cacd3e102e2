//! Pages without a mapping that are still backed ([`WarmPages`]), with old content. They are
//! inaccessible, but for what a space left that ended (`standing.rs`).
//!
//! Making a fresh page costs the host microseconds, using a warm one the time to overwrite it. Of some
//! the content is *known*: text and constants of files that can't change. Where the next program
//! maps the same bytes at the same address (it does when it is the same program in the same arena),
//! they need not be overwritten either.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use occlum_enclave::host;

use super::commit;
use super::file::FileIdentity;
use super::grant::set_host_prot;
use super::ranges::RangeSet;
use super::standing::Standing;
use super::vma::Prot;
use crate::error::Result;

/// What a range of warm pages holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Bytes of a file from `offset` on, patched as `stubs` says.
    File { file: FileIdentity, offset: u64, stubs: Option<StubPlace> },
    /// The stubs themselves.
    Stubs(StubPlace),
}

/// Everything that determines the bytes of stubs and of the jumps to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StubPlace {
    pub file: FileIdentity,
    /// Address of the first stub.
    pub start: usize,
    /// The text they serve: address, end, and file offset.
    pub text: (usize, usize, u64),
}

#[derive(Default)]
pub(super) struct WarmPages {
    pages: RangeSet,
    /// Start to end and content; each entry lies wholly in `pages`.
    known: BTreeMap<usize, (usize, Content)>,
    /// Those that are accessible.
    standing: Standing,
}

impl Content {
    /// Whether it is a part of a file, patched or not.
    pub fn is_of(&self, wanted: FileIdentity, at: u64) -> bool {
        matches!(self, Content::File { file, offset, .. } if *file == wanted && *offset == at)
    }
}

impl WarmPages {
    pub fn within(&self, range: Range<usize>) -> Vec<Range<usize>> {
        self.pages.within(range)
    }

    pub fn missing(&self, range: Range<usize>) -> Vec<Range<usize>> {
        self.pages.missing(range)
    }

    /// Inaccessible pages that were counted by [`commit::try_keep_warm`].
    pub fn insert(&mut self, range: Range<usize>) {
        self.forget_content(&range);
        self.standing.remove(&range);
        self.pages.insert(range);
    }

    /// Says that pages which were just inserted are still accessible; ranges come in ascending order.
    pub fn leave_standing(&mut self, range: Range<usize>, prot: Prot) {
        self.standing.insert(range, prot);
    }

    /// Whether pages are warm and accessible with just these permissions.
    pub fn stand_as(&self, range: &Range<usize>, prot: Prot) -> bool {
        self.standing.is(range, prot)
    }

    pub fn covers(&self, range: Range<usize>) -> bool {
        self.pages.covers(range)
    }

    /// Makes inaccessible what stands inside `range`, but for described parts that are to be kept. One call
    /// serves all parts between which nothing is kept and `is_open` sees nothing either.
    pub fn close(
        &mut self,
        range: &Range<usize>,
        keep: impl Fn(&Range<usize>, &Content) -> bool,
        is_open: impl Fn(Range<usize>) -> bool,
    ) -> Result<()> {
        if self.standing.is_empty() {
            return Ok(());
        }
        let mut closing: RangeSet = self.standing.within(range).into_iter().collect();
        let mut kept = RangeSet::new();
        for (part, content) in self.known_within(range.clone()) {
            if keep(&part, &content) {
                closing.remove(part.clone());
                kept.insert(part);
            }
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        for part in closing.iter() {
            let is_joined = |gap: Range<usize>| kept.within(gap.clone()).is_empty() && !is_open(gap);
            match runs.last_mut() {
                Some(last) if is_joined(last.end..part.start) => last.end = part.end,
                _ => runs.push(part),
            }
        }
        for run in runs {
            set_host_prot(&run, Prot::NONE)?;
            self.standing.remove(&run);
        }
        Ok(())
    }

    /// Says what pages that are warm hold.
    pub fn describe(&mut self, range: Range<usize>, content: Content) {
        if !range.is_empty() && self.pages.covers(range.clone()) {
            self.known.insert(range.start, (range.end, content));
        }
    }

    /// The described parts inside `range`, ascending.
    pub fn known_within(&self, range: Range<usize>) -> Vec<(Range<usize>, Content)> {
        let entries = self.known.range(range.start..range.end.max(range.start));
        let inside = entries.filter(|(_, (end, _))| *end <= range.end);
        inside.map(|(&start, &(end, content))| (start..end, content)).collect()
    }

    /// The pages are used again, or gone.
    pub fn remove(&mut self, range: Range<usize>) {
        self.forget_content(&range);
        self.standing.remove(&range);
        commit::drop_warm(self.pages.remove(range));
    }

    /// Gives pages back to the host; gives the bytes.
    pub fn release(&mut self, range: Range<usize>) -> usize {
        self.forget_content(&range);
        let mut done = 0;
        for part in self.pages.within(range) {
            if host::release_user(part.start, part.end - part.start).is_ok() {
                self.standing.remove(&part);
                done += self.pages.remove(part);
            }
        }
        commit::drop_warm(done);
        done
    }

    fn forget_content(&mut self, range: &Range<usize>) {
        loop {
            let last = self.known.range(..range.end).next_back();
            let Some((&start, _)) = last.filter(|(_, (end, _))| *end > range.start) else { return };
            self.known.remove(&start);
        }
    }
}
