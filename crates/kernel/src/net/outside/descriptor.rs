//! One host socket, and what it is ready for.
//!
//! The host tells of changes only (edge-triggered events), so readiness is kept here: events set bits, and
//! a call that found nothing, or less than it asked for, clears them. An event may come in between, on
//! another vCPU; it counts `generation` up, so that the older finding does not erase it. Where bytes may or
//! may not be left after a read, the state is *unsure* until a poll asks the host.
//!
//! A host that tells of too much makes programs try in vain; one that tells of too little makes them
//! wait. Both it can do anyway.

use alloc::sync::{Arc, Weak};
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use occlum_abi::ocall::Ocall;
use occlum_enclave::host::{self, HostMisbehaved};

use super::call::{self, Whose};
use crate::error::{Errno, Result};
use crate::net::Kind;
use crate::net::patience::Patience;
use crate::sched::events::{self, Observer};
use crate::vfs::Events;
use crate::vfs::poll::Readiness;

/// Who is notified when the socket becomes readable or writable.
#[derive(Clone)]
pub struct Signals {
    pub readers: Arc<Readiness>,
    pub writers: Arc<Readiness>,
}

impl Signals {
    pub fn new() -> Signals {
        Signals { readers: Arc::new(Readiness::new()), writers: Arc::new(Readiness::new()) }
    }
}

impl Default for Signals {
    fn default() -> Signals {
        Signals::new()
    }
}

/// Dropping it closes the host's socket.
pub struct HostSocket {
    fd: u32,
    domain: u16,
    /// generation << 32 | POLL* bits and `UNSURE`
    state: AtomicU64,
    pub signals: Signals,
}

/// Whether it is readable is not known.
const UNSURE: u64 = 1 << 30;
const BITS: u64 = 0xffff_ffff;
const GENERATION: u64 = 1 << 32;

const READABLE: u64 = (Events::IN.0 | Events::RDHUP.0 | Events::HUP.0 | Events::ERR.0) as u64;
const WRITABLE: u64 = (Events::OUT.0 | Events::HUP.0 | Events::ERR.0) as u64;
const KNOWN: u64 = READABLE | WRITABLE;

/// When to ask the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// If it has told that there may be something.
    IfTold,
    /// In any case: for who does not wait, and so wants to know what holds now.
    Now,
}

impl Ask {
    pub fn when(patience: Patience) -> Ask {
        if patience == Patience::Never { Ask::Now } else { Ask::IfTold }
    }
}

/// The state as it was at some time.
#[derive(Clone, Copy, Debug)]
pub struct Seen(u64);

impl Seen {
    /// A read may give something.
    pub fn may_read(self) -> bool {
        self.0 & (READABLE | UNSURE) != 0
    }

    pub fn may_write(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Surely the peer may send more: what tells of the end would come as another event.
    pub fn is_open(self) -> bool {
        self.0 & (UNSURE | u64::from(Events::RDHUP.0 | Events::HUP.0 | Events::ERR.0)) == 0
    }
}

impl HostSocket {
    pub fn open(domain: u16, kind: Kind, signals: Signals) -> Result<Arc<HostSocket>> {
        let fd = call::open(domain, kind)?;
        let state = if kind == Kind::Stream { 0 } else { UNSURE | u64::from(Events::OUT.0) };
        Ok(HostSocket::observed(Ocall::SocketOpen, fd, domain, state, signals))
    }

    /// A connection that the host accepted. What happened before it could be told of is not known.
    pub fn accepted(fd: u32, domain: u16) -> Arc<HostSocket> {
        let state = UNSURE | u64::from(Events::OUT.0);
        HostSocket::observed(Ocall::SocketAccept, fd, domain, state, Signals::new())
    }

    fn observed(call: Ocall, fd: u32, domain: u16, state: u64, signals: Signals) -> Arc<HostSocket> {
        let socket = Arc::new(HostSocket { fd, domain, state: AtomicU64::new(state), signals });
        let weak = Arc::downgrade(&socket);
        let observer: Weak<dyn Observer> = weak;
        if !events::observe(fd, observer) {
            host::stop_for(HostMisbehaved::BadDescriptor(call));
        }
        socket
    }

    pub fn fd(&self) -> u32 {
        self.fd
    }

    pub fn domain(&self) -> u16 {
        self.domain
    }

    pub fn name(&self, whose: Whose) -> Result<SocketAddr> {
        call::name(self.fd, self.domain, whose)
    }

    pub fn seen(&self) -> Seen {
        Seen(self.state.load(Ordering::Acquire))
    }

    /// Nothing is known of what the socket was before.
    pub fn reset(&self, events: Events) {
        let next = |state: u64| Some((state & !BITS).wrapping_add(GENERATION) | u64::from(events.0));
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// Everything there was has been read, as of `seen`.
    pub fn is_drained(&self, seen: Seen) {
        let cleared = seen.0 & !(u64::from(Events::IN.0) | UNSURE);
        let changed = self.state.compare_exchange(seen.0, cleared, Ordering::AcqRel, Ordering::Acquire);
        if changed.is_err() {
            self.be_unsure();
        }
    }

    /// A read got all that it asked for, or an error was taken: who knows what is left.
    pub fn be_unsure(&self) {
        self.state.fetch_or(UNSURE, Ordering::AcqRel);
    }

    /// No room to write, as of `seen`. If something has happened since, the next attempt will tell.
    pub fn is_full(&self, seen: Seen) {
        let full = seen.0 & !u64::from(Events::OUT.0);
        let _ = self.state.compare_exchange(seen.0, full, Ordering::AcqRel, Ordering::Acquire);
    }

    /// What holds now; asks the host if it is not known.
    pub fn events(&self) -> Events {
        let seen = self.seen();
        if seen.0 & UNSURE == 0 {
            return Events((seen.0 & KNOWN) as u32);
        }
        let now = u64::from(call::poll(self.fd)) & KNOWN;
        let known = seen.0 & !BITS | now;
        let changed = self.state.compare_exchange(seen.0, known, Ordering::AcqRel, Ordering::Acquire);
        match changed {
            Ok(_) => Events(now as u32),
            Err(newer) => Events(((newer | now) & KNOWN) as u32),
        }
    }

    /// SO_ERROR.
    pub fn take_error(&self) -> Option<Errno> {
        const SOL_SOCKET: u32 = 1;
        const SO_ERROR: u32 = 4;
        let mut raw = [0; 4];
        let size = call::get_option(self.fd, SOL_SOCKET, SO_ERROR, &mut raw).ok()?;
        self.be_unsure();
        Errno::from_raw(i32::from_le_bytes(raw)).filter(|_| size == 4)
    }
}

impl Observer for HostSocket {
    fn happened(&self, events: u32) {
        let new = u64::from(events) & KNOWN;
        let next = |state: u64| {
            let known = if new & u64::from(Events::IN.0) != 0 { state & !UNSURE } else { state };
            Some(known.wrapping_add(GENERATION) | new)
        };
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if new & READABLE != 0 {
            self.signals.readers.notify();
        }
        if new & WRITABLE != 0 {
            self.signals.writers.notify();
        }
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        events::ignore(self.fd);
        call::close(self.fd);
    }
}
