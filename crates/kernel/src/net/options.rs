//! Socket options: what acts, and what is only remembered for programs that set and read it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::error::{Errno, Result, err};
use crate::sched::SpinLock;

pub const SOL_IP: u32 = 0;
pub const SOL_SOCKET: u32 = 1;
pub const SOL_TCP: u32 = 6;
pub const SOL_UDP: u32 = 17;
pub const SOL_IPV6: u32 = 41;
pub const SOL_NETLINK: u32 = 270;

pub const SO_DEBUG: u32 = 1;
pub const SO_REUSEADDR: u32 = 2;
pub const SO_TYPE: u32 = 3;
pub const SO_ERROR: u32 = 4;
pub const SO_DONTROUTE: u32 = 5;
pub const SO_BROADCAST: u32 = 6;
pub const SO_SNDBUF: u32 = 7;
pub const SO_RCVBUF: u32 = 8;
pub const SO_KEEPALIVE: u32 = 9;
pub const SO_OOBINLINE: u32 = 10;
pub const SO_PRIORITY: u32 = 12;
pub const SO_LINGER: u32 = 13;
pub const SO_REUSEPORT: u32 = 15;
pub const SO_PASSCRED: u32 = 16;
pub const SO_PEERCRED: u32 = 17;
pub const SO_RCVLOWAT: u32 = 18;
pub const SO_SNDLOWAT: u32 = 19;
pub const SO_RCVTIMEO: u32 = 20;
pub const SO_SNDTIMEO: u32 = 21;
pub const SO_BINDTODEVICE: u32 = 25;
pub const SO_TIMESTAMP: u32 = 29;
pub const SO_ACCEPTCONN: u32 = 30;
pub const SO_PEERSEC: u32 = 31;
pub const SO_SNDBUFFORCE: u32 = 32;
pub const SO_RCVBUFFORCE: u32 = 33;
pub const SO_TIMESTAMPNS: u32 = 35;
pub const SO_MARK: u32 = 36;
pub const SO_PROTOCOL: u32 = 38;
pub const SO_DOMAIN: u32 = 39;
pub const SO_BUSY_POLL: u32 = 46;
pub const SO_INCOMING_CPU: u32 = 49;
pub const SO_INCOMING_NAPI_ID: u32 = 56;
pub const SO_COOKIE: u32 = 57;
pub const SO_RCVTIMEO_NEW: u32 = 66;
pub const SO_SNDTIMEO_NEW: u32 = 67;

pub const TCP_MAXSEG: u32 = 2;
pub const TCP_INFO: u32 = 11;
pub const TCP_CONGESTION: u32 = 13;
pub const TCP_FASTOPEN: u32 = 23;

pub const IP_TOS: u32 = 1;
pub const IP_TTL: u32 = 2;
pub const IP_PKTINFO: u32 = 8;
pub const IP_MTU_DISCOVER: u32 = 10;
pub const IP_RECVTTL: u32 = 12;
pub const IP_RECVTOS: u32 = 13;
pub const IP_MTU: u32 = 14;
pub const IP_BIND_ADDRESS_NO_PORT: u32 = 24;
pub const IP_MULTICAST_IF: u32 = 32;
pub const IP_MULTICAST_TTL: u32 = 33;
pub const IP_MULTICAST_LOOP: u32 = 34;
pub const IP_ADD_MEMBERSHIP: u32 = 35;
pub const IP_DROP_MEMBERSHIP: u32 = 36;
pub const IPV6_UNICAST_HOPS: u32 = 16;
pub const IPV6_MULTICAST_IF: u32 = 17;
pub const IPV6_MULTICAST_HOPS: u32 = 18;
pub const IPV6_MULTICAST_LOOP: u32 = 19;
pub const IPV6_ADD_MEMBERSHIP: u32 = 20;
pub const IPV6_DROP_MEMBERSHIP: u32 = 21;
pub const IPV6_MTU_DISCOVER: u32 = 23;
pub const IPV6_MTU: u32 = 24;
pub const IPV6_V6ONLY: u32 = 26;
pub const IPV6_RECVPKTINFO: u32 = 49;
pub const IPV6_PKTINFO: u32 = 50;
pub const IPV6_RECVHOPLIMIT: u32 = 51;
pub const IPV6_HOPLIMIT: u32 = 52;
pub const IPV6_RECVTCLASS: u32 = 66;
pub const IPV6_TCLASS: u32 = 67;

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    Off,
    On,
}

