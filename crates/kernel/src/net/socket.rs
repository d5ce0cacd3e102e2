//! What a socket descriptor refers to: [`Socket`], and what families implement: [`Protocol`].

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::Ordering;

use super::message::{Incoming, Outgoing, PeerIds, Wanted};
use super::options::{Options, SOL_SOCKET, SO_PASSCRED};
use super::outside::HostSocket;
use super::patience::Patience;
use super::stream::Direction;
use super::{Address, interface};
use crate::error::{Errno, Result, err};
use crate::sched::Wake;
use crate::user::{self, UserAddr};
use crate::vfs::file::{File, Wait};
use crate::vfs::inode::{self, Attr, Position};
use crate::vfs::pipe::anonymous_ino;
use crate::vfs::{Events, OpenFile, Sink, Source};

/// `SOCK_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Stream = 1,
    Datagram = 2,
    Raw = 3,
    SeqPacket = 5,
}

impl Kind {
    pub fn from_raw(raw: u32) -> Option<Kind> {
        match raw {
            1 => Some(Kind::Stream),
            2 => Some(Kind::Datagram),
            3 => Some(Kind::Raw),
            5 => Some(Kind::SeqPacket),
            _ => None,
        }
    }
}

/// What all sockets have.
pub struct Common {
    /// `AF_*`.
    pub domain: u16,
    pub kind: Kind,
    /// IPPROTO_* or NETLINK_*.
    pub protocol: u32,
    pub options: Options,
    pub ino: u64,
}

/// A socket.
pub struct Socket {
    common: Common,
    protocol: Arc<dyn Protocol>,
}

/// A connection that accept(2) took.
pub struct Accepted {
    pub socket: Arc<Socket>,
    pub peer: Address,
}

/// What TCP_INFO says of a socket inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    Closed,
    Established,
    Listening { waiting: u32, limit: u32 },
}

/// How to connect.
#[derive(Clone, Copy)]
pub struct Connecting<'a> {
    /// The address as the program gave it.
    pub raw: &'a [u8],
    pub patience: Patience,
}

/// What families differ in. The defaults answer what Linux answers for sockets without the call.
pub trait Protocol: Send + Sync + Any {
    fn bind(&self, common: &Common, raw: &[u8]) -> Result<()>;

    fn listen(&self, _common: &Common, _backlog: usize) -> Result<()> {
        err(Errno::EOPNOTSUPP, "this type does not listen")
    }

    fn accept(&self, _common: &Common, _patience: Patience) -> Result<Accepted> {
        err(Errno::EOPNOTSUPP, "this type does not accept")
    }

