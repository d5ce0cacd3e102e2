//! Sockets: making them, connecting them, options. Messages are in [`super::message`].

use alloc::sync::Arc;

use super::{Arg, Call, Syscall, fd, message};
use crate::error::{Errno, Error, Restart, Result, err};
use crate::net::address::{self, ADDRESS_MAX, AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, Encoded};
use crate::net::backlog::SOMAXCONN;
use crate::net::option_calls;
use crate::net::patience::Patience;
use crate::net::socket::Connecting;
use crate::net::stream::Direction;
use crate::net::{Kind, Socket, inet, netlink, unix};
use crate::user::{self, UserAddr};
use crate::vfs::OpenFile;
use crate::vfs::flags::{O_CLOEXEC, O_NONBLOCK, O_RDWR};
use crate::vfs::table::OnExec;

use Arg::{Fd, Hex, Int, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(41, "socket", &[Int, Hex, Int], sys_socket).but(FAMILIES),
    Syscall::full(42, "connect", &[Fd, Ptr, Uint], sys_connect),
    Syscall::full(43, "accept", &[Fd, Ptr, Ptr], sys_accept),
    Syscall::full(44, "sendto", &[Fd, Ptr, Uint, Hex, Ptr, Uint], message::sys_sendto).but(NO_OOB),
    Syscall::full(45, "recvfrom", &[Fd, Ptr, Uint, Hex, Ptr, Ptr], message::sys_recvfrom).but(NO_OOB),
    Syscall::full(46, "sendmsg", &[Fd, Ptr, Hex], message::sys_sendmsg).but(NO_OOB),
    Syscall::full(47, "recvmsg", &[Fd, Ptr, Hex], message::sys_recvmsg).but(NO_OOB),
    Syscall::full(48, "shutdown", &[Fd, Int], sys_shutdown),
    Syscall::full(49, "bind", &[Fd, Ptr, Uint], sys_bind),
    Syscall::full(50, "listen", &[Fd, Int], sys_listen),
    Syscall::full(51, "getsockname", &[Fd, Ptr, Ptr], sys_getsockname),
    Syscall::full(52, "getpeername", &[Fd, Ptr, Ptr], sys_getpeername),
    Syscall::full(53, "socketpair", &[Int, Hex, Int, Ptr], sys_socketpair),
    Syscall::full(54, "setsockopt", &[Fd, Int, Int, Ptr, Uint], sys_setsockopt).but(OPTIONS),
    Syscall::full(55, "getsockopt", &[Fd, Int, Int, Ptr, Ptr], sys_getsockopt).but(OPTIONS),
    Syscall::full(288, "accept4", &[Fd, Ptr, Ptr, Hex], sys_accept4),
    Syscall::full(299, "recvmmsg", &[Fd, Ptr, Uint, Hex, Ptr], message::sys_recvmmsg).but(NO_OOB),
    Syscall::full(307, "sendmmsg", &[Fd, Ptr, Uint, Hex], message::sys_sendmmsg).but(NO_OOB),
];

const FAMILIES: &str = "AF_UNIX; AF_INET and AF_INET6, over loopback inside the enclave and else through the \
    host; AF_NETLINK to ask for interfaces and addresses";
const NO_OOB: &str = "no out-of-band data, no error queue";
const OPTIONS: &str = "options that nothing in the enclave depends on are only remembered";

/// The socket of a descriptor argument.
pub(super) fn socket(call: &Call<'_>) -> Result<(Arc<OpenFile>, Arc<Socket>)> {
    let file = call.thread.files().get_content(call.int(0))?;
    let socket = Socket::of(&file)?;
    Ok((file, socket))
}

/// The socket address argument of `size` bytes at `addr`.
pub(super) struct RawAddress {
    bytes: [u8; ADDRESS_MAX],
    size: usize,
}

