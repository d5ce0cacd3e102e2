//! System calls on sockets and interfaces that have no safe wrapper elsewhere.

use occlum_abi::ocall::{HostInterfaceAddress, SOCKET_ADDRESS_SIZE};
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;

/// The address in a `struct sockaddr_in` or `sockaddr_in6`.
pub fn parse_address(raw: &[u8]) -> Result<SocketAddr, Errno> {
    let word = |at: usize| {
        raw.get(at..at + 4)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
    };
    let head = word(0).ok_or(Errno::INVAL)?;
    let port = u16::from_be_bytes([head[2], head[3]]);
    match i32::from(u16::from_ne_bytes([head[0], head[1]])) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(word(4).ok_or(Errno::INVAL)?);
            Ok(SocketAddr::new(IpAddr::V4(ip), port))
        }
        libc::AF_INET6 => {
            let ip = raw
                .get(8..24)
                .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            let ip = Ipv6Addr::from(ip.ok_or(Errno::INVAL)?);
            let flow = u32::from_be_bytes(word(4).ok_or(Errno::INVAL)?);
            let scope = word(24).map_or(0, u32::from_ne_bytes);
            Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
        }
        _ => Err(Errno::AFNOSUPPORT),
    }
}

/// Such a structure, and its size.
pub fn encode_address(address: &SocketAddr) -> ([u8; SOCKET_ADDRESS_SIZE], u32) {
    let mut raw = [0; SOCKET_ADDRESS_SIZE];
    raw[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            raw[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            raw[4..8].copy_from_slice(&address.ip().octets());
            (raw, size_of::<libc::sockaddr_in>() as u32)
        }
        SocketAddr::V6(address) => {
            raw[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            raw[4..8].copy_from_slice(&address.flowinfo().to_be_bytes());
            raw[8..24].copy_from_slice(&address.ip().octets());
            raw[24..].copy_from_slice(&address.scope_id().to_ne_bytes());
            (raw, size_of::<libc::sockaddr_in6>() as u32)
        }
    }
}

/// setsockopt(2).
pub fn set_option(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    let (fd, size) = (socket.as_fd().as_raw_fd(), value.len() as libc::socklen_t);
    // SAFETY: reads no more than the value.
    check(unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), size) } as isize)?;
    Ok(())
}

/// getsockopt(2); gives the bytes of the value.
pub fn get_option(
    socket: impl AsFd,
    level: i32,
    name: i32,
    value: &mut [u8],
) -> Result<usize, Errno> {
    let mut size = value.len() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: writes no more than `size` bytes.
    let result =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut size) };
    check(result as isize)?;
    Ok(value.len().min(size as usize))
}

/// SIOCOUTQ.
pub fn unsent(socket: impl AsFd) -> Result<usize, Errno> {
    let mut count: libc::c_int = 0;
    // SAFETY: writes one int.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    check(result as isize)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// What is told about a datagram.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    pub local: Option<IpAddr>,
    pub interface: u32,
    pub hops: Option<i32>,
    pub traffic_class: Option<i32>,
    /// To be sent by IPv6.
    pub is_v6: bool,
}

pub struct Received {
    pub from: Option<SocketAddr>,
    /// Of the whole datagram.
    pub size: usize,
    pub flags: i32,
    pub control: Control,
}

/// Room for what `Control` tells, aligned as `struct cmsghdr` is.
type ControlBuffer = [u64; 32];
const CMSG_HEAD: usize = size_of::<libc::cmsghdr>();

/// sendmsg(2).
pub fn send_message(
    socket: impl AsFd,
    to: Option<SocketAddr>,
    data: &[u8],
    control: &Control,
    flags: i32,
) -> Result<usize, Errno> {
    let mut piece = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    let (mut name, name_size) = match &to {
        Some(to) => encode_address(to),
        None => ([0; SOCKET_ADDRESS_SIZE], 0),
    };
    let (mut buffer, control_size) = control_messages(control);
    let mut message = empty_message();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    if name_size > 0 {
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = name_size;
    }
    if control_size > 0 {
        message.msg_control = buffer.as_mut_ptr().cast();
        message.msg_controllen = control_size;
    }
    // SAFETY: every pointer in it is to a local or to `data`, with its size.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) };
    check(sent)
}

