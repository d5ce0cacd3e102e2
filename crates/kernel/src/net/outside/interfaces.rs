//! The host's network interfaces, as it tells of them. Nothing depends on them but what programs print and
//! which addresses they choose.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use occlum_abi::ocall::{HostInterfaceAddress, Ocall};
use occlum_enclave::host;

use super::policy;
use crate::fs::hostcall::{checked, copy_in};
use crate::net::address::{AF_INET, AF_INET6};
use crate::net::interface::{self, Interface};

const ENTRY_SIZE: usize = size_of::<HostInterfaceAddress>();
/// Entries that are looked at.
const MOST: usize = 256;
const IFF_LOOPBACK: u32 = 8;

/// `lo`, and what else the host has.
pub fn all() -> Vec<Interface> {
    let mut all = alloc::vec![interface::loopback()];
    if !policy::has_outside() {
        return all;
    }
    let mut raw = alloc::vec![0; MOST * ENTRY_SIZE];
    let staging = host::staging();
    let room = raw.len().min(staging.size());
    let size = checked(Ocall::Interfaces, [staging.addr(), room as u64, 0, 0, 0], room).unwrap_or(0);
    copy_in(Ocall::Interfaces, &staging, &mut raw[..size]);
    for entry in raw[..size].as_chunks::<ENTRY_SIZE>().0 {
        take(&mut all, entry);
    }
    all
}

/// ```text
/// 0 name(16)  16 index(4)  20 flags(4)  24 mtu(4)  28 family(2)  30 prefix bits(2)  32 address(16)
/// 48 hardware address(6)  54 hardware(2)
/// ```
/// What makes no sense is left out.
fn take(all: &mut Vec<Interface>, raw: &[u8; ENTRY_SIZE]) {
    let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
    let name: Vec<u8> = raw[..16].iter().copied().take_while(|&byte| byte != 0).collect();
    let is_name = |&byte: &u8| byte.is_ascii_graphic() && byte != b'/';
    let is_sound = !name.is_empty() && name.len() < 16 && name.iter().all(is_name);
    let (index, flags) = (word(16), word(20));
    if !is_sound || flags & IFF_LOOPBACK != 0 || index <= interface::INDEX || name == interface::NAME {
        return;
    }
    let at = match all.iter().position(|known| known.index == index) {
        Some(at) if all[at].name == name => at,
        Some(_) => return,
        None => {
            all.push(Interface {
                name,
                index,
                flags: flags & 0xffff,
                mtu: word(24),
                hardware: 1,
                hardware_address: [0; 6],
                addresses: Vec::new(),
            });
            all.len() - 1
        }
    };
    let address = match half(28) {
        0 => {
            all[at].hardware = half(54);
            all[at].hardware_address.copy_from_slice(&raw[48..54]);
            return;
        }
        AF_INET => IpAddr::V4(Ipv4Addr::new(raw[32], raw[33], raw[34], raw[35])),
        AF_INET6 => {
            let bytes = raw[32..48].first_chunk::<16>().copied().unwrap_or_default();
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return,
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    all[at].addresses.push((address, half(30).min(most) as u8));
}
