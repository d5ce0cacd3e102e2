//! [`Group`]: who takes turns with whom; joining, and ending.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::turn::Turn;
use super::Overlay;
use crate::error::Result;
use crate::mm::commit;
use crate::mm::layout::Layout;
use crate::mm::ranges::RangeSet;
use crate::mm::space::{AddressSpace, Space};
use crate::mm::territory::Estate;
use crate::sched::{Mutex, SpinLock, WaitQueue};

/// Spaces that take turns.
pub(in crate::mm) struct Group {
    /// Who is in place; held by who changes that.
    pub turn: Mutex<Turn>,
    pub(super) members: SpinLock<Members>,
    /// In place, left by members that ended.
    pub(super) orphans: SpinLock<RangeSet>,
    /// Left by a member that ended in place, for the next.
    pub(super) estate: SpinLock<Option<(Estate, Arc<Layout>)>>,
    pub(super) estate_left: WaitQueue,
    /// What was in place can't be had any more: nobody runs again.
    pub(super) is_lost: AtomicBool,
}

#[derive(Default)]
pub(super) struct Members {
    list: Vec<(usize, Weak<AddressSpace>)>,
    /// The last one has left: nobody can join.
    is_closed: bool,
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
            turn: Mutex::new(Turn::first(space)),
            members: SpinLock::new(Members { list: alloc::vec![first], is_closed: false }),
            orphans: SpinLock::new(RangeSet::new()),
            estate: SpinLock::new(None),
            estate_left: WaitQueue::new(),
            is_lost: AtomicBool::new(false),
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

    /// `space` ends.
    pub fn leave(&self, space: &AddressSpace) {
        let mut inner = space.inner.lock();
        self.orphan(&mut inner);
        let layout = if inner.overlay.is_in_place { inner.layout() } else { Arc::default() };
        commit::release(inner.granted.size());
        inner.granted = RangeSet::new();
        inner.overlay.saved.clear();
        let is_last = {
            let mut members = self.members.lock();
            let before = members.list.len();
            members.list.retain(|(id, _)| *id != space.id);
            members.is_closed = members.list.is_empty();
            // One that came too late to join was none.
            members.is_closed && before > 0
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
    fn wind_up(&self, last: &mut Space, layout: Arc<Layout>) {
        if self.is_lost.load(Ordering::SeqCst) {
            return;
        }
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