/// recvmsg(2).
pub fn receive_message(socket: impl AsFd, data: &mut [u8], flags: i32) -> Result<Received, Errno> {
    let mut piece = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    let mut name = [0u8; SOCKET_ADDRESS_SIZE];
    let mut buffer: ControlBuffer = [0; 32];
    let mut message = empty_message();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = name.len() as libc::socklen_t;
    message.msg_control = buffer.as_mut_ptr().cast();
    message.msg_controllen = size_of::<ControlBuffer>();
    // SAFETY: every pointer in it is to a local or to `data`, with its size.
    let size = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let size = check(size)?;
    let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(Received {
        from: parse_address(&name[..name.len().min(message.msg_namelen as usize)]).ok(),
        size,
        flags: message.msg_flags,
        control: parse_control(&bytes[..message.msg_controllen.min(bytes.len())]),
    })
}

fn empty_message() -> libc::msghdr {
    // SAFETY: numbers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// The control messages that say what `control` has.
fn control_messages(control: &Control) -> (ControlBuffer, usize) {
    let mut bytes = Vec::new();
    let mut add = |level: i32, kind: i32, data: &[u8]| {
        bytes.extend_from_slice(&(CMSG_HEAD + data.len()).to_ne_bytes());
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    };
    match control.local {
        None => {}
        Some(IpAddr::V4(ip)) => {
            let index = control.interface.to_ne_bytes();
            add(
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                &[index, ip.octets(), [0; 4]].concat(),
            );
        }
        Some(IpAddr::V6(ip)) => {
            let info = [&ip.octets()[..], &control.interface.to_ne_bytes()].concat();
            add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
    }
    let (level, hops, traffic_class) = match control.is_v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::IPV6_TCLASS),
        false => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS),
    };
    for (kind, value) in [(hops, control.hops), (traffic_class, control.traffic_class)] {
        if let Some(value) = value {
            add(level, kind, &value.to_ne_bytes());
        }
    }
    let mut buffer: ControlBuffer = [0; 32];
    for (word, chunk) in buffer.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*chunk);
    }
    (buffer, bytes.len())
}