impl Switch {
    pub fn when(is_on: bool) -> Switch {
        if is_on { Switch::On } else { Switch::Off }
    }
}

/// `net.core.wmem_default`, `rmem_default` and their maxima.
pub const BUFFER_DEFAULT: usize = 212_992;
const BUFFER_MAX: usize = 212_992;
const SEND_BUFFER_MIN: usize = 4608;
const RECEIVE_BUFFER_MIN: usize = 2304;
const TCP_SEND_BUFFER: usize = 16_384;
const TCP_RECEIVE_BUFFER: usize = 131_072;

/// What a remembered option may be.
#[derive(Clone, Copy)]
enum Kind {
    /// 0 or 1.
    Switch,
    Number { min: i32, max: i32 },
}

const ANY: Kind = Kind::Number { min: i32::MIN, max: i32::MAX };
const POSITIVE: Kind = Kind::Number { min: 1, max: 32_767 };

/// (level, name, default, kind) of options whose value this kernel does not act on (or reads itself
/// where it does), because inside the enclave nothing depends on it.
const REMEMBERED: &[(u32, u32, i32, Kind)] = &[
    (SOL_SOCKET, SO_DEBUG, 0, Kind::Switch),
    (SOL_SOCKET, SO_REUSEADDR, 0, Kind::Switch),
    (SOL_SOCKET, SO_REUSEPORT, 0, Kind::Switch),
    (SOL_SOCKET, SO_DONTROUTE, 0, Kind::Switch),
    (SOL_SOCKET, SO_BROADCAST, 0, Kind::Switch),
    (SOL_SOCKET, SO_KEEPALIVE, 0, Kind::Switch),
    (SOL_SOCKET, SO_OOBINLINE, 0, Kind::Switch),
    (SOL_SOCKET, SO_PRIORITY, 0, ANY),
    (SOL_SOCKET, SO_PASSCRED, 0, Kind::Switch),
    (SOL_SOCKET, 11, 0, Kind::Switch), // SO_NO_CHECK
    (SOL_SOCKET, SO_TIMESTAMP, 0, Kind::Switch),
    (SOL_SOCKET, SO_TIMESTAMPNS, 0, Kind::Switch),
    (SOL_SOCKET, SO_MARK, 0, ANY),
    (SOL_SOCKET, 40, 0, Kind::Switch), // SO_RXQ_OVFL
    (SOL_SOCKET, SO_BUSY_POLL, 0, ANY),
    (SOL_SOCKET, 47, -1, ANY),         // SO_MAX_PACING_RATE
    (SOL_SOCKET, SO_INCOMING_CPU, 0, ANY),
    (SOL_SOCKET, 69, 0, Kind::Switch), // SO_PREFER_BUSY_POLL
    (SOL_SOCKET, 70, 8, ANY),          // SO_BUSY_POLL_BUDGET
    (SOL_TCP, 1, 0, Kind::Switch),     // TCP_NODELAY
    (SOL_TCP, TCP_MAXSEG, 32_768, ANY),
    (SOL_TCP, 3, 0, Kind::Switch),     // TCP_CORK
    (SOL_TCP, 4, 7200, POSITIVE),      // TCP_KEEPIDLE
    (SOL_TCP, 5, 75, POSITIVE),        // TCP_KEEPINTVL
    (SOL_TCP, 6, 9, Kind::Number { min: 1, max: 127 }), // TCP_KEEPCNT
    (SOL_TCP, 7, 6, ANY),              // TCP_SYNCNT
    (SOL_TCP, 8, 60, ANY),             // TCP_LINGER2
    (SOL_TCP, 9, 0, ANY),              // TCP_DEFER_ACCEPT
    (SOL_TCP, 10, 0, ANY),             // TCP_WINDOW_CLAMP
    (SOL_TCP, 12, 1, ANY),             // TCP_QUICKACK
    (SOL_TCP, 16, 0, Kind::Switch),    // TCP_THIN_LINEAR_TIMEOUTS
    (SOL_TCP, 17, 0, Kind::Switch),    // TCP_THIN_DUPACK
    (SOL_TCP, 18, 0, Kind::Number { min: 0, max: i32::MAX }), // TCP_USER_TIMEOUT
    (SOL_TCP, TCP_FASTOPEN, 0, ANY),
    (SOL_TCP, 25, 0, ANY),             // TCP_NOTSENT_LOWAT
    (SOL_TCP, 30, 0, Kind::Switch),    // TCP_FASTOPEN_CONNECT
    (SOL_TCP, 34, 0, Kind::Switch),    // TCP_FASTOPEN_NO_COOKIE
    (SOL_IP, IP_TOS, 0, ANY),
    (SOL_IP, IP_TTL, 64, ANY),
    (SOL_IP, IP_PKTINFO, 0, Kind::Switch),
    (SOL_IP, IP_MTU_DISCOVER, 1, ANY),
    (SOL_IP, 11, 0, Kind::Switch),     // IP_RECVERR
    (SOL_IP, IP_RECVTTL, 0, Kind::Switch),
    (SOL_IP, IP_RECVTOS, 0, Kind::Switch),
    (SOL_IP, 15, 0, Kind::Switch),     // IP_FREEBIND
    (SOL_IP, IP_BIND_ADDRESS_NO_PORT, 0, Kind::Switch),
    (SOL_IP, IP_MULTICAST_IF, 0, ANY),
    (SOL_IP, IP_MULTICAST_TTL, 1, ANY),
    (SOL_IP, IP_MULTICAST_LOOP, 1, Kind::Switch),
    (SOL_IP, 49, 1, Kind::Switch),     // IP_MULTICAST_ALL
    (SOL_IPV6, IPV6_UNICAST_HOPS, 64, ANY),
    (SOL_IPV6, IPV6_MULTICAST_IF, 0, ANY),
    (SOL_IPV6, IPV6_MULTICAST_HOPS, 1, ANY),
    (SOL_IPV6, IPV6_MULTICAST_LOOP, 1, Kind::Switch),
    (SOL_IPV6, IPV6_MTU_DISCOVER, 1, ANY),
    (SOL_IPV6, 72, 0, ANY),            // IPV6_ADDR_PREFERENCES
    (SOL_IPV6, 78, 0, Kind::Switch),   // IPV6_FREEBIND
    (SOL_IPV6, 25, 0, Kind::Switch),   // IPV6_RECVERR
    (SOL_IPV6, IPV6_V6ONLY, 0, Kind::Switch),
    (SOL_IPV6, IPV6_RECVPKTINFO, 0, Kind::Switch),
    (SOL_IPV6, IPV6_RECVHOPLIMIT, 0, Kind::Switch),
    (SOL_IPV6, IPV6_RECVTCLASS, 0, Kind::Switch),
    (SOL_IPV6, IPV6_TCLASS, 0, ANY),
];

