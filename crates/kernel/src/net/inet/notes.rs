//! What a socket's options ask to be told about a datagram: ip(7), ipv6(7).

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::net::address::AF_INET6;
use crate::net::interface;
use crate::net::message::Note;
use crate::net::options::*;

/// Hops a datagram has left: on loopback all of them.
const HOPS: i32 = 64;

/// The notes about a datagram that was sent to the local address `to`.
pub fn about(domain: u16, options: &Options, to: IpAddr) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |level, option, kind, data: Vec<u8>| {
        if options.is_on(level, option) {
            notes.push(Note { level, kind, data });
        }
    };
    if let IpAddr::V4(to) = to {
        // struct in_pktinfo: index, local address, destination
        let index = interface::INDEX.to_le_bytes();
        add(SOL_IP, IP_PKTINFO, IP_PKTINFO, [index, to.octets(), to.octets()].concat());
        add(SOL_IP, IP_RECVTTL, IP_TTL, HOPS.to_le_bytes().to_vec());
        add(SOL_IP, IP_RECVTOS, IP_TOS, vec![0]);
    }
    if domain == AF_INET6 {
        let to = match to {
            IpAddr::V4(to) => to.to_ipv6_mapped(),
            IpAddr::V6(to) => to,
        };
        // struct in6_pktinfo: destination, index
        let info = [&to.octets()[..], &interface::INDEX.to_le_bytes()].concat();
        add(SOL_IPV6, IPV6_RECVPKTINFO, IPV6_PKTINFO, info);
        add(SOL_IPV6, IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT, HOPS.to_le_bytes().to_vec());
        add(SOL_IPV6, IPV6_RECVTCLASS, IPV6_TCLASS, 0i32.to_le_bytes().to_vec());
    }
    notes
}
