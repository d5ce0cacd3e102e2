//! Waiting: vCPUs with nothing to run park here until another wakes them, a watched descriptor is
//! ready, or a deadline passes.
//!
//! Each vCPU has a *seat* whose state says how it waits. One parked vCPU at a time is the *poller*: it
//! waits for the watched descriptors too, in the epoll instance that also has a bell. The others
//! wait on their seat's futex. A poller that leaves hands the role to another that is parked; without
//! watched descriptors there is none.
//!
//! ```text
//! AWAKE --park--> PARKED --wake--> NOTIFIED --> AWAKE
//!                   |  \--nudge--> NUDGED --> PARKED, then POLLING
//!                   \--role free--> POLLING --wake--> NOTIFIED
//! AWAKE --wake--> NOTIFIED: the next park returns at once
//! ```

use super::files::File;
use super::time::now_ns;
use super::watch::Watches;
use super::{Call, Served};
use crate::sys;
use occlum_abi::layout;
use occlum_abi::ocall::SharedPage;
use rustix::event::PollFlags;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

const AWAKE: u32 = 0;
const PARKED: u32 = 1;
const POLLING: u32 = 2;
const NUDGED: u32 = 3;
const NOTIFIED: u32 = 4;

/// No vCPU is the poller.
const NOBODY: usize = usize::MAX;

/// `deadline_ns` that means none.
const NEVER: u64 = u64::MAX;

const ANY_BIT: NonZeroU32 = NonZeroU32::MAX;

pub struct Parking {
    seats: Vec<Seat>,
    poller: AtomicUsize,
    pub watches: Watches,
}

struct Seat {
    state: AtomicU32,
    thread: AtomicI32,
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

impl Call<'_> {
    pub(super) fn whole_buffer(&self) -> Result<&mut [u8], Errno> {
        self.instance.whole_staging(self.vcpu)
    }
}

impl Parking {
    pub fn new(vcpus: usize) -> Result<Parking, Errno> {
        Ok(Parking {
            seats: (0..vcpus).map(|_| Seat::new()).collect(),
            poller: AtomicUsize::new(NOBODY),
            watches: Watches::new()?,
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
            POLLING => self.watches.ring(),
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

    /// Interrupts a vCPU that is in the enclave, or on its way.
    pub fn interrupt_if_awake(&self, vcpu: usize) {
        if self.seats[vcpu].state.load(Ordering::Acquire) == AWAKE {
            self.interrupt(vcpu);
        }
    }

    /// Makes a vCPU look around, whatever it does: at once in the enclave, or before it next parks.
    pub fn rouse(&self, vcpu: usize) {
        self.wake(vcpu);
        self.interrupt(vcpu);
    }

    /// Watches a descriptor for one event.
    pub fn watch(&self, number: u64, file: &File, events: PollFlags) -> Result<(), Errno> {
        self.watches.add(number, file, events)?;
        self.poll_for_it();
        Ok(())
    }

    /// Watches a socket for every change.
    pub fn watch_changes(&self, number: i32, socket: impl AsFd) -> Result<(), Errno> {
        self.watches.add_changes(number, socket)?;
        self.poll_for_it();
        Ok(())
    }

    /// Somebody parked polls from now on, if nobody does.
    fn poll_for_it(&self) {
        match self.poller.load(Ordering::Acquire) {
            NOBODY => self.ensure_poller(),
            poller if self.watches.has_ready() => self.wake(poller),
            _ => {}
        }
    }

    fn park(&self, vcpu: usize, deadline_ns: u64, shared: &SharedPage, buffer: &mut [u8]) -> usize {
        let seat = &self.seats[vcpu];
        if !seat.change(AWAKE, PARKED) {
            seat.state.store(AWAKE, Ordering::Release);
            return self.watches.collect(buffer);
        }
        let bit = 1 << vcpu;
        shared.parked.fetch_or(bit, Ordering::SeqCst);
        let has_polled = self.wait(vcpu, deadline_ns);
        shared.parked.fetch_and(!bit, Ordering::SeqCst);
        seat.state.store(AWAKE, Ordering::Release);
        if !has_polled {
            return 0;
        }
        let count = self.watches.take(buffer);
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
                    self.poll(deadline_ns);
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
        let is_needed = !self.watches.is_empty();
        is_needed
            && self
                .poller
                .compare_exchange(NOBODY, vcpu, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    fn poll(&self, deadline_ns: u64) {
        if self.watches.has_ready() {
            return;
        }
        let timeout = (deadline_ns != NEVER).then(|| time_until(deadline_ns));
        self.watches.wait(timeout.as_ref());
    }

    /// If descriptors are watched and nobody polls, one that is parked shall.
    fn ensure_poller(&self) {
        let is_missing = self.poller.load(Ordering::Acquire) == NOBODY;
        if !is_missing || self.watches.is_empty() {
            return;
        }
        if let Some(seat) = self.seats.iter().find(|seat| seat.change(PARKED, NUDGED)) {
            seat.wake_futex();
        }
    }
}

impl Seat {
    fn new() -> Seat {
        Seat {
            state: AtomicU32::new(AWAKE),
            thread: AtomicI32::new(0),
        }
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
}

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
