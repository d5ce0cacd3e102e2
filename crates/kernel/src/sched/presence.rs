//! Presence: which vCPUs run a task that relies on something being in place, and how to make them leave.
//!
//! A task *enters* under a key (the memory of a process: `mm/residency.rs`) and is present until it
//! leaves its vCPU: at every wait, yield and end, or by choice. Nothing is counted and no lock is taken:
//! each vCPU has one word. Who wants a key to be absent first shuts the door that tasks look at
//! *after* they entered, then asks. Either the door is seen shut or the presence is seen.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use occlum_abi::layout::MAX_VCPUS;
use occlum_enclave::{host, vcpu};

use alloc::vec::Vec;

use spin::Mutex;

use super::wait::WaitQueue;

/// The key under which the task of each vCPU is present; 0 is none.
static PRESENT: [AtomicUsize; MAX_VCPUS] = [const { AtomicUsize::new(0) }; MAX_VCPUS];
/// Whether somebody in [`DEPARTURES`] waits for the vCPU.
static ASKED: [AtomicU8; MAX_VCPUS] = [const { AtomicU8::new(0) }; MAX_VCPUS];
/// Who asked waits here, with [`ask`] as the condition.
pub static DEPARTURES: WaitQueue = WaitQueue::new();

/// Keys of tasks that were preempted: not on a vCPU, but not done with their turn either.
static ASIDE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// How to ask those who are present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Tell when you leave. One that was preempted counts as present.
    Patient,
    /// Leave now: user code is interrupted.
    Urgent,
}

/// The current task is present under `key` (not 0) until it leaves its vCPU.
pub fn enter(key: usize) {
    PRESENT[vcpu::index()].store(key, Ordering::SeqCst);
}

/// Whether the current task is present under some key.
#[inline]
pub fn is_in() -> bool {
    PRESENT[vcpu::index()].load(Ordering::Relaxed) != 0
}

/// The key the current task is present under, or 0.
pub fn key() -> usize {
    PRESENT[vcpu::index()].load(Ordering::Relaxed)
}

/// Whether the current task is present under this key.
pub fn is_in_as(key: usize) -> bool {
    PRESENT[vcpu::index()].load(Ordering::Relaxed) == key
}

/// The current task is no longer present.
#[inline]
pub fn leave() {
    let index = vcpu::index();
    if PRESENT[index].load(Ordering::Relaxed) == 0 {
        return;
    }
    PRESENT[index].store(0, Ordering::SeqCst);
    if ASKED[index].load(Ordering::SeqCst) != 0 {
        ASKED[index].store(0, Ordering::SeqCst);
        DEPARTURES.wake_all();
    }
}

/// A task that let others go first, and will go on as soon as it may.
pub struct Aside {
    key: usize,
}

/// The current task leaves its vCPU although it could go on.
pub fn step_aside() -> Aside {
    let key = key();
    if key != 0 {
        ASIDE.lock().push(key);
        leave();
    }
    Aside { key }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.key == 0 {
            return;
        }
        let mut aside = ASIDE.lock();
        if let Some(index) = aside.iter().position(|&key| key == self.key) {
            aside.swap_remove(index);
        }
        // Who asked meanwhile was not noted on this vCPU.
        ASKED[vcpu::index()].store(1, Ordering::SeqCst);
    }
}

/// Whether some vCPU is present under `key`; if so, [`DEPARTURES`] is woken when one of them leaves.
pub fn ask(key: usize, urgency: Urgency) -> bool {
    let is_present = |index: usize| PRESENT[index].load(Ordering::SeqCst) == key;
    let mut is_any = urgency == Urgency::Patient && ASIDE.lock().contains(&key);
    for index in (0..vcpu::count()).filter(|&index| is_present(index)) {
        ASKED[index].store(1, Ordering::SeqCst);
        // It may have left before it could see that.
        if !is_present(index) {
            continue;
        }
        is_any = true;
        let is_urgent = urgency == Urgency::Urgent && index != vcpu::index();
        if is_urgent && vcpu::set_pending(index, vcpu::PENDING_KICK) {
            host::kick(index);
        }
    }
    is_any
}