    fn connect(&self, common: &Common, how: Connecting<'_>) -> Result<()>;

    fn shutdown(&self, reads: Direction, writes: Direction) -> Result<()>;

    /// getsockname(2).
    fn local_address(&self) -> Address;

    /// getpeername(2); ENOTCONN.
    fn peer_address(&self) -> Result<Address>;

    /// A destination as sendto(2) gets it.
    fn parse_destination(&self, common: &Common, raw: &[u8]) -> Result<Address>;

    /// Sends, waiting as told; gives the bytes sent.
    fn send(&self, common: &Common, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize>;

    fn receive(&self, common: &Common, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming>;

    fn poll(&self, common: &Common, waker: Option<&Arc<dyn Wake>>) -> Events;

    fn forget_waker(&self, waker: &Arc<dyn Wake>);

    /// FIONREAD.
    fn readable_bytes(&self) -> Result<usize>;

    /// SIOCOUTQ.
    fn unsent_bytes(&self) -> Result<usize> {
        Ok(0)
    }

    /// Takes SO_ERROR.
    fn take_error(&self) -> Option<Errno> {
        None
    }

    /// SO_ACCEPTCONN.
    fn is_listening(&self) -> bool {
        false
    }

    /// SO_PEERCRED.
    fn peer_ids(&self) -> Option<PeerIds> {
        None
    }

    /// The host's socket behind this one, if there is one.
    fn host_socket(&self) -> Option<Arc<HostSocket>> {
        None
    }

    /// The host's socket, made if need be: for what only a network has. ENODEV.
    fn need_host_socket(&self, _common: &Common) -> Result<Arc<HostSocket>> {
        err(Errno::ENODEV, "no network outside the enclave")
    }

    /// For TCP_INFO.
    fn state(&self) -> TcpState {
        TcpState::Closed
    }

    /// An option that may act on an existing connection was changed.
    fn options_changed(&self, _common: &Common) {}
}

impl Common {
    pub fn new(domain: u16, kind: Kind, protocol: u32, options: Options) -> Common {
        Common { domain, kind, protocol, options, ino: anonymous_ino() }
    }

    /// For a connection that a listener with this accepted.
    pub fn copy(&self) -> Common {
        Common::new(self.domain, self.kind, self.protocol, self.options.copy())
    }

    pub fn wants_ids(&self) -> bool {
        self.domain == super::address::AF_UNIX && self.options.is_on(SOL_SOCKET, SO_PASSCRED)
    }

    /// How long a receiving call may wait.
    pub fn receive_patience(&self, wait: Wait) -> Patience {
        Patience::new(wait, self.options.receive_timeout_ns.load(Ordering::Relaxed))
    }

    pub fn send_patience(&self, wait: Wait) -> Patience {
        Patience::new(wait, self.options.send_timeout_ns.load(Ordering::Relaxed))
    }
}

impl Socket {
    pub fn new(common: Common, protocol: Arc<dyn Protocol>) -> Arc<Socket> {
        Arc::new(Socket { common, protocol })
    }

    /// The socket behind an open file; ENOTSOCK.
    pub fn of(file: &OpenFile) -> Result<Arc<Socket>> {
        let any: Arc<dyn Any + Send + Sync> = file.file().clone();
        match any.downcast::<Socket>() {
            Ok(socket) => Ok(socket),
            Err(_) => err(Errno::ENOTSOCK, "not a socket"),
        }
    }

    pub fn common(&self) -> &Common {
        &self.common
    }

    pub fn protocol(&self) -> &dyn Protocol {
        &*self.protocol
    }

    pub fn send(&self, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize> {
        let mark = *source;
        let result = self.protocol.send(&self.common, source, out);
        if result.is_err() {
            // A message that was copied in but not sent was not taken.
            source.rewind(mark, 0);
        }
        result
    }

    pub fn receive(&self, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        self.protocol.receive(&self.common, sink, wanted)
    }
}

const SIOCOUTQ: u32 = 0x5411;

impl File for Socket {
    fn can_signal(&self) -> bool {
        true
    }

    fn attr(&self) -> Result<Attr> {
        Ok(Attr::anonymous(self.common.ino, inode::Kind::Socket, 0o777))
    }

    fn label(&self) -> String {
        format!("socket:[{}]", self.common.ino)
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        if sink.room() == 0 {
            return Ok(());
        }
        let patience = self.common.receive_patience(wait);
        let wanted = Wanted { flags: 0, patience, wants_ids: false };
        self.receive(sink, &wanted).map(drop)
    }

    fn write(&self, _at: Position, source: &mut Source<'_>, wait: Wait) -> Result<u64> {
        self.send(source, &mut Outgoing::plain(self.common.send_patience(wait)))?;
        Ok(0)
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        self.protocol.poll(&self.common, waker)
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.protocol.forget_waker(waker);
    }

    fn readable_bytes(&self) -> Result<usize> {
        self.protocol.readable_bytes()
    }

    fn ioctl(&self, request: u32, arg: UserAddr) -> Result<usize> {
        if request == SIOCOUTQ {
            let count = i32::try_from(self.protocol.unsent_bytes()?).unwrap_or(i32::MAX);
            user::write(arg, &count)?;
            return Ok(0);
        }
        interface::ioctl(request, arg)
    }

    fn raises_sigpipe(&self) -> bool {
        self.common.kind == Kind::Stream
    }
}
