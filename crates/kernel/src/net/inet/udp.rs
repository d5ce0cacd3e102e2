//! UDP over loopback: udp(7). A datagram goes straight into the receiver's mailbox; a full one loses it.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};

use super::notes;
use super::ports::{self, Bound, Sharing, Target, Transport};
use super::{check_own, loopback_like, parse, route, shown, unspecified};
use crate::error::{Errno, Result, err};
use crate::net::address::{self, AF_UNSPEC, Address};
use crate::net::mailbox::{Limit, Mailbox, Message};
use crate::net::message::{Incoming, MSG_OOB, Outgoing, Wanted};
use crate::net::options::BUFFER_DEFAULT;
use crate::net::socket::Connecting;
use crate::net::stream::Direction;
use crate::net::{Common, Protocol};
use crate::sched::{SpinLock, Wake};
use crate::vfs::{Events, Sink, Source};

/// The largest datagram: 65535 less the headers.
const MAX_V4: usize = 65_507;
const MAX_V6: usize = 65_527;

pub struct Udp {
    domain: u16,
    mailbox: Arc<Mailbox>,
    bound: SpinLock<Option<Arc<Bound>>>,
    is_shut_for_sending: AtomicBool,
}

impl Udp {
    pub fn new(domain: u16) -> Arc<Udp> {
        Arc::new(Udp {
            domain,
            mailbox: Arc::new(Mailbox::new()),
            bound: SpinLock::new(None),
            is_shut_for_sending: AtomicBool::new(false),
        })
    }

    fn bound(&self) -> Option<Arc<Bound>> {
        self.bound.lock().clone()
    }

    fn bind_to(&self, common: &Common, address: SocketAddr) -> Result<Arc<Bound>> {
        let bound = ports::bind(Transport::Udp, address, Sharing::of(common))?;
        bound.set_target(Target::Mailbox(self.mailbox.clone()));
        *self.bound.lock() = Some(bound.clone());
        Ok(bound)
    }

    /// The socket's address, an ephemeral port if it has none.
    fn ensure_bound(&self, common: &Common) -> Result<Arc<Bound>> {
        match self.bound() {
            Some(bound) => Ok(bound),
            None => self.bind_to(common, unspecified(self.domain)),
        }
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.bound()?.peer()
    }

    /// Delivers, or loses; a connected sender hears at its next call that nobody was there.
    fn post(&self, mut message: Message, from: SocketAddr, to: SocketAddr) {
        message.from = Some(Address::Inet(from));
        message.to = Some(to.ip());
        let limit = Limit { cost: BUFFER_DEFAULT, messages: usize::MAX };
        let receiver = ports::find(Transport::Udp, to, from);
        match receiver.as_ref().and_then(|bound| bound.target()) {
            Some(Target::Mailbox(mailbox)) => {
                // Full, or gone just now: a datagram may be lost.
                let _ = mailbox.put(&mut Some(message), limit);
            }
            _ if self.peer() == Some(to) => self.mailbox.set_error(Errno::ECONNREFUSED),
            _ => {}
        }
    }
}

/// Where datagrams of `bound` to `to` come from.
fn source_address(bound: &Bound, to: SocketAddr) -> SocketAddr {
    let mut from = bound.address;
    if from.ip().is_unspecified() {
        from.set_ip(loopback_like(to.ip()));
    }
    from
}

impl Protocol for Udp {
    fn bind(&self, common: &Common, raw: &[u8]) -> Result<()> {
        let address = parse(self.domain, raw)?;
        check_own(address.ip(), self.domain, common)?;
        if self.bound().is_some() {
            return err(Errno::EINVAL, "the socket has an address");
        }
        self.bind_to(common, address).map(drop)
    }

    fn connect(&self, common: &Common, how: Connecting<'_>) -> Result<()> {
        if address::family(how.raw)? == AF_UNSPEC {
            if let Some(bound) = self.bound() {
                bound.set_peer(None);
            }
            return Ok(());
        }
        let to = route(parse(self.domain, how.raw)?)?;
        self.ensure_bound(common)?.set_peer(Some(to));
        Ok(())
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
        let Some(bound) = self.bound() else { return shown(self.domain, unspecified(self.domain)) };
        match bound.peer() {
            Some(peer) => shown(self.domain, source_address(&bound, peer)),
            None => shown(self.domain, bound.address),
        }
    }

    fn peer_address(&self) -> Result<Address> {
        match self.peer() {
            Some(peer) => Ok(shown(self.domain, peer)),
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
        let bound = self.ensure_bound(common)?;
        let to = match (&out.to, bound.peer()) {
            (Some(Address::Inet(to)), _) => route(*to)?,
            (_, Some(peer)) => peer,
            _ => return err(Errno::EDESTADDRREQ, "no destination"),
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
        let message = Message::copy_in(source)?;
        let size = message.bytes.len();
        self.post(message, source_address(&bound, to), to);
        Ok(size)
    }

    fn receive(&self, common: &Common, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        if wanted.has(MSG_OOB) {
            return err(Errno::EOPNOTSUPP, "no out-of-band data");
        }
        let mut incoming = self.mailbox.receive(sink, wanted)?;
        if let Some(Address::Inet(from)) = incoming.from {
            incoming.from = Some(shown(self.domain, from));
        }
        if let Some(to) = incoming.to
            && common.options.has_values()
        {
            incoming.notes = notes::about(self.domain, &common.options, to);
        }
        Ok(incoming)
    }

    fn poll(&self, _common: &Common, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.mailbox.add_waker(waker);
        }
        let mut events = Events::OUT;
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
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.mailbox.next_size())
    }

    fn take_error(&self) -> Option<Errno> {
        self.mailbox.take_error()
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
