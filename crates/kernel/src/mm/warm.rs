//! Pages without a mapping that are still backed ([`WarmPages`]): inaccessible, with old content.
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
use super::ranges::RangeSet;

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
}

impl WarmPages {
    pub fn within(&self, range: Range<usize>) -> Vec<Range<usize>> {
        self.pages.within(range)
    }

    pub fn missing(&self, range: Range<usize>) -> Vec<Range<usize>> {
        self.pages.missing(range)
    }

    /// Pages that were counted by [`commit::try_keep_warm`].
    pub fn insert(&mut self, range: Range<usize>) {
        self.forget_content(&range);
        self.pages.insert(range);
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
        commit::drop_warm(self.pages.remove(range));
    }

    /// Gives pages back to the host; gives the bytes.
    pub fn release(&mut self, range: Range<usize>) -> usize {
        self.forget_content(&range);
        let mut done = 0;
        for part in self.pages.within(range) {
            if host::release_user(part.start, part.end - part.start).is_ok() {
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
