//! PI futexes: the word holds the owner's thread id, and the kernel gives the lock to the next waiter
//! when it is unlocked.
//!
//! There is no priority to inherit: all threads run at one priority (`sched_*` calls only remember
//! what they are told). What programs see of the protocol is the same.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use occlum_abi::Errno;

use super::robust::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use super::{FutexWaiter, MATCH_ANY, bucket_of, check_aligned, is_at, key_of, release, sleep};
use crate::error::{Result, err};
use crate::mm::residency;
use crate::process::tree;
use crate::user::{self, UserAddr};

/// FUTEX_LOCK_PI: takes the lock for thread `tid`, waiting for its owner.
pub fn lock(addr: UserAddr, tid: u32, deadline_ns: Option<u64>) -> Result<()> {
    check_aligned(addr)?;
    loop {
        if try_take(addr, tid)? {
            return Ok(());
        }
        let waiter = FutexWaiter::new(key_of(addr), MATCH_ANY, Some(tid));
        if enqueue_if_held(&waiter, addr)? {
            // A call that runs again finds the lock given to it meanwhile: it is the owner then.
            return sleep(&waiter, deadline_ns);
        }
    }
}

/// FUTEX_TRYLOCK_PI: takes the lock if its word names nobody who lives; EAGAIN otherwise.
pub fn try_lock(addr: UserAddr, tid: u32) -> Result<()> {
    check_aligned(addr)?;
    if try_take(addr, tid)? { Ok(()) } else { err(Errno::EAGAIN, "locked") }
}

/// FUTEX_UNLOCK_PI: gives the lock to the next waiter; EPERM if `tid` does not own it.
pub fn unlock(addr: UserAddr, tid: u32) -> Result<()> {
    check_aligned(addr)?;
    let word = user::load_u32(addr)?;
    if word & FUTEX_TID_MASK != tid {
        return err(Errno::EPERM, "not the owner");
    }
    hand_over(addr, word, 0)
}

/// Takes a free lock. EDEADLK if `tid` holds it, ESRCH if its owner does not exist.
fn try_take(addr: UserAddr, tid: u32) -> Result<bool> {
    loop {
        let word = user::load_u32(addr)?;
        let owner = word & FUTEX_TID_MASK;
        if owner == tid {
            return err(Errno::EDEADLK, "already the owner");
        }
        if owner != 0 {
            return match tree::find_thread(owner) {
                Some(_) => Ok(false),
                None => err(Errno::ESRCH, "the owner does not exist"),
            };
        }
        let taken = tid | word & (FUTEX_OWNER_DIED | FUTEX_WAITERS);
        if user::compare_exchange_u32(addr, word, taken)? == word {
            return Ok(true);
        }
    }
}

/// Queues the waiter and marks the word, unless the lock became free.
fn enqueue_if_held(waiter: &Arc<FutexWaiter>, addr: UserAddr) -> Result<bool> {
    let bucket = bucket_of(waiter.key.load(Ordering::Relaxed));
    loop {
        // Outside the lock, so that the page is there.
        user::load_u32(addr)?;
        let mut waiters = bucket.waiters.lock();
        let Ok(word) = residency::load_u32(addr.0) else { continue };
        if word & FUTEX_TID_MASK == 0 {
            return Ok(false);
        }
        match residency::compare_exchange_u32(addr.0, word, word | FUTEX_WAITERS) {
            Ok(found) if found == word => {}
            Ok(_) => continue,
            Err(_) => {
                drop(waiters);
                user::compare_exchange_u32(addr, word, word | FUTEX_WAITERS)?;
                continue;
            }
        }
        bucket.count.fetch_add(1, Ordering::SeqCst);
        waiters.push_back(waiter.clone());
        return Ok(true);
    }
}

/// Gives the lock whose word is `word` to its first waiter, or to nobody.
pub(super) fn hand_over(addr: UserAddr, word: u32, extra: u32) -> Result<()> {
    let key = key_of(addr);
    let bucket = bucket_of(key.0);
    let mut word = word;
    loop {
        let mut waiters = bucket.waiters.lock();
        let mut positions = waiters.iter().enumerate().filter(|(_, w)| is_at(w, key) && w.is_pi);
        let first = positions.next().map(|(position, waiter)| (position, waiter.tid));
        let has_more = positions.next().is_some();
        drop(positions);
        let new = match first {
            Some((_, tid)) => tid | extra | if has_more { FUTEX_WAITERS } else { 0 },
            None => extra,
        };
        match residency::compare_exchange_u32(addr.0, word, new) {
            Ok(found) if found == word => {
                let waiter = first.and_then(|(position, _)| waiters.remove(position));
                drop(waiters);
                if let Some(waiter) = waiter {
                    bucket.count.fetch_sub(1, Ordering::SeqCst);
                    release(&waiter);
                }
                return Ok(());
            }
            // Only the waiters bit can have changed: the owner is the caller.
            Ok(found) => word = found,
            Err(_) => {
                drop(waiters);
                word = user::compare_exchange_u32(addr, word, word)?;
            }
        }
    }
}
