//! Sockets of the host. All of them are non-blocking; what they become ready for comes as events.

use super::{Call, Served};
use crate::net::{self, encode_address, parse_address};
use occlum_abi::ocall::{HostConnection, SOCKET_ADDRESS_SIZE};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrAny, SocketFlags, SocketType,
    acceptfrom_with, getpeername, getsockname, recv, socket_with,
};
use rustix::time::Timespec;
use std::net::SocketAddr;

const OPEN: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

pub(super) fn open(call: &Call) -> Served {
    let domain = match call.args[0] as i32 {
        libc::AF_INET => AddressFamily::INET,
        libc::AF_INET6 => AddressFamily::INET6,
        _ => return Err(Errno::AFNOSUPPORT),
    };
    let is_stream = call.args[1] == libc::SOCK_STREAM as u64;
    if !is_stream && call.args[1] != libc::SOCK_DGRAM as u64 {
        return Err(Errno::INVAL);
    }
    let kind = if is_stream {
        SocketType::STREAM
    } else {
        SocketType::DGRAM
    };
    let socket = socket_with(domain, kind, OPEN, None)?;
    if !is_stream {
        let parking = &call.instance.parking;
        parking.watch_changes(socket.as_raw_fd(), &socket)?;
    }
    Ok((call.instance.files.insert(socket) as usize).into())
}

pub(super) fn bind(call: &Call) -> Served {
    let address = parse_address(call.buffer(1)?)?;
    rustix::net::bind(call.file()?, &address)?;
    Ok(().into())
}

pub(super) fn listen(call: &Call) -> Served {
    let file = call.file()?;
    let backlog = i32::try_from(call.args[1]).map_err(|_| Errno::INVAL)?;
    rustix::net::listen(&file, backlog)?;
    watch_once(call)?;
    Ok(().into())
}

pub(super) fn accept(call: &Call) -> Served {
    let file = call.file()?;
    let (places, _) = call
        .buffer(1)?
        .as_chunks_mut::<{ size_of::<HostConnection>() }>();
    let mut taken = 0;
    while taken < places.len() {
        match accept_one(call, &file) {
            Ok(connection) => places[taken] = connection_bytes(&connection),
            Err(Errno::CONNABORTED) => continue,
            Err(errno) if taken == 0 => return Err(errno),
            Err(_) => break,
        }
        taken += 1;
    }
    Ok(taken.into())
}

fn accept_one(call: &Call, listener: &super::files::File) -> Result<HostConnection, Errno> {
    let (socket, peer) = acceptfrom_with(listener, OPEN)?;
    let (peer, peer_size) = encode(peer)?;
    let (local, address_size) = encode(Some(getsockname(&socket)?))?;
    if peer_size != address_size {
        return Err(Errno::CONNABORTED);
    }
    let parking = &call.instance.parking;
    parking.watch_changes(socket.as_raw_fd(), &socket)?;
    Ok(HostConnection {
        fd: call.instance.files.insert(socket),
        address_size,
        local,
        peer,
    })
}

fn connection_bytes(connection: &HostConnection) -> [u8; size_of::<HostConnection>()] {
    const ADDRESSES: usize = 8;
    const PEER: usize = ADDRESSES + SOCKET_ADDRESS_SIZE;
    let mut bytes = [0; size_of::<HostConnection>()];
    bytes[..4].copy_from_slice(&connection.fd.to_ne_bytes());
    bytes[4..ADDRESSES].copy_from_slice(&connection.address_size.to_ne_bytes());
    bytes[ADDRESSES..PEER].copy_from_slice(&connection.local);
    bytes[PEER..].copy_from_slice(&connection.peer);
    bytes
}

pub(super) fn connect(call: &Call) -> Served {
    let file = call.file()?;
    let address = call.buffer(1)?;
    if address.is_empty() {
        rustix::net::connect_unspec(&file)?;
        return Ok(().into());
    }
    let result = rustix::net::connect(&file, &parse_address(address)?);
    if matches!(result, Ok(()) | Err(Errno::INPROGRESS)) {
        watch_once(call)?;
    }
    result?;
    Ok(().into())
}

