//! UDP: udp(7). A datagram to loopback goes straight into the receiver's mailbox; a full one loses it. What
//! comes from outside is brought into the mailbox when somebody looks.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};

use super::home::{Home, Tenant};
use super::notes;
use super::ports::{self, Bound, Target, Transport};
use super::{check_family, parse, route, shown, unspecified};
use crate::error::{Errno, Error, Result, err};
use crate::net::address::{self, AF_UNSPEC, Address};
use crate::net::mailbox::{Arrival, Limit, Mailbox, Message};
use crate::net::message::{Incoming, MSG_OOB, Outgoing, Wanted};
use crate::net::options::*;
use crate::net::outside::call::{self, Whose};
use crate::net::outside::policy::{self, Side};
use crate::net::outside::datagram::{self, Origin};
use crate::net::outside::descriptor::Ask;
use crate::net::outside::{HostSocket, Signals};
use crate::net::socket::Connecting;
use crate::net::stream::Direction;
use crate::net::{Common, Protocol, interface};
use crate::sched::{SpinLock, Wake};
use crate::vfs::{Events, Sink, Source};

/// The largest datagram: 65535 less the headers.
const MAX_V4: usize = 65_507;
const MAX_V6: usize = 65_527;
/// Hops a datagram has left: on loopback all of them.
const HOPS: u8 = 64;

/// What a receiver holds.
const LIMIT: Limit = Limit { cost: BUFFER_DEFAULT, messages: usize::MAX };

pub struct Udp {
    domain: u16,
    mailbox: Arc<Mailbox>,
    home: SpinLock<Option<Arc<Home>>>,
    peer: SpinLock<Option<(Side, SocketAddr)>>,
    is_shut_for_sending: AtomicBool,
    signals: Signals,
}

impl Udp {
    pub fn new(domain: u16) -> Arc<Udp> {
        let mailbox = Arc::new(Mailbox::new());
        let signals =
            Signals { readers: mailbox.readers.clone(), writers: mailbox.writers.clone() };
        Arc::new(Udp {
            domain,
            mailbox,
            home: SpinLock::new(None),
            peer: SpinLock::new(None),
            is_shut_for_sending: AtomicBool::new(false),
            signals,
        })
    }

    fn tenant<'a>(&'a self, common: &'a Common) -> Tenant<'a> {
        Tenant { transport: Transport::Udp, common, signals: &self.signals }
    }

    fn home(&self) -> Option<Arc<Home>> {
        self.home.lock().clone()
    }

    fn settle(&self, home: Arc<Home>) -> Arc<Home> {
        if let Some(bound) = home.bound() {
            bound.set_target(Target::Mailbox(self.mailbox.clone()));
        }
        *self.home.lock() = Some(home.clone());
        home
    }

    /// With a port inside, an ephemeral one if it has none.
    fn home_inside(&self, common: &Common) -> Result<(Arc<Home>, Arc<Bound>)> {
        let home = match self.home() {
            Some(home) => home,
            None => self.settle(Home::inside(self.tenant(common), unspecified(self.domain))?),
        };
        let bound = home.ensure_bound(self.tenant(common))?.clone();
        bound.set_target(Target::Mailbox(self.mailbox.clone()));
        Ok((home, bound))
    }

    fn home_outside(&self, common: &Common) -> Result<Arc<HostSocket>> {
        let home = match self.home() {
            Some(home) => home,
            None => self.settle(Home::outside(self.tenant(common), None)?),
        };
        home.ensure_host(self.tenant(common)).cloned()
    }

    fn peer(&self) -> Option<(Side, SocketAddr)> {
        *self.peer.lock()
    }

    /// Becomes connected, or with `None` unconnected.
    fn set_peer(&self, common: &Common, peer: Option<(Side, SocketAddr)>) -> Result<()> {
        let home = match peer {
            Some((Side::Inside, _)) => Some(self.home_inside(common)?.0),
            Some((Side::Outside, to)) => {
                let host = self.home_outside(common)?;
                call::connect(host.fd(), Some(crate::net::outside::stream::as_of(self.domain, to)))?;
                self.home()
            }
            None => {
                if let (Some((Side::Outside, _)), Some(host)) = (self.peer(), self.host_socket()) {
                    call::connect(host.fd(), None)?;
                }
                self.home()
            }
        };
        if let Some(bound) = home.as_ref().and_then(|home| home.bound()) {
            bound.set_peer(peer.map(|(_, peer)| peer));
        }
        *self.peer.lock() = peer;
        Ok(())
    }

