//! A lock whose waiters sleep, for critical sections that may block or make ocalls.

use core::ops::{Deref, DerefMut};

use spin::mutex::{Mutex as Spin, MutexGuard as SpinGuard};

use super::wait::WaitQueue;

/// Mutual exclusion with sleeping waiters. Not interruptible, not recursive.
pub struct Mutex<T> {
    value: Spin<T>,
    waiters: WaitQueue,
}

/// Holds the lock until dropped.
pub struct MutexGuard<'a, T> {
    /// Some until dropped.
    value: Option<SpinGuard<'a, T>>,
    waiters: &'a WaitQueue,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { value: Spin::new(value), waiters: WaitQueue::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        if let Some(guard) = self.try_lock() {
            return guard;
        }
        match self.waiters.wait_until(None, false, || self.try_lock()) {
            Ok(guard) => guard,
            Err(error) => unreachable!("an endless uninterruptible wait ended: {error:?}"),
        }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let value = self.value.try_lock()?;
        Some(MutexGuard { value: Some(value), waiters: &self.waiters })
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.waiters.wake_one();
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_deref().expect("present until drop")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().expect("present until drop")
    }
}
