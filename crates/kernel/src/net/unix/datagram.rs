//! AF_UNIX datagrams: reliable, in order, a full receiver makes its senders wait.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use super::names::{self, Bound, Target};
use super::stream::parse_for_bind;
use crate::error::{Errno, Result, err};
use crate::net::address::{self, AF_UNSPEC, Address, UnixName};
use crate::net::mailbox::{self, Limit, Mailbox, Message, Refusal};
use crate::net::message::{Incoming, MSG_OOB, Outgoing, PeerIds, Wanted};
use crate::net::options::Switch;
use crate::net::socket::Connecting;
use crate::net::stream::Direction;
use crate::net::{Common, Kind, Protocol};
use crate::sched::{SpinLock, Wake};
use crate::vfs::{Events, Sink, Source};

/// `net.unix.max_dgram_qlen`, and the one that Linux lets in beyond it.
const QUEUE_MAX: usize = 11;

pub struct UnixDatagram {
    mailbox: Arc<Mailbox>,
    bound: SpinLock<Option<Arc<Bound>>>,
    peer: SpinLock<Option<Peer>>,
    is_shut_for_sending: AtomicBool,
    pair_ids: Option<PeerIds>,
}

#[derive(Clone)]
struct Peer {
    mailbox: Arc<Mailbox>,
    name: UnixName,
}

impl UnixDatagram {
    pub fn new() -> Arc<UnixDatagram> {
        Arc::new(UnixDatagram::with(None))
    }

    fn with(pair_ids: Option<PeerIds>) -> UnixDatagram {
        UnixDatagram {
            mailbox: Arc::new(Mailbox::new()),
            bound: SpinLock::new(None),
            peer: SpinLock::new(None),
            is_shut_for_sending: AtomicBool::new(false),
            pair_ids,
        }
    }

    /// socketpair(2).
    pub fn pair() -> (Arc<UnixDatagram>, Arc<UnixDatagram>) {
        let ids = Some(PeerIds::current());
        let (one, other) = (UnixDatagram::with(ids), UnixDatagram::with(ids));
        one.set_peer(Peer { mailbox: other.mailbox.clone(), name: UnixName::Unnamed });
        other.set_peer(Peer { mailbox: one.mailbox.clone(), name: UnixName::Unnamed });
        (Arc::new(one), Arc::new(other))
    }

    fn set_peer(&self, peer: Peer) {
        self.mailbox.set_peer(peer.mailbox.id());
        let old = self.peer.lock().replace(peer);
        drop(old);
    }

    fn disconnect(&self) {
        self.mailbox.set_peer(0);
        let old = self.peer.lock().take();
        drop(old);
    }

    fn own_name(&self) -> UnixName {
        self.bound.lock().as_ref().map_or(UnixName::Unnamed, |bound| bound.name.clone())
    }

    fn bind_to(&self, name: UnixName) -> Result<()> {
        if self.bound.lock().is_some() {
            names::check_free(&name)?;
            return err(Errno::EINVAL, "the socket has a name");
        }
        let bound = names::bind(name, Kind::Datagram)?;
        bound.set_target(Target::Mailbox(self.mailbox.clone()));
        *self.bound.lock() = Some(bound);
        Ok(())
    }

    /// The mailbox of the socket with a name, if this one may send to it.
    fn find(&self, name: &UnixName) -> Result<Arc<Mailbox>> {
        let bound = names::find(name, Kind::Datagram)?;
        let Some(Target::Mailbox(mailbox)) = bound.target() else {
            return err(Errno::ECONNREFUSED, "no socket has this name");
        };
        if mailbox.peer() != 0 && mailbox.peer() != self.mailbox.id() {
            return err(Errno::EPERM, "the receiver is connected to another socket");
        }
        Ok(mailbox.clone())
    }

    fn destination(&self, out: &Outgoing) -> Result<Arc<Mailbox>> {
        if let Some(Address::Unix(name)) = &out.to {
            return self.find(name);
        }
        match &*self.peer.lock() {
            Some(peer) => Ok(peer.mailbox.clone()),
            None => err(Errno::ENOTCONN, "no destination"),
        }
    }

    /// How much `receiver` holds of what this socket sends: the peer of a pair is limited by bytes only.
    fn limit(&self, receiver: &Mailbox, cost: usize) -> Limit {
        let is_mutual = receiver.peer() == self.mailbox.id();
        Limit { cost, messages: if is_mutual { usize::MAX } else { QUEUE_MAX } }
    }

    /// A peer that is gone is forgotten.
    fn forget_closed(&self, receiver: &Mailbox) {
        let is_peer = self.peer.lock().as_ref().is_some_and(|peer| peer.mailbox.id() == receiver.id());
        if is_peer {
            self.disconnect();
        }
    }
}

