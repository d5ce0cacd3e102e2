//! Waiting for a condition: [`WaitQueue`] holds who to wake, [`Wake`] says how.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spin::Mutex;

use super::run::{self, TaskRef};
use super::timer;

/// Something that wants to know when a condition may have changed: a waiting task, an epoll instance.
pub trait Wake: Send + Sync {
    /// Must be short and must not block. Returns false if it no longer wanted to be woken, so that
    /// `wake_one` tries the next.
    fn wake(&self) -> bool;

    /// Of those who say so, [`WaitQueue::wake_all`] wakes only as many as it takes for one to want it
    /// (EPOLLEXCLUSIVE).
    fn is_exclusive(&self) -> bool {
        false
    }
}

/// A task that waits.
pub struct Waiter {
    task: TaskRef,
    is_woken: AtomicBool,
}

/// Why a wait ended without its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// A signal is pending.
    Interrupted,
    TimedOut,
}

impl Waiter {
    /// A waiter for the current task.
    pub fn new() -> Arc<Waiter> {
        Arc::new(Waiter { task: run::current(), is_woken: AtomicBool::new(false) })
    }

    /// Blocks the current task until woken, `deadline_ns` (monotonic) or, if `interruptible`, a signal.
    /// Clears the woken mark, so that a loop around it may check its condition and wait again.
    pub fn wait(
        self: &Arc<Waiter>,
        deadline_ns: Option<u64>,
        interruptible: bool,
    ) -> Result<(), WaitError> {
        let _alarm = deadline_ns.map(|deadline| timer::arm(deadline, self.clone()));
        loop {
            if self.is_woken.swap(false, Ordering::AcqRel) {
                return Ok(());
            }
            if interruptible && run::is_interrupted() {
                return Err(WaitError::Interrupted);
            }
            if deadline_ns.is_some_and(|deadline| timer::now_ns() >= deadline) {
                return Err(WaitError::TimedOut);
            }
            run::park();
        }
    }
}

impl Wake for Waiter {
    fn wake(&self) -> bool {
        let first = !self.is_woken.swap(true, Ordering::AcqRel);
        run::unpark(&self.task);
        first
    }
}

/// Who waits for one condition, oldest first.
pub struct WaitQueue {
    waiters: Mutex<VecDeque<Arc<dyn Wake>>>,
    len: AtomicUsize,
}

impl Default for WaitQueue {
    fn default() -> WaitQueue {
        WaitQueue::new()
    }
}

impl WaitQueue {
    pub const fn new() -> WaitQueue {
        WaitQueue { waiters: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) }
    }

    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Adds a waiter; it stays until woken by `wake_one` or removed.
    pub fn add(&self, waiter: Arc<dyn Wake>) {
        let mut waiters = self.waiters.lock();
        waiters.push_back(waiter);
        self.len.store(waiters.len(), Ordering::SeqCst);
    }

    /// Removes a waiter if it is still there.
    pub fn remove(&self, waiter: &Arc<dyn Wake>) {
        let mut waiters = self.waiters.lock();
        waiters.retain(|other| !core::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(waiter)));
        self.len.store(waiters.len(), Ordering::SeqCst);
    }

    /// Wakes the oldest waiter that still wants it, and forgets it. Says whether there was one.
    pub fn wake_one(&self) -> bool {
        if self.len.load(Ordering::SeqCst) == 0 {
            return false;
        }
        loop {
            let waiter = {
                let mut waiters = self.waiters.lock();
                let waiter = waiters.pop_front();
                self.len.store(waiters.len(), Ordering::SeqCst);
                waiter
            };
            match waiter {
                Some(waiter) if waiter.wake() => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Wakes everybody; they stay in the queue until they remove themselves.
    pub fn wake_all(&self) {
        if self.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut has_woken_exclusive = false;
        for waiter in self.waiters.lock().iter() {
            let is_exclusive = waiter.is_exclusive();
            if is_exclusive && has_woken_exclusive {
                continue;
            }
            has_woken_exclusive |= waiter.wake() && is_exclusive;
        }
    }

    /// Blocks until `condition` gives a value.
    pub fn wait_until<R>(
        &self,
        deadline_ns: Option<u64>,
        interruptible: bool,
        mut condition: impl FnMut() -> Option<R>,
    ) -> Result<R, WaitError> {
        if let Some(result) = condition() {
            return Ok(result);
        }
        let waiter = Waiter::new();
        let handle: Arc<dyn Wake> = waiter.clone();
        loop {
            self.add(handle.clone());
            let result = match condition() {
                Some(result) => Some(Ok(result)),
                None => waiter.wait(deadline_ns, interruptible).err().map(Err),
            };
            self.remove(&handle);
            match result {
                None => {}
                Some(Ok(result)) => return Ok(result),
                Some(Err(error)) => return self.give_up(&waiter, error, &mut condition),
            }
        }
    }

    /// A wake-up that came together with the time-out or signal must not get lost.
    fn give_up<R>(
        &self,
        waiter: &Waiter,
        error: WaitError,
        condition: &mut impl FnMut() -> Option<R>,
    ) -> Result<R, WaitError> {
        if let Some(result) = condition() {
            return Ok(result);
        }
        if waiter.is_woken.load(Ordering::Acquire) {
            self.wake_one();
        }
        Err(error)
    }
}
