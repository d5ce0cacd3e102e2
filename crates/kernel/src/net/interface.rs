//! Network interfaces as ioctl (netdevice(7)) and netlink (rtnetlink(7)) show them: `lo`, which is the
//! enclave's own, and those of the host.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::outside::interfaces;
use crate::error::{Errno, Error, Result, err};
use crate::user::{self, UserAddr};

/// Of `lo`.
pub const NAME: &[u8] = b"lo";
pub const INDEX: u32 = 1;
pub const MTU: u32 = 65_536;
/// IFF_UP, IFF_LOOPBACK, IFF_RUNNING.
const LOOPBACK_FLAGS: u32 = 0x49;
/// ARPHRD_LOOPBACK.
const LOOPBACK_HARDWARE: u16 = 772;

pub const QUEUE_LEN: u32 = 1000;
/// IFF_LOWER_UP, which only netlink shows.
pub const LOWER_UP: u32 = 1 << 16;

#[derive(Clone, Debug)]
pub struct Interface {
    /// At most 15 bytes.
    pub name: Vec<u8>,
    pub index: u32,
    pub flags: u32,
    pub mtu: u32,
    /// ARPHRD_*.
    pub hardware: u16,
    pub hardware_address: [u8; 6],
    /// With the bits of their networks.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// The first IPv4 address.
    fn v4(&self) -> Option<(Ipv4Addr, u8)> {
        self.addresses.iter().find_map(|&(ip, bits)| match ip {
            IpAddr::V4(ip) => Some((ip, bits)),
            IpAddr::V6(_) => None,
        })
    }

    pub fn is_loopback(&self) -> bool {
        self.index == INDEX
    }
}

pub fn loopback() -> Interface {
    Interface {
        name: NAME.to_vec(),
        index: INDEX,
        flags: LOOPBACK_FLAGS,
        mtu: MTU,
        hardware: LOOPBACK_HARDWARE,
        hardware_address: [0; 6],
        addresses: vec![
            (IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
            (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ],
    }
}

/// The highest address of the network.
pub fn broadcast(ip: Ipv4Addr, bits: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(ip) | !netmask(bits))
}

fn netmask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;

/// `struct ifreq`: a name of up to 16 bytes, then what the request asks for.
const IFREQ_SIZE: usize = 40;
const NAME_SIZE: usize = 16;

/// Requests about interfaces; ENOTTY for others.
pub fn ioctl(request: u32, arg: UserAddr) -> Result<usize> {
    if request == SIOCGIFCONF {
        return list(arg);
    }
    let mut entry = [0; IFREQ_SIZE];
    let is_known = matches!(
        request,
        SIOCGIFNAME | SIOCGIFFLAGS..=SIOCGIFADDR | SIOCGIFBRDADDR | SIOCGIFNETMASK | SIOCGIFMETRIC
            | SIOCGIFMTU | SIOCGIFHWADDR | SIOCGIFINDEX | SIOCGIFTXQLEN
    );
    if !is_known {
        return err(Errno::ENOTTY, "no such socket request");
    }
    user::read_bytes(arg, &mut entry)?;
    let (name, value) = entry.split_at_mut(NAME_SIZE);
    let all = interfaces::all();
    let none = Error::new(Errno::ENODEV, "no such interface");
    if request == SIOCGIFNAME {
        let found = all.iter().find(|interface| value[..4] == interface.index.to_le_bytes()).ok_or(none)?;
        name.fill(0);
        name[..found.name.len()].copy_from_slice(&found.name);
    } else {
        let wanted = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let found = all.iter().find(|interface| interface.name == wanted).ok_or(none)?;
        value.fill(0);
        answer(request, found, value)?;
    }
    user::write_bytes(arg, &entry)?;
    Ok(0)
}

fn answer(request: u32, interface: &Interface, value: &mut [u8]) -> Result<()> {
    let v4 = || interface.v4().ok_or(Error::new(Errno::EADDRNOTAVAIL, "an interface without address"));
    match request {
        SIOCGIFFLAGS => value[..2].copy_from_slice(&(interface.flags as u16).to_le_bytes()),
        SIOCGIFADDR => put_address(value, v4()?.0),
        SIOCGIFBRDADDR if interface.is_loopback() => put_address(value, Ipv4Addr::UNSPECIFIED),
        SIOCGIFBRDADDR => {
            let (ip, bits) = v4()?;
            put_address(value, broadcast(ip, bits));
        }
        SIOCGIFNETMASK => put_address(value, Ipv4Addr::from(netmask(v4()?.1))),
        SIOCGIFMETRIC => {}
        SIOCGIFMTU => value[..4].copy_from_slice(&interface.mtu.to_le_bytes()),
        SIOCGIFHWADDR => {
            value[..2].copy_from_slice(&interface.hardware.to_le_bytes());
            value[2..8].copy_from_slice(&interface.hardware_address);
        }
        SIOCGIFINDEX => value[..4].copy_from_slice(&interface.index.to_le_bytes()),
        SIOCGIFTXQLEN => value[..4].copy_from_slice(&QUEUE_LEN.to_le_bytes()),
        _ => return err(Errno::ENOTTY, "no such socket request"),
    }
    Ok(())
}

/// A `struct sockaddr_in` without port.
fn put_address(value: &mut [u8], address: Ipv4Addr) {
    value[..2].copy_from_slice(&super::address::AF_INET.to_le_bytes());
    value[4..8].copy_from_slice(&address.octets());
}

/// SIOCGIFCONF: `struct ifconf { int size; char *buffer }`. Without buffer it tells the size.
fn list(arg: UserAddr) -> Result<usize> {
    let room = user::read::<i32>(arg)?;
    let buffer = UserAddr(user::read::<usize>(arg.offset(8))?);
    let all = interfaces::all();
    let with_address = all.iter().filter_map(|interface| Some((&interface.name, interface.v4()?.0)));
    let mut size = 0;
    for (name, address) in with_address {
        let fits = usize::try_from(room).is_ok_and(|room| size + IFREQ_SIZE <= room);
        if !buffer.is_null() && !fits {
            break;
        }
        if !buffer.is_null() {
            let mut entry = [0; IFREQ_SIZE];
            entry[..name.len()].copy_from_slice(name);
            put_address(&mut entry[NAME_SIZE..], address);
            user::write_bytes(buffer.offset(size), &entry)?;
        }
        size += IFREQ_SIZE;
    }
    user::write(arg, &(size as i32))?;
    Ok(0)
}
