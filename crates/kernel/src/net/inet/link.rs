//! A TCP connection: two lanes of bytes inside, or a socket of the host.

use alloc::sync::Arc;
use core::net::SocketAddr;

use crate::error::{Errno, Result, err};
use crate::net::message::{Incoming, Outgoing, Wanted};
use crate::net::options::{Options, Switch};
use crate::net::outside::{HostSocket, Outside, forward};
use crate::net::stream::{Direction, End};
use crate::sched::Wake;
use crate::vfs::{Events, Sink, Source};

pub enum Link {
    Inside { end: End, local: SocketAddr, peer: SocketAddr },
    Outside(Outside),
}

/// Bytes in flight in each direction, unless SO_SNDBUF says otherwise.
pub const CAPACITY: usize = 256 << 10;

impl Link {
    pub fn local(&self) -> SocketAddr {
        match self {
            Link::Inside { local, .. } => *local,
            Link::Outside(outside) => outside.local(),
        }
    }

    /// ENOTCONN.
    pub fn peer(&self) -> Result<SocketAddr> {
        match self {
            Link::Inside { end, .. } if end.is_reset() => err(Errno::ENOTCONN, "reset by the peer"),
            Link::Inside { peer, .. } => Ok(*peer),
            Link::Outside(outside) => outside.peer(),
        }
    }

    pub fn host(&self) -> Option<&Arc<HostSocket>> {
        match self {
            Link::Inside { .. } => None,
            Link::Outside(outside) => Some(outside.socket()),
        }
    }

    pub fn send(&self, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize> {
        match self {
            Link::Inside { end, .. } => end.send(source, out),
            Link::Outside(outside) => outside.send(source, out),
        }
    }

    pub fn receive(&self, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        match self {
            Link::Inside { end, .. } => end.receive(sink, wanted),
            Link::Outside(outside) => outside.receive(sink, wanted),
        }
    }

    pub fn shutdown(&self, reads: Direction, writes: Direction) -> Result<()> {
        match self {
            Link::Inside { end, .. } => {
                end.shutdown(reads, writes);
                Ok(())
            }
            Link::Outside(outside) => outside.shutdown(reads, writes),
        }
    }

    pub fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        match self {
            Link::Inside { end, .. } => end.poll(waker),
            Link::Outside(outside) => outside.poll(waker),
        }
    }

    pub fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        match self {
            Link::Inside { end, .. } => end.forget_waker(waker),
            Link::Outside(outside) => outside.forget_waker(waker),
        }
    }

    pub fn readable_bytes(&self) -> Result<usize> {
        match self {
            Link::Inside { end, .. } => Ok(end.readable_bytes()),
            Link::Outside(outside) => outside.readable_bytes(),
        }
    }

    pub fn unsent_bytes(&self) -> Result<usize> {
        match self {
            Link::Inside { end, .. } => Ok(end.unread_bytes()),
            Link::Outside(outside) => outside.unsent_bytes(),
        }
    }

    pub fn take_error(&self) -> Option<Errno> {
        match self {
            Link::Inside { end, .. } => end.take_error(),
            Link::Outside(outside) => outside.socket().take_error(),
        }
    }

    /// Buffer sizes and SO_LINGER may have changed.
    pub fn apply(&self, options: &Options) {
        match self {
            Link::Inside { end, .. } => {
                end.set_capacity(capacity(options));
                end.set_aborts(Switch::when(*options.linger.lock() == Some(0)));
            }
            // The option went to the host itself.
            Link::Outside(_) => {}
        }
    }

    /// Closes with a reset.
    pub fn abort(self) {
        match &self {
            Link::Inside { end, .. } => end.set_aborts(Switch::On),
            Link::Outside(outside) => forward::set_aborts(outside.socket(), Switch::On),
        }
    }

    /// connect(2) of AF_UNSPEC.
    pub fn dissolve(&self) -> Result<()> {
        match self {
            Link::Inside { .. } => err(Errno::EINVAL, "a connection can't be dissolved"),
            Link::Outside(outside) => outside.disconnect(),
        }
    }
}

/// Programs that set nothing get more than [`Options::for_tcp`] reports, as autotuning gives them.
pub fn capacity(options: &Options) -> usize {
    let is_default = options.send_buffer() == Options::for_tcp().send_buffer();
    if is_default { CAPACITY } else { options.send_buffer() }
}
