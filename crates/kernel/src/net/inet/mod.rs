//! AF_INET and AF_INET6: loopback inside the enclave. Nothing of it is ever seen by the host.
//!
//! - [`ports`]: which socket has which port
//! - [`tcp`], [`udp`]; [`notes`]: what is told about datagrams
//!
//! The interface is `lo` with 127.0.0.0/8 and ::1; everything else is unreachable (ENETUNREACH). There are
//! no packets: a TCP connection is a [`super::stream`], a datagram goes straight into a mailbox.
//!
//! Inside, an IPv4-mapped IPv6 address is the IPv4 address it means ([`parse`]); AF_INET6 sockets are
//! shown it in the mapped form ([`shown`]).

mod notes;
pub mod ports;
pub mod tcp;
pub mod udp;

use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_enclave::log;

use super::address::{self, AF_INET6, Address};
use super::options::{IPV6_V6ONLY, Options, SOL_IPV6};
use super::{Common, Kind, Socket};
use crate::error::{Errno, Result, err};

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// socket(2) of AF_INET and AF_INET6.
pub fn socket(domain: u16, kind: Kind, protocol: u32) -> Result<Arc<Socket>> {
    match (kind, protocol) {
        (Kind::Stream, 0 | IPPROTO_TCP) => {
            let common = Common::new(domain, kind, IPPROTO_TCP, Options::for_tcp());
            Ok(Socket::new(common, tcp::Tcp::new(domain)))
        }
        (Kind::Datagram, 0 | IPPROTO_UDP) => {
            let common = Common::new(domain, kind, IPPROTO_UDP, Options::new());
            Ok(Socket::new(common, udp::Udp::new(domain)))
        }
        (Kind::Raw, 0) => err(Errno::EPROTONOSUPPORT, "raw sockets need a protocol"),
        (Kind::Raw, _) => err(Errno::EPERM, "no raw sockets: there are no packets"),
        (Kind::SeqPacket, _) => err(Errno::ESOCKTNOSUPPORT, "socket type"),
        _ => err(Errno::EPROTONOSUPPORT, "protocol of this type"),
    }
}

/// An address given to a socket of `domain`; IPv4-mapped addresses as IPv4.
fn parse(domain: u16, raw: &[u8]) -> Result<SocketAddr> {
    let address = address::parse_inet(raw, domain)?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// An address as a socket of `domain` shows it.
fn shown(domain: u16, address: SocketAddr) -> Address {
    match address {
        SocketAddr::V4(v4) if domain == AF_INET6 => {
            Address::Inet(SocketAddr::new(address::mapped(*v4.ip()), v4.port()))
        }
        _ => Address::Inet(address),
    }
}

/// `0.0.0.0:0` or `[::]:0`.
fn unspecified(domain: u16) -> SocketAddr {
    let ip = match domain {
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

/// Whether a socket can be bound to `ip`; EADDRNOTAVAIL, and EINVAL for IPv4 with IPV6_V6ONLY.
fn check_own(ip: IpAddr, domain: u16, common: &Common) -> Result<()> {
    if domain == AF_INET6 && ip.is_ipv4() && common.options.is_on(SOL_IPV6, IPV6_V6ONLY) {
        return err(Errno::EINVAL, "an IPv4 address with IPV6_V6ONLY");
    }
    if ip.is_unspecified() || ip.is_loopback() {
        return Ok(());
    }
    err(Errno::EADDRNOTAVAIL, "not an address of the enclave")
}

/// Where a connection or datagram to `to` really goes: loopback, or ENETUNREACH.
fn route(to: SocketAddr) -> Result<SocketAddr> {
    let ip = to.ip();
    if ip.is_loopback() {
        return Ok(to);
    }
    if ip.is_unspecified() {
        return Ok(SocketAddr::new(loopback_like(ip), to.port()));
    }
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !IS_TOLD.swap(true, Ordering::Relaxed) {
        log!(Warn, "a program wants to reach {to}: only loopback is reachable (ENETUNREACH)");
    }
    err(Errno::ENETUNREACH, "only loopback is reachable")
}

/// The loopback address of the same version.
fn loopback_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
