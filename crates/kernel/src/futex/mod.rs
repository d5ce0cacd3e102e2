//! Futexes (futex(2)): waiting for a word of user memory to change.
//!
//! - this file: waiting, waking, moving waiters
//! - [`pi`]: locks whose word names the owner
//! - [`robust`]: locks whose owner died
//!
//! User addresses are unique in the enclave, also for memory that processes share, but for what members
//! of an overlay group have each for itself: the key of a futex is its address and, there, a tag of the
//! space ([`key_of`]). Waiters hang in hash buckets under spin locks; a wait whose word has changed
//! already touches neither bucket nor heap.
//!
//! Lock order: two buckets by index, then nothing. User memory is read under a bucket lock without
//! resolving faults: a fault lets go of the lock, makes the page present, and starts over.

pub mod pi;
pub mod robust;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use occlum_abi::Errno;
use spin::{Mutex, MutexGuard};

use crate::error::{self, Error, Result, err};
use crate::mm::residency;
use crate::sched::{self, TaskRef, Wake, run, timer};
use crate::user::{self, UserAddr};

/// Wakes by FUTEX_WAKE reach every waiter.
pub const MATCH_ANY: u32 = u32::MAX;

const BUCKETS: usize = 256;

struct Bucket {
    waiters: Mutex<VecDeque<Arc<FutexWaiter>>>,
    /// Waiters, or about to be: readable without the lock.
    count: AtomicUsize,
}

static TABLE: [Bucket; BUCKETS] =
    [const { Bucket { waiters: Mutex::new(VecDeque::new()), count: AtomicUsize::new(0) } }; BUCKETS];

/// A thread that waits for one word.
pub(crate) struct FutexWaiter {
    task: TaskRef,
    /// See [`key_of`]; changes when the waiter is moved, under both buckets' locks.
    key: AtomicUsize,
    bitset: u32,
    is_woken: AtomicBool,
    /// For pi waiters, the thread that gets the lock.
    tid: u32,
    is_pi: bool,
}

impl FutexWaiter {
    fn new(key: Key, bitset: u32, pi_tid: Option<u32>) -> Arc<FutexWaiter> {
        Arc::new(FutexWaiter {
            task: sched::current(),
            key: AtomicUsize::new(key.0),
            bitset,
            is_woken: AtomicBool::new(false),
            tid: pi_tid.unwrap_or(0),
            is_pi: pi_tid.is_some(),
        })
    }

    fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Acquire)
    }
}

/// The alarm of a time-out only makes the waiter look at the clock.
impl Wake for FutexWaiter {
    fn wake(&self) -> bool {
        run::unpark(&self.task);
        true
    }
}

/// Waits while the word at `addr` is `expected`, until woken by a wake whose bits meet `bitset`.
/// EAGAIN if the word differs; ETIMEDOUT at `deadline_ns` (CLOCK_MONOTONIC).
pub fn wait(addr: UserAddr, expected: u32, bitset: u32, deadline_ns: Option<u64>) -> Result<()> {
    check_aligned(addr)?;
    // Most waits that come too late end here.
    if user::load_u32(addr)? != expected {
        return err(Errno::EAGAIN, "the word has changed");
    }
    let waiter = FutexWaiter::new(key_of(addr), bitset, None);
    enqueue_if(&waiter, addr, expected)?;
    sleep(&waiter, deadline_ns)
}

/// Waits on several words at once (futex_waitv(2)): each is an address and what is expected there. Gives the
/// index of one that was woken.
pub fn wait_any(words: &[(UserAddr, u32)], deadline_ns: Option<u64>) -> Result<usize> {
    let mut waiters: Vec<Arc<FutexWaiter>> = Vec::new();
    waiters.try_reserve_exact(words.len()).map_err(|_| Error::new(Errno::ENOMEM, "too many words"))?;
    for &(addr, expected) in words {
        let queued = user::load_u32(addr).and_then(|_| {
            let waiter = FutexWaiter::new(key_of(addr), MATCH_ANY, None);
            enqueue_if(&waiter, addr, expected).map(|()| waiter)
        });
        match queued {
            Ok(waiter) => waiters.push(waiter),
            // A wake-up that came meanwhile counts.
            Err(error) => return leave_all(&waiters).ok_or(error),
        }
    }
    let woken = match waiters.first() {
        Some(first) => sleep_any(first, &waiters, deadline_ns),
        None => return err(Errno::EINVAL, "no words"),
    };
    match (leave_all(&waiters), woken) {
        (Some(index), _) => Ok(index),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => err(Errno::EAGAIN, "woken by nobody"),
    }
}

/// Takes all waiters out of their queues; gives the first that somebody woke.
fn leave_all(waiters: &[Arc<FutexWaiter>]) -> Option<usize> {
    let mut woken = None;
    for (index, waiter) in waiters.iter().enumerate() {
        if !dequeue(waiter) && woken.is_none() {
            woken = Some(index);
        }
    }
    woken
}

