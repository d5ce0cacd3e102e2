//! Which socket has which port: bind(2) and its rules about sharing, and how connections and datagrams
//! find their receiver.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use spin::Once;

use super::tcp::TcpListener;
use crate::error::{Errno, Result, err};
use crate::net::Common;
use crate::net::mailbox::Mailbox;
use crate::net::options::{IPV6_V6ONLY, SOL_IPV6, SOL_SOCKET, SO_REUSEADDR, SO_REUSEPORT};
use crate::process;
use crate::random;
use crate::sched::SpinLock;

/// `net.ipv4.ip_local_port_range`.
const EPHEMERAL_FIRST: u16 = 32_768;
const EPHEMERAL_COUNT: u16 = 28_232;
/// Ports below this need CAP_NET_BIND_SERVICE.
const PRIVILEGED_END: u16 = 1024;
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

/// An address in use; dropping it frees it.
pub struct Bound {
    pub address: SocketAddr,
    transport: Transport,
    sharing: Sharing,
    is_listening: AtomicBool,
    /// Of a connected UDP socket: the only one it hears.
    peer: SpinLock<Option<SocketAddr>>,
    target: Once<Target>,
}

/// What arrives at the address goes here.
pub enum Target {
    Listener(Arc<TcpListener>),
    Mailbox(Arc<Mailbox>),
}

/// With whom a socket shares its port.
#[derive(Clone, Copy)]
pub struct Sharing {
    reuses_address: bool,
    reuses_port: bool,
    /// `[::]` does not mean 0.0.0.0 too.
    is_v6_only: bool,
    uid: u32,
}

impl Sharing {
    pub fn of(common: &Common) -> Sharing {
        let options = &common.options;
        Sharing {
            reuses_address: options.is_on(SOL_SOCKET, SO_REUSEADDR),
            reuses_port: options.is_on(SOL_SOCKET, SO_REUSEPORT),
            is_v6_only: options.is_on(SOL_IPV6, IPV6_V6ONLY),
            uid: process::current().map_or(0, |thread| thread.credentials().euid()),
        }
    }
}

type Ports = BTreeMap<(Transport, u16), Vec<Weak<Bound>>>;

static PORTS: SpinLock<Ports> = SpinLock::new(BTreeMap::new());
static TURN: AtomicU16 = AtomicU16::new(0);

/// Takes an address; port 0 asks for any. EADDRINUSE, EACCES.
pub fn bind(transport: Transport, address: SocketAddr, sharing: Sharing) -> Result<Arc<Bound>> {
    if address.port() == 0 {
        return bind_any(transport, address.ip(), sharing);
    }
    if address.port() < PRIVILEGED_END && !may_bind_privileged() {
        return err(Errno::EACCES, "ports below 1024 are for root");
    }
    let bound = Bound::new(transport, address, sharing);
    // Dropped after the table's lock is released: the last reference takes it.
    let others: Vec<Arc<Bound>>;
    let mut ports = PORTS.lock();
    let entries = ports.entry((transport, address.port())).or_default();
    others = entries.iter().filter_map(Weak::upgrade).collect();
    if others.iter().any(|other| other.excludes(&bound)) {
        return err(Errno::EADDRINUSE, "the port is in use");
    }
    entries.push(Arc::downgrade(&bound));
    Ok(bound)
}

/// Those who have a port.
fn sharers(transport: Transport, port: u16) -> Vec<Arc<Bound>> {
    let ports = PORTS.lock();
    ports.get(&(transport, port)).into_iter().flatten().filter_map(Weak::upgrade).collect()
}

fn may_bind_privileged() -> bool {
    process::current().is_some_and(|thread| thread.credentials().effective & CAP_NET_BIND_SERVICE != 0)
}

/// A port of the ephemeral range that nobody has.
fn bind_any(transport: Transport, ip: IpAddr, sharing: Sharing) -> Result<Arc<Bound>> {
    let mut start = [0; 2];
    random::fill(&mut start);
    let start = u16::from_le_bytes(start) % EPHEMERAL_COUNT;
    let mut ports = PORTS.lock();
    for offset in 0..EPHEMERAL_COUNT {
        let place = (u32::from(start) + u32::from(offset)) % u32::from(EPHEMERAL_COUNT);
        let port = EPHEMERAL_FIRST + place as u16;
        let others = ports.entry((transport, port)).or_default();
        if others.is_empty() {
            let bound = Bound::new(transport, SocketAddr::new(ip, port), sharing);
            others.push(Arc::downgrade(&bound));
            return Ok(bound);
        }
    }
    err(Errno::EADDRINUSE, "no ephemeral port left")
}

