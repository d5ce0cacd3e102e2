//! Waiting: vCPUs with nothing to run park here until another wakes them, a watched descriptor is
//! ready, or a deadline passes.
//!
//! Each vCPU has a *seat* whose state says how it waits. One parked vCPU at a time is the *poller*: it
//! waits for the watched descriptors too, in poll(2) on its doorbell and the epoll instance. The others
//! wait on their seat's futex. A poller that leaves hands the role to another that is parked; without
//! watched descriptors there is none.
//!
//! ```text
//! AWAKE --park--> PARKED --wake--> NOTIFIED --> AWAKE
//!                   |  \--nudge--> NUDGED --> PARKED, then POLLING
//!                   \--role free--> POLLING --wake--> NOTIFIED
//! AWAKE --wake--> NOTIFIED: the next park returns at once
//! ```

use super::time::now_ns;
use super::{Answer, Call, Served};
use crate::sys;
use occlum_abi::layout;
use occlum_abi::ocall::{HostEvent, SharedPage};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::{self, Errno};
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

const AWAKE: u32 = 0;
const PARKED: u32 = 1;
const POLLING: u32 = 2;
const NUDGED: u32 = 3;
const NOTIFIED: u32 = 4;

/// No vCPU is the poller.
const NOBODY: usize = usize::MAX;

/// `deadline_ns` that means none.
const NEVER: u64 = u64::MAX;

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
const ANY_BIT: NonZeroU32 = NonZeroU32::MAX;
const POLL_BITS: EventFlags = EventFlags::IN.union(EventFlags::OUT);

pub struct Parking {
    seats: Vec<Seat>,
    poller: AtomicUsize,
    epoll: OwnedFd,
    watches: Mutex<Watches>,
    /// Descriptors in `watches` that still wait for their event, and events in it.
    armed: AtomicUsize,
}

struct Seat {
    state: AtomicU32,
    doorbell: OwnedFd,
    thread: AtomicI32,
}

#[derive(Default)]
struct Watches {
    /// Whether a descriptor that epoll knows still waits for its event.
    known: BTreeMap<i32, bool>,
    /// Events to be collected, among them those of files that epoll does not take because they are
    /// always ready.
    ready: Vec<HostEvent>,
}

pub(super) fn park(call: &Call) -> Served {
    let instance = call.instance;
    let count = instance.parking.park(
        call.vcpu,
        call.args[0],
        instance.shared(),
        call.whole_buffer()?,
    );
    instance.clock.refresh_if_old(instance.shared());
    Ok(count.into())
}

pub(super) fn wake(call: &Call) -> Served {
    call.instance.parking.wake(call.vcpu_argument()?);
    Ok(().into())
}

pub(super) fn kick(call: &Call) -> Served {
    call.instance.parking.interrupt(call.vcpu_argument()?);
    Ok(().into())
}

pub(super) fn poll_events(call: &Call) -> Served {
    Ok(call.instance.parking.collect(call.whole_buffer()?).into())
}

pub(super) fn event_add(call: &Call) -> Served {
    let events = PollFlags::from_bits_truncate(call.args[1] as u16);
    let events = events & (PollFlags::IN | PollFlags::OUT);
    let file = call.file()?;
    call.instance.parking.watch(call.args[0], &file, events)?;
    Ok(Answer::default())
}

pub(super) fn event_remove(call: &Call) -> Served {
    let file = call.file()?;
    call.instance.parking.unwatch(call.args[0], &file);
    Ok(Answer::default())
}

impl Call<'_> {
    fn whole_buffer(&self) -> Result<&mut [u8], Errno> {
        self.instance.whole_staging(self.vcpu)
    }
}

impl Parking {
    pub fn new(vcpus: usize) -> Result<Parking, Errno> {
        Ok(Parking {
            seats: (0..vcpus).map(|_| Seat::new()).collect::<Result<_, _>>()?,
            poller: AtomicUsize::new(NOBODY),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            watches: Mutex::default(),
            armed: AtomicUsize::new(0),
        })
    }

    /// The thread that runs a vCPU, for `interrupt`.
    pub fn arrive(&self, vcpu: usize, thread: i32) {
        self.seats[vcpu].thread.store(thread, Ordering::Release);
    }

