//! Connected AF_UNIX sockets: byte streams and sequenced packets.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;

use super::names::{self, Bound, Target};
use crate::error::{Errno, Result, err};
use crate::net::address::{self, Address, UnixName};
use crate::net::backlog::Backlog;
use crate::net::message::{Incoming, MSG_OOB, Outgoing, PeerIds, Wanted};
use crate::net::options::{BUFFER_DEFAULT, Options, SOL_SOCKET, SO_PASSCRED, Switch};
use crate::net::packets::{self, PacketEnd};
use crate::net::patience::Patience;
use crate::net::socket::{Accepted, Connecting};
use crate::net::stream::{self, Direction, End, Manners};
use crate::net::{Common, Kind, Protocol, Socket};
use crate::sched::{SpinLock, Wake};
use crate::vfs::poll::Readiness;
use crate::vfs::{Events, Sink, Source};

/// A socket of type SOCK_STREAM or SOCK_SEQPACKET.
pub struct UnixStream {
    kind: Kind,
    name: SpinLock<Name>,
    listener: Once<Arc<Listener>>,
    link: Once<Link>,
    /// Pollers of a socket that is neither listening nor connected.
    changes: Readiness,
}

#[derive(Default)]
struct Name {
    /// The name given to this very socket.
    bound: Option<Arc<Bound>>,
    /// The listener's name, for accepted connections.
    inherited: Option<UnixName>,
}

/// Where connections to a name arrive.
pub struct Listener {
    backlog: Backlog<Pending>,
    ids: SpinLock<PeerIds>,
    wants_ids: AtomicBool,
    name: UnixName,
}

struct Pending {
    wire: Wire,
    peer: UnixName,
    ids: PeerIds,
}

/// A connection.
struct Link {
    wire: Wire,
    peer: UnixName,
    ids: PeerIds,
}

enum Wire {
    Bytes(End),
    Packets(PacketEnd),
}

impl Wire {
    fn pair(kind: Kind, send_buffer: usize) -> (Wire, Wire) {
        if kind == Kind::SeqPacket {
            let (one, other) = packets::pair();
            return (Wire::Packets(one), Wire::Packets(other));
        }
        let (one, other) = stream::pair(Manners::Unix, [send_buffer, BUFFER_DEFAULT]);
        (Wire::Bytes(one), Wire::Bytes(other))
    }

    /// Nobody will accept it: the other end gets ECONNRESET.
    fn abort(&self) {
        match self {
            Wire::Bytes(end) => end.set_aborts(Switch::On),
            Wire::Packets(end) => end.set_aborts(Switch::On),
        }
    }

    fn set_wants_ids(&self, switch: Switch) {
        match self {
            Wire::Bytes(end) => end.set_wants_ids(switch),
            Wire::Packets(end) => end.mailbox().set_wants_ids(switch),
        }
    }
}

impl UnixStream {
    pub fn new(kind: Kind) -> Arc<UnixStream> {
        Arc::new(UnixStream::with(kind, Name::default()))
    }

    fn with(kind: Kind, name: Name) -> UnixStream {
        UnixStream {
            kind,
            name: SpinLock::new(name),
            listener: Once::new(),
            link: Once::new(),
            changes: Readiness::new(),
        }
    }

    /// socketpair(2).
    pub fn pair(kind: Kind) -> (Arc<UnixStream>, Arc<UnixStream>) {
        let (one, other) = Wire::pair(kind, BUFFER_DEFAULT);
        let connected = |wire| {
            let socket = UnixStream::new(kind);
            socket.link.call_once(|| Link { wire, peer: UnixName::Unnamed, ids: PeerIds::current() });
            socket
        };
        (connected(one), connected(other))
    }

    fn own_name(&self) -> UnixName {
        let name = self.name.lock();
        match (&name.bound, &name.inherited) {
            (Some(bound), _) => bound.name.clone(),
            (None, Some(inherited)) => inherited.clone(),
            (None, None) => UnixName::Unnamed,
        }
    }

    /// The connection; what the error is without one depends on type and call.
    fn link(&self, otherwise: Errno) -> Result<&Link> {
        match self.link.get() {
            Some(link) => Ok(link),
            None => err(otherwise, "not connected"),
        }
    }

