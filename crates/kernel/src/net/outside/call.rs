//! The ocalls about sockets. What the host answers is checked here; a lie stops the enclave.

use core::net::SocketAddr;

use occlum_abi::ocall::{DatagramHead, HostConnection, Ocall};
use occlum_enclave::host::{self, HostMisbehaved, HostSlice};

use crate::error::{Errno, Error, Result};
use crate::fs::hostcall::{checked, copy_in, copy_out};
use crate::net::Kind;
use crate::net::address::{AF_INET, Address, parse_inet};

/// The standard descriptors; no socket has one of these.
const STANDARD: usize = 3;

fn failed(errno: Errno) -> Error {
    Error::new(errno, "the host's socket")
}

/// A descriptor the host says it has made.
fn descriptor(call: Ocall, raw: usize) -> u32 {
    match u32::try_from(raw) {
        Ok(fd) if raw >= STANDARD && fd <= i32::MAX as u32 => fd,
        _ => host::stop_for(HostMisbehaved::BadDescriptor(call)),
    }
}

pub fn open(domain: u16, kind: Kind) -> Result<u32> {
    let args = [u64::from(domain), kind as u64, 0, 0, 0];
    let fd = checked(Ocall::SocketOpen, args, i32::MAX as usize).map_err(failed)?;
    Ok(descriptor(Ocall::SocketOpen, fd))
}

pub fn close(fd: u32) {
    // An error is about data that nobody waits for any more.
    let _ = checked(Ocall::Close, [u64::from(fd), 0, 0, 0, 0], 0);
}

pub fn bind(fd: u32, address: SocketAddr) -> Result<()> {
    let (staging, size) = stage(address);
    checked(Ocall::SocketBind, [u64::from(fd), staging.addr(), size, 0, 0], 0).map_err(failed)?;
    Ok(())
}

pub fn listen(fd: u32, backlog: u16) -> Result<()> {
    checked(Ocall::SocketListen, [u64::from(fd), u64::from(backlog), 0, 0, 0], 0).map_err(failed)?;
    Ok(())
}

/// `None` dissolves the connection.
pub fn connect(fd: u32, address: Option<SocketAddr>) -> Result<()> {
    let (staging, size) = address.map_or((host::staging(), 0), stage);
    checked(Ocall::SocketConnect, [u64::from(fd), staging.addr(), size, 0, 0], 0).map_err(failed)?;
    Ok(())
}

fn stage(address: SocketAddr) -> (HostSlice, u64) {
    let (raw, size) = Address::Inet(address).encode();
    let staging = host::staging();
    copy_out(&staging, &raw[..size]);
    (staging, size as u64)
}

pub fn shutdown(fd: u32, how: u64) -> Result<()> {
    checked(Ocall::SocketShutdown, [u64::from(fd), how, 0, 0, 0], 0).map_err(failed)?;
    Ok(())
}

/// A connection that the host took.
pub struct Connection {
    pub fd: u32,
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

const CONNECTION_SIZE: usize = size_of::<HostConnection>();

/// Connections taken at once.
pub const BATCH: usize = 16;

/// Takes connections that wait at the host, and gives them to `take`; EAGAIN if none does.
pub fn accept(fd: u32, domain: u16, mut take: impl FnMut(Connection)) -> Result<usize> {
    let staging = host::staging();
    let size = (BATCH * CONNECTION_SIZE).min(staging.size());
    let most = size / CONNECTION_SIZE;
    let args = [u64::from(fd), staging.addr(), size as u64, 0, 0];
    let count = checked(Ocall::SocketAccept, args, most).map_err(failed)?;
    let mut raw = [0; BATCH * CONNECTION_SIZE];
    let raw = &mut raw[..count * CONNECTION_SIZE];
    copy_in(Ocall::SocketAccept, &staging, raw);
    for entry in raw.as_chunks::<CONNECTION_SIZE>().0 {
        take(connection(entry, domain));
    }
    Ok(count)
}

/// ```text
/// 0 fd(4)  4 address size(4)  8 local(28)  36 peer(28)
/// ```
fn connection(raw: &[u8; CONNECTION_SIZE], domain: u16) -> Connection {
    let call = Ocall::SocketAccept;
    let fd = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
    let size = u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]);
    Connection {
        fd: descriptor(call, fd as usize),
        local: address(call, domain, &raw[8..36], size as usize),
        peer: address(call, domain, &raw[36..], size as usize),
    }
}

