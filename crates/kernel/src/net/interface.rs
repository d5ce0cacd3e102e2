//! The one network interface: `lo`, as ioctl (netdevice(7)) and netlink (rtnetlink(7)) show it.

use core::net::Ipv4Addr;

use crate::error::{Errno, Result, err};
use crate::user::{self, UserAddr};

pub const NAME: &[u8] = b"lo";
pub const INDEX: u32 = 1;
pub const MTU: u32 = 65_536;
pub const QUEUE_LEN: u32 = 1000;
/// IFF_UP, IFF_LOOPBACK, IFF_RUNNING.
pub const FLAGS: u32 = 0x49;
/// IFF_LOWER_UP, which only netlink shows.
pub const LOWER_UP: u32 = 1 << 16;
/// ARPHRD_LOOPBACK.
pub const HARDWARE: u16 = 772;
pub const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
pub const PREFIX_BITS: u8 = 8;

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
    if request == SIOCGIFNAME {
        if value[..4] != INDEX.to_le_bytes() {
            return err(Errno::ENODEV, "no such interface");
        }
        name.fill(0);
        name[..NAME.len()].copy_from_slice(NAME);
    } else if name.split(|&byte| byte == 0).next() == Some(NAME) {
        value.fill(0);
        answer(request, value)?;
    } else {
        return err(Errno::ENODEV, "no such interface");
    }
    user::write_bytes(arg, &entry)?;
    Ok(0)
}

fn answer(request: u32, value: &mut [u8]) -> Result<()> {
    match request {
        SIOCGIFFLAGS => value[..2].copy_from_slice(&(FLAGS as u16).to_le_bytes()),
        SIOCGIFADDR => put_address(value, ADDRESS),
        SIOCGIFBRDADDR => put_address(value, Ipv4Addr::UNSPECIFIED),
        SIOCGIFNETMASK => put_address(value, Ipv4Addr::new(255, 0, 0, 0)),
        SIOCGIFMETRIC => {}
        SIOCGIFMTU => value[..4].copy_from_slice(&MTU.to_le_bytes()),
        SIOCGIFHWADDR => value[..2].copy_from_slice(&HARDWARE.to_le_bytes()),
        SIOCGIFINDEX => value[..4].copy_from_slice(&INDEX.to_le_bytes()),
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
    let mut size = IFREQ_SIZE as i32;
    if !buffer.is_null() {
        if room < size {
            size = 0;
        } else {
            let mut entry = [0; IFREQ_SIZE];
            entry[..NAME.len()].copy_from_slice(NAME);
            put_address(&mut entry[NAME_SIZE..], ADDRESS);
            user::write_bytes(buffer, &entry)?;
        }
    }
    user::write(arg, &size)?;
    Ok(0)
}