    /// Delivers, or loses; a connected sender hears at its next call that nobody was there.
    fn post(&self, mut message: Message, from: SocketAddr, to: SocketAddr) {
        message.arrival.interface = interface::INDEX;
        message.from = Some(Address::Inet(from));
        message.to = Some(to.ip());
        let receiver = ports::find(Transport::Udp, to, from);
        match receiver.as_ref().and_then(|bound| bound.target()) {
            Some(Target::Mailbox(mailbox)) => {
                // Full, or gone just now: a datagram may be lost.
                let _ = mailbox.put(&mut Some(message), LIMIT);
            }
            _ if self.peer() == Some((Side::Inside, to)) => self.mailbox.set_error(Errno::ECONNREFUSED),
            _ => {}
        }
    }

    fn post_outside(&self, common: &Common, message: &Message, to: Option<SocketAddr>, out: &Outgoing) -> Result<()> {
        let host = self.home_outside(common)?;
        let sent = out.patience.wait(&self.signals.writers, || {
            if Ask::when(out.patience) == Ask::IfTold && !host.seen().may_write() {
                return None;
            }
            match datagram::send(&host, to, &message.bytes, &out.origin) {
                Err(Errno::EAGAIN) => None,
                sent => Some(sent),
            }
        })?;
        sent.map(drop).map_err(|errno| Error::new(errno, "the host's datagram"))
    }

    /// Brings a datagram that waits at the host.
    fn refill(&self, ask: Ask) {
        let Some(host) = self.host_socket() else { return };
        while self.mailbox.has_room(LIMIT) && (host.seen().may_read() || ask == Ask::Now) {
            let message = match datagram::receive(&host) {
                Ok(message) => message,
                Err(Errno::EAGAIN) => return,
                Err(errno) => return self.mailbox.set_error(errno),
            };
            let is_strange = match (self.peer(), &message.from) {
                (Some((Side::Inside, _)), _) => true,
                (Some((_, peer)), Some(Address::Inet(from))) => peer.port() != from.port() || peer.ip() != from.ip(),
                _ => false,
            };
            if !is_strange {
                // There was room.
                let _ = self.mailbox.put(&mut Some(message), LIMIT);
                return;
            }
        }
    }
}

/// What a receiver inside is told about how a datagram came.
fn sent_with(options: &Options, origin: &Origin, to: SocketAddr) -> Arrival {
    let (hops, traffic_class) = match to {
        SocketAddr::V4(_) => ((SOL_IP, IP_TTL), (SOL_IP, IP_TOS)),
        SocketAddr::V6(_) => ((SOL_IPV6, IPV6_UNICAST_HOPS), (SOL_IPV6, IPV6_TCLASS)),
    };
    let option = |(level, name)| options.get(level, name).ok().and_then(|value| u8::try_from(value).ok());
    Arrival {
        hops: origin.hops.or_else(|| option(hops)).or(Some(HOPS)),
        traffic_class: origin.traffic_class.or_else(|| option(traffic_class)).or(Some(0)),
        ..Arrival::now()
    }
}

impl Protocol for Udp {
    fn bind(&self, common: &Common, raw: &[u8]) -> Result<()> {
        let address = parse(self.domain, raw)?;
        check_family(address.ip(), self.domain, common)?;
        if self.home().is_some() {
            return err(Errno::EINVAL, "the socket has an address");
        }
        self.settle(Home::settle(self.tenant(common), address)?);
        Ok(())
    }

    fn connect(&self, common: &Common, how: Connecting<'_>) -> Result<()> {
        if address::family(how.raw)? == AF_UNSPEC {
            return self.set_peer(common, None);
        }
        let to = route(parse(self.domain, how.raw)?)?;
        self.set_peer(common, Some(to))
    }

