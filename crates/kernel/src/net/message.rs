//! What one send or receive carries besides its bytes.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::Address;
use super::mailbox::Arrival;
use super::outside::datagram::Origin;
use super::patience::Patience;
use super::rights::Rights;
use crate::process;

pub const MSG_OOB: u32 = 0x1;
pub const MSG_PEEK: u32 = 0x2;
pub const MSG_DONTROUTE: u32 = 0x4;
pub const MSG_CTRUNC: u32 = 0x8;
pub const MSG_TRUNC: u32 = 0x20;
pub const MSG_DONTWAIT: u32 = 0x40;
pub const MSG_EOR: u32 = 0x80;
pub const MSG_WAITALL: u32 = 0x100;
pub const MSG_ERRQUEUE: u32 = 0x2000;
pub const MSG_NOSIGNAL: u32 = 0x4000;
pub const MSG_MORE: u32 = 0x8000;
pub const MSG_WAITFORONE: u32 = 0x10000;
pub const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;

/// `struct ucred`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIds {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

impl PeerIds {
    /// What is shown for a sender that nobody asked for: no process, the overflow ids.
    pub const UNKNOWN: PeerIds = PeerIds { pid: 0, uid: 65534, gid: 65534 };

    /// Of the calling process.
    pub fn current() -> PeerIds {
        let Some(thread) = process::current() else { return PeerIds::UNKNOWN };
        let credentials = thread.credentials();
        PeerIds { pid: thread.process().pid(), uid: credentials.euid(), gid: credentials.egid() }
    }
}

/// What a sender wants.
pub struct Outgoing {
    pub to: Option<Address>,
    /// Open files that travel with the first byte (SCM_RIGHTS).
    pub rights: Rights,
    /// Said explicitly (SCM_CREDENTIALS).
    pub ids: Option<PeerIds>,
    /// From which of several addresses a datagram is sent (IP_PKTINFO).
    pub origin: Origin,
    pub flags: u32,
    pub patience: Patience,
}

impl Outgoing {
    pub fn plain(patience: Patience) -> Outgoing {
        let (rights, origin) = (Rights::default(), Origin::default());
        Outgoing { to: None, rights, ids: None, origin, flags: 0, patience }
    }
}

/// How to receive.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub flags: u32,
    pub patience: Patience,
    /// SO_PASSCRED is on.
    pub wants_ids: bool,
}

impl Wanted {
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// A control message: level, type and data.
pub struct Note {
    pub level: u32,
    pub kind: u32,
    pub data: Vec<u8>,
}

/// What came. The bytes are in the sink.
#[derive(Default)]
pub struct Incoming {
    pub from: Option<Address>,
    pub rights: Rights,
    pub ids: Option<PeerIds>,
    /// The local address a datagram was sent to, and how it came.
    pub to: Option<IpAddr>,
    pub arrival: Arrival,
    /// What the socket's options ask to be told about a datagram.
    pub notes: Vec<Note>,
    /// MSG_TRUNC, MSG_EOR.
    pub flags: u32,
    /// Bytes of the whole message; for a stream the bytes in the sink.
    pub size: usize,
}
