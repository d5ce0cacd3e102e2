//! AF_UNIX: unix(7).
//!
//! - [`names`]: which socket has which name, in the file tree or in the abstract name space
//! - [`stream`]: connected sockets, byte streams and sequenced packets; [`datagram`]
//!
//! Not done: sockets that are only reachable through their own queue (passed over themselves) are
//! never freed; Linux collects such circles.

pub mod datagram;
pub mod names;
pub mod stream;

use alloc::sync::Arc;

use super::options::Options;
use super::{Common, Kind, Socket, address};
use crate::error::{Errno, Result, err};

/// socket(2) of AF_UNIX; SOCK_RAW means datagrams, as in Linux.
pub fn socket(kind: Kind, protocol: u32) -> Result<Arc<Socket>> {
    check_protocol(protocol)?;
    let common = common(kind);
    Ok(match common.kind {
        Kind::Datagram | Kind::Raw => Socket::new(common, datagram::UnixDatagram::new()),
        kind => Socket::new(common, stream::UnixStream::new(kind)),
    })
}

/// socketpair(2).
pub fn pair(kind: Kind, protocol: u32) -> Result<(Arc<Socket>, Arc<Socket>)> {
    check_protocol(protocol)?;
    let (one, other) = (common(kind), common(kind));
    Ok(match one.kind {
        Kind::Datagram | Kind::Raw => {
            let (first, second) = datagram::UnixDatagram::pair();
            (Socket::new(one, first), Socket::new(other, second))
        }
        kind => {
            let (first, second) = stream::UnixStream::pair(kind);
            (Socket::new(one, first), Socket::new(other, second))
        }
    })
}

fn common(kind: Kind) -> Common {
    let kind = if kind == Kind::Raw { Kind::Datagram } else { kind };
    Common::new(address::AF_UNIX, kind, 0, Options::new())
}

fn check_protocol(protocol: u32) -> Result<()> {
    if protocol != 0 && protocol != u32::from(address::AF_UNIX) {
        return err(Errno::EPROTONOSUPPORT, "protocol of AF_UNIX");
    }
    Ok(())
}
