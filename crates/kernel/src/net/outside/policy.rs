//! Which addresses are inside, and which are the host's: the `network` section of Occlum.json.

use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_abi::boot::{Network, PublishedPorts};
use occlum_enclave::log;
use spin::Once;

use crate::error::{Errno, Result, err};

static NETWORK: Once<Network> = Once::new();

/// Takes the measured configuration, once.
pub fn configure(network: Network) {
    NETWORK.call_once(|| network);
}

/// Where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Inside,
    Outside,
}

/// From where a socket bound to an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Inside,
    Outside,
    Both,
}

/// Whether the enclave talks to the host's network at all.
pub fn has_outside() -> bool {
    NETWORK.get().is_some_and(|network| network.outside)
}

fn has_own_loopback() -> bool {
    NETWORK.get().is_none_or(|network| !network.host_loopback)
}

fn is_published(port: u16) -> bool {
    match NETWORK.get().map(|network| &network.publish) {
        Some(PublishedPorts::All) => true,
        Some(PublishedPorts::These(ports)) => ports.contains(&port),
        None => false,
    }
}

/// From where `address` is reached. EADDRNOTAVAIL for addresses the enclave has not.
pub fn reach(address: SocketAddr) -> Result<Reach> {
    let ip = address.ip();
    let is_local = ip.is_loopback() || ip.is_unspecified();
    if !has_outside() {
        return match is_local {
            true => Ok(Reach::Inside),
            false => err(Errno::EADDRNOTAVAIL, "not an address of the enclave"),
        };
    }
    Ok(match (is_local, has_own_loopback()) {
        (false, _) | (true, false) => Reach::Outside,
        (true, true) if ip.is_unspecified() || is_published(address.port()) => Reach::Both,
        (true, true) => Reach::Inside,
    })
}

/// Where a connection or datagram to `ip` goes; ENETUNREACH.
pub fn side(ip: IpAddr) -> Result<Side> {
    let is_local = ip.is_loopback() || ip.is_unspecified();
    if is_local && has_own_loopback() {
        return Ok(Side::Inside);
    }
    if has_outside() {
        return Ok(Side::Outside);
    }
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !IS_TOLD.swap(true, Ordering::Relaxed) {
        log!(Warn, "a program wants to reach {ip}: the configuration allows loopback only (ENETUNREACH)");
    }
    err(Errno::ENETUNREACH, "only loopback is reachable")
}
