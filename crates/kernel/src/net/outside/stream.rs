//! A TCP connection to what is not in the enclave: the host's socket does what TCP asks, this waits.
//!
//! Data goes between the program's memory and the staging buffer in one copy.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_enclave::host;

use super::HostSocket;
use super::call::{self, Whose};
use crate::error::{Errno, Error, Result, err};
use crate::net::address::{self, AF_INET6};
use crate::net::message::{Incoming, MSG_MORE, MSG_PEEK, MSG_WAITALL, Outgoing, Wanted};
use crate::net::patience::Patience;
use crate::net::stream::Direction;
use crate::sched::{SpinLock, Wake};
use crate::vfs::{Events, Sink, Source};

/// Bytes moved in one ocall at most, below the staging size: more than sockets have room for is
/// copied in vain.
const CHUNK: usize = 256 << 10;

pub struct Outside {
    socket: Arc<HostSocket>,
    /// connect(2) was begun and has not failed, or the connection was accepted.
    is_begun: AtomicBool,
    /// Own and peer's address.
    names: SpinLock<[SocketAddr; 2]>,
    /// Received, but the program's memory could not take it.
    left_over: SpinLock<Vec<u8>>,
}

impl Outside {
    /// Of an accepted connection.
    pub fn accepted(socket: Arc<HostSocket>, local: SocketAddr, peer: SocketAddr) -> Outside {
        Outside::new(socket, [local, peer], AtomicBool::new(true))
    }

    /// To be connected.
    pub fn fresh(socket: Arc<HostSocket>, local: SocketAddr) -> Outside {
        Outside::new(socket, [local; 2], AtomicBool::new(false))
    }

    fn new(socket: Arc<HostSocket>, names: [SocketAddr; 2], is_begun: AtomicBool) -> Outside {
        let left_over = SpinLock::new(Vec::new());
        Outside { socket, is_begun, names: SpinLock::new(names), left_over }
    }

    pub fn socket(&self) -> &Arc<HostSocket> {
        &self.socket
    }

    pub fn local(&self) -> SocketAddr {
        self.names.lock()[0]
    }

    /// Who accept(2) says it is, whatever has become of the connection.
    pub fn accepted_from(&self) -> SocketAddr {
        self.names.lock()[1]
    }

    pub fn peer(&self) -> Result<SocketAddr> {
        self.socket.name(Whose::Peers)
    }

    /// connect(2), and what a second one says: the host knows.
    pub fn connect(&self, to: SocketAddr, patience: Patience) -> Result<()> {
        if !self.is_begun.swap(true, Ordering::AcqRel) {
            self.socket.reset(Events::NONE);
        }
        let attempt = || call::connect(self.socket.fd(), Some(as_of(self.socket.domain(), to)));
        let first = attempt();
        if let Ok(local) = self.socket.name(Whose::Own) {
            *self.names.lock() = [local, to];
        }
        let result = match first {
            Err(error) if is_under_way(&error) && patience != Patience::Never => {
                self.await_connection(patience, attempt)
            }
            first => first,
        };
        match &result {
            Ok(()) => self.socket.signals.writers.notify(),
            Err(error) if is_under_way(error) || is_no_end(error) => {}
            Err(_) => {
                self.is_begun.store(false, Ordering::Release);
                self.socket.reset(Events::OUT | Events::HUP);
            }
        }
        result
    }

    fn await_connection(&self, patience: Patience, attempt: impl Fn() -> Result<()>) -> Result<()> {
        let result = patience.wait(&self.socket.signals.writers, || {
            if !self.socket.seen().may_write() {
                return None;
            }
            match attempt() {
                Err(error) if is_under_way(&error) => None,
                other => Some(other),
            }
        });
        match result {
            Err(error) if error.errno == Errno::EAGAIN => err(Errno::EINPROGRESS, "the connection takes longer"),
            result => result?,
        }
    }

    /// connect(2) of AF_UNSPEC.
    pub fn disconnect(&self) -> Result<()> {
        call::connect(self.socket.fd(), None)?;
        self.is_begun.store(false, Ordering::Release);
        self.socket.reset(Events::OUT | Events::HUP);
        Ok(())
    }

    /// Sends all of `source`, waiting for room as `out.patience` allows.
    pub fn send(&self, source: &mut Source<'_>, out: &Outgoing) -> Result<usize> {
        source.drive(|source| {
            loop {
                out.patience.wait(&self.socket.signals.writers, || self.try_send(source, out))??;
                if source.left() == 0 {
                    return Ok(());
                }
            }
        })
    }

    /// `None`: no room yet.
    fn try_send(&self, source: &mut Source<'_>, out: &Outgoing) -> Option<Result<()>> {
        let seen = self.socket.seen();
        // Who does not wait is told what holds now, not what the host has told so far.
        if !seen.may_write() && out.patience != Patience::Never {
            return None;
        }
        let mark = *source;
        let staging = host::staging();
        let part = staging.part(0, CHUNK.min(staging.size()))?;
        let size = source.take_to_host(&part);
        if size == 0 && source.left() == 0 && mark.left() > 0 {
            // Paused at a fault.
            return Some(Ok(()));
        }
        let sent = call::send(self.socket.fd(), size, out.flags & MSG_MORE);
        let count = *sent.as_ref().unwrap_or(&0);
        if count < size {
            source.rewind(mark, count);
            self.socket.is_full(seen);
        }
        match sent {
            Ok(_) => Some(Ok(())),
            Err(Errno::EAGAIN) => None,
            Err(errno) => {
                self.socket.be_unsure();
                Some(err(errno, "the connection can't send"))
            }
        }
    }