    fn bind_to(&self, name: UnixName) -> Result<()> {
        if self.name.lock().bound.is_some() {
            names::check_free(&name)?;
            return err(Errno::EINVAL, "the socket has a name");
        }
        let bound = names::bind(name, self.kind)?;
        self.name.lock().bound = Some(bound);
        Ok(())
    }
}

impl Protocol for UnixStream {
    fn bind(&self, _common: &Common, raw: &[u8]) -> Result<()> {
        self.bind_to(parse_for_bind(raw)?)
    }

    fn listen(&self, common: &Common, backlog: usize) -> Result<()> {
        let Some(bound) = self.name.lock().bound.clone() else {
            return err(Errno::EINVAL, "listen without a name");
        };
        if self.link.get().is_some() {
            return err(Errno::EINVAL, "listen on a connection");
        }
        let listener = self.listener.call_once(|| {
            Arc::new(Listener {
                backlog: Backlog::new(backlog),
                ids: SpinLock::new(PeerIds::current()),
                wants_ids: AtomicBool::new(common.wants_ids()),
                name: bound.name.clone(),
            })
        });
        listener.backlog.set_limit(backlog);
        *listener.ids.lock() = PeerIds::current();
        bound.set_target(Target::Listener(listener.clone()));
        self.changes.notify();
        Ok(())
    }

    fn accept(&self, common: &Common, patience: Patience) -> Result<Accepted> {
        let Some(listener) = self.listener.get() else {
            return err(Errno::EINVAL, "not listening");
        };
        let pending = listener.backlog.pop(patience)?;
        let name = Name { bound: None, inherited: Some(listener.name.clone()) };
        let accepted = UnixStream::with(self.kind, name);
        let peer = Address::Unix(pending.peer.clone());
        let link = Link { wire: pending.wire, peer: pending.peer, ids: pending.ids };
        accepted.link.call_once(|| link);
        let options = Options::new();
        if common.wants_ids() {
            options.set(SOL_SOCKET, SO_PASSCRED, 1)?;
        }
        let common = Common::new(common.domain, common.kind, common.protocol, options);
        Ok(Accepted { socket: Socket::new(common, Arc::new(accepted)), peer })
    }

    fn connect(&self, common: &Common, how: Connecting<'_>) -> Result<()> {
        let name = address::parse_unix(how.raw)?;
        if common.wants_ids() && self.name.lock().bound.is_none() {
            self.bind_to(UnixName::Unnamed)?;
        }
        let bound = names::find(&name, self.kind)?;
        let Some(Target::Listener(listener)) = bound.target() else {
            return err(Errno::ECONNREFUSED, "the socket does not listen");
        };
        if self.link.get().is_some() {
            return err(Errno::EISCONN, "connected already");
        }
        if self.listener.get().is_some() {
            return err(Errno::EINVAL, "a listening socket");
        }
        let (own, theirs) = Wire::pair(self.kind, common.options.send_buffer());
        own.set_wants_ids(Switch::when(common.wants_ids()));
        theirs.set_wants_ids(Switch::when(listener.wants_ids.load(Ordering::Relaxed)));
        let pending = Pending { wire: theirs, peer: self.own_name(), ids: PeerIds::current() };
        listener.backlog.push(pending, how.patience)?;
        let ids = *listener.ids.lock();
        self.link.call_once(|| Link { wire: own, peer: bound.name.clone(), ids });
        self.changes.notify();
        Ok(())
    }

    fn shutdown(&self, reads: Direction, writes: Direction) -> Result<()> {
        if let Some(listener) = self.listener.get()
            && reads == Direction::Ends
        {
            listener.close();
        }
        match self.link.get().map(|link| &link.wire) {
            Some(Wire::Bytes(end)) => end.shutdown(reads, writes),
            Some(Wire::Packets(end)) => end.shutdown(reads, writes),
            None => {}
        }
        Ok(())
    }

    fn local_address(&self) -> Address {
        Address::Unix(self.own_name())
    }

    fn peer_address(&self) -> Result<Address> {
        Ok(Address::Unix(self.link(Errno::ENOTCONN)?.peer.clone()))
    }

    fn parse_destination(&self, _common: &Common, raw: &[u8]) -> Result<Address> {
        if self.kind == Kind::SeqPacket {
            return address::parse_unix(raw).map(Address::Unix);
        }
        match self.link.get() {
            Some(_) => err(Errno::EISCONN, "a connection needs no destination"),
            None => err(Errno::EOPNOTSUPP, "a stream needs a connection"),
        }
    }