/// Who takes what `from` sends to `to`: an exact address before a wildcard, a connected socket before
/// both, and those that share a port in turn.
pub fn find(transport: Transport, to: SocketAddr, from: SocketAddr) -> Option<Arc<Bound>> {
    let mut best: Vec<Arc<Bound>> = Vec::new();
    let mut best_rank = 0;
    for bound in sharers(transport, to.port()) {
        let Some(rank) = bound.rank(to.ip(), from) else { continue };
        if rank > best_rank {
            best.clear();
            best_rank = rank;
        }
        if rank == best_rank {
            best.push(bound);
        }
    }
    match best.len() {
        0 | 1 => best.pop(),
        count => {
            let index = usize::from(TURN.fetch_add(1, Ordering::Relaxed)) % count;
            Some(best.swap_remove(index))
        }
    }
}

impl Bound {
    fn new(transport: Transport, address: SocketAddr, sharing: Sharing) -> Arc<Bound> {
        Arc::new(Bound {
            address,
            transport,
            sharing,
            is_listening: AtomicBool::new(false),
            peer: SpinLock::new(None),
            target: Once::new(),
        })
    }

    pub fn target(&self) -> Option<&Target> {
        self.target.get()
    }

    pub fn set_target(&self, target: Target) {
        self.target.call_once(|| target);
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        *self.peer.lock()
    }

    pub fn set_peer(&self, peer: Option<SocketAddr>) {
        *self.peer.lock() = peer;
    }

    /// listen(2): EADDRINUSE if another listener shares the address without SO_REUSEPORT.
    pub fn begin_to_listen(self: &Arc<Bound>) -> Result<()> {
        self.is_listening.store(true, Ordering::Relaxed);
        let is_rival = |other: &Arc<Bound>| {
            let is_other = !Arc::ptr_eq(other, self);
            is_other && other.is_listening.load(Ordering::Relaxed) && other.excludes(self)
        };
        if sharers(self.transport, self.address.port()).iter().any(is_rival) {
            self.is_listening.store(false, Ordering::Relaxed);
            return err(Errno::EADDRINUSE, "somebody listens on the port");
        }
        Ok(())
    }

    /// Whether `other` can't be bound beside this one.
    fn excludes(&self, other: &Bound) -> bool {
        if !self.overlaps(other) {
            return false;
        }
        let (one, two) = (&self.sharing, &other.sharing);
        if one.reuses_port && two.reuses_port && one.uid == two.uid {
            return false;
        }
        let is_listening = self.is_listening.load(Ordering::Relaxed);
        let share_address = one.reuses_address && two.reuses_address;
        !(share_address && (self.transport == Transport::Udp || !is_listening))
    }

    fn overlaps(&self, other: &Bound) -> bool {
        let (one, two) = (self.address.ip(), other.address.ip());
        one == two || self.covers(two) || other.covers(one)
    }

    /// Whether this is a wildcard that includes `ip`.
    fn covers(&self, ip: IpAddr) -> bool {
        match self.address.ip() {
            IpAddr::V4(own) => own.is_unspecified() && ip.is_ipv4(),
            IpAddr::V6(own) => own.is_unspecified() && (ip.is_ipv6() || !self.sharing.is_v6_only),
        }
    }

    /// How well this fits; `None` if not at all.
    fn rank(&self, ip: IpAddr, from: SocketAddr) -> Option<u32> {
        if self.transport == Transport::Tcp && !self.is_listening.load(Ordering::Relaxed) {
            return None;
        }
        let own = self.address.ip();
        let fit = match own == ip {
            true => 3,
            false if self.covers(ip) => 1 + u32::from(own.is_ipv4()),
            false => return None,
        };
        match self.peer() {
            None => Some(fit),
            Some(peer) if peer == from => Some(fit + 3),
            Some(_) => None,
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut ports = PORTS.lock();
        let key = (self.transport, self.address.port());
        if let Some(others) = ports.get_mut(&key) {
            others.retain(|other| other.strong_count() > 0);
            if others.is_empty() {
                ports.remove(&key);
            }
        }
    }
}
