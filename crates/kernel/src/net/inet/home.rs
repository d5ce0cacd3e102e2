//! The address of a socket: a port inside, a socket of the host, or both under one port.

use alloc::sync::Arc;
use core::net::{IpAddr, SocketAddr};

use occlum_enclave::log;
use spin::Once;

use super::loopback_like;
use super::ports::{self, Bound, Sharing, Transport};
use crate::error::{Errno, Error, Result, err};
use crate::net::outside::call::{self, Whose};
use crate::net::outside::policy::{self, Reach};
use crate::net::outside::stream::as_of;
use crate::net::outside::{HostSocket, Signals, forward};
use crate::net::{Common, Kind};

/// Ephemeral ports that are tried until one is free on both sides.
const ATTEMPTS: usize = 64;

/// Where a socket can be reached. A part that is not there may be added, never changed.
pub struct Home {
    address: SocketAddr,
    bound: Once<Arc<Bound>>,
    host: Once<Arc<HostSocket>>,
}

/// Who moves in.
#[derive(Clone, Copy)]
pub struct Tenant<'a> {
    pub transport: Transport,
    pub common: &'a Common,
    pub signals: &'a Signals,
}

impl Home {
    /// bind(2): takes `address` on the sides it belongs to.
    pub fn settle(tenant: Tenant<'_>, address: SocketAddr) -> Result<Arc<Home>> {
        match policy::reach(address)? {
            Reach::Inside => Home::inside(tenant, address),
            Reach::Outside => Home::outside(tenant, Some(address)),
            Reach::Both => Home::both(tenant, address),
        }
    }

    /// Inside only.
    pub fn inside(tenant: Tenant<'_>, address: SocketAddr) -> Result<Arc<Home>> {
        let bound = ports::bind(tenant.transport, address, Sharing::of(tenant.common))?;
        let home = Home::at(bound.address);
        home.bound.call_once(|| bound);
        Ok(Arc::new(home))
    }

    /// At the host only; without address it chooses one when it is needed.
    pub fn outside(tenant: Tenant<'_>, address: Option<SocketAddr>) -> Result<Arc<Home>> {
        let host = open(tenant)?;
        let mut home = Home::at(super::unspecified(tenant.common.domain));
        if let Some(address) = address {
            call::bind(host.fd(), as_of(host.domain(), address))?;
            home.address = host.name(Whose::Own)?;
        }
        home.host.call_once(|| host);
        Ok(Arc::new(home))
    }

    fn both(tenant: Tenant<'_>, address: SocketAddr) -> Result<Arc<Home>> {
        let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
        loop {
            let home = Home::inside(tenant, address)?;
            attempts -= 1;
            match home.add_host(tenant).map(drop) {
                Err(error) if error.errno == Errno::EADDRINUSE && attempts > 0 => {}
                Err(error) if error.errno == Errno::EAFNOSUPPORT => {
                    log!(Warn, "{address} can be reached from inside only: the host lacks the address family");
                    return Ok(home);
                }
                added => return added.map(|()| home),
            }
        }
    }

    fn at(address: SocketAddr) -> Home {
        Home { address, bound: Once::new(), host: Once::new() }
    }

    /// As it was given, with the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn bound(&self) -> Option<&Arc<Bound>> {
        self.bound.get()
    }

    pub fn host(&self) -> Option<&Arc<HostSocket>> {
        self.host.get()
    }

    /// The port inside; takes one if it has none.
    pub fn ensure_bound(&self, tenant: Tenant<'_>) -> Result<&Arc<Bound>> {
        if self.bound.get().is_none() {
            let bound = ports::bind(tenant.transport, super::unspecified(tenant.common.domain), Sharing::of(tenant.common))?;
            return Ok(self.bound.call_once(|| bound));
        }
        self.bound.get().ok_or(Error::new(Errno::EINVAL, "no port"))
    }

    /// The host's socket; makes one at the same port if it has none. EINVAL from a loopback address.
    pub fn ensure_host(&self, tenant: Tenant<'_>) -> Result<&Arc<HostSocket>> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        if !self.address.ip().is_unspecified() {
            return err(Errno::EINVAL, "nothing gets out from a loopback address");
        }
        self.add_host(tenant)
    }

    fn add_host(&self, tenant: Tenant<'_>) -> Result<&Arc<HostSocket>> {
        let host = open(tenant)?;
        call::bind(host.fd(), as_of(host.domain(), self.address))?;
        Ok(self.host.call_once(|| host))
    }

    /// Where what is sent to `to` comes from, inside.
    pub fn source(&self, bound: &Bound, to: IpAddr) -> SocketAddr {
        let mut from = bound.address;
        if from.ip().is_unspecified() {
            from.set_ip(loopback_like(to));
        }
        from
    }
}

/// A new host socket with the options of the socket.
fn open(tenant: Tenant<'_>) -> Result<Arc<HostSocket>> {
    let kind = match tenant.transport {
        Transport::Tcp => Kind::Stream,
        Transport::Udp => Kind::Datagram,
    };
    let host = HostSocket::open(tenant.common.domain, kind, tenant.signals.clone())?;
    forward::set_all(&host, &tenant.common.options);
    Ok(host)
}
