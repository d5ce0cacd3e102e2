//! Options that the host's socket has as well: what is set inside is set there.

use super::HostSocket;
use super::call;
use crate::error::Result;
use crate::net::address::AF_INET6;
use crate::net::options::*;

/// Options of the host's socket that a program may set: (level, names).
const FORWARDED: &[(u32, &[u32])] = &[
    (
        SOL_SOCKET,
        &[
            SO_REUSEADDR, SO_DONTROUTE, SO_BROADCAST, SO_KEEPALIVE, SO_PRIORITY, SO_REUSEPORT, SO_SNDBUF,
            SO_RCVBUF, SO_RCVLOWAT, SO_BINDTODEVICE, SO_MARK, SO_BUSY_POLL, SO_INCOMING_CPU,
        ],
    ),
    (SOL_IP, &[
        IP_TOS, IP_TTL, IP_PKTINFO, IP_MTU_DISCOVER, IP_RECVTTL, IP_RECVTOS, IP_BIND_ADDRESS_NO_PORT,
        IP_MULTICAST_IF, IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP,
    ]),
    (SOL_IPV6, &[
        IPV6_UNICAST_HOPS, IPV6_MULTICAST_IF, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP, IPV6_ADD_MEMBERSHIP,
        IPV6_DROP_MEMBERSHIP, IPV6_MTU_DISCOVER, IPV6_V6ONLY, IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT,
        IPV6_RECVTCLASS, IPV6_TCLASS,
    ]),
];

/// What only the host's socket knows.
const ASKED: &[(u32, u32)] = &[
    (SOL_TCP, TCP_MAXSEG),
    (SOL_TCP, TCP_INFO),
    (SOL_TCP, TCP_CONGESTION),
    (SOL_SOCKET, SO_SNDBUF),
    (SOL_SOCKET, SO_RCVBUF),
    (SOL_SOCKET, SO_INCOMING_CPU),
    (SOL_SOCKET, SO_INCOMING_NAPI_ID),
    (SOL_SOCKET, SO_BINDTODEVICE),
    (SOL_IP, IP_MTU),
    (SOL_IPV6, IPV6_MTU),
];

fn is_forwarded(level: u32, name: u32) -> bool {
    level == SOL_TCP || FORWARDED.iter().any(|(known, names)| *known == level && names.contains(&name))
}

/// Sets an option at the host too, if it is one of those.
pub fn set(socket: &HostSocket, level: u32, name: u32, value: &[u8]) -> Result<()> {
    if (level, name) == (SOL_SOCKET, SO_LINGER) {
        let is_on = value.first_chunk().is_some_and(|on| *on != [0; 4]);
        let aborts = is_on && value.get(4..8) == Some(&[0; 4]);
        set_aborts(socket, Switch::when(aborts));
    }
    if is_forwarded(level, name) {
        call::set_option(socket.fd(), level, name, value)?;
        if (level, name) == (SOL_SOCKET, SO_RCVLOWAT) {
            socket.be_unsure();
        }
    }
    Ok(())
}

/// What the host's socket says, for options only it knows.
pub fn get(socket: &HostSocket, level: u32, name: u32, value: &mut [u8]) -> Option<Result<usize>> {
    ASKED.contains(&(level, name)).then(|| call::get_option(socket.fd(), level, name, value))
}

/// Brings a new host socket to what the program has set before. What the host does not take, it would
/// not have taken then.
pub fn set_all(socket: &HostSocket, options: &Options) {
    let fd = socket.fd();
    let put = |level, name, value: i32| call::set_option(fd, level, name, &value.to_le_bytes());
    if socket.domain() == AF_INET6 {
        let _ = put(SOL_IPV6, IPV6_V6ONLY, i32::from(options.is_on(SOL_IPV6, IPV6_V6ONLY)));
    }
    for ((level, name), value) in options.set_values() {
        if is_forwarded(level, name) {
            let _ = put(level, name, value);
        }
    }
    let device = options.device.lock().clone();
    if !device.is_empty() {
        let _ = call::set_option(fd, SOL_SOCKET, SO_BINDTODEVICE, &device);
    }
    let congestion = *options.congestion.lock();
    if congestion != CUBIC {
        let _ = call::set_option(fd, SOL_TCP, TCP_CONGESTION, &congestion);
    }
    for (name, size) in options.set_buffers() {
        let _ = put(SOL_SOCKET, name, size);
    }
    if *options.linger.lock() == Some(0) {
        set_aborts(socket, Switch::On);
    }
}

/// Whether closing resets the connection. A socket that lingers makes close(2) wait on Linux; no vCPU
/// waits here, so of SO_LINGER only "not at all" is passed on.
pub fn set_aborts(socket: &HostSocket, switch: Switch) {
    let value = [i32::from(switch == Switch::On).to_le_bytes(), [0; 4]].concat();
    // It fails only if the host wants it to: then the connection ends in another way.
    let _ = call::set_option(socket.fd(), SOL_SOCKET, SO_LINGER, &value);
}
