//! Overlay groups: spaces that own the same addresses and take turns (fork(2), programs linked at
//! fixed addresses). `docs/design/fork.md` has the pictures.
//!
//! One member is *in place*: its private pages stand at their addresses, and the host's page
//! tables say what its mappings say. Of every other member, pages that differ from what stands there
//! are *saved* in kernel memory.
//!
//! - [`Overlay`]: what a space has as a member; `group.rs`: who is a member; `turn.rs`: who is in place
//! - `exchange.rs`: what happens to pages at a change; `overlap.rs`: what the member in place owes the
//!   others when it makes, writes and gives up pages
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

mod exchange;
mod group;
mod overlap;
mod turn;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use occlum_abi::Errno;
use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::pages::Pages;
use occlum_enclave::usermem;

pub(super) use group::Group;

use super::grant::no_host_memory;
use super::layout::Layout;
use super::ranges::RangeSet;
use super::space::Space;
use crate::error::{Error, Result};

/// The content of a page that is not in place; several members may have it.
pub(super) type SavedPage = Arc<Pages>;

/// Copies of pages in place that were already made, by address: one serves all members.
pub(super) type PageCopies = BTreeMap<usize, SavedPage>;

/// What a space has as a member of a group. A space without a group is always in place.
pub(super) struct Overlay {
    pub group: Option<Arc<Group>>,
    pub is_in_place: bool,
    pub saved: BTreeMap<usize, SavedPage>,
    /// Granted pages that other members may have in place too.
    pub tracked: RangeSet,
    /// What the host shows, or is to show, while this member is in place; `None` if that must be found out.
    pub layout: Option<Arc<Layout>>,
}

impl Overlay {
    pub fn none() -> Overlay {
        Overlay {
            group: None,
            is_in_place: true,
            saved: BTreeMap::new(),
            tracked: RangeSet::new(),
            layout: None,
        }
    }

    /// For a new member, which waits for its first turn.
    pub fn waiting(group: Arc<Group>) -> Overlay {
        Overlay { group: Some(group), is_in_place: false, ..Overlay::none() }
    }
}

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
}

/// A copy of the page that stands at an address.
pub(super) fn copy_of(page: usize) -> Result<SavedPage> {
    let mut copy = Pages::new(0).map_err(|_| no_pages())?;
    usermem::read(page, &mut copy).map_err(|_| no_host_memory())?;
    Ok(Arc::new(copy))
}

/// Room for the content of a page.
fn new_page() -> Result<SavedPage> {
    Pages::new(0).map(Arc::new).map_err(|_| no_pages())
}

fn no_pages() -> Error {
    Error::new(Errno::ENOMEM, "no kernel pages")
}
