//! Watched descriptors: the epoll instance and what is known of those in it.
//!
//! A watch gives one event. It is *armed* until epoll hands that over, and the event counts until it is
//! collected; `armed` is the number of both, so that nobody polls when there is nothing to come.

use super::files::File;
use super::{Call, Served};
use occlum_abi::ocall::HostEvent;
use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::Timespec;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Events taken from epoll at once.
const BATCH: usize = 64;
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

const REPORTED: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::ERR)
    .union(EventFlags::HUP);

pub struct Watches {
    epoll: OwnedFd,
    state: Mutex<State>,
    armed: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Whether a descriptor that epoll knows still waits for its event.
    known: BTreeMap<i32, bool>,
    /// Events to be collected, among them those of files that epoll does not take because they are
    /// always ready.
    ready: Vec<HostEvent>,
}

pub(super) fn poll_events(call: &Call) -> Served {
    Ok(call
        .instance
        .parking
        .watches
        .collect(call.whole_buffer()?)
        .into())
}

pub(super) fn event_add(call: &Call) -> Served {
    let events = PollFlags::from_bits_truncate(call.args[1] as u16);
    let events = events & (PollFlags::IN | PollFlags::OUT);
    let file = call.file()?;
    call.instance.parking.watch(call.args[0], &file, events)?;
    Ok(().into())
}

pub(super) fn event_remove(call: &Call) -> Served {
    let file = call.file()?;
    call.instance.parking.watches.remove(call.args[0], &file);
    Ok(().into())
}

impl Watches {
    pub fn new() -> Result<Watches, Errno> {
        Ok(Watches {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            state: Mutex::default(),
            armed: AtomicUsize::new(0),
        })
    }

    /// Readable when an event waits to be collected, for those epoll knows.
    pub fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    /// No event will come.
    pub fn is_empty(&self) -> bool {
        self.armed.load(Ordering::Acquire) == 0
    }

    /// Events wait to be collected that epoll does not know.
    pub fn has_ready(&self) -> bool {
        !self.lock().ready.is_empty()
    }

    /// Watches a descriptor for one event.
    pub fn add(&self, number: u64, file: &File, events: PollFlags) -> Result<(), Errno> {
        let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
        let mut state = self.lock();
        let flags = EventFlags::from_bits_truncate(events.bits().into()) | EventFlags::ONESHOT;
        let data = EventData::new_u64(number.unsigned_abs().into());
        let added = match state.known.contains_key(&number) {
            true => epoll::modify(&self.epoll, file, data, flags),
            false => epoll::add(&self.epoll, file, data, flags),
        };
        let is_new = match added {
            // What epoll refuses is always ready.
            Err(Errno::PERM) => {
                let event = HostEvent {
                    fd: number.unsigned_abs(),
                    events: events.bits().into(),
                };
                state.ready.push(event);
                true
            }
            added => added.map(|()| state.known.insert(number, true) != Some(true))?,
        };
        self.armed.fetch_add(usize::from(is_new), Ordering::AcqRel);
        Ok(())
    }

    pub fn remove(&self, number: u64, file: &File) {
        if self.forget(number) {
            // A descriptor that epoll has lost by itself is as good as removed.
            let _ = epoll::delete(&self.epoll, file);
        }
    }

    /// Drops what is known of a descriptor that is removed or about to be closed. Says whether epoll
    /// knows it.
    pub fn forget(&self, number: u64) -> bool {
        let Ok(number) = i32::try_from(number) else {
            return false;
        };
        let mut state = self.lock();
        let before = state.ready.len();
        state
            .ready
            .retain(|event| event.fd != number.unsigned_abs());
        let known = state.known.remove(&number);
        let dropped = before - state.ready.len() + usize::from(known == Some(true));
        self.armed.fetch_sub(dropped, Ordering::AcqRel);
        known.is_some()
    }

    /// Writes the events that are there to the buffer, as `HostEvent`s; gives their number.
    pub fn collect(&self, buffer: &mut [u8]) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut fired = Vec::with_capacity(BATCH);
        // Without events, as when interrupted, the kernel asks again.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut fired), Some(&AT_ONCE));
        let (slots, _) = buffer.as_chunks_mut::<{ size_of::<HostEvent>() }>();
        let mut state = self.lock();
        fired.iter().for_each(|event| state.fire(event));
        let count = state.ready.len().min(slots.len());
        self.armed.fetch_sub(count, Ordering::AcqRel);
        for (slot, event) in slots.iter_mut().zip(state.ready.drain(..count)) {
            slot[..4].copy_from_slice(&event.fd.to_le_bytes());
            slot[4..].copy_from_slice(&event.events.to_le_bytes());
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Takes an event from epoll, unless the descriptor was forgotten meanwhile.
    fn fire(&mut self, event: &epoll::Event) {
        let number = event.data.u64() as u32;
        let Some(armed) = self
            .known
            .get_mut(&number.cast_signed())
            .filter(|armed| **armed)
        else {
            return;
        };
        *armed = false;
        let flags = event.flags;
        self.ready.push(HostEvent {
            fd: number,
            events: flags.bits() & REPORTED.bits(),
        });
    }
}
