//! TCP: tcp(7). A connection is two byte lanes inside the enclave, where there are no segments and options
//! about them are only remembered, or a socket of the host.
//!
//! A connection inside is complete when connect(2) has put it into the listener's backlog. As on Linux a
//! non-blocking connect(2) still says EINPROGRESS first, because programs are written for that. A listener
//! that is reached from both sides has one backlog: what waits at the host is brought there when
//! somebody looks.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use spin::Once;

use super::home::{Home, Tenant};
use super::link::{self, CAPACITY, Link};
use super::ports::{self, Target, Transport};
use super::{check_family, loopback_like, parse, route, shown, unspecified};
use crate::error::{Errno, Error, Result, err};
use crate::net::address::{self, AF_UNSPEC, Address};
use crate::net::backlog::{Backlog, SOMAXCONN};
use crate::net::message::{Incoming, MSG_OOB, Outgoing, Wanted};
use crate::net::outside::policy::Side;
use crate::net::outside::descriptor::Ask;
use crate::net::outside::{HostSocket, Outside, Signals, call};
use crate::net::patience::Patience;
use crate::net::socket::{Accepted, Connecting, TcpState};
use crate::net::stream::{self, Direction, Manners};
use crate::net::{Common, Protocol, Socket};
use crate::sched::{SpinLock, Wake};
use crate::vfs::poll::Readiness;
use crate::vfs::{Events, Sink, Source};

pub struct Tcp {
    domain: u16,
    home: SpinLock<Option<Arc<Home>>>,
    listener: Once<Arc<TcpListener>>,
    link: Once<Link>,
    progress: AtomicU8,
    /// SO_ERROR of a connection that never was.
    error: AtomicI32,
    changes: Readiness,
    /// Of the host's socket, if there is one.
    signals: Signals,
}

