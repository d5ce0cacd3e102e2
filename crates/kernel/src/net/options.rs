//! Socket options: what acts, and what is only remembered for programs that set and read it.

use alloc::collections::BTreeMap;
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
pub const SO_ACCEPTCONN: u32 = 30;
pub const SO_PEERSEC: u32 = 31;
pub const SO_SNDBUFFORCE: u32 = 32;
pub const SO_RCVBUFFORCE: u32 = 33;
pub const SO_PROTOCOL: u32 = 38;
pub const SO_DOMAIN: u32 = 39;
pub const SO_RCVTIMEO_NEW: u32 = 66;
pub const SO_SNDTIMEO_NEW: u32 = 67;

pub const IP_TOS: u32 = 1;
pub const IP_TTL: u32 = 2;
pub const IP_PKTINFO: u32 = 8;
pub const IP_RECVTTL: u32 = 12;
pub const IP_RECVTOS: u32 = 13;
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
    (SOL_SOCKET, 36, 0, ANY),          // SO_MARK
    (SOL_SOCKET, 46, 0, ANY),          // SO_BUSY_POLL
    (SOL_TCP, 1, 0, Kind::Switch),     // TCP_NODELAY
    (SOL_TCP, 2, 32_768, ANY),         // TCP_MAXSEG
    (SOL_TCP, 3, 0, Kind::Switch),     // TCP_CORK
    (SOL_TCP, 4, 7200, POSITIVE),      // TCP_KEEPIDLE
    (SOL_TCP, 5, 75, POSITIVE),        // TCP_KEEPINTVL
    (SOL_TCP, 6, 9, Kind::Number { min: 1, max: 127 }), // TCP_KEEPCNT
    (SOL_TCP, 7, 6, ANY),              // TCP_SYNCNT
    (SOL_TCP, 8, 60, ANY),             // TCP_LINGER2
    (SOL_TCP, 9, 0, ANY),              // TCP_DEFER_ACCEPT
    (SOL_TCP, 12, 1, ANY),             // TCP_QUICKACK
    (SOL_TCP, 18, 0, Kind::Number { min: 0, max: i32::MAX }), // TCP_USER_TIMEOUT
    (SOL_TCP, 23, 0, ANY),             // TCP_FASTOPEN
    (SOL_TCP, 25, 0, ANY),             // TCP_NOTSENT_LOWAT
    (SOL_IP, IP_TOS, 0, ANY),
    (SOL_IP, IP_TTL, 64, ANY),
    (SOL_IP, IP_PKTINFO, 0, Kind::Switch),
    (SOL_IP, 10, 1, ANY),              // IP_MTU_DISCOVER
    (SOL_IP, 11, 0, Kind::Switch),     // IP_RECVERR
    (SOL_IP, IP_RECVTTL, 0, Kind::Switch),
    (SOL_IP, IP_RECVTOS, 0, Kind::Switch),
    (SOL_IP, 15, 0, Kind::Switch),     // IP_FREEBIND
    (SOL_IP, 24, 0, Kind::Switch),     // IP_BIND_ADDRESS_NO_PORT
    (SOL_IP, 33, 1, ANY),              // IP_MULTICAST_TTL
    (SOL_IP, 34, 1, Kind::Switch),     // IP_MULTICAST_LOOP
    (SOL_IPV6, 16, 64, ANY),           // IPV6_UNICAST_HOPS
    (SOL_IPV6, 18, 1, ANY),            // IPV6_MULTICAST_HOPS
    (SOL_IPV6, 23, 1, ANY),            // IPV6_MTU_DISCOVER
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
    values: SpinLock<BTreeMap<(u32, u32), i32>>,
}

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
            values: SpinLock::new(self.values.lock().clone()),
        }
    }

    /// SO_SNDBUF: doubled, within limits.
    pub fn set_send_buffer(&self, size: i32) {
        self.send_buffer.store(doubled(size, SEND_BUFFER_MIN), Ordering::Relaxed);
    }

    pub fn set_receive_buffer(&self, size: i32) {
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