/// The options of one socket.
pub struct Options {
    /// Nanoseconds; 0 for none.
    pub receive_timeout_ns: AtomicU64,
    pub send_timeout_ns: AtomicU64,
    /// As read back: twice what was set.
    pub send_buffer: AtomicUsize,
    pub receive_buffer: AtomicUsize,
    pub receive_low_water: AtomicU32,
    /// SO_LINGER's seconds; `None` if off.
    pub linger: SpinLock<Option<u32>>,
    /// TCP_CONGESTION.
    pub congestion: SpinLock<[u8; CONGESTION_MAX]>,
    /// SO_BINDTODEVICE; empty for none.
    pub device: SpinLock<Vec<u8>>,
    /// SO_SNDBUF and SO_RCVBUF as they were set.
    asked_buffers: SpinLock<[Option<i32>; 2]>,
    values: SpinLock<BTreeMap<(u32, u32), i32>>,
}

/// TCP_CA_NAME_MAX.
pub const CONGESTION_MAX: usize = 16;
/// The default of TCP_CONGESTION.
pub const CUBIC: [u8; CONGESTION_MAX] = *b"cubic\0\0\0\0\0\0\0\0\0\0\0";

impl Options {
    pub fn new() -> Options {
        Options::with_buffers(BUFFER_DEFAULT, BUFFER_DEFAULT)
    }

    pub fn for_tcp() -> Options {
        Options::with_buffers(TCP_SEND_BUFFER, TCP_RECEIVE_BUFFER)
    }