impl Protocol for UnixDatagram {
    fn bind(&self, _common: &Common, raw: &[u8]) -> Result<()> {
        self.bind_to(parse_for_bind(raw)?)
    }

    fn connect(&self, common: &Common, how: Connecting<'_>) -> Result<()> {
        if address::family(how.raw)? == AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        let name = address::parse_unix(how.raw)?;
        if common.wants_ids() && self.bound.lock().is_none() {
            self.bind_to(UnixName::Unnamed)?;
        }
        let mailbox = self.find(&name)?;
        self.set_peer(Peer { mailbox, name });
        Ok(())
    }

    fn shutdown(&self, reads: Direction, writes: Direction) -> Result<()> {
        if reads == Direction::Ends {
            self.mailbox.refuse();
        }
        if writes == Direction::Ends {
            self.is_shut_for_sending.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn local_address(&self) -> Address {
        Address::Unix(self.own_name())
    }

    fn peer_address(&self) -> Result<Address> {
        match &*self.peer.lock() {
            Some(peer) => Ok(Address::Unix(peer.name.clone())),
            None => err(Errno::ENOTCONN, "not connected"),
        }
    }

    fn parse_destination(&self, _common: &Common, raw: &[u8]) -> Result<Address> {
        address::parse_unix(raw).map(Address::Unix)
    }

    fn send(&self, common: &Common, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize> {
        if out.flags & MSG_OOB != 0 {
            return err(Errno::EOPNOTSUPP, "no out-of-band data");
        }
        let receiver = self.destination(out)?;
        let send_buffer = common.options.send_buffer();
        if source.left() > send_buffer.saturating_sub(32) {
            return err(Errno::EMSGSIZE, "larger than the send buffer");
        }
        if self.is_shut_for_sending.load(Ordering::Relaxed) {
            return err(Errno::EPIPE, "shut down for sending");
        }
        let mut message = Message::copy_in(source)?;
        let size = message.bytes.len();
        message.ids = mailbox::ids_for(out, self.mailbox.wants_ids() || receiver.wants_ids());
        message.rights.append(&mut out.rights);
        let name = self.own_name();
        message.from = (name != UnixName::Unnamed).then_some(Address::Unix(name));
        let mut message = Some(message);
        let limit = self.limit(&receiver, send_buffer);
        out.patience.wait(&receiver.writers, || match receiver.put(&mut message, limit) {
            Ok(()) => Some(Ok(size)),
            Err(Refusal::Full) => None,
            Err(Refusal::Refused) => Some(err(Errno::EPIPE, "the receiver reads no more")),
            Err(Refusal::Closed) => {
                self.forget_closed(&receiver);
                Some(err(Errno::ECONNREFUSED, "the receiver is gone"))
            }
        })?
    }

    fn receive(&self, _common: &Common, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        if wanted.has(MSG_OOB) {
            return err(Errno::EOPNOTSUPP, "no out-of-band data");
        }
        self.mailbox.receive(sink, wanted)
    }

    fn poll(&self, common: &Common, waker: Option<&Arc<dyn Wake>>) -> Events {
        let peer = self.peer.lock().clone();
        if let Some(waker) = waker {
            self.mailbox.add_waker(waker);
            if let Some(peer) = &peer {
                peer.mailbox.writers.add(waker);
            }
        }
        let mut events = Events::NONE;
        if self.mailbox.is_finished() {
            events |= Events::IN | Events::RDHUP;
            if self.is_shut_for_sending.load(Ordering::Relaxed) {
                events |= Events::HUP;
            }
        }
        if !self.mailbox.is_empty() {
            events |= Events::IN;
        }
        let cost = common.options.send_buffer() / 4;
        let has_room = |peer: &Peer| {
            peer.mailbox.is_closed() || peer.mailbox.has_room(self.limit(&peer.mailbox, cost))
        };
        if peer.as_ref().is_none_or(has_room) {
            events |= Events::OUT;
        }
        events
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.mailbox.forget_waker(waker);
        let peer = self.peer.lock().clone();
        if let Some(peer) = peer {
            peer.mailbox.writers.remove(waker);
        }
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.mailbox.next_size())
    }

    fn take_error(&self) -> Option<Errno> {
        self.mailbox.take_error()
    }

    fn peer_ids(&self) -> Option<PeerIds> {
        self.pair_ids
    }

    fn options_changed(&self, common: &Common) {
        self.mailbox.set_wants_ids(Switch::when(common.wants_ids()));
    }
}

impl Drop for UnixDatagram {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