    fn send(&self, common: &Common, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize> {
        let link = self.link(Errno::ENOTCONN)?;
        if out.flags & MSG_OOB != 0 {
            return err(Errno::EOPNOTSUPP, "no out-of-band data");
        }
        match &link.wire {
            Wire::Bytes(end) => end.send(source, out),
            Wire::Packets(end) => end.send(source, out, common.options.send_buffer()),
        }
    }

    fn receive(&self, _common: &Common, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        if wanted.has(MSG_OOB) {
            return err(Errno::EOPNOTSUPP, "no out-of-band data");
        }
        let otherwise = if self.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN };
        let link = self.link(otherwise)?;
        let mut incoming = match &link.wire {
            Wire::Bytes(end) => end.receive(sink, wanted)?,
            Wire::Packets(end) => end.receive(sink, wanted)?,
        };
        if link.peer != UnixName::Unnamed {
            incoming.from = Some(Address::Unix(link.peer.clone()));
        }
        Ok(incoming)
    }

    fn poll(&self, common: &Common, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(link) = self.link.get() {
            return match &link.wire {
                Wire::Bytes(end) => end.poll(waker),
                Wire::Packets(end) => end.poll(common.options.send_buffer(), waker),
            };
        }
        if let Some(waker) = waker {
            self.changes.add(waker);
        }
        match self.listener.get() {
            None => Events::OUT | Events::HUP,
            Some(listener) => {
                if let Some(waker) = waker {
                    listener.backlog.add_waker(waker);
                }
                listener.backlog.poll()
            }
        }
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.changes.remove(waker);
        if let Some(listener) = self.listener.get() {
            listener.backlog.forget_waker(waker);
        }
        match self.link.get().map(|link| &link.wire) {
            Some(Wire::Bytes(end)) => end.forget_waker(waker),
            Some(Wire::Packets(end)) => end.forget_waker(waker),
            None => {}
        }
    }

    fn readable_bytes(&self) -> Result<usize> {
        if self.is_listening() {
            return err(Errno::EINVAL, "a listening socket");
        }
        Ok(match self.link.get().map(|link| &link.wire) {
            Some(Wire::Bytes(end)) => end.readable_bytes(),
            Some(Wire::Packets(end)) => end.mailbox().all_size(),
            None => 0,
        })
    }

    fn unsent_bytes(&self) -> Result<usize> {
        Ok(match self.link.get().map(|link| &link.wire) {
            Some(Wire::Bytes(end)) => end.unread_bytes(),
            _ => 0,
        })
    }

    fn take_error(&self) -> Option<Errno> {
        match &self.link.get()?.wire {
            Wire::Bytes(end) => end.take_error(),
            Wire::Packets(end) => end.mailbox().take_error(),
        }
    }

    fn is_listening(&self) -> bool {
        self.listener.get().is_some()
    }

    fn peer_ids(&self) -> Option<PeerIds> {
        if let Some(listener) = self.listener.get() {
            return Some(*listener.ids.lock());
        }
        self.link.get().map(|link| link.ids)
    }

    fn options_changed(&self, common: &Common) {
        if let Some(listener) = self.listener.get() {
            listener.wants_ids.store(common.wants_ids(), Ordering::Relaxed);
        }
        let Some(link) = self.link.get() else { return };
        link.wire.set_wants_ids(Switch::when(common.wants_ids()));
        if let Wire::Bytes(end) = &link.wire {
            end.set_capacity(common.options.send_buffer());
        }
    }
}

impl Drop for UnixStream {
    fn drop(&mut self) {
        // Those who wait to connect hold the listener.
        if let Some(listener) = self.listener.get() {
            listener.close();
        }
    }
}

impl Listener {
    fn close(&self) {
        for pending in self.backlog.close() {
            pending.wire.abort();
        }
    }
}

/// An address as bind(2) takes it: nothing but the family asks for an automatic name.
pub(super) fn parse_for_bind(raw: &[u8]) -> Result<UnixName> {
    if raw.len() == 2 && address::family(raw)? == address::AF_UNIX {
        return Ok(UnixName::Unnamed);
    }
    address::parse_unix(raw)
}