/// Watches a socket that may be watched already.
fn watch_once(call: &Call) -> Result<(), Errno> {
    let number = i32::try_from(call.args[0]).map_err(|_| Errno::BADF)?;
    match call.instance.parking.watch_changes(number, call.file()?) {
        Err(Errno::EXIST) => Ok(()),
        watched => watched,
    }
}

pub(super) fn shutdown(call: &Call) -> Served {
    let how = match call.args[1] as i32 {
        libc::SHUT_RD => Shutdown::Read,
        libc::SHUT_WR => Shutdown::Write,
        libc::SHUT_RDWR => Shutdown::Both,
        _ => return Err(Errno::INVAL),
    };
    rustix::net::shutdown(call.file()?, how)?;
    Ok(().into())
}

pub(super) fn name(call: &Call) -> Served {
    let file = call.file()?;
    let address = match call.args[1] {
        0 => Some(getsockname(&file)?),
        _ => getpeername(&file)?,
    };
    let (bytes, size) = encode(address)?;
    let bytes = &bytes[..size as usize];
    let place = call.buffer(2)?.get_mut(..bytes.len());
    place.ok_or(Errno::INVAL)?.copy_from_slice(bytes);
    Ok(bytes.len().into())
}

pub(super) fn send(call: &Call) -> Served {
    let flags = SendFlags::from_bits_retain(call.args[3] as u32) | SendFlags::NOSIGNAL;
    let sent = rustix::net::send(call.file()?, call.buffer(1)?, flags)?;
    Ok(sent.into())
}

pub(super) fn receive(call: &Call) -> Served {
    let flags = RecvFlags::from_bits_retain(call.args[3] as u32) | RecvFlags::DONTWAIT;
    let (received, _) = recv(call.file()?, call.buffer(1)?, flags)?;
    Ok(received.into())
}

pub(super) fn set_option(call: &Call) -> Served {
    let (level, name) = option(call);
    net::set_option(call.file()?, level, name, call.buffer(2)?)?;
    Ok(().into())
}

pub(super) fn get_option(call: &Call) -> Served {
    let (level, name) = option(call);
    Ok(net::get_option(call.file()?, level, name, call.buffer(2)?)?.into())
}

fn option(call: &Call) -> (i32, i32) {
    ((call.args[1] >> 32) as i32, call.args[1] as i32)
}

pub(super) fn poll_now(call: &Call) -> Served {
    let wanted = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
    let file = call.file()?;
    let mut fds = [PollFd::new(&file, wanted)];
    loop {
        match poll(&mut fds, Some(&AT_ONCE)) {
            Err(Errno::INTR) => {}
            polled => {
                polled?;
                return Ok(usize::from(fds[0].revents().bits()).into());
            }
        }
    }
}

pub(super) fn pending(call: &Call) -> Served {
    let file = call.file()?;
    Ok(match call.args[1] as u64 {
        libc::FIONREAD => rustix::io::ioctl_fionread(&file)? as usize,
        libc::TIOCOUTQ => net::unsent(&file)?,
        _ => return Err(Errno::INVAL),
    }
    .into())
}

pub(super) fn interfaces(call: &Call) -> Served {
    let addresses = net::interface_addresses()?;
    let buffer = call.buffer(0)?;
    let fits = buffer.len() / size_of::<occlum_abi::ocall::HostInterfaceAddress>();
    let mut size = 0;
    for address in addresses.iter().take(fits) {
        let bytes = net::interface_bytes(address);
        buffer[size..size + bytes.len()].copy_from_slice(&bytes);
        size += bytes.len();
    }
    Ok(size.into())
}

/// An address and its size; none for a socket that has none.
fn encode(address: Option<SocketAddrAny>) -> Result<([u8; SOCKET_ADDRESS_SIZE], u32), Errno> {
    let Some(address) = address else {
        return Ok(([0; SOCKET_ADDRESS_SIZE], 0));
    };
    let address = SocketAddr::try_from(address).map_err(|_| Errno::AFNOSUPPORT)?;
    Ok(encode_address(&address))
}