    /// Wakes a parked vCPU, or keeps the wake-up for the next time it parks.
    pub fn wake(&self, vcpu: usize) {
        let seat = &self.seats[vcpu];
        match seat.state.swap(NOTIFIED, Ordering::AcqRel) {
            PARKED | NUDGED => seat.wake_futex(),
            POLLING => seat.ring(),
            _ => {}
        }
    }

    /// Wakes some vCPU other than `except` if one is parked.
    pub fn wake_any(&self, except: usize) -> bool {
        let is_waiting =
            |seat: &Seat| matches!(seat.state.load(Ordering::Acquire), PARKED | POLLING);
        let found = self
            .seats
            .iter()
            .enumerate()
            .find(|(vcpu, seat)| *vcpu != except && is_waiting(seat));
        if let Some((vcpu, _)) = found {
            self.wake(vcpu);
        }
        found.is_some()
    }

    /// Makes a vCPU look up from what it does: by a signal in the enclave, by a wake-up here.
    pub fn interrupt(&self, vcpu: usize) {
        let seat = &self.seats[vcpu];
        if matches!(
            seat.state.load(Ordering::Acquire),
            PARKED | POLLING | NUDGED
        ) {
            return self.wake(vcpu);
        }
        let thread = seat.thread.load(Ordering::Acquire);
        if thread != 0 {
            // It fails only if the thread has ended, and the process with it.
            let _ = sys::signal_thread(thread, sys::KICK);
        }
    }

