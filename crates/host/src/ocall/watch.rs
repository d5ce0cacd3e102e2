//! Watched descriptors: the epoll instance and what is known of those in it.
//!
//! A watch gives one event. It is *armed* until epoll hands that over, and the event counts until it is
//! collected; `armed` is the number of both, so that nobody polls when there is nothing to come. Sockets
//! are watched for good: each change gives an event, and each of them counts as armed until it is closed.
//!
//! The bell is in the epoll instance too: who rings it ends the wait of the vCPU that polls.

use super::files::File;
use super::{Call, Served};
use occlum_abi::ocall::HostEvent;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::time::Timespec;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
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
    .union(EventFlags::PRI)
    .union(EventFlags::ERR)
    .union(EventFlags::HUP)
    .union(EventFlags::RDHUP);

/// What a socket is watched for.
const CHANGES: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// What epoll calls the bell; no descriptor has this number.
const BELL: u64 = u64::MAX;

pub struct Watches {
    epoll: OwnedFd,
    bell: OwnedFd,
    state: Mutex<State>,
    armed: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// What epoll knows.
    known: BTreeMap<i32, Watch>,
    /// Events to be collected, among them those of files that epoll does not take because they are
    /// always ready.
    ready: Vec<HostEvent>,
    /// How many of `ready` count in `armed`.
    once: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// One event was asked for and has not come.
    Armed,
    /// It has come.
    Fired,
    /// Each change is an event.
    Changes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bell {
    Silent,
    Rings,
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
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Watches {
            epoll,
            bell,
            state: Mutex::default(),
            armed: AtomicUsize::new(0),
        })
    }

    /// Ends the wait of who polls, now or next time.
    pub fn ring(&self) {
        // It fails only when the counter is full, and then the bell rings already.
        let _ = io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// A bell that is rung late ends the next wait early, which does no harm.
    fn silence(&self) {
        let _ = io::read(&self.bell, &mut [0; 8]);
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
                state.ready.insert(0, event);
                state.once += 1;
                true
            }
            added => {
                added.map(|()| state.known.insert(number, Watch::Armed) != Some(Watch::Armed))?
            }
        };
        self.armed.fetch_add(usize::from(is_new), Ordering::AcqRel);
        Ok(())
    }

    /// Watches a socket for every change until it is closed.
    pub fn add_changes(&self, number: i32, socket: impl AsFd) -> Result<(), Errno> {
        let mut state = self.lock();
        let data = EventData::new_u64(number.unsigned_abs().into());
        epoll::add(&self.epoll, socket, data, CHANGES)?;
        state.known.insert(number, Watch::Changes);
        self.armed.fetch_add(1, Ordering::AcqRel);
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
        let (fd, once) = (number.unsigned_abs(), state.once);
        let dropped = state.ready[..once]
            .iter()
            .filter(|event| event.fd == fd)
            .count();
        state.once -= dropped;
        state.ready.retain(|event| event.fd != fd);
        let known = state.known.remove(&number);
        let was_armed = matches!(known, Some(Watch::Armed | Watch::Changes));
        let dropped = dropped + usize::from(was_armed);
        self.armed.fetch_sub(dropped, Ordering::AcqRel);
        known.is_some()
    }

    /// Writes the events that are there to the buffer, as `HostEvent`s; gives their number.
    pub fn collect(&self, buffer: &mut [u8]) -> usize {
        if self.is_empty() {
            return 0;
        }
        // The bell rings for who polls, and is left to that one.
        self.gather(Some(&AT_ONCE));
        self.take(buffer)
    }

    /// Waits until there are events to take, the bell rings or the time is over. For who polls.
    pub fn wait(&self, timeout: Option<&Timespec>) {
        if self.gather(timeout) == Bell::Rings {
            self.silence();
        }
    }

    fn gather(&self, timeout: Option<&Timespec>) -> Bell {
        let mut bell = Bell::Silent;
        let mut fired = [const { MaybeUninit::uninit() }; BATCH];
        // Without events, as when interrupted, the kernel asks again.
        let Ok((fired, _)) = epoll::wait(&self.epoll, &mut fired, timeout) else {
            return bell;
        };
        let mut state = self.lock();
        for event in fired {
            match event.data.u64() {
                BELL => bell = Bell::Rings,
                _ => state.fire(event),
            }
        }
        bell
    }

    /// As `collect`, of what was waited for.
    pub fn take(&self, buffer: &mut [u8]) -> usize {
        let (slots, _) = buffer.as_chunks_mut::<{ size_of::<HostEvent>() }>();
        let mut state = self.lock();
        let count = state.ready.len().min(slots.len());
        let once = count.min(state.once);
        state.once -= once;
        self.armed.fetch_sub(once, Ordering::AcqRel);
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
        let flags = event.flags;
        let event = HostEvent {
            fd: number,
            events: flags.bits() & REPORTED.bits(),
        };
        match self.known.get_mut(&number.cast_signed()) {
            Some(watch @ Watch::Armed) => {
                *watch = Watch::Fired;
                self.ready.insert(self.once, event);
                self.once += 1;
            }
            Some(Watch::Changes) => self.ready.push(event),
            _ => {}
        }
    }
}