/// An address of `size` bytes that a socket of `domain` can have; IPv4-mapped ones as IPv4.
fn address(call: Ocall, domain: u16, raw: &[u8], size: usize) -> SocketAddr {
    let expected = if domain == AF_INET { 16 } else { 28 };
    let raw = raw.get(..size).filter(|_| size == expected);
    match raw.and_then(|raw| parse_inet(raw, domain).ok()) {
        Some(address) => SocketAddr::new(address.ip().to_canonical(), address.port()),
        None => host::stop_for(HostMisbehaved::BadAddress(call)),
    }
}

/// Whose name.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Whose {
    Own = 0,
    Peers = 1,
}

pub fn name(fd: u32, domain: u16, whose: Whose) -> Result<SocketAddr> {
    const ROOM: usize = 28;
    let staging = host::staging();
    let args = [u64::from(fd), whose as u64, staging.addr(), ROOM as u64, 0];
    let size = checked(Ocall::SocketName, args, ROOM).map_err(failed)?;
    let mut raw = [0; ROOM];
    copy_in(Ocall::SocketName, &staging, &mut raw[..size]);
    Ok(address(Ocall::SocketName, domain, &raw, size))
}

/// Sends the first `size` bytes of the staging buffer.
pub fn send(fd: u32, size: usize, flags: u32) -> core::result::Result<usize, Errno> {
    let args = [u64::from(fd), host::staging().addr(), size as u64, u64::from(flags), 0];
    checked(Ocall::SocketSend, args, size)
}

/// Receives up to `size` bytes into the staging buffer.
pub fn receive(fd: u32, size: usize, flags: u32) -> core::result::Result<usize, Errno> {
    let args = [u64::from(fd), host::staging().addr(), size as u64, u64::from(flags), 0];
    checked(Ocall::SocketReceive, args, size)
}

pub const HEAD_SIZE: usize = size_of::<DatagramHead>();
/// No datagram is larger.
pub const DATAGRAM_MAX: usize = 65_535;

/// Sends the head and the `size` bytes that follow it in the staging buffer.
pub fn send_to(fd: u32, size: usize, flags: u32) -> core::result::Result<usize, Errno> {
    let whole = (HEAD_SIZE + size) as u64;
    let args = [u64::from(fd), host::staging().addr(), whole, u64::from(flags), 0];
    checked(Ocall::SocketSendTo, args, size)
}

/// Receives a datagram behind its head in the staging buffer; gives its whole size.
pub fn receive_from(fd: u32) -> core::result::Result<usize, Errno> {
    let whole = (HEAD_SIZE + DATAGRAM_MAX) as u64;
    checked(Ocall::SocketReceiveFrom, [u64::from(fd), host::staging().addr(), whole, 0, 0], DATAGRAM_MAX)
}

/// The sender in a datagram's head.
pub fn sender(domain: u16, raw: &[u8], size: usize) -> SocketAddr {
    address(Ocall::SocketReceiveFrom, domain, raw, size)
}

fn option(level: u32, name: u32) -> u64 {
    u64::from(level) << 32 | u64::from(name)
}

pub fn set_option(fd: u32, level: u32, name: u32, value: &[u8]) -> Result<()> {
    let staging = host::staging();
    copy_out(&staging, value);
    let args = [u64::from(fd), option(level, name), staging.addr(), value.len() as u64, 0];
    checked(Ocall::SocketSetOption, args, 0).map_err(failed)?;
    Ok(())
}

/// Fills the beginning of `value`; gives the bytes the option has.
pub fn get_option(fd: u32, level: u32, name: u32, value: &mut [u8]) -> Result<usize> {
    let staging = host::staging();
    copy_out(&staging, value);
    let args = [u64::from(fd), option(level, name), staging.addr(), value.len() as u64, 0];
    let size = checked(Ocall::SocketGetOption, args, value.len()).map_err(failed)?;
    copy_in(Ocall::SocketGetOption, &staging, &mut value[..size]);
    Ok(size)
}

/// POLL* bits that hold now. If the host can't say, an attempt will: all of them.
pub fn poll(fd: u32) -> u32 {
    const ALL: usize = 0xffff;
    checked(Ocall::SocketPoll, [u64::from(fd), 0, 0, 0, 0], ALL).unwrap_or(ALL) as u32
}

/// FIONREAD or SIOCOUTQ.
pub fn pending(fd: u32, request: u32) -> Result<usize> {
    let args = [u64::from(fd), u64::from(request), 0, 0, 0];
    checked(Ocall::SocketPending, args, i32::MAX as usize).map_err(failed)
}