    fn shutdown(&self, reads: Direction, writes: Direction) -> Result<()> {
        if self.peer().is_none() {
            return err(Errno::ENOTCONN, "not connected");
        }
        if reads == Direction::Ends {
            self.mailbox.finish();
        }
        if writes == Direction::Ends {
            self.is_shut_for_sending.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn local_address(&self) -> Address {
        let local = match (self.home(), self.peer()) {
            (None, _) => unspecified(self.domain),
            (Some(home), peer) => match (home.bound(), home.host(), peer) {
                (Some(bound), _, Some((Side::Inside, peer))) => home.source(bound, peer.ip()),
                (None, Some(host), _) | (_, Some(host), Some((Side::Outside, _))) => {
                    host.name(Whose::Own).unwrap_or(home.address())
                }
                (Some(bound), _, _) => bound.address,
                (None, None, _) => home.address(),
            },
        };
        shown(self.domain, local)
    }

    fn peer_address(&self) -> Result<Address> {
        match self.peer() {
            Some((_, peer)) => Ok(shown(self.domain, peer)),
            None => err(Errno::ENOTCONN, "not connected"),
        }
    }

    fn parse_destination(&self, _common: &Common, raw: &[u8]) -> Result<Address> {
        let to = parse(self.domain, raw)?;
        if to.port() == 0 {
            return err(Errno::EINVAL, "port 0");
        }
        Ok(Address::Inet(to))
    }

    fn send(&self, common: &Common, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize> {
        if out.flags & MSG_OOB != 0 {
            return err(Errno::EOPNOTSUPP, "no out-of-band data");
        }
        let (side, to) = match (&out.to, self.peer()) {
            (Some(Address::Inet(to)), _) => route(*to)?,
            (_, Some(peer)) => peer,
            _ => {
                // Linux takes a port first.
                if self.home().is_none() {
                    self.settle(Home::settle(self.tenant(common), unspecified(self.domain))?);
                }
                return err(Errno::EDESTADDRREQ, "no destination");
            }
        };
        if source.left() > if to.is_ipv4() { MAX_V4 } else { MAX_V6 } {
            return err(Errno::EMSGSIZE, "larger than a datagram");
        }
        if self.is_shut_for_sending.load(Ordering::Relaxed) {
            return err(Errno::EPIPE, "shut down for sending");
        }
        if let Some(errno) = self.mailbox.take_error() {
            return err(errno, "an earlier datagram was refused");
        }
        let mut message = Message::copy_in(source)?;
        let size = message.bytes.len();
        match side {
            Side::Inside => {
                let (home, bound) = self.home_inside(common)?;
                let mut from = home.source(&bound, to.ip());
                if let Some(local) = out.origin.local.filter(|local| local.is_loopback()) {
                    from.set_ip(local);
                }
                message.arrival = sent_with(&common.options, &out.origin, to);
                self.post(message, from, to);
            }
            Side::Outside => {
                let is_peer = self.peer() == Some((side, to)) && out.to.is_none();
                self.post_outside(common, &message, (!is_peer).then_some(to), out)?;
            }
        }
        Ok(size)
    }

    fn receive(&self, common: &Common, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        if wanted.has(MSG_OOB) {
            return err(Errno::EOPNOTSUPP, "no out-of-band data");
        }
        let mut incoming = self.mailbox.receive_after(sink, wanted, || self.refill(Ask::when(wanted.patience)))?;
        if let Some(Address::Inet(from)) = incoming.from {
            incoming.from = Some(shown(self.domain, from));
        }
        if common.options.has_values() {
            incoming.notes = notes::about(self.domain, &common.options, incoming.to, &incoming.arrival);
        }
        Ok(incoming)
    }

    fn poll(&self, _common: &Common, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.mailbox.add_waker(waker);
            self.mailbox.writers.add(waker);
        }
        self.refill(Ask::IfTold);
        let is_full = self.host_socket().is_some_and(|host| !host.seen().may_write());
        let mut events = if is_full { Events::NONE } else { Events::OUT };
        if self.mailbox.is_finished() {
            events |= Events::IN | Events::RDHUP;
            if self.is_shut_for_sending.load(Ordering::Relaxed) {
                events |= Events::HUP;
            }
        }
        if !self.mailbox.is_empty() {
            events |= Events::IN;
        }
        if self.mailbox.has_error() {
            events |= Events::ERR;
        }
        events
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.mailbox.forget_waker(waker);
        self.mailbox.writers.remove(waker);
    }

    fn readable_bytes(&self) -> Result<usize> {
        self.refill(Ask::Now);
        Ok(self.mailbox.next_size())
    }

    fn take_error(&self) -> Option<Errno> {
        self.refill(Ask::Now);
        self.mailbox.take_error()
    }

    fn host_socket(&self) -> Option<Arc<HostSocket>> {
        self.home()?.host().cloned()
    }

    fn need_host_socket(&self, common: &Common) -> Result<Arc<HostSocket>> {
        if !policy::has_outside() {
            return err(Errno::ENODEV, "no network outside the enclave");
        }
        self.home_outside(common)
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