fn sleep_any(
    first: &Arc<FutexWaiter>,
    waiters: &[Arc<FutexWaiter>],
    deadline_ns: Option<u64>,
) -> Result<()> {
    let _alarm = deadline_ns.map(|deadline| timer::arm(deadline, first.clone()));
    loop {
        if waiters.iter().any(|waiter| waiter.is_woken()) {
            return Ok(());
        }
        if deadline_ns.is_some_and(|deadline| timer::now_ns() >= deadline) {
            return err(Errno::ETIMEDOUT, "");
        }
        if run::is_interrupted() {
            return Err(error::interrupted());
        }
        run::park();
    }
}

/// Queues the waiter if the word is still what was expected.
fn enqueue_if(waiter: &Arc<FutexWaiter>, addr: UserAddr, expected: u32) -> Result<()> {
    let bucket = bucket_of(waiter.key.load(Ordering::Relaxed));
    loop {
        bucket.count.fetch_add(1, Ordering::SeqCst);
        let mut waiters = bucket.waiters.lock();
        match residency::load_u32(addr.0) {
            Ok(value) if value == expected => {
                waiters.push_back(waiter.clone());
                return Ok(());
            }
            Ok(_) => {
                bucket.count.fetch_sub(1, Ordering::SeqCst);
                return err(Errno::EAGAIN, "the word has changed");
            }
            Err(_) => {
                drop(waiters);
                bucket.count.fetch_sub(1, Ordering::SeqCst);
                user::load_u32(addr)?;
            }
        }
    }
}

/// Until woken, interrupted or too late; then the waiter is in no queue.
fn sleep(waiter: &Arc<FutexWaiter>, deadline_ns: Option<u64>) -> Result<()> {
    let _alarm = deadline_ns.map(|deadline| timer::arm(deadline, waiter.clone()));
    loop {
        if waiter.is_woken() {
            return Ok(());
        }
        let problem = if deadline_ns.is_some_and(|deadline| timer::now_ns() >= deadline) {
            Error::new(Errno::ETIMEDOUT, "")
        } else if run::is_interrupted() {
            match deadline_ns {
                Some(_) => error::interrupted_unless_handled(),
                None => error::interrupted(),
            }
        } else {
            run::park();
            continue;
        };
        // Woken at the last moment: the wake-up counts, or it would be lost.
        return if dequeue(waiter) { Err(problem) } else { Ok(()) };
    }
}

/// Takes a waiter out of its queue; false if somebody woke it before.
fn dequeue(waiter: &Arc<FutexWaiter>) -> bool {
    loop {
        let key = waiter.key.load(Ordering::Acquire);
        let bucket = bucket_of(key);
        let mut waiters = bucket.waiters.lock();
        if waiter.key.load(Ordering::Acquire) != key {
            continue;
        }
        let position = waiters.iter().position(|other| Arc::ptr_eq(other, waiter));
        let Some(position) = position else { return false };
        waiters.remove(position);
        bucket.count.fetch_sub(1, Ordering::SeqCst);
        return true;
    }
}

/// Wakes up to `count` waiters whose bits meet `bitset`; gives how many. EINVAL if one of them waits
/// for a pi lock.
pub fn wake(addr: UserAddr, count: usize, bitset: u32) -> Result<usize> {
    check_aligned(addr)?;
    let key = key_of(addr);
    let mut woken = 0;
    while woken < count {
        let Some(waiter) = take_waiter(key, bitset)? else { break };
        release(&waiter);
        woken += 1;
    }
    Ok(woken)
}

/// For the kernel's own wake-ups, where a bad address means that nobody waits.
pub(crate) fn wake_at(addr: UserAddr, count: usize) {
    // Only fails for a misaligned address or a pi waiter, which this wake-up is not meant for.
    let _ = wake(addr, count, MATCH_ANY);
}

fn take_waiter(key: Key, bitset: u32) -> Result<Option<Arc<FutexWaiter>>> {
    let bucket = bucket_of(key.0);
    // The waker's store to the word comes before this load, or a waiter could be missed.
    fence(Ordering::SeqCst);
    if bucket.count.load(Ordering::Relaxed) == 0 {
        return Ok(None);
    }
    let mut waiters = bucket.waiters.lock();
    let meets = |waiter: &Arc<FutexWaiter>| is_at(waiter, key) && waiter.bitset & bitset != 0;
    let Some(position) = waiters.iter().position(meets) else { return Ok(None) };
    if waiters[position].is_pi {
        return err(Errno::EINVAL, "a pi waiter");
    }
    bucket.count.fetch_sub(1, Ordering::SeqCst);
    Ok(waiters.remove(position))
}

/// Wakes a waiter that was taken out of its queue.
fn release(waiter: &FutexWaiter) {
    waiter.is_woken.store(true, Ordering::Release);
    run::unpark(&waiter.task);
}

