//! Turns: which member is in place, and for how long.

use alloc::sync::Weak;
use core::sync::atomic::Ordering;

use occlum_abi::Errno;
use occlum_enclave::log;

use super::exchange::Failure;
use super::group::Group;
use crate::error::{Error, Result};
use crate::mm::space::AddressSpace;
use crate::sched::mutex::MutexGuard;
use crate::sched::presence::{self, DEPARTURES, Urgency};
use crate::sched::timer;

/// How long a member may run while others wait, at least.
const SLICE_NS: u64 = 2_000_000;
/// A turn is this many times as long as it took to put the member in place, so that members with much
/// memory of their own don't spend their time changing places; but never longer than the limit.
const TURN_PER_COST: u64 = 10;
const TURN_MAX_NS: u64 = 300_000_000;

pub(in crate::mm) struct Turn {
    id: usize,
    space: Weak<AddressSpace>,
    /// Until then it need not give way.
    ends_ns: u64,
}

/// When the turn of a member ends that was put in place since `begun_ns`.
fn end_of_turn(begun_ns: u64) -> u64 {
    let now = timer::now_ns();
    let cost = now.saturating_sub(begun_ns);
    now + cost.saturating_mul(TURN_PER_COST).clamp(SLICE_NS, TURN_MAX_NS)
}

/// When the exchange began, or why there was none.
type Switched = core::result::Result<u64, Failure>;

impl Turn {
    /// Of the member that founds a group: it is in place.
    pub fn first(space: &AddressSpace) -> Turn {
        Turn::new(space, 0)
    }

    fn new(space: &AddressSpace, ends_ns: u64) -> Turn {
        Turn { id: space.id, space: space.this.clone(), ends_ns }
    }
}

impl Group {
    /// Puts `space` in place, if it is not, after the one that is had its time. Fails with ENOMEM.
    pub fn take_turn(&self, space: &AddressSpace) -> Result<MutexGuard<'_, Turn>> {
        let mut turn = self.turn.lock();
        if turn.id == space.id {
            return Ok(turn);
        }
        if self.is_lost.load(Ordering::SeqCst) {
            return Err(Error::new(Errno::ENOMEM, "the memory of its group is lost"));
        }
        let switched = match turn.space.upgrade() {
            Some(resident) => self.replace(&resident, space, turn.ends_ns),
            None => self.succeed(space),
        };
        match switched {
            Ok(begun_ns) => *turn = Turn::new(space, end_of_turn(begun_ns)),
            Err(Failure::Undone(error)) => return Err(error),
            Err(Failure::Broken(error)) => {
                log!(Error, "processes that take turns end: what was in place can't be put back");
                self.is_lost.store(true, Ordering::SeqCst);
                turn.id = 0;
                return Err(error);
            }
        }
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
    fn replace(&self, resident: &AddressSpace, space: &AddressSpace, ends_ns: u64) -> Switched {
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
        match self.switch(Some(&mut from), &before, &mut to) {
            Ok(()) => {}
            Err(Failure::Undone(error)) => {
                from.territory.take_estate(to.territory.give_estate());
                resident.is_shut.store(false, Ordering::SeqCst);
                return Err(Failure::Undone(error));
            }
            Err(Failure::Broken(error)) => {
                to.territory.give_estate().abandon();
                from.overlay.is_in_place = false;
                return Err(Failure::Broken(error));
            }
        }
        from.overlay.is_in_place = false;
        to.overlay.is_in_place = true;
        Ok(begun_ns)
    }

    /// The member in place has ended: goes on with what it left. Returns when it began.
    fn succeed(&self, space: &AddressSpace) -> Switched {
        let left = self.estate_left.wait_until(None, false, || self.estate.lock().take());
        let Ok((estate, before)) = left else {
            unreachable!("an endless uninterruptible wait ended");
        };
        let begun_ns = timer::now_ns();
        let mut to = space.inner.lock();
        to.territory.take_estate(estate);
        match self.switch(None, &before, &mut to) {
            Ok(()) => {}
            Err(Failure::Undone(error)) => {
                *self.estate.lock() = Some((to.territory.give_estate(), before));
                return Err(Failure::Undone(error));
            }
            Err(Failure::Broken(error)) => {
                to.territory.give_estate().abandon();
                return Err(Failure::Broken(error));
            }
        }
        to.overlay.is_in_place = true;
        Ok(begun_ns)
    }
}