impl RawAddress {
    pub fn read(addr: UserAddr, size: i32) -> Result<RawAddress> {
        match usize::try_from(size) {
            Ok(size) if size <= ADDRESS_MAX => {
                let mut bytes = [0; ADDRESS_MAX];
                user::read_bytes(addr, &mut bytes[..size])?;
                Ok(RawAddress { bytes, size })
            }
            _ => err(Errno::EINVAL, "address size"),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// Writes as much of an address as the program has room for, and its full size.
pub(super) fn write_address(encoded: &Encoded, addr: UserAddr, size_addr: UserAddr) -> Result<()> {
    let (bytes, size) = encoded;
    let room = user::read::<i32>(size_addr)?;
    let Ok(room) = usize::try_from(room) else { return err(Errno::EINVAL, "negative address size") };
    user::write_bytes(addr, &bytes[..room.min(*size)])?;
    user::write(size_addr, &(*size as i32))
}

/// SOCK_NONBLOCK and SOCK_CLOEXEC have the values of O_NONBLOCK and O_CLOEXEC.
const TYPE_FLAGS: u32 = O_NONBLOCK | O_CLOEXEC;
const TYPE_MASK: u32 = 0xf;

struct NewSocket {
    domain: i32,
    kind: Kind,
    flags: u32,
    protocol: u32,
}

fn wanted(call: &Call<'_>) -> Result<NewSocket> {
    const AF_MAX: i32 = 46;
    let (domain, raw_kind, protocol) = (call.int(0), call.uint(1), call.int(2));
    let flags = raw_kind & !TYPE_MASK;
    if flags & !TYPE_FLAGS != 0 {
        return err(Errno::EINVAL, "unknown socket flags");
    }
    if !(0..AF_MAX).contains(&domain) {
        return err(Errno::EAFNOSUPPORT, "address family");
    }
    if raw_kind & TYPE_MASK > 10 {
        return err(Errno::EINVAL, "socket type");
    }
    let Some(kind) = Kind::from_raw(raw_kind & TYPE_MASK) else {
        return match domain as u16 {
            AF_UNIX | AF_INET | AF_INET6 | AF_NETLINK => err(Errno::ESOCKTNOSUPPORT, "socket type"),
            _ => err(Errno::EAFNOSUPPORT, "address family"),
        };
    };
    let Ok(protocol) = u32::try_from(protocol) else {
        return err(Errno::EPROTONOSUPPORT, "negative protocol");
    };
    Ok(NewSocket { domain, kind, flags, protocol })
}

fn open(socket: Arc<Socket>, flags: u32) -> Arc<OpenFile> {
    OpenFile::new(socket, O_RDWR | flags & O_NONBLOCK)
}

fn sys_socket(call: &mut Call<'_>) -> Result<usize> {
    let new = wanted(call)?;
    let socket = match new.domain as u16 {
        AF_UNIX => unix::socket(new.kind, new.protocol)?,
        domain @ (AF_INET | AF_INET6) => inet::socket(domain, new.kind, new.protocol)?,
        AF_NETLINK => netlink::socket(new.kind, new.protocol)?,
        _ => return err(Errno::EAFNOSUPPORT, "address family"),
    };
    install(call, socket, new.flags)
}

fn install(call: &Call<'_>, socket: Arc<Socket>, flags: u32) -> Result<usize> {
    let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
    Ok(call.thread.files().insert(open(socket, flags), on_exec)? as usize)
}

fn sys_socketpair(call: &mut Call<'_>) -> Result<usize> {
    let new = wanted(call)?;
    let (one, other) = match new.domain as u16 {
        AF_UNIX => unix::pair(new.kind, new.protocol)?,
        AF_INET | AF_INET6 | AF_NETLINK => return err(Errno::EOPNOTSUPP, "socketpair of this family"),
        _ => return err(Errno::EAFNOSUPPORT, "address family"),
    };
    let (one, other) = (open(one, new.flags), open(other, new.flags));
    fd::give_pair(call, one, other, OnExec::when(new.flags & O_CLOEXEC != 0), call.addr(3))
}

fn sys_bind(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    let address = RawAddress::read(call.addr(1), call.int(2))?;
    socket.protocol().bind(socket.common(), address.bytes())?;
    Ok(0)
}

fn sys_listen(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    let backlog = usize::try_from(call.int(1)).unwrap_or(SOMAXCONN);
    socket.protocol().listen(socket.common(), backlog.min(SOMAXCONN))?;
    Ok(0)
}

fn sys_accept(call: &mut Call<'_>) -> Result<usize> {
    accept(call, 0)
}

fn sys_accept4(call: &mut Call<'_>) -> Result<usize> {
    accept(call, call.uint(3))
}

fn accept(call: &Call<'_>, flags: u32) -> Result<usize> {
    if flags & !TYPE_FLAGS != 0 {
        return err(Errno::EINVAL, "unknown socket flags");
    }
    let (file, socket) = socket(call)?;
    let patience = socket.common().receive_patience(file.wait());
    let accepted = socket.protocol().accept(socket.common(), patience)?;
    if !call.addr(1).is_null() {
        write_address(&accepted.peer.encode(), call.addr(1), call.addr(2))?;
    }
    install(call, accepted.socket, flags)
}

fn sys_connect(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let address = RawAddress::read(call.addr(1), call.int(2))?;
    address::family(address.bytes())?;
    let patience = socket.common().send_patience(file.wait());
    let how = Connecting { raw: address.bytes(), patience };
    match socket.protocol().connect(socket.common(), how) {
        // A connection under way goes on whatever the signal did; the second call finds it.
        Err(error) if error.errno == Errno::EINTR && patience != Patience::Forever => {
            Err(Error { restart: Restart::Never, ..error })
        }
        other => other.map(|()| 0),
    }
}

fn sys_shutdown(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    let (reads, writes) = match call.int(1) {
        0 => (Direction::Ends, Direction::Stays),
        1 => (Direction::Stays, Direction::Ends),
        2 => (Direction::Ends, Direction::Ends),
        _ => return err(Errno::EINVAL, "how"),
    };
    socket.protocol().shutdown(reads, writes)?;
    Ok(0)
}

fn sys_getsockname(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    write_address(&socket.protocol().local_address().encode(), call.addr(1), call.addr(2))?;
    Ok(0)
}

fn sys_getpeername(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    write_address(&socket.protocol().peer_address()?.encode(), call.addr(1), call.addr(2))?;
    Ok(0)
}

fn sys_setsockopt(call: &mut Call<'_>) -> Result<usize> {
    /// The largest value that is looked at.
    const SIZE_MAX: usize = 32;
    let Ok(size) = usize::try_from(call.int(4)) else {
        return err(Errno::EINVAL, "negative option size");
    };
    let (_, socket) = socket(call)?;
    let mut value = [0; SIZE_MAX];
    let size = size.min(SIZE_MAX);
    user::read_bytes(call.addr(3), &mut value[..size])?;
    option_calls::set(&socket, call.uint(1), call.uint(2), &value[..size])?;
    Ok(0)
}

fn sys_getsockopt(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    let room = user::read::<i32>(call.addr(4))?;
    let Ok(room) = usize::try_from(room) else { return err(Errno::EINVAL, "negative option size") };
    let value = option_calls::get(&socket, call.uint(1), call.uint(2))?;
    let bytes = value.bytes();
    let size = room.min(bytes.len());
    user::write_bytes(call.addr(3), &bytes[..size])?;
    user::write(call.addr(4), &(size as i32))?;
    Ok(0)
}
