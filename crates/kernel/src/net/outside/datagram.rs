//! UDP to and from what is not in the enclave.
//!
//! ```text
//!  0 address_size(4)  4 flags(4)  8 address(28)  36 local_size(4)  40 local(16)
//! 56 interface(4)  60 hops(4)  64 traffic_class(4)  68 data
//! ```

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use occlum_enclave::host;

use super::HostSocket;
use super::call::{self, DATAGRAM_MAX, HEAD_SIZE};
use super::stream::as_of;
use crate::error::Errno;
use crate::fs::hostcall::{copy_in, copy_out};
use crate::net::Address;
use crate::net::address::AF_INET;
use crate::net::mailbox::{Arrival, Message};
use occlum_abi::ocall::Ocall;

const ADDRESS: usize = 8;
const LOCAL_SIZE: usize = 36;
const LOCAL: usize = 40;
const INTERFACE: usize = 56;
const HOPS: usize = 60;
const TRAFFIC_CLASS: usize = 64;

/// From where and how a datagram is sent, as far as the program says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    pub local: Option<IpAddr>,
    pub interface: u32,
    pub hops: Option<u8>,
    pub traffic_class: Option<u8>,
}

/// Sends one datagram; EAGAIN if the host has no room.
pub fn send(
    socket: &HostSocket,
    to: Option<SocketAddr>,
    bytes: &[u8],
    origin: &Origin,
) -> Result<usize, Errno> {
    let staging = host::staging();
    let Some(data) = staging.part(HEAD_SIZE, bytes.len()) else { return Err(Errno::EMSGSIZE) };
    copy_out(&staging, &head(socket.domain(), to, origin));
    copy_out(&data, bytes);
    let seen = socket.seen();
    let sent = call::send_to(socket.fd(), bytes.len(), 0);
    if sent == Err(Errno::EAGAIN) {
        socket.is_full(seen);
    }
    sent
}

fn head(domain: u16, to: Option<SocketAddr>, origin: &Origin) -> [u8; HEAD_SIZE] {
    let mut head = [0; HEAD_SIZE];
    if let Some(to) = to {
        let (raw, size) = Address::Inet(as_of(domain, to)).encode();
        head[..4].copy_from_slice(&(size as u32).to_le_bytes());
        head[ADDRESS..ADDRESS + size].copy_from_slice(&raw[..size]);
    }
    let local_size: u32 = match origin.local {
        None => 0,
        Some(IpAddr::V4(ip)) => {
            head[LOCAL..LOCAL + 4].copy_from_slice(&ip.octets());
            4
        }
        Some(IpAddr::V6(ip)) => {
            head[LOCAL..INTERFACE].copy_from_slice(&ip.octets());
            16
        }
    };
    head[LOCAL_SIZE..LOCAL].copy_from_slice(&local_size.to_le_bytes());
    head[INTERFACE..HOPS].copy_from_slice(&origin.interface.to_le_bytes());
    let family = match (to, origin.local) {
        (Some(SocketAddr::V4(_)), _) | (None, Some(IpAddr::V4(_))) => AF_INET,
        _ => domain,
    };
    head[4..ADDRESS].copy_from_slice(&u32::from(family).to_le_bytes());
    let number = |value: Option<u8>| value.map_or(-1, i32::from).to_le_bytes();
    head[HOPS..TRAFFIC_CLASS].copy_from_slice(&number(origin.hops));
    head[TRAFFIC_CLASS..].copy_from_slice(&number(origin.traffic_class));
    head
}

/// Takes one datagram; EAGAIN if none is there.
pub fn receive(socket: &HostSocket) -> Result<Message, Errno> {
    let seen = socket.seen();
    let size = call::receive_from(socket.fd()).inspect_err(|&errno| match errno {
        Errno::EAGAIN => socket.is_drained(seen),
        _ => socket.be_unsure(),
    })?;
    let call = Ocall::SocketReceiveFrom;
    let staging = host::staging();
    let mut head = [0; HEAD_SIZE];
    copy_in(call, &staging, &mut head);
    let mut bytes = Vec::new();
    let size = size.min(DATAGRAM_MAX);
    bytes.try_reserve_exact(size).map_err(|_| Errno::ENOBUFS)?;
    bytes.resize(size, 0);
    match staging.part(HEAD_SIZE, size) {
        Some(data) => copy_in(call, &data, &mut bytes),
        None => host::stop_for(host::HostMisbehaved::BadLength(call)),
    }
    let address_size = word(&head, 0) as usize;
    let from = call::sender(socket.domain(), &head[ADDRESS..LOCAL_SIZE], address_size);
    let mut message = Message::new(bytes);
    message.from = Some(Address::Inet(from));
    message.to = local(&head);
    message.arrival = Arrival {
        interface: word(&head, INTERFACE),
        hops: known(word(&head, HOPS)),
        traffic_class: known(word(&head, TRAFFIC_CLASS)),
        ..Arrival::now()
    };
    Ok(message)
}

/// The local address, if the host tells one.
fn local(head: &[u8; HEAD_SIZE]) -> Option<IpAddr> {
    let bytes = &head[LOCAL..INTERFACE];
    match word(head, LOCAL_SIZE) {
        4 => bytes.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        16 => bytes.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes).to_canonical()),
        _ => None,
    }
}

fn word(head: &[u8; HEAD_SIZE], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

/// One byte's worth, or not told.
fn known(value: u32) -> Option<u8> {
    u8::try_from(value).ok()
}
