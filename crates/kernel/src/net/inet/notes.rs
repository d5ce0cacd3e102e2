//! What a socket's options ask to be told about a datagram: ip(7), ipv6(7), socket(7).

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::net::address::AF_INET6;
use crate::net::mailbox::Arrival;
use crate::net::message::Note;
use crate::net::options::*;

/// The notes about a datagram that was sent to the local address `to` (where that is known).
pub fn about(domain: u16, options: &Options, to: Option<IpAddr>, arrival: &Arrival) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |asked: (u32, u32), kind, data: Vec<u8>| {
        if options.is_on(asked.0, asked.1) {
            notes.push(Note { level: asked.0, kind, data });
        }
    };
    // struct timeval, struct timespec
    let (s, ns) = (arrival.at_ns / 1_000_000_000, arrival.at_ns % 1_000_000_000);
    let time = |fraction: u64| [s.to_le_bytes(), fraction.to_le_bytes()].concat();
    add((SOL_SOCKET, SO_TIMESTAMP), SO_TIMESTAMP, time(ns / 1000));
    add((SOL_SOCKET, SO_TIMESTAMPNS), SO_TIMESTAMPNS, time(ns));
    let index = arrival.interface.to_le_bytes();
    let (hops, class) = (arrival.hops.map(i32::from), arrival.traffic_class);
    if let Some(IpAddr::V4(to)) = to {
        // struct in_pktinfo: index, local address, destination
        add((SOL_IP, IP_PKTINFO), IP_PKTINFO, [index, to.octets(), to.octets()].concat());
    }
    let is_v4 = domain != AF_INET6 || matches!(to, Some(IpAddr::V4(_)));
    if is_v4 {
        if let Some(hops) = hops {
            add((SOL_IP, IP_RECVTTL), IP_TTL, hops.to_le_bytes().to_vec());
        }
        if let Some(class) = class {
            add((SOL_IP, IP_RECVTOS), IP_TOS, vec![class]);
        }
    }
    if domain == AF_INET6 {
        if let Some(to) = to {
            let to = match to {
                IpAddr::V4(to) => to.to_ipv6_mapped(),
                IpAddr::V6(to) => to,
            };
            // struct in6_pktinfo: destination, index
            add((SOL_IPV6, IPV6_RECVPKTINFO), IPV6_PKTINFO, [&to.octets()[..], &index].concat());
        }
        if let Some(hops) = hops {
            add((SOL_IPV6, IPV6_RECVHOPLIMIT), IPV6_HOPLIMIT, hops.to_le_bytes().to_vec());
        }
        if let Some(class) = class {
            add((SOL_IPV6, IPV6_RECVTCLASS), IPV6_TCLASS, i32::from(class).to_le_bytes().to_vec());
        }
    }
    notes
}
