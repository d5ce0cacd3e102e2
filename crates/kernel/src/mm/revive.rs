//! Using again what the last run of a program left: pages whose content is known (`warm.rs`).

use alloc::vec::Vec;
use core::ops::Range;

use super::space::Space;
use super::stubs::StubArea;
use super::vma::{Prot, Source, Vma};
use super::warm::{Content, StubPlace};
use crate::error::Result;

/// Mappings up to this size are completed when most of them is there already: the next time all of
/// it comes back with one call.
const COMPLETE_MAX: usize = 4 << 20;

impl Space {
    /// Makes known pages under a new file mapping part of it.
    pub fn revive(&mut self, vma: &Vma) -> Result<()> {
        let Source::File { file, offset } = &vma.source else { return Ok(()) };
        if vma.prot.is_none() || !vma.is_pristine || !file.is_unchanging() {
            return Ok(());
        }
        let stubs = self.stub_place(vma);
        let fits = |range: &Range<usize>, content: &Content| {
            let offset = offset + (range.start - vma.start) as u64;
            *content == Content::File { file: file.identity(), offset, stubs }
        };
        let known = self.territory.warm.known_within(vma.range());
        let parts: Vec<_> = known.into_iter().filter(|(range, content)| fits(range, content)).collect();
        let mut size = 0;
        for (range, _) in parts {
            size += range.end - range.start;
            self.revive_part(range, vma.prot)?;
        }
        let file_end = vma.file_end();
        if size > (file_end - vma.start) / 2 && vma.size() <= COMPLETE_MAX {
            self.present_missing(vma, vma.start..file_end)?;
        }
        Ok(())
    }

    /// Whether warm pages hold these very stubs.
    pub fn are_stubs_there(&self, area: &StubArea) -> bool {
        let known = self.territory.warm.known_within(area.range());
        known.contains(&(area.range(), Content::Stubs(area.place())))
    }

    /// Granted pages of a space that ends, and what they hold.
    pub fn known_content(&self) -> Vec<(Range<usize>, Content)> {
        let mut known = Vec::new();
        for vma in self.vmas.iter().filter(|vma| vma.is_pristine) {
            let Source::File { file, offset } = &vma.source else { continue };
            if !file.is_unchanging() {
                continue;
            }
            let (identity, stubs) = (file.identity(), self.stub_place(vma));
            known.extend(self.granted.within(vma.range()).into_iter().map(|range| {
                let offset = offset + (range.start - vma.start) as u64;
                (range, Content::File { file: identity, offset, stubs })
            }));
        }
        known.extend(self.stubs.values().map(|area| (area.range(), Content::Stubs(area.place()))));
        known
    }

    fn revive_part(&mut self, range: Range<usize>, prot: Prot) -> Result<()> {
        self.charge(&range)?;
        let done = self.open(&range, prot);
        self.settle(range, done)
    }

    /// The stubs that patches of a mapping lead to.
    fn stub_place(&self, vma: &Vma) -> Option<StubPlace> {
        self.stubs.values().find(|area| area.serves(vma)).map(StubArea::place)
    }
}
