//! Wake-ups by the host: readiness of its descriptors, and its requests. The idle vCPU that parks is the poller.
//!
//! A [`Watch`] is for one event; an [`Observer`] hears of all changes of a descriptor until it is dropped.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use occlum_abi::ocall::{HostEvent, Ocall};
use occlum_enclave::host::{self, HostMisbehaved, Untrusted};
use spin::Mutex;

use super::wait::{WaitQueue, Wake};

struct Watch {
    /// POLLIN | POLLOUT bits wanted.
    events: u32,
    target: Arc<dyn Wake>,
}

/// Watches by host descriptor. A descriptor with two watchers is asked for the union.
static WATCHES: Mutex<BTreeMap<u32, Vec<Watch>>> = Mutex::new(BTreeMap::new());
/// Who hears of every change of a host descriptor.
pub trait Observer: Send + Sync {
    /// POLL* bits that the host says hold. Must be short and must not block.
    fn happened(&self, events: u32);
}

static OBSERVERS: Mutex<BTreeMap<u32, Weak<dyn Observer>>> = Mutex::new(BTreeMap::new());

/// Watches and observers.
static COUNT: AtomicUsize = AtomicUsize::new(0);

const EVENT_SIZE: usize = size_of::<HostEvent>();

/// Wakes `target` once when the host descriptor is ready for one of `events` (POLLIN, POLLOUT), or in
/// error. It may also be woken early: the waker checks by trying.
pub fn watch(fd: u32, events: u32, target: Arc<dyn Wake>) {
    let wanted = {
        let mut watches = WATCHES.lock();
        let list = watches.entry(fd).or_default();
        list.push(Watch { events, target });
        COUNT.fetch_add(1, Ordering::Relaxed);
        list.iter().fold(0, |all, watch| all | watch.events)
    };
    let added = host::call(Ocall::EventAdd, [u64::from(fd), u64::from(wanted), 0, 0, 0]);
    // A descriptor that can't be watched counts as ready: the waiter then sees the error itself.
    match added.at_most(Ocall::EventAdd, 0) {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => notify(fd, u32::MAX),
        Err(lie) => host::stop_for(lie),
    }
}

/// Forgets a watch that has not fired.
pub fn unwatch(fd: u32, target: &Arc<dyn Wake>) {
    let mut watches = WATCHES.lock();
    let Some(list) = watches.get_mut(&fd) else { return };
    let before = list.len();
    list.retain(|watch| !core::ptr::addr_eq(Arc::as_ptr(&watch.target), Arc::as_ptr(target)));
    COUNT.fetch_sub(before - list.len(), Ordering::Relaxed);
    if list.is_empty() {
        watches.remove(&fd);
    }
}

/// Wakes who serves the host's requests.
pub static REQUESTS: WaitQueue = WaitQueue::new();

/// Looks whether the host has requests. For vCPUs that were woken or interrupted, which the host does
/// after it has said so.
pub(super) fn look_for_requests() {
    if host::has_requests() {
        REQUESTS.wake_all();
    }
}

/// From now on `observer` hears of the descriptor. False if another one does: the host has given the
/// descriptor twice.
#[must_use]
pub fn observe(fd: u32, observer: Weak<dyn Observer>) -> bool {
    let mut observers = OBSERVERS.lock();
    if observers.contains_key(&fd) {
        return false;
    }
    observers.insert(fd, observer);
    COUNT.fetch_add(1, Ordering::Relaxed);
    true
}

/// Ends what [`observe`] began; before the descriptor is closed.
pub fn ignore(fd: u32) {
    if OBSERVERS.lock().remove(&fd).is_some() {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the host for events without waiting; does nothing if nobody watches.
pub fn look() {
    if COUNT.load(Ordering::Relaxed) != 0 {
        take_events(host::call(Ocall::PollEvents, [0; 5]), Ocall::PollEvents);
    }
}

/// Sleeps in the host until an event, a wake-up or the deadline.
pub(super) fn park_until(deadline_ns: u64) {
    take_events(host::park(deadline_ns), Ocall::Park);
}

fn take_events(count: Untrusted<i64>, call: Ocall) {
    let buffer = host::staging();
    let count = match count.at_most(call, buffer.size() / EVENT_SIZE) {
        Ok(result) => result.unwrap_or(0),
        Err(lie) => host::stop_for(lie),
    };
    // Copy all before waking anybody: the staging buffer is reused by the next ocall.
    let mut ready = Vec::with_capacity(count);
    for i in 0..count {
        let mut raw = [0; EVENT_SIZE];
        let part = buffer.part(i * EVENT_SIZE, EVENT_SIZE).ok_or(HostMisbehaved::BadLength(call));
        if let Err(lie) = part.and_then(|part| part.read(&mut raw)) {
            host::stop_for(lie);
        }
        let [f0, f1, f2, f3, e0, e1, e2, e3] = raw;
        ready.push((u32::from_le_bytes([f0, f1, f2, f3]), u32::from_le_bytes([e0, e1, e2, e3])));
    }
    for (fd, events) in ready {
        notify(fd, events);
    }
}

/// Wakes who waits for the descriptor. An event nobody asked for is ignored.
fn notify(fd: u32, events: u32) {
    // Not an `upgrade` under the lock: the last reference takes it.
    let observer = OBSERVERS.lock().get(&fd).cloned();
    if let Some(observer) = observer.and_then(|observer| observer.upgrade()) {
        return observer.happened(events);
    }
    let list = WATCHES.lock().remove(&fd).unwrap_or_default();
    COUNT.fetch_sub(list.len(), Ordering::Relaxed);
    for watch in list {
        watch.target.wake();
    }
}
