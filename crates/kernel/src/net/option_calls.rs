//! setsockopt(2) and getsockopt(2), SOL_SOCKET above all.

use core::sync::atomic::Ordering;

use super::address::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX};
use super::message::PeerIds;
use super::interface;
use super::options::*;
use super::outside::{forward, interfaces};
use super::socket::{Kind, Socket, TcpState};
use crate::error::{Errno, Error, Result, err};

/// An option's value.
pub struct Value {
    bytes: [u8; VALUE_MAX],
    size: usize,
}

/// The largest, `struct tcp_info`, and room for what newer hosts add to it.
const VALUE_MAX: usize = 256;

impl Value {
    fn int(value: i32) -> Value {
        Value::new(&value.to_le_bytes())
    }

    fn new(content: &[u8]) -> Value {
        let mut bytes = [0; VALUE_MAX];
        bytes[..content.len()].copy_from_slice(content);
        Value { bytes, size: content.len() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// Sets an option to the value that begins `raw`.
pub fn set(socket: &Socket, level: u32, name: u32, raw: &[u8]) -> Result<()> {
    check_level(socket, level)?;
    let options = &socket.common().options;
    match (level, name) {
        (SOL_SOCKET, SO_RCVTIMEO | SO_RCVTIMEO_NEW) => {
            options.receive_timeout_ns.store(timeout_ns(raw)?, Ordering::Relaxed);
        }
        (SOL_SOCKET, SO_SNDTIMEO | SO_SNDTIMEO_NEW) => {
            options.send_timeout_ns.store(timeout_ns(raw)?, Ordering::Relaxed);
        }
        (SOL_SOCKET, SO_LINGER) => {
            let (is_on, seconds) = (int(raw)?, int(raw.get(4..).unwrap_or_default())?);
            *options.linger.lock() = (is_on != 0).then_some(seconds as u32);
        }
        (SOL_SOCKET, SO_SNDBUF | SO_SNDBUFFORCE) => options.set_send_buffer(int(raw)?),
        (SOL_SOCKET, SO_RCVBUF | SO_RCVBUFFORCE) => options.set_receive_buffer(int(raw)?),
        (SOL_SOCKET, SO_RCVLOWAT) => {
            let value = int(raw)?.max(0) as u32;
            options.receive_low_water.store(value.max(1), Ordering::Relaxed);
        }
        (SOL_SOCKET, SO_TYPE | SO_ERROR | SO_PROTOCOL | SO_DOMAIN | SO_ACCEPTCONN | SO_SNDLOWAT) => {
            return err(Errno::ENOPROTOOPT, "this option is only read");
        }
        (SOL_SOCKET, SO_BINDTODEVICE) => return set_device(socket, raw),
        (SOL_SOCKET, SO_INCOMING_NAPI_ID | SO_COOKIE) => {
            return err(Errno::ENOPROTOOPT, "this option is only read");
        }
        (SOL_TCP, TCP_CONGESTION) => set_congestion(socket, raw)?,
        (SOL_TCP, TCP_FASTOPEN) if socket.protocol().state() == TcpState::Established => {
            return err(Errno::EINVAL, "TCP_FASTOPEN of a connection");
        }
        (SOL_TCP, TCP_INFO) | (SOL_IP, IP_MTU) => return err(Errno::ENOPROTOOPT, "this option is only read"),
        (SOL_IP, IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP)
        | (SOL_IPV6, IPV6_ADD_MEMBERSHIP | IPV6_DROP_MEMBERSHIP) => {
            let host = socket.protocol().need_host_socket(socket.common())?;
            return forward::set(&host, level, name, raw);
        }
        (SOL_SOCKET, SO_PASSCRED) if socket.common().domain == AF_NETLINK => {}
        (SOL_IP | SOL_IPV6, _) if raw.len() < 4 => set_byte(options, level, name, raw)?,
        _ => options.set(level, name, int(raw)?)?,
    }
    if let Some(host) = socket.protocol().host_socket() {
        forward::set(&host, level, name, raw)?;
    }
    socket.protocol().options_changed(socket.common());
    Ok(())
}

/// SO_BINDTODEVICE: an interface's name, or nothing.
fn set_device(socket: &Socket, raw: &[u8]) -> Result<()> {
    let name = raw.split(|&byte| byte == 0).next().unwrap_or_default();
    if !name.is_empty() && !interfaces::all().iter().any(|interface| interface.name == name) {
        return err(Errno::ENODEV, "no such interface");
    }
    if let Some(host) = socket.protocol().host_socket() {
        forward::set(&host, SOL_SOCKET, SO_BINDTODEVICE, raw)?;
    }
    *socket.common().options.device.lock() = name.to_vec();
    Ok(())
}

/// TCP_CONGESTION: a name. Inside nothing is ever congested.
fn set_congestion(socket: &Socket, raw: &[u8]) -> Result<()> {
    let name = raw.split(|&byte| byte == 0).next().unwrap_or_default();
    let is_known = socket.protocol().host_socket().is_some() || matches!(name, b"cubic" | b"reno");
    if !is_known || name.len() >= CONGESTION_MAX {
        return err(Errno::ENOENT, "no such congestion control");
    }
    let mut congestion = [0; CONGESTION_MAX];
    congestion[..name.len()].copy_from_slice(name);
    *socket.common().options.congestion.lock() = congestion;
    Ok(())
}

/// IP options may be given as one byte.
fn set_byte(options: &Options, level: u32, name: u32, raw: &[u8]) -> Result<()> {
    match raw.first() {
        Some(&byte) => options.set(level, name, i32::from(byte)),
        None => err(Errno::EINVAL, "no option value"),
    }
}

/// Reads an option.
pub fn get(socket: &Socket, level: u32, name: u32) -> Result<Value> {
    check_level(socket, level).map_err(|error| match socket.common().domain {
        AF_INET => Error::new(Errno::EOPNOTSUPP, error.why),
        _ => error,
    })?;
    let common = socket.common();
    let options = &common.options;
    if let Some(value) = ask_host(socket, level, name) {
        return value;
    }
    if level != SOL_SOCKET {
        return match (level, name) {
            (SOL_TCP, TCP_INFO) => Ok(tcp_info(socket.protocol().state())),
            (SOL_TCP, TCP_CONGESTION) => Ok(Value::new(&*options.congestion.lock())),
            (SOL_IP, IP_MTU) | (SOL_IPV6, IPV6_MTU) => {
                socket.protocol().peer_address().map(|_| Value::int(interface::MTU as i32))
            }
            _ => options.get(level, name).map(Value::int),
        };
    }
    Ok(match name {
        SO_BINDTODEVICE => Value::new(&options.device.lock()),
        SO_INCOMING_NAPI_ID => Value::int(0),
        SO_COOKIE => Value::new(&common.ino.to_le_bytes()),
        SO_TYPE => Value::int(common.kind as i32),
        SO_DOMAIN => Value::int(i32::from(common.domain)),
        SO_PROTOCOL => Value::int(common.protocol as i32),
        SO_ERROR => Value::int(socket.protocol().take_error().map_or(0, |errno| errno as i32)),
        SO_ACCEPTCONN => Value::int(i32::from(socket.protocol().is_listening())),
        SO_SNDBUF => Value::int(options.send_buffer() as i32),
        SO_RCVBUF => Value::int(options.receive_buffer() as i32),
        SO_RCVLOWAT => Value::int(options.receive_low_water.load(Ordering::Relaxed) as i32),
        SO_SNDLOWAT => Value::int(1),
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => timeval(options.receive_timeout_ns.load(Ordering::Relaxed)),
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => timeval(options.send_timeout_ns.load(Ordering::Relaxed)),
        SO_LINGER => linger(*options.linger.lock()),
        SO_PEERCRED => peer_ids(socket.protocol().peer_ids()),
        SO_PEERSEC => return err(Errno::ENOPROTOOPT, "no security labels"),
        _ => Value::int(options.get(level, name)?),
    })
}

/// What the host's socket says, if it is the one to ask.
fn ask_host(socket: &Socket, level: u32, name: u32) -> Option<Result<Value>> {
    let host = socket.protocol().host_socket()?;
    let mut bytes = [0; VALUE_MAX];
    let size = forward::get(&host, level, name, &mut bytes)?;
    Some(size.map(|size| Value { bytes, size }))
}

/// `struct tcp_info` of a socket inside: its state, and what follows from there being no segments.
fn tcp_info(state: TcpState) -> Value {
    const SIZE: usize = 232;
    const SND_MSS: usize = 16;
    const RCV_MSS: usize = 20;
    const UNACKED: usize = 24;
    const SACKED: usize = 28;
    const PMTU: usize = 60;
    const ADVMSS: usize = 88;
    const MSS: u32 = 32_768;
    let mut bytes = [0; SIZE];
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(SND_MSS, MSS);
    put(RCV_MSS, MSS);
    put(PMTU, interface::MTU);
    put(ADVMSS, MSS);
    // TCP_ESTABLISHED, TCP_CLOSE, TCP_LISTEN
    bytes[0] = match state {
        TcpState::Established => 1,
        TcpState::Closed => 7,
        TcpState::Listening { waiting, limit } => {
            put(UNACKED, waiting);
            put(SACKED, limit);
            10
        }
    };
    Value::new(&bytes)
}

/// Levels a socket of this family knows.
fn check_level(socket: &Socket, level: u32) -> Result<()> {
    let common = socket.common();
    let is_stream = common.kind == Kind::Stream;
    match (common.domain, level) {
        (_, SOL_SOCKET) | (AF_NETLINK, SOL_NETLINK) => Ok(()),
        (AF_UNIX, _) => err(Errno::EOPNOTSUPP, "AF_UNIX has only SOL_SOCKET"),
        (AF_INET, SOL_IP) | (AF_INET6, SOL_IP | SOL_IPV6) => Ok(()),
        (AF_INET | AF_INET6, SOL_TCP) if is_stream => Ok(()),
        (AF_INET | AF_INET6, SOL_UDP) if !is_stream => Ok(()),
        _ => err(Errno::ENOPROTOOPT, "unknown option level"),
    }
}

fn int(raw: &[u8]) -> Result<i32> {
    match raw.first_chunk() {
        Some(bytes) => Ok(i32::from_le_bytes(*bytes)),
        None => err(Errno::EINVAL, "option value too short"),
    }
}

/// `struct timeval`; zero means no time-out, negative one no waiting at all.
fn timeout_ns(raw: &[u8]) -> Result<u64> {
    const SECOND_US: i64 = 1_000_000;
    let long = |at: usize| raw.get(at..).and_then(<[u8]>::first_chunk).map(|b| i64::from_le_bytes(*b));
    let (Some(s), Some(us)) = (long(0), long(8)) else {
        return err(Errno::EINVAL, "option value too short");
    };
    if !(0..SECOND_US).contains(&us) {
        return Err(Error::new(Errno::EDOM, "tv_usec"));
    }
    if s < 0 {
        // Over before it begins, but not "none".
        return Ok(1);
    }
    Ok((s as u64).saturating_mul(1_000_000_000).saturating_add(us as u64 * 1000))
}

fn timeval(ns: u64) -> Value {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(ns / 1_000_000_000).to_le_bytes());
    bytes[8..].copy_from_slice(&(ns % 1_000_000_000 / 1000).to_le_bytes());
    Value::new(&bytes)
}

fn linger(seconds: Option<u32>) -> Value {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&u32::from(seconds.is_some()).to_le_bytes());
    bytes[4..].copy_from_slice(&seconds.unwrap_or(0).to_le_bytes());
    Value::new(&bytes)
}

fn peer_ids(ids: Option<PeerIds>) -> Value {
    let ids = ids.unwrap_or(PeerIds { pid: 0, uid: u32::MAX, gid: u32::MAX });
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&ids.pid.to_le_bytes());
    bytes[4..8].copy_from_slice(&ids.uid.to_le_bytes());
    bytes[8..].copy_from_slice(&ids.gid.to_le_bytes());
    Value::new(&bytes)
}
