//! TCP over loopback: tcp(7). A connection is two byte lanes; there are no segments, so options about
//! them are only remembered.
//!
//! A connection is complete when connect(2) has put it into the listener's backlog. As on Linux a
//! non-blocking connect(2) still says EINPROGRESS first, because programs are written for that.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use spin::Once;

use super::ports::{self, Bound, Sharing, Target, Transport};
use super::{check_own, loopback_like, parse, route, shown, unspecified};
use crate::error::{Errno, Error, Result, err};
use crate::net::address::{self, AF_UNSPEC, Address};
use crate::net::backlog::{Backlog, SOMAXCONN};
use crate::net::message::{Incoming, MSG_OOB, Outgoing, Wanted};
use crate::net::options::{Options, Switch};
use crate::net::patience::Patience;
use crate::net::socket::{Accepted, Connecting};
use crate::net::stream::{self, Direction, End, Manners};
use crate::net::{Common, Protocol, Socket};
use crate::sched::{SpinLock, Wake};
use crate::vfs::poll::Readiness;
use crate::vfs::{Events, Sink, Source};

/// Bytes in flight in each direction, unless SO_SNDBUF says otherwise.
const CAPACITY: usize = 256 << 10;

pub struct Tcp {
    domain: u16,
    bound: SpinLock<Option<Arc<Bound>>>,
    listener: Once<Arc<TcpListener>>,
    link: Once<Link>,
    progress: AtomicU8,
    /// SO_ERROR of a connection that never was.
    error: AtomicI32,
    changes: Readiness,
}

/// Where connections to a port arrive.
pub struct TcpListener {
    backlog: Backlog<Link>,
}

/// A connection.
struct Link {
    end: End,
    local: SocketAddr,
    peer: SocketAddr,
}

/// What a program knows of its non-blocking connect(2).
const FRESH: u8 = 0;
/// It was told EINPROGRESS; the next connect(2) says how it ended.
const UNTOLD: u8 = 1;
/// The connection failed and was reported.
const FAILED: u8 = 2;

impl Tcp {
    pub fn new(domain: u16) -> Arc<Tcp> {
        Arc::new(Tcp {
            domain,
            bound: SpinLock::new(None),
            listener: Once::new(),
            link: Once::new(),
            progress: AtomicU8::new(FRESH),
            error: AtomicI32::new(0),
            changes: Readiness::new(),
        })
    }

    fn bind_to(&self, common: &Common, address: SocketAddr) -> Result<Arc<Bound>> {
        let bound = ports::bind(Transport::Tcp, address, Sharing::of(common))?;
        *self.bound.lock() = Some(bound.clone());
        Ok(bound)
    }

    fn bound(&self) -> Option<Arc<Bound>> {
        self.bound.lock().clone()
    }

    /// The result of a connection attempt that was reported as under way.
    fn untold_result(&self) -> Option<Result<()>> {
        self.progress.compare_exchange(UNTOLD, FRESH, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        if self.link.get().is_some() {
            return Some(Ok(()));
        }
        let errno = self.take_own_error().unwrap_or(Errno::ECONNABORTED);
        Some(err(errno, "the connection attempt failed"))
    }

    fn take_own_error(&self) -> Option<Errno> {
        Errno::from_raw(self.error.swap(0, Ordering::Relaxed))
    }

    fn establish(&self, common: &Common, to: SocketAddr, patience: Patience) -> Result<()> {
        let to = route(to)?;
        let local = match self.bound() {
            Some(bound) => bound,
            None => self.bind_to(common, SocketAddr::new(loopback_like(to.ip()), 0))?,
        };
        let mut from = local.address;
        if from.ip().is_unspecified() {
            from.set_ip(loopback_like(to.ip()));
        }
        let refused = Error::new(Errno::ECONNREFUSED, "nobody listens on the port");
        let target = ports::find(Transport::Tcp, to, from).ok_or(refused)?;
        let Some(Target::Listener(listener)) = target.target() else { return Err(refused) };
        let (own, theirs) = stream::pair(Manners::Tcp, [capacity(&common.options), CAPACITY]);
        listener.backlog.push(Link { end: theirs, local: to, peer: from }, patience)?;
        apply_linger(&own, &common.options);
        self.link.call_once(|| Link { end: own, local: from, peer: to });
        self.changes.notify();
        Ok(())
    }
}

/// Programs that set nothing get more than [`Options::for_tcp`] reports, as autotuning gives them.
fn capacity(options: &Options) -> usize {
    let is_default = options.send_buffer() == Options::for_tcp().send_buffer();
    if is_default { CAPACITY } else { options.send_buffer() }
}

fn apply_linger(end: &End, options: &Options) {
    end.set_aborts(Switch::when(*options.linger.lock() == Some(0)));
}

impl Protocol for Tcp {
    fn bind(&self, common: &Common, raw: &[u8]) -> Result<()> {
        let address = parse(self.domain, raw)?;
        check_own(address.ip(), self.domain, common)?;
        if self.bound().is_some() || self.link.get().is_some() {
            return err(Errno::EINVAL, "the socket has an address");
        }
        self.bind_to(common, address).map(drop)
    }

    fn listen(&self, common: &Common, _backlog: usize) -> Result<()> {
        if self.link.get().is_some() {
            return err(Errno::EINVAL, "listen on a connection");
        }
        if self.listener.get().is_some() {
            return Ok(());
        }
        let bound = match self.bound() {
            Some(bound) => bound,
            None => self.bind_to(common, unspecified(self.domain))?,
        };
        bound.begin_to_listen()?;
        // A full backlog of Linux does not refuse connections, it delays them; here they are not
        // delayed before the system's own limit.
        let listener = self.listener.call_once(|| Arc::new(TcpListener { backlog: Backlog::new(SOMAXCONN) }));
        bound.set_target(Target::Listener(listener.clone()));
        self.changes.notify();
        Ok(())
    }