    /// Puts what is there into `sink`, waiting for the first byte, with MSG_WAITALL for all.
    pub fn receive(&self, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        let mut incoming = Incoming::default();
        incoming.size = sink.drive(|sink| {
            loop {
                let is_content = sink.done() > 0 && !wanted.has(MSG_WAITALL);
                let patience = if is_content { Patience::Never } else { wanted.patience };
                let readers = &self.socket.signals.readers;
                let count = patience.wait(readers, || self.try_receive(sink, wanted))??;
                let is_all = !wanted.has(MSG_WAITALL) || wanted.has(MSG_PEEK);
                if is_all || count == 0 || sink.room() == 0 {
                    return Ok(());
                }
            }
        })?;
        Ok(incoming)
    }

    /// `None`: nothing there yet. 0 at the end of the stream.
    fn try_receive(&self, sink: &mut Sink<'_>, wanted: &Wanted) -> Option<Result<usize>> {
        if let Some(count) = self.deliver_left_over(sink, wanted) {
            return Some(Ok(count));
        }
        let seen = self.socket.seen();
        let staging = host::staging();
        let size = sink.room().min(CHUNK).min(staging.size());
        let is_asked = seen.may_read() || wanted.patience == Patience::Never;
        if size == 0 || !is_asked {
            return (size == 0).then_some(Ok(0));
        }
        let count = match call::receive(self.socket.fd(), size, wanted.flags & MSG_PEEK) {
            Ok(count) => count,
            Err(Errno::EAGAIN) => {
                self.socket.is_drained(seen);
                return None;
            }
            Err(errno) => {
                self.socket.be_unsure();
                return Some(err(errno, "the connection failed"));
            }
        };
        match () {
            () if wanted.has(MSG_PEEK) || count == 0 => {}
            // What has ended, or may have, is read until it says so.
            () if count < size && seen.is_open() => self.socket.is_drained(seen),
            () => self.socket.be_unsure(),
        }
        let part = staging.part(0, count)?;
        let put = sink.put_from_host(&part);
        if put < count && !wanted.has(MSG_PEEK) {
            return Some(self.keep(staging.part(put, count - put)?).map(|()| put));
        }
        Some(Ok(count))
    }

    /// Keeps what the program's memory could not take yet.
    fn keep(&self, rest: host::HostSlice) -> Result<()> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(rest.size()).map_err(|_| Error::new(Errno::ENOBUFS, "received bytes"))?;
        bytes.resize(rest.size(), 0);
        if let Err(lie) = rest.read(&mut bytes) {
            host::stop_for(lie);
        }
        self.left_over.lock().append(&mut bytes);
        Ok(())
    }

    fn deliver_left_over(&self, sink: &mut Sink<'_>, wanted: &Wanted) -> Option<usize> {
        let mut left_over = self.left_over.lock();
        if left_over.is_empty() {
            return None;
        }
        let count = sink.put(&left_over);
        if !wanted.has(MSG_PEEK) {
            left_over.drain(..count);
        }
        Some(count)
    }

    pub fn shutdown(&self, reads: Direction, writes: Direction) -> Result<()> {
        let how = match (reads, writes) {
            (Direction::Ends, Direction::Stays) => 0,
            (Direction::Stays, Direction::Ends) => 1,
            _ => 2,
        };
        call::shutdown(self.socket.fd(), how)?;
        self.socket.be_unsure();
        self.socket.signals.readers.notify();
        self.socket.signals.writers.notify();
        Ok(())
    }

    pub fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.socket.signals.readers.add(waker);
            self.socket.signals.writers.add(waker);
        }
        let has_left_over = !self.left_over.lock().is_empty();
        let events = self.socket.events();
        if has_left_over { events | Events::IN } else { events }
    }

    pub fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.socket.signals.readers.remove(waker);
        self.socket.signals.writers.remove(waker);
    }

    /// FIONREAD.
    pub fn readable_bytes(&self) -> Result<usize> {
        const FIONREAD: u32 = 0x541b;
        let left_over = self.left_over.lock().len();
        Ok(left_over.saturating_add(call::pending(self.socket.fd(), FIONREAD)?))
    }

    /// SIOCOUTQ.
    pub fn unsent_bytes(&self) -> Result<usize> {
        const SIOCOUTQ: u32 = 0x5411;
        call::pending(self.socket.fd(), SIOCOUTQ)
    }
}

fn is_under_way(error: &Error) -> bool {
    matches!(error.errno, Errno::EINPROGRESS | Errno::EALREADY)
}

/// Not the end of an attempt: there is a connection, or the wait for it was interrupted.
fn is_no_end(error: &Error) -> bool {
    matches!(error.errno, Errno::EISCONN | Errno::EINTR)
}

/// An address as a host socket of `domain` needs it: IPv4 in its mapped form for AF_INET6.
pub fn as_of(domain: u16, address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if domain == AF_INET6 => SocketAddr::new(address::mapped(ip), address.port()),
        _ => address,
    }
}