    /// Watches a descriptor for one event.
    fn watch(
        &self,
        number: u64,
        file: &impl rustix::fd::AsFd,
        events: PollFlags,
    ) -> Result<(), Errno> {
        let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
        let mut watches = self.lock();
        let flags = EventFlags::from_bits_truncate(u32::from(events.bits())) | EventFlags::ONESHOT;
        let data = EventData::new_u64(number.unsigned_abs().into());
        let known = watches.known.get(&number).copied();
        let watched = match known {
            Some(_) => epoll::modify(&self.epoll, file, data, flags),
            None => epoll::add(&self.epoll, file, data, flags),
        };
        match watched {
            // What epoll refuses is always ready.
            Err(Errno::PERM) => {
                watches.ready.push(HostEvent {
                    fd: number.unsigned_abs(),
                    events: events.bits().into(),
                });
                self.armed.fetch_add(1, Ordering::AcqRel);
            }
            Err(errno) => return Err(errno),
            Ok(()) => {
                watches.known.insert(number, true);
                if known != Some(true) {
                    self.armed.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        let is_ready = !watches.ready.is_empty();
        drop(watches);
        match self.poller.load(Ordering::Acquire) {
            NOBODY => self.ensure_poller(),
            poller if is_ready => self.wake(poller),
            _ => {}
        }
        Ok(())
    }

    fn unwatch(&self, number: u64, file: &impl rustix::fd::AsFd) {
        if self.forget(number) {
            // A descriptor that epoll has lost by itself is as good as removed.
            let _ = epoll::delete(&self.epoll, file);
        }
    }

    /// Drops what is known of a descriptor that is unwatched or about to be closed.
    pub fn forget(&self, number: u64) -> bool {
        let Ok(number) = i32::try_from(number) else {
            return false;
        };
        let mut watches = self.lock();
        let before = watches.ready.len();
        watches
            .ready
            .retain(|event| event.fd != number.unsigned_abs());
        let known = watches.known.remove(&number);
        let dropped = before - watches.ready.len() + usize::from(known == Some(true));
        self.armed.fetch_sub(dropped, Ordering::AcqRel);
        known.is_some()
    }

    /// Writes the events that are there to the buffer, as `HostEvent`s; gives their number.
    pub fn collect(&self, buffer: &mut [u8]) -> usize {
        if self.armed.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let mut fired = Vec::with_capacity(64);
        // Without events, as when interrupted, the kernel asks again.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut fired), Some(&AT_ONCE));
        let (slots, _) = buffer.as_chunks_mut::<{ size_of::<HostEvent>() }>();
        let mut watches = self.lock();
        fired.iter().for_each(|event| watches.fire(event));
        let count = watches.ready.len().min(slots.len());
        self.armed.fetch_sub(count, Ordering::AcqRel);
        for (slot, event) in slots.iter_mut().zip(watches.ready.drain(..count)) {
            slot[..4].copy_from_slice(&event.fd.to_le_bytes());
            slot[4..].copy_from_slice(&event.events.to_le_bytes());
        }
        count
    }

    fn park(&self, vcpu: usize, deadline_ns: u64, shared: &SharedPage, buffer: &mut [u8]) -> usize {
        let seat = &self.seats[vcpu];
        if !seat.change(AWAKE, PARKED) {
            seat.state.store(AWAKE, Ordering::Release);
            return self.collect(buffer);
        }
        let bit = 1 << vcpu;
        shared.parked.fetch_or(bit, Ordering::SeqCst);
        let has_polled = self.wait(vcpu, deadline_ns);
        shared.parked.fetch_and(!bit, Ordering::SeqCst);
        seat.state.store(AWAKE, Ordering::Release);
        if !has_polled {
            return 0;
        }
        let count = self.collect(buffer);
        self.poller.store(NOBODY, Ordering::Release);
        self.ensure_poller();
        count
    }

    /// Returns whether this vCPU has become the poller.
    fn wait(&self, vcpu: usize, deadline_ns: u64) -> bool {
        let seat = &self.seats[vcpu];
        loop {
            if self.take_role(vcpu) {
                if seat.change(PARKED, POLLING) {
                    self.poll(seat, deadline_ns);
                }
                return true;
            }
            let is_over = seat.sleep(deadline_ns);
            if is_over || !seat.change(NUDGED, PARKED) {
                return false;
            }
        }
    }

    fn take_role(&self, vcpu: usize) -> bool {
        let is_needed = self.armed.load(Ordering::Acquire) > 0;
        is_needed
            && self
                .poller
                .compare_exchange(NOBODY, vcpu, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    fn poll(&self, seat: &Seat, deadline_ns: u64) {
        if !self.lock().ready.is_empty() {
            return;
        }
        let mut fds = [
            PollFd::new(&seat.doorbell, PollFlags::IN),
            PollFd::new(&self.epoll, PollFlags::IN),
        ];
        let timeout = (deadline_ns != NEVER).then(|| time_until(deadline_ns));
        // Whatever ends it, an interruption included, the kernel looks what there is to do.
        let _ = poll(&mut fds, timeout.as_ref());
        if !fds[0].revents().is_empty() {
            seat.silence();
        }
    }

    /// If descriptors are watched and nobody polls, one that is parked shall.
    fn ensure_poller(&self) {
        let is_missing = self.poller.load(Ordering::Acquire) == NOBODY;
        if !is_missing || self.armed.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(seat) = self.seats.iter().find(|seat| seat.change(PARKED, NUDGED)) {
            seat.wake_futex();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Watches {
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

impl Seat {
    fn new() -> Result<Seat, Errno> {
        Ok(Seat {
            state: AtomicU32::new(AWAKE),
            doorbell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            thread: AtomicI32::new(0),
        })
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Waits on the futex; true after the deadline or an interruption.
    fn sleep(&self, deadline_ns: u64) -> bool {
        let deadline = (deadline_ns != NEVER).then(|| timespec(deadline_ns));
        let slept = futex::wait_bitset(
            &self.state,
            futex::Flags::PRIVATE,
            PARKED,
            deadline.as_ref(),
            ANY_BIT,
        );
        !matches!(slept, Ok(()) | Err(Errno::AGAIN))
    }

    fn wake_futex(&self) {
        // It fails for bad addresses only.
        let _ = futex::wake(&self.state, futex::Flags::PRIVATE, 1);
    }

    fn ring(&self) {
        // It fails only when the counter is full, and then the bell rings already.
        let _ = io::write(&self.doorbell, &1u64.to_ne_bytes());
    }

    /// A bell that is rung late ends the next poll early, which does no harm.
    fn silence(&self) {
        let _ = io::read(&self.doorbell, &mut [0; 8]);
    }
}

const REPORTED: EventFlags = POLL_BITS.union(EventFlags::ERR).union(EventFlags::HUP);

fn time_until(deadline_ns: u64) -> Timespec {
    timespec(deadline_ns.saturating_sub(now_ns(ClockId::Monotonic)))
}

fn timespec(ns: u64) -> Timespec {
    const SECOND_NS: u64 = 1_000_000_000;
    Timespec {
        tv_sec: (ns / SECOND_NS).cast_signed(),
        tv_nsec: (ns % SECOND_NS).cast_signed(),
    }
}

const _: () = assert!(layout::MAX_VCPUS <= u64::BITS as usize);