    fn with_buffers(send: usize, receive: usize) -> Options {
        Options {
            receive_timeout_ns: AtomicU64::new(0),
            send_timeout_ns: AtomicU64::new(0),
            send_buffer: AtomicUsize::new(send),
            receive_buffer: AtomicUsize::new(receive),
            receive_low_water: AtomicU32::new(1),
            linger: SpinLock::new(None),
            congestion: SpinLock::new(CUBIC),
            device: SpinLock::new(Vec::new()),
            asked_buffers: SpinLock::new([None; 2]),
            values: SpinLock::new(BTreeMap::new()),
        }
    }

    /// What an accepted connection has from its listener.
    pub fn copy(&self) -> Options {
        let of = |value: &AtomicUsize| AtomicUsize::new(value.load(Ordering::Relaxed));
        let time = |value: &AtomicU64| AtomicU64::new(value.load(Ordering::Relaxed));
        Options {
            receive_timeout_ns: time(&self.receive_timeout_ns),
            send_timeout_ns: time(&self.send_timeout_ns),
            send_buffer: of(&self.send_buffer),
            receive_buffer: of(&self.receive_buffer),
            receive_low_water: AtomicU32::new(self.receive_low_water.load(Ordering::Relaxed)),
            linger: SpinLock::new(*self.linger.lock()),
            congestion: SpinLock::new(*self.congestion.lock()),
            device: SpinLock::new(self.device.lock().clone()),
            asked_buffers: SpinLock::new(*self.asked_buffers.lock()),
            values: SpinLock::new(self.values.lock().clone()),
        }
    }

    /// SO_SNDBUF: doubled, within limits.
    pub fn set_send_buffer(&self, size: i32) {
        self.asked_buffers.lock()[0] = Some(size);
        self.send_buffer.store(doubled(size, SEND_BUFFER_MIN), Ordering::Relaxed);
    }

    pub fn set_receive_buffer(&self, size: i32) {
        self.asked_buffers.lock()[1] = Some(size);
        self.receive_buffer.store(doubled(size, RECEIVE_BUFFER_MIN), Ordering::Relaxed);
    }

    pub fn send_buffer(&self) -> usize {
        self.send_buffer.load(Ordering::Relaxed)
    }

    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer.load(Ordering::Relaxed)
    }

    /// A remembered option; ENOPROTOOPT.
    pub fn get(&self, level: u32, name: u32) -> Result<i32> {
        let (default, _) = find(level, name)?;
        Ok(self.values.lock().get(&(level, name)).copied().unwrap_or(default))
    }

    /// Sets a remembered option; ENOPROTOOPT, EINVAL.
    pub fn set(&self, level: u32, name: u32, value: i32) -> Result<()> {
        let (_, kind) = find(level, name)?;
        let value = match kind {
            Kind::Switch => i32::from(value != 0),
            Kind::Number { min, max } if (min..=max).contains(&value) => value,
            Kind::Number { .. } => return err(Errno::EINVAL, "option value out of range"),
        };
        self.values.lock().insert((level, name), value);
        Ok(())
    }

    /// The remembered options that were set.
    pub fn set_values(&self) -> Vec<((u32, u32), i32)> {
        self.values.lock().iter().map(|(&key, &value)| (key, value)).collect()
    }

    /// The buffer sizes that were set: option and value.
    pub fn set_buffers(&self) -> impl Iterator<Item = (u32, i32)> {
        let [send, receive] = *self.asked_buffers.lock();
        let send = send.map(|size| (SO_SNDBUF, size));
        send.into_iter().chain(receive.map(|size| (SO_RCVBUF, size)))
    }

    /// Whether the program has set any remembered option: most have not, and need no look-ups.
    pub fn has_values(&self) -> bool {
        !self.values.lock().is_empty()
    }

    /// Whether a remembered switch is on.
    pub fn is_on(&self, level: u32, name: u32) -> bool {
        self.values.lock().get(&(level, name)).is_some_and(|&value| value != 0)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

fn doubled(size: i32, min: usize) -> usize {
    // As Linux: the number is taken as unsigned before it is cut.
    let size = (size as u32 as usize).min(BUFFER_MAX);
    (size * 2).max(min)
}

fn find(level: u32, name: u32) -> Result<(i32, Kind)> {
    let row = REMEMBERED.iter().find(|row| row.0 == level && row.1 == name);
    match row {
        Some(&(_, _, default, kind)) => Ok((default, kind)),
        None => err(Errno::ENOPROTOOPT, "unknown socket option"),
    }
}