/// Wakes up to `wake_count` waiters of `from` and moves up to `move_count` others to `to`. With
/// `expected`, only while the word at `from` is that (EAGAIN). Gives the number of waiters woken, and
/// of those moved.
pub fn requeue(
    from: UserAddr,
    to: UserAddr,
    wake_count: usize,
    move_count: usize,
    expected: Option<u32>,
) -> Result<(usize, usize)> {
    check_aligned(from)?;
    check_aligned(to)?;
    let (from_key, to_key) = (key_of(from), key_of(to));
    let (mut woken, mut moved) = (0, 0);
    let mut to_wake: Option<Arc<FutexWaiter>> = None;
    loop {
        if let Some(waiter) = to_wake.take() {
            release(&waiter);
            woken += 1;
        }
        let mut pair = lock_pair(from_key, to_key);
        // Checked once: after the first step the caller's condition has been met.
        if let Some(expected) = expected.filter(|_| woken + moved == 0) {
            match residency::load_u32(from.0) {
                Ok(value) if value == expected => {}
                Ok(_) => return err(Errno::EAGAIN, "the word has changed"),
                Err(_) => {
                    drop(pair);
                    user::load_u32(from)?;
                    continue;
                }
            }
        }
        if woken < wake_count {
            to_wake = pair.take(from_key)?;
            if to_wake.is_none() {
                return Ok((woken, moved));
            }
            continue;
        }
        while moved < move_count {
            let Some(waiter) = pair.take(from_key)? else { break };
            pair.put(to_key, waiter);
            moved += 1;
        }
        return Ok((woken, moved));
    }
}

/// Applies `change` to the word at `second`, wakes `count` waiters of `first` and, if the old word
/// satisfies `test`, `second_count` of `second`.
pub fn wake_op(
    first: UserAddr,
    second: UserAddr,
    counts: (usize, usize),
    change: impl Fn(u32) -> u32,
    test: impl Fn(u32) -> bool,
) -> Result<usize> {
    check_aligned(first)?;
    check_aligned(second)?;
    let old = loop {
        let old = user::load_u32(second)?;
        if user::compare_exchange_u32(second, old, change(old))? == old {
            break old;
        }
    };
    let mut woken = wake(first, counts.0, MATCH_ANY)?;
    if test(old) {
        woken += wake(second, counts.1, MATCH_ANY)?;
    }
    Ok(woken)
}

/// The buckets of two futexes, locked in order; one if they share it.
struct Pair {
    from: MutexGuard<'static, VecDeque<Arc<FutexWaiter>>>,
    to: Option<MutexGuard<'static, VecDeque<Arc<FutexWaiter>>>>,
    from_bucket: &'static Bucket,
    to_bucket: &'static Bucket,
}

fn lock_pair(from: Key, to: Key) -> Pair {
    let (from_index, to_index) = (bucket_index(from.0), bucket_index(to.0));
    let (from_bucket, to_bucket) = (&TABLE[from_index], &TABLE[to_index]);
    let (from, to) = match from_index.cmp(&to_index) {
        core::cmp::Ordering::Equal => (from_bucket.waiters.lock(), None),
        core::cmp::Ordering::Less => {
            let from = from_bucket.waiters.lock();
            (from, Some(to_bucket.waiters.lock()))
        }
        core::cmp::Ordering::Greater => {
            let to = to_bucket.waiters.lock();
            (from_bucket.waiters.lock(), Some(to))
        }
    };
    Pair { from, to, from_bucket, to_bucket }
}

impl Pair {
    fn take(&mut self, from: Key) -> Result<Option<Arc<FutexWaiter>>> {
        let Some(position) = self.from.iter().position(|waiter| is_at(waiter, from)) else {
            return Ok(None);
        };
        if self.from[position].is_pi {
            return err(Errno::EINVAL, "a pi waiter");
        }
        self.from_bucket.count.fetch_sub(1, Ordering::SeqCst);
        Ok(self.from.remove(position))
    }

    fn put(&mut self, to: Key, waiter: Arc<FutexWaiter>) {
        waiter.key.store(to.0, Ordering::Release);
        self.to_bucket.count.fetch_add(1, Ordering::SeqCst);
        self.to.as_mut().unwrap_or(&mut self.from).push_back(waiter);
    }
}

/// What tells futexes apart.
#[derive(Clone, Copy)]
struct Key(usize);

/// Addresses have 45 bits, the lower two of a word's are 0: a key is 43 bits of address under 21 of tag.
fn key_of(addr: UserAddr) -> Key {
    const ADDRESS_BITS: u32 = 43;
    let word = addr.0 >> 2 & ((1 << ADDRESS_BITS) - 1);
    Key(residency::futex_tag(addr.0) << ADDRESS_BITS | word)
}

fn is_at(waiter: &FutexWaiter, key: Key) -> bool {
    waiter.key.load(Ordering::Relaxed) == key.0
}

fn check_aligned(addr: UserAddr) -> Result<()> {
    if addr.0.is_multiple_of(4) { Ok(()) } else { err(Errno::EINVAL, "futex not aligned") }
}

fn bucket_of(key: usize) -> &'static Bucket {
    &TABLE[bucket_index(key)]
}

fn bucket_index(key: usize) -> usize {
    // Fibonacci hashing.
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - BUCKETS.trailing_zeros())
}
