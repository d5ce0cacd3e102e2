//! Sockets. What programs of the enclave exchange over loopback stays inside.
//!
//! ```text
//! OpenFile -> Socket { Common (type, options), Protocol }
//!                                   |
//!        unix::stream  unix::datagram  inet::tcp  inet::udp  netlink
//!              |              |            |          |         |
//!           stream         mailbox       stream    mailbox   mailbox
//! ```
//! - [`socket`]: [`Socket`], what descriptors refer to, and [`Protocol`], what differs between families
//! - [`stream`]: bytes between two ends; [`mailbox`], [`packets`]: whole messages;
//!   [`backlog`]: waiting connections; [`rights`]: open files on their way
//! - [`unix`]: AF_UNIX; [`inet`]: AF_INET and AF_INET6; [`outside`]: what of them is the host's;
//!   [`netlink`]: who asks for interfaces
//! - [`address`], [`options`], [`message`], [`patience`]: what calls say
//! - [`interface`]: the interfaces, `lo` first
//!
//! Lock order: the tables of names and ports, then a socket's own state, then a lane's or mailbox's lock.
//! Readiness lists are notified and open files are dropped without any of them.

pub mod address;
pub mod backlog;
pub mod inet;
pub mod interface;
pub mod mailbox;
pub mod message;
pub mod netlink;
pub mod option_calls;
pub mod options;
pub mod outside;
pub mod packets;
pub mod patience;
pub mod rights;
pub mod socket;
pub mod stream;
pub mod unix;

pub use address::{Address, UnixName};
pub use socket::{Common, Kind, Protocol, Socket};
