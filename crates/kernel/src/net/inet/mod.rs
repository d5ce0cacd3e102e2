//! AF_INET and AF_INET6: loopback inside the enclave, which the host never sees, and everything else
//! through the host's sockets ([`super::outside`]).
//!
//! - [`ports`]: which socket has which port inside; [`home`]: an address on one or both sides
//! - [`tcp`], [`link`], [`udp`]; [`notes`]: what is told about datagrams
//!
//! Inside there are no packets: a TCP connection is a [`super::stream`], a datagram goes straight into a
//! mailbox.
//!
//! Inside, an IPv4-mapped IPv6 address is the IPv4 address it means ([`parse`]); AF_INET6 sockets are
//! shown it in the mapped form ([`shown`]).

mod home;
mod link;
mod notes;
pub mod ports;
pub mod tcp;
pub mod udp;

use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::address::{self, AF_INET6, Address};
use super::options::{IPV6_V6ONLY, Options, SOL_IPV6};
use super::outside::policy::{self, Side};
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

/// EINVAL for IPv4 with IPV6_V6ONLY.
fn check_family(ip: IpAddr, domain: u16, common: &Common) -> Result<()> {
    if domain == AF_INET6 && ip.is_ipv4() && common.options.is_on(SOL_IPV6, IPV6_V6ONLY) {
        return err(Errno::EINVAL, "an IPv4 address with IPV6_V6ONLY");
    }
    Ok(())
}

/// Where a connection or datagram to `to` really goes; ENETUNREACH.
fn route(to: SocketAddr) -> Result<(Side, SocketAddr)> {
    let side = policy::side(to.ip())?;
    match to.ip() {
        ip if ip.is_unspecified() => Ok((side, SocketAddr::new(loopback_like(ip), to.port()))),
        _ => Ok((side, to)),
    }
}

/// The loopback address of the same version.
fn loopback_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