fn parse_control(mut rest: &[u8]) -> Control {
    let mut control = Control::default();
    while let Some((head, _)) = rest.split_first_chunk::<CMSG_HEAD>() {
        let number =
            |at: usize| i32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let size = number(0).unsigned_abs() as usize;
        let Some(data) = rest.get(CMSG_HEAD..size) else {
            break;
        };
        take_control(&mut control, (number(8), number(12)), data);
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    control
}

fn take_control(control: &mut Control, kind: (i32, i32), data: &[u8]) {
    let int = data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    match kind {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) if data.len() >= 12 => {
            control.interface = int.unwrap_or(0).cast_unsigned();
            control.local = Some(IpAddr::V4(Ipv4Addr::new(
                data[8], data[9], data[10], data[11],
            )));
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if data.len() >= 20 => {
            let ip = data.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
            control.local = ip.map(IpAddr::V6);
            control.interface = u32::from_ne_bytes([data[16], data[17], data[18], data[19]]);
        }
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
            control.hops = int;
        }
        (libc::IPPROTO_IP, libc::IP_TOS) => {
            control.traffic_class = data.first().map(|&tos| tos.into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => control.traffic_class = int,
        _ => {}
    }
}

/// The addresses of this machine's interfaces, and one entry without address for each interface.
pub fn interface_addresses() -> Result<Vec<HostInterfaceAddress>, Errno> {
    let mut first = ptr::null_mut();
    // SAFETY: writes a list that is freed below.
    check(unsafe { libc::getifaddrs(&raw mut first) } as isize)?;
    let mut found = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: an entry of the list, valid until it is freed.
        let entry = unsafe { &*next };
        found.extend(interface_address(entry));
        next = entry.ifa_next;
    }
    // SAFETY: the list is used no more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

fn interface_address(entry: &libc::ifaddrs) -> Option<HostInterfaceAddress> {
    // SAFETY: a string of the list.
    let name = unsafe { CStr::from_ptr(entry.ifa_name) };
    let (address, netmask) = (raw_of(entry.ifa_addr)?, raw_of(entry.ifa_netmask));
    let mut found = HostInterfaceAddress {
        index: number_of(name, "ifindex")?,
        flags: entry.ifa_flags,
        mtu: number_of(name, "mtu")?,
        ..HostInterfaceAddress::default()
    };
    for (to, byte) in found.name.iter_mut().zip(name.to_bytes().iter().take(15)) {
        *to = *byte;
    }
    if address.family == libc::AF_PACKET {
        // struct sockaddr_ll: hardware type at 8, address at 12
        found.hardware = u16::from_ne_bytes([address.bytes[8], address.bytes[9]]);
        found
            .hardware_address
            .copy_from_slice(&address.bytes[12..18]);
        return Some(found);
    }
    let range = if address.family == libc::AF_INET {
        4..8
    } else {
        8..24
    };
    found.family = address.family as u16;
    found.address[..range.len()].copy_from_slice(&address.bytes[range.clone()]);
    let mask = netmask.map_or(0, |mask| {
        mask.bytes[range].iter().map(|byte| byte.count_ones()).sum()
    });
    found.prefix_bits = mask as u16;
    Some(found)
}

/// The bytes of an interface's `struct sockaddr`.
struct RawAddress {
    family: i32,
    bytes: [u8; SOCKET_ADDRESS_SIZE],
}

fn raw_of(address: *const libc::sockaddr) -> Option<RawAddress> {
    if address.is_null() {
        return None;
    }
    let mut bytes = [0; SOCKET_ADDRESS_SIZE];
    // SAFETY: every address has at least its family, and then the size of the family's structure, none
    // of which is larger than `bytes`.
    let family = unsafe {
        let family = i32::from((*address).sa_family);
        let size = match family {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
            libc::AF_PACKET => size_of::<libc::sockaddr_ll>(),
            _ => return None,
        };
        ptr::copy_nonoverlapping(address.cast(), bytes.as_mut_ptr(), size);
        family
    };
    Some(RawAddress { family, bytes })
}

/// What the system says of an interface.
fn number_of(interface: &CStr, what: &str) -> Option<u32> {
    let path = format!("/sys/class/net/{}/{what}", interface.to_str().ok()?);
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// ```text
/// 0 name(16)  16 index(4)  20 flags(4)  24 mtu(4)  28 family(2)  30 prefix bits(2)  32 address(16)
/// 48 hardware address(6)  54 hardware(2)
/// ```
pub fn interface_bytes(address: &HostInterfaceAddress) -> [u8; size_of::<HostInterfaceAddress>()] {
    let mut bytes = [0; size_of::<HostInterfaceAddress>()];
    bytes[..16].copy_from_slice(&address.name);
    bytes[16..20].copy_from_slice(&address.index.to_ne_bytes());
    bytes[20..24].copy_from_slice(&address.flags.to_ne_bytes());
    bytes[24..28].copy_from_slice(&address.mtu.to_ne_bytes());
    bytes[28..30].copy_from_slice(&address.family.to_ne_bytes());
    bytes[30..32].copy_from_slice(&address.prefix_bits.to_ne_bytes());
    bytes[32..48].copy_from_slice(&address.address);
    bytes[48..54].copy_from_slice(&address.hardware_address);
    bytes[54..].copy_from_slice(&address.hardware.to_ne_bytes());
    bytes
}

fn check(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| {
        let errno = std::io::Error::last_os_error().raw_os_error();
        Errno::from_raw_os_error(errno.unwrap_or(libc::EIO))
    })
}