/// Where connections to a port arrive.
pub struct TcpListener {
    backlog: Backlog<Link>,
    host: Option<Arc<HostSocket>>,
    limit: usize,
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
            home: SpinLock::new(None),
            listener: Once::new(),
            link: Once::new(),
            progress: AtomicU8::new(FRESH),
            error: AtomicI32::new(0),
            changes: Readiness::new(),
            signals: Signals::new(),
        })
    }

    fn tenant<'a>(&'a self, common: &'a Common) -> Tenant<'a> {
        Tenant { transport: Transport::Tcp, common, signals: &self.signals }
    }

    fn home(&self) -> Option<Arc<Home>> {
        self.home.lock().clone()
    }

    fn settle(&self, home: Arc<Home>) -> Arc<Home> {
        *self.home.lock() = Some(home.clone());
        home
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

    fn connect_inside(&self, common: &Common, to: SocketAddr, how: Patience) -> Result<()> {
        let result = self.establish(common, to, how);
        if how != Patience::Never {
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

    fn establish(&self, common: &Common, to: SocketAddr, patience: Patience) -> Result<()> {
        let home = match self.home() {
            Some(home) => home,
            None => {
                let any = SocketAddr::new(loopback_like(to.ip()), 0);
                self.settle(Home::inside(self.tenant(common), any)?)
            }
        };
        let from = home.source(home.ensure_bound(self.tenant(common))?, to.ip());
        let refused = Error::new(Errno::ECONNREFUSED, "nobody listens on the port");
        let target = ports::find(Transport::Tcp, to, from).ok_or(refused)?;
        let Some(Target::Listener(listener)) = target.target() else { return Err(refused) };
        let capacities = [link::capacity(&common.options), CAPACITY];
        let (own, theirs) = stream::pair(Manners::Tcp, capacities);
        listener.backlog.push(Link::Inside { end: theirs, local: to, peer: from }, patience)?;
        self.link.call_once(|| Link::Inside { end: own, local: from, peer: to }).apply(&common.options);
        self.changes.notify();
        Ok(())
    }

    fn connect_outside(&self, common: &Common, to: SocketAddr, patience: Patience) -> Result<()> {
        if let Some(Link::Outside(outside)) = self.link.get() {
            return outside.connect(to, patience);
        }
        let home = match self.home() {
            Some(home) => home,
            None => self.settle(Home::outside(self.tenant(common), None)?),
        };
        let host = home.ensure_host(self.tenant(common))?.clone();
        let link = self.link.call_once(|| Link::Outside(Outside::fresh(host, home.address())));
        self.changes.notify();
        match link {
            Link::Outside(outside) => outside.connect(to, patience),
            Link::Inside { .. } => err(Errno::EISCONN, "connected meanwhile"),
        }
    }
}

impl Protocol for Tcp {
    fn bind(&self, common: &Common, raw: &[u8]) -> Result<()> {
        let address = parse(self.domain, raw)?;
        check_family(address.ip(), self.domain, common)?;
        if self.home().is_some() || self.link.get().is_some() {
            return err(Errno::EINVAL, "the socket has an address");
        }
        self.settle(Home::settle(self.tenant(common), address)?);
        Ok(())
    }

    fn listen(&self, common: &Common, backlog: usize) -> Result<()> {
        if self.link.get().is_some() {
            return err(Errno::EINVAL, "listen on a connection");
        }
        if self.listener.get().is_some() {
            return Ok(());
        }
        let home = match self.home() {
            Some(home) => home,
            None => self.settle(Home::settle(self.tenant(common), unspecified(self.domain))?),
        };
        if let Some(bound) = home.bound() {
            bound.begin_to_listen()?;
        }
        if let Some(host) = home.host() {
            host.reset(Events::IN);
            call::listen(host.fd(), backlog.min(SOMAXCONN) as u16)?;
        }
        let listener = self.listener.call_once(|| {
            Arc::new(TcpListener {
                // A full backlog of Linux does not refuse connections, it delays them; those from
                // inside are not delayed before the system's own limit.
                backlog: Backlog::announcing(SOMAXCONN, self.signals.readers.clone()),
                host: home.host().cloned(),
                limit: backlog,
            })
        });
        if let Some(bound) = home.bound() {
            bound.set_target(Target::Listener(listener.clone()));
        }
        self.changes.notify();
        Ok(())
    }

    fn accept(&self, common: &Common, patience: Patience) -> Result<Accepted> {
        let Some(listener) = self.listener.get() else {
            return err(Errno::EINVAL, "not listening");
        };
        let link = listener.backlog.pop_after(patience, || listener.refill(Ask::when(patience)))?;
        let common = common.copy();
        // A host's socket has what its listener had.
        if let Link::Inside { .. } = link {
            link.apply(&common.options);
        }
        let peer = match &link {
            Link::Inside { peer, .. } => shown(self.domain, *peer),
            Link::Outside(outside) => shown(self.domain, outside.accepted_from()),
        };
        let accepted = Tcp::new(self.domain);
        accepted.link.call_once(|| link);
        Ok(Accepted { socket: Socket::new(common, accepted), peer })
    }

    fn connect(&self, common: &Common, how: Connecting<'_>) -> Result<()> {
        if address::family(how.raw)? == AF_UNSPEC {
            return self.link.get().map_or(Ok(()), Link::dissolve);
        }
        if let Some(result) = self.untold_result() {
            return result;
        }
        let is_inside = matches!(self.link.get(), Some(Link::Inside { .. }));
        if is_inside || self.listener.get().is_some() {
            return err(Errno::EISCONN, "connected already, or listening");
        }
        match route(parse(self.domain, how.raw)?)? {
            (Side::Inside, _) if self.link.get().is_some() => {
                err(Errno::ENETUNREACH, "a socket that was outside stays there")
            }
            (Side::Inside, to) => self.connect_inside(common, to, how.patience),
            (Side::Outside, to) => self.connect_outside(common, to, how.patience),
        }
    }

    fn shutdown(&self, reads: Direction, writes: Direction) -> Result<()> {
        if let Some(link) = self.link.get() {
            return link.shutdown(reads, writes);
        }
        match self.listener.get() {
            Some(listener) if reads == Direction::Ends => listener.close(),
            Some(_) => {}
            None => return err(Errno::ENOTCONN, "not connected"),
        }
        Ok(())
    }

    fn local_address(&self) -> Address {
        let local = match (self.link.get(), self.home()) {
            (Some(link), _) => link.local(),
            (None, Some(home)) => home.address(),
            (None, None) => unspecified(self.domain),
        };
        shown(self.domain, local)
    }

    fn peer_address(&self) -> Result<Address> {
        match self.link.get() {
            Some(link) => Ok(shown(self.domain, link.peer()?)),
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
            Some(link) => link.send(source, out),
            None => err(self.take_own_error().unwrap_or(Errno::EPIPE), "not connected"),
        }
    }

    fn receive(&self, _common: &Common, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        if wanted.has(MSG_OOB) {
            return err(Errno::EINVAL, "no out-of-band data");
        }
        match self.link.get() {
            Some(link) => link.receive(sink, wanted),
            None => err(self.take_own_error().unwrap_or(Errno::ENOTCONN), "not connected"),
        }
    }

    fn poll(&self, _common: &Common, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.changes.add(waker);
        }
        if let Some(link) = self.link.get() {
            return link.poll(waker);
        }
        if let Some(listener) = self.listener.get() {
            if let Some(waker) = waker {
                listener.backlog.add_waker(waker);
            }
            // What fails is told by accept(2).
            let _ = listener.refill(Ask::IfTold);
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
            link.forget_waker(waker);
        }
        if let Some(listener) = self.listener.get() {
            listener.backlog.forget_waker(waker);
        }
    }

    fn readable_bytes(&self) -> Result<usize> {
        match (self.link.get(), self.listener.get()) {
            (Some(link), _) => link.readable_bytes(),
            (None, Some(_)) => err(Errno::EINVAL, "a listening socket"),
            (None, None) => Ok(0),
        }
    }

    fn unsent_bytes(&self) -> Result<usize> {
        self.link.get().map_or(Ok(0), Link::unsent_bytes)
    }

    fn take_error(&self) -> Option<Errno> {
        if let Some(link) = self.link.get() {
            return link.take_error();
        }
        let errno = self.take_own_error()?;
        self.progress.store(FAILED, Ordering::Relaxed);
        Some(errno)
    }

    fn is_listening(&self) -> bool {
        self.listener.get().is_some()
    }

    fn options_changed(&self, common: &Common) {
        if let Some(link) = self.link.get() {
            link.apply(&common.options);
        }
    }

    fn host_socket(&self) -> Option<Arc<HostSocket>> {
        match self.link.get() {
            Some(link) => link.host().cloned(),
            None => self.home()?.host().cloned(),
        }
    }

    fn state(&self) -> TcpState {
        match (self.link.get(), self.listener.get()) {
            (Some(_), _) => TcpState::Established,
            (None, Some(listener)) => TcpState::Listening {
                waiting: listener.backlog.len().min(SOMAXCONN) as u32,
                limit: listener.limit as u32,
            },
            (None, None) => TcpState::Closed,
        }
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
    /// Brings connections that wait at the host; an error if none could be taken for another reason than
    /// that there is none.
    fn refill(&self, ask: Ask) -> Result<()> {
        let Some(host) = &self.host else { return Ok(()) };
        while self.backlog.len() <= self.limit {
            let seen = host.seen();
            if !seen.may_read() && (ask == Ask::IfTold || !self.backlog.is_empty()) {
                return Ok(());
            }
            let taken = call::accept(host.fd(), host.domain(), |connection| {
                let socket = HostSocket::accepted(connection.fd, host.domain());
                let outside = Outside::accepted(socket, connection.local, connection.peer);
                // If the listener was closed meanwhile, dropping it closes the connection.
                let _ = self.backlog.push(Link::Outside(outside), Patience::Never);
            });
            match taken {
                Ok(_) => {}
                Err(error) if error.errno == Errno::EAGAIN => {
                    host.is_drained(seen);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// No more connections; those that nobody accepted are reset.
    fn close(&self) {
        if let Some(host) = &self.host {
            // Nobody is told if it fails: the socket is about to be closed, or listens no more already.
            let _ = call::shutdown(host.fd(), 2);
        }
        for link in self.backlog.close() {
            link.abort();
        }
    }
}