    fn accept(&self, common: &Common, patience: Patience) -> Result<Accepted> {
        let Some(listener) = self.listener.get() else {
            return err(Errno::EINVAL, "not listening");
        };
        let link = listener.backlog.pop(patience)?;
        let common = common.copy();
        link.end.set_capacity(capacity(&common.options));
        apply_linger(&link.end, &common.options);
        let peer = shown(self.domain, link.peer);
        let accepted = Tcp::new(self.domain);
        accepted.link.call_once(|| link);
        Ok(Accepted { socket: Socket::new(common, accepted), peer })
    }

    fn connect(&self, common: &Common, how: Connecting<'_>) -> Result<()> {
        if address::family(how.raw)? == AF_UNSPEC {
            return match self.link.get() {
                None => Ok(()),
                Some(_) => err(Errno::EINVAL, "a connection can't be dissolved"),
            };
        }
        if let Some(result) = self.untold_result() {
            return result;
        }
        if self.link.get().is_some() || self.listener.get().is_some() {
            return err(Errno::EISCONN, "connected already, or listening");
        }
        let to = parse(self.domain, how.raw)?;
        let result = self.establish(common, to, how.patience);
        if how.patience != Patience::Never {
            return result;
        }
        if let Err(error) = result {
            if error.errno != Errno::ECONNREFUSED {
                return Err(error);
            }
            self.error.store(error.errno as i32, Ordering::Relaxed);
            self.changes.notify();
        }
        self.progress.store(UNTOLD, Ordering::Relaxed);
        err(Errno::EINPROGRESS, "non-blocking connect")
    }

    fn shutdown(&self, reads: Direction, writes: Direction) -> Result<()> {
        if let Some(link) = self.link.get() {
            link.end.shutdown(reads, writes);
            return Ok(());
        }
        match self.listener.get() {
            Some(listener) if reads == Direction::Ends => listener.close(),
            Some(_) => {}
            None => return err(Errno::ENOTCONN, "not connected"),
        }
        Ok(())
    }

    fn local_address(&self) -> Address {
        let local = match (self.link.get(), self.bound()) {
            (Some(link), _) => link.local,
            (None, Some(bound)) => bound.address,
            (None, None) => unspecified(self.domain),
        };
        shown(self.domain, local)
    }

    fn peer_address(&self) -> Result<Address> {
        match self.link.get() {
            Some(link) => Ok(shown(self.domain, link.peer)),
            None => err(Errno::ENOTCONN, "not connected"),
        }
    }

    fn parse_destination(&self, _common: &Common, _raw: &[u8]) -> Result<Address> {
        // Ignored, as Linux does.
        Ok(self.local_address())
    }

    fn send(&self, _common: &Common, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize> {
        if out.flags & MSG_OOB != 0 {
            return err(Errno::EOPNOTSUPP, "no out-of-band data");
        }
        match self.link.get() {
            Some(link) => link.end.send(source, out),
            None => err(self.take_own_error().unwrap_or(Errno::EPIPE), "not connected"),
        }
    }

    fn receive(&self, _common: &Common, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        if wanted.has(MSG_OOB) {
            return err(Errno::EINVAL, "no out-of-band data");
        }
        match self.link.get() {
            Some(link) => link.end.receive(sink, wanted),
            None => err(self.take_own_error().unwrap_or(Errno::ENOTCONN), "not connected"),
        }
    }

    fn poll(&self, _common: &Common, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.changes.add(waker);
        }
        if let Some(link) = self.link.get() {
            return link.end.poll(waker);
        }
        if let Some(listener) = self.listener.get() {
            if let Some(waker) = waker {
                listener.backlog.add_waker(waker);
            }
            return listener.backlog.poll();
        }
        let mut events = Events::OUT | Events::HUP;
        if self.progress.load(Ordering::Relaxed) != FRESH {
            events |= Events::IN | Events::RDHUP;
        }
        if self.error.load(Ordering::Relaxed) != 0 {
            events |= Events::ERR;
        }
        events
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.changes.remove(waker);
        if let Some(link) = self.link.get() {
            link.end.forget_waker(waker);
        }
        if let Some(listener) = self.listener.get() {
            listener.backlog.forget_waker(waker);
        }
    }

    fn readable_bytes(&self) -> Result<usize> {
        match (self.link.get(), self.listener.get()) {
            (Some(link), _) => Ok(link.end.readable_bytes()),
            (None, Some(_)) => err(Errno::EINVAL, "a listening socket"),
            (None, None) => Ok(0),
        }
    }

    fn unsent_bytes(&self) -> Result<usize> {
        Ok(self.link.get().map_or(0, |link| link.end.unread_bytes()))
    }

    fn take_error(&self) -> Option<Errno> {
        if let Some(link) = self.link.get() {
            return link.end.take_error();
        }
        let errno = self.take_own_error()?;
        self.progress.store(FAILED, Ordering::Relaxed);
        Some(errno)
    }

    fn is_listening(&self) -> bool {
        self.listener.get().is_some()
    }

    fn options_changed(&self, common: &Common) {
        let Some(link) = self.link.get() else { return };
        link.end.set_capacity(capacity(&common.options));
        apply_linger(&link.end, &common.options);
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.close();
        }
    }
}

impl TcpListener {
    /// Connections that nobody accepted are reset.
    fn close(&self) {
        for link in self.backlog.close() {
            link.end.set_aborts(Switch::On);
        }
    }
}
