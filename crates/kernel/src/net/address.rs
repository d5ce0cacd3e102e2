//! Socket addresses, and their `struct sockaddr` forms.
//!
//! ```text
//! AF_UNIX    0 family(2)  2 path, or NUL and an abstract name (up to 108)
//! AF_INET    0 family(2)  2 port(2, big endian)  4 address(4)  8 zero(8)
//! AF_INET6   0 family(2)  2 port(2, big endian)  4 flow(4)  8 address(16)  24 scope(4)
//! AF_NETLINK 0 family(2)  2 pad(2)  4 port id(4)  8 groups(4)
//! ```

use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::error::{Errno, Result, err};

pub const AF_UNSPEC: u16 = 0;
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const AF_NETLINK: u16 = 16;

/// `sizeof(struct sockaddr_storage)`.
pub const ADDRESS_MAX: usize = 128;
const UNIX_PATH_MAX: usize = 108;

/// The bytes of a `struct sockaddr` and their count.
pub type Encoded = ([u8; ADDRESS_MAX], usize);

/// Where a socket is, or where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(UnixName),
    Inet(SocketAddr),
    Netlink { port_id: u32, groups: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixName {
    Unnamed,
    /// As it was given to bind(2), without NUL.
    Path(Arc<[u8]>),
    /// Without the leading NUL.
    Abstract(Arc<[u8]>),
}

/// The family field; EINVAL if there is none.
pub fn family(raw: &[u8]) -> Result<u16> {
    match raw {
        [low, high, ..] => Ok(u16::from_le_bytes([*low, *high])),
        _ => err(Errno::EINVAL, "no address family"),
    }
}

/// An AF_UNIX address with a name.
pub fn parse_unix(raw: &[u8]) -> Result<UnixName> {
    if raw.len() <= 2 || raw.len() > 2 + UNIX_PATH_MAX || family(raw)? != AF_UNIX {
        return err(Errno::EINVAL, "not an AF_UNIX address");
    }
    let name = &raw[2..];
    if name[0] == 0 {
        return Ok(UnixName::Abstract(name[1..].into()));
    }
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok(UnixName::Path(name[..end].into()))
}

/// An address of the socket's own family, AF_INET or AF_INET6.
pub fn parse_inet(raw: &[u8], own: u16) -> Result<SocketAddr> {
    let given = family(raw)?;
    let size = if own == AF_INET { 16 } else { 24 };
    if raw.len() < size {
        return err(Errno::EINVAL, "address too short");
    }
    if given != own {
        return err(Errno::EAFNOSUPPORT, "address of another family");
    }
    if own == AF_INET {
        return Ok(SocketAddr::V4(parse_v4(raw)));
    }
    let mut ip = [0; 16];
    ip.copy_from_slice(&raw[8..24]);
    let scope = raw.get(24..28).map_or(0, |s| u32::from_le_bytes([s[0], s[1], s[2], s[3]]));
    let flow = u32::from_be_bytes([raw[4], raw[5], raw[6], raw[7]]);
    Ok(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port(raw), flow, scope)))
}

fn parse_v4(raw: &[u8]) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(raw[4], raw[5], raw[6], raw[7]), port(raw))
}

fn port(raw: &[u8]) -> u16 {
    u16::from_be_bytes([raw[2], raw[3]])
}

impl Address {
    pub const UNNAMED: Address = Address::Unix(UnixName::Unnamed);

    /// As the program sees it.
    pub fn encode(&self) -> Encoded {
        let mut raw = [0; ADDRESS_MAX];
        let size = match self {
            Address::Unix(name) => encode_unix(name, &mut raw),
            Address::Inet(SocketAddr::V4(address)) => {
                raw[..2].copy_from_slice(&AF_INET.to_le_bytes());
                raw[2..4].copy_from_slice(&address.port().to_be_bytes());
                raw[4..8].copy_from_slice(&address.ip().octets());
                16
            }
            Address::Inet(SocketAddr::V6(address)) => {
                raw[..2].copy_from_slice(&AF_INET6.to_le_bytes());
                raw[2..4].copy_from_slice(&address.port().to_be_bytes());
                raw[4..8].copy_from_slice(&address.flowinfo().to_be_bytes());
                raw[8..24].copy_from_slice(&address.ip().octets());
                raw[24..28].copy_from_slice(&address.scope_id().to_le_bytes());
                28
            }
            Address::Netlink { port_id, groups } => {
                raw[..2].copy_from_slice(&AF_NETLINK.to_le_bytes());
                raw[4..8].copy_from_slice(&port_id.to_le_bytes());
                raw[8..12].copy_from_slice(&groups.to_le_bytes());
                12
            }
        };
        (raw, size)
    }
}

fn encode_unix(name: &UnixName, raw: &mut [u8; ADDRESS_MAX]) -> usize {
    raw[..2].copy_from_slice(&AF_UNIX.to_le_bytes());
    match name {
        UnixName::Unnamed => 2,
        UnixName::Path(path) => {
            raw[2..2 + path.len()].copy_from_slice(path);
            2 + path.len() + 1
        }
        UnixName::Abstract(name) => {
            raw[3..3 + name.len()].copy_from_slice(name);
            3 + name.len()
        }
    }
}

/// What an AF_INET6 socket calls an IPv4 address, and the other way round what is meant by such a name.
pub fn mapped(ip: Ipv4Addr) -> IpAddr {
    IpAddr::V6(ip.to_ipv6_mapped())
}
