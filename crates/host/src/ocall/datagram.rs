//! Datagrams with what is told about them: a `DatagramHead` stands before the data in the buffer.
//!
//! ```text
//!  0 address_size(4)  4 flags(4)  8 address(28)  36 local_size(4)  40 local(16)
//! 56 interface(4)  60 hops(4)  64 traffic_class(4)  68 data
//! ```

use super::{Call, Served};
use crate::net::{self, Control, Received, encode_address, parse_address};
use occlum_abi::ocall::{DatagramHead, SOCKET_ADDRESS_SIZE};
use rustix::io::Errno;
use std::net::IpAddr;

const HEAD_SIZE: usize = size_of::<DatagramHead>();
const ADDRESS: usize = 8;
const LOCAL_SIZE: usize = ADDRESS + SOCKET_ADDRESS_SIZE;
const LOCAL: usize = LOCAL_SIZE + 4;
const INTERFACE: usize = LOCAL + 16;
const HOPS: usize = INTERFACE + 4;
const TRAFFIC_CLASS: usize = HOPS + 4;

pub(super) fn send(call: &Call) -> Served {
    let buffer = call.buffer(1)?;
    let (head, data) = buffer.split_at_checked(HEAD_SIZE).ok_or(Errno::INVAL)?;
    let address = match word(head, 0) as usize {
        0 => None,
        size if size <= SOCKET_ADDRESS_SIZE => Some(parse_address(&head[ADDRESS..ADDRESS + size])?),
        _ => return Err(Errno::INVAL),
    };
    let control = Control {
        is_v6: word(head, 4) == libc::AF_INET6 as u32,
        local: local(head)?,
        interface: word(head, INTERFACE),
        hops: known(word(head, HOPS)),
        traffic_class: known(word(head, TRAFFIC_CLASS)),
    };
    let flags = call.args[3] as i32 | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    Ok(net::send_message(call.file()?, address, data, &control, flags)?.into())
}

fn local(head: &[u8]) -> Result<Option<IpAddr>, Errno> {
    let bytes = &head[LOCAL..INTERFACE];
    Ok(match word(head, LOCAL_SIZE) {
        0 => None,
        4 => Some(IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => return Err(Errno::INVAL),
    })
}

fn word(head: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn known(value: u32) -> Option<i32> {
    Some(value.cast_signed()).filter(|&value| value >= 0)
}

pub(super) fn receive(call: &Call) -> Served {
    let buffer = call.buffer(1)?;
    let (head, data) = buffer.split_at_mut_checked(HEAD_SIZE).ok_or(Errno::INVAL)?;
    let flags = call.args[3] as i32 | libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let received = net::receive_message(call.file()?, data, flags)?;
    head.copy_from_slice(&head_of(&received));
    Ok(received.size.into())
}

fn head_of(received: &Received) -> [u8; HEAD_SIZE] {
    let mut head = [0; HEAD_SIZE];
    let mut put = |at: usize, value: u32| head[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    let (address, address_size) = match &received.from {
        Some(from) => encode_address(from),
        None => ([0; SOCKET_ADDRESS_SIZE], 0),
    };
    let control = &received.control;
    let (local, local_size) = match control.local {
        None => ([0; 16], 0),
        Some(IpAddr::V4(ip)) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            (bytes, 4)
        }
        Some(IpAddr::V6(ip)) => (ip.octets(), 16),
    };
    put(0, address_size);
    put(4, received.flags.cast_unsigned());
    put(LOCAL_SIZE, local_size);
    put(INTERFACE, control.interface);
    put(HOPS, control.hops.unwrap_or(-1).cast_unsigned());
    put(
        TRAFFIC_CLASS,
        control.traffic_class.unwrap_or(-1).cast_unsigned(),
    );
    head[ADDRESS..LOCAL_SIZE].copy_from_slice(&address);
    head[LOCAL..INTERFACE].copy_from_slice(&local);
    head
}
