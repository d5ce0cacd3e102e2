//! Sockets: the Unix domain. The other families answer EAFNOSUPPORT.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::fd::give_pair;
use super::file::{raise_sigpipe_for, read_pieces};
use super::path::{self, AT_FDCWD};
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::user::{self, UserAddr};
use crate::vfs::create::Mode;
use crate::vfs::file::Wait;
use crate::vfs::flags::{O_CLOEXEC, O_NONBLOCK, O_RDWR};
use crate::vfs::inode::NewContent;
use crate::vfs::socket::{Key, Name, Peer, Shutdown, Socket, Type};
use crate::vfs::table::OnExec;
use crate::vfs::transfer::{IoVec, MAX_TRANSFER};
use crate::vfs::walk::{LastLink, Walker};
use crate::vfs::{Identity, Kind, OpenFile, Sink, Source, access, names};

use Arg::{Fd, Hex, Int, Ptr, Uint};

const UNIX_ONLY: &str = "the Unix domain only";
const NO_CONTROL: &str = "the Unix domain only; no control messages (SCM_RIGHTS)";

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(41, "socket", &[Int, Hex, Int], sys_socket).but(UNIX_ONLY),
    Syscall::full(42, "connect", &[Fd, Ptr, Uint], sys_connect).but("streams and sequenced packets"),
    Syscall::full(43, "accept", &[Fd, Ptr, Ptr], sys_accept).but(UNIX_ONLY),
    Syscall::full(44, "sendto", &[Fd, Ptr, Uint, Hex, Ptr, Uint], sys_sendto).but("no addresses"),
    Syscall::full(45, "recvfrom", &[Fd, Ptr, Uint, Hex, Ptr, Ptr], sys_recvfrom).but("no MSG_PEEK"),
    Syscall::full(46, "sendmsg", &[Fd, Ptr, Hex], sys_sendmsg).but(NO_CONTROL),
    Syscall::full(47, "recvmsg", &[Fd, Ptr, Hex], sys_recvmsg).but(NO_CONTROL),
    Syscall::full(48, "shutdown", &[Fd, Int], sys_shutdown).but(UNIX_ONLY),
    Syscall::full(49, "bind", &[Fd, Ptr, Uint], sys_bind).but(UNIX_ONLY),
    Syscall::full(50, "listen", &[Fd, Int], sys_listen).but(UNIX_ONLY),
    Syscall::full(51, "getsockname", &[Fd, Ptr, Ptr], sys_getsockname).but(UNIX_ONLY),
    Syscall::full(52, "getpeername", &[Fd, Ptr, Ptr], sys_getpeername).but(UNIX_ONLY),
    Syscall::full(53, "socketpair", &[Int, Hex, Int, Ptr], sys_socketpair).but(UNIX_ONLY),
    Syscall::full(54, "setsockopt", &[Fd, Int, Int, Ptr, Uint], sys_setsockopt)
        .but("SOL_SOCKET options are accepted and without effect"),
    Syscall::full(55, "getsockopt", &[Fd, Int, Int, Ptr, Ptr], sys_getsockopt).but(UNIX_ONLY),
    Syscall::full(288, "accept4", &[Fd, Ptr, Ptr, Hex], sys_accept4).but(UNIX_ONLY),
];

const AF_UNIX: u32 = 1;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_TRUNC: u32 = 0x20;
const MSG_WAITALL: u32 = 0x100;
const MSG_NOSIGNAL: u32 = 0x4000;
const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;

fn socket(call: &Call<'_>) -> Result<(Arc<OpenFile>, Arc<Socket>)> {
    let file = call.thread.files().get_content(call.int(0))?;
    let any: Arc<dyn Any + Send + Sync> = file.file().clone();
    match any.downcast::<Socket>() {
        Ok(socket) => Ok((file, socket)),
        Err(_) => err(Errno::ENOTSOCK, "not a socket"),
    }
}

/// Type and the two flags that socket(2) takes with it.
fn socket_type(value: u32) -> Result<(Type, u32)> {
    let flags = value & (O_CLOEXEC | O_NONBLOCK);
    match value & !flags {
        1 => Ok((Type::Stream, flags)),
        // SOCK_RAW means datagrams in this domain.
        2 | 3 => Ok((Type::Datagram, flags)),
        5 => Ok((Type::SeqPacket, flags)),
        kind if kind & !0xf != 0 => err(Errno::EINVAL, "socket flags"),
        _ => err(Errno::ESOCKTNOSUPPORT, "socket type"),
    }
}

fn check_domain(call: &Call<'_>) -> Result<()> {
    if call.uint(0) != AF_UNIX {
        return err(Errno::EAFNOSUPPORT, "only the Unix domain is there");
    }
    if !matches!(call.uint(2), 0 | AF_UNIX) {
        return err(Errno::EPROTONOSUPPORT, "protocol");
    }
    Ok(())
}

fn owner(call: &Call<'_>) -> Peer {
    let credentials = call.thread.credentials();
    Peer { pid: call.thread.process().pid(), uid: credentials.euid(), gid: credentials.egid() }
}

fn open(socket: Arc<Socket>, flags: u32) -> Arc<OpenFile> {
    OpenFile::new(socket, O_RDWR | flags & O_NONBLOCK)
}

fn sys_socket(call: &mut Call<'_>) -> Result<usize> {
    let (kind, flags) = socket_type(call.uint(1))?;
    check_domain(call)?;
    let file = open(Socket::new(kind, owner(call)), flags);
    Ok(call.thread.files().insert(file, OnExec::when(flags & O_CLOEXEC != 0))? as usize)
}

fn sys_socketpair(call: &mut Call<'_>) -> Result<usize> {
    let (kind, flags) = socket_type(call.uint(1))?;
    check_domain(call)?;
    let (one, other) = Socket::pair(kind, owner(call));
    let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
    give_pair(call, open(one, flags), open(other, flags), on_exec, call.addr(3))
}

/// Bytes of `struct sockaddr_un`: family 2, path 108.
const ADDRESS_MAX: usize = 110;

/// The path bytes of a `struct sockaddr_un`; a first NUL makes the name abstract.
fn read_address(addr: UserAddr, size: usize) -> Result<Vec<u8>> {
    if !(3..=ADDRESS_MAX).contains(&size) {
        return err(Errno::EINVAL, "size of the address");
    }
    let mut raw = alloc::vec![0; size];
    user::read_bytes(addr, &mut raw)?;
    if raw[0] != AF_UNIX as u8 || raw[1] != 0 {
        return err(Errno::EAFNOSUPPORT, "address family");
    }
    let name = raw.split_off(2);
    if name[0] == 0 {
        return Ok(name);
    }
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok(name[..end].to_vec())
}

fn sys_bind(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    let name = read_address(call.addr(1), call.uint(2) as usize)?;
    if name[0] == 0 {
        socket.bind(Name::Abstract(name))?;
        return Ok(0);
    }
    if socket.name().is_some() {
        return err(Errno::EINVAL, "bound already");
    }
    let who = path::identity(call);
    let parent = path::walker(call, &who, AT_FDCWD, name.clone())?.parent()?;
    let mode = Mode { bits: 0o777, umask: call.thread.fs().umask() };
    names::make(&parent, &who, NewContent::Socket, mode).map_err(|error| match error.errno {
        Errno::EEXIST => Error::new(Errno::EADDRINUSE, "the path exists"),
        _ => error,
    })?;
    let id = file_id(call, &who, &name)?;
    socket.bind(Name::File { id, path: name })?;
    Ok(0)
}

fn file_id(call: &Call<'_>, who: &Identity, name: &[u8]) -> Result<(u64, u64)> {
    let fs = call.thread.fs();
    let place = Walker::new(fs, who, fs.cwd(), name.to_vec())?.walk(LastLink::Follow)?;
    if place.dentry.kind() != Kind::Socket {
        return err(Errno::ECONNREFUSED, "not a socket");
    }
    access::check(&**place.inode(), who, access::MAY_WRITE)?;
    let attr = place.inode().attr()?;
    Ok((attr.dev, attr.ino))
}

fn sys_listen(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    // A negative backlog is a very large one.
    socket.listen(call.uint(1) as usize)?;
    Ok(0)
}

fn sys_connect(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    if socket.kind() == Type::Datagram {
        return err(Errno::EOPNOTSUPP, "connecting datagram sockets");
    }
    let name = read_address(call.addr(1), call.uint(2) as usize)?;
    let key = if name[0] == 0 {
        Key::Abstract(name)
    } else {
        Key::File(file_id(call, &path::identity(call), &name)?)
    };
    socket.connect(&key, file.wait())?;
    Ok(0)
}

fn sys_accept(call: &mut Call<'_>) -> Result<usize> {
    accept(call, 0)
}

fn sys_accept4(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.uint(3);
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    accept(call, flags)
}

fn accept(call: &Call<'_>, flags: u32) -> Result<usize> {
    let (file, socket) = socket(call)?;
    if socket.kind() == Type::Datagram {
        return err(Errno::EOPNOTSUPP, "datagrams");
    }
    let accepted = socket.accept(file.wait())?;
    if !call.addr(1).is_null() {
        write_address(call, 1, accepted.peer_name()?)?;
    }
    let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
    Ok(call.thread.files().insert(open(accepted, flags), on_exec)? as usize)
}

/// Writes a name to the address argument `index`, its size to the next one.
fn write_address(call: &Call<'_>, index: usize, name: Option<Name>) -> Result<()> {
    let mut raw = (AF_UNIX as u16).to_le_bytes().to_vec();
    match name {
        None => {}
        Some(Name::Abstract(name)) => raw.extend_from_slice(&name),
        Some(Name::File { path, .. }) => {
            raw.extend_from_slice(&path);
            raw.push(0);
        }
    }
    let room = user::read::<i32>(call.addr(index + 1))?;
    let Ok(room) = usize::try_from(room) else { return err(Errno::EINVAL, "negative size") };
    user::write_bytes(call.addr(index), &raw[..raw.len().min(room)])?;
    user::write(call.addr(index + 1), &(raw.len() as i32))
}

fn sys_getsockname(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    write_address(call, 1, socket.name())?;
    Ok(0)
}

fn sys_getpeername(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    write_address(call, 1, socket.peer_name()?)?;
    Ok(0)
}

fn sys_shutdown(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    let how = match call.int(1) {
        0 => Shutdown::Read,
        1 => Shutdown::Write,
        2 => Shutdown::Both,
        _ => return err(Errno::EINVAL, "how"),
    };
    socket.shutdown(how)?;
    Ok(0)
}

fn wait(file: &OpenFile, flags: u32) -> Wait {
    if flags & MSG_DONTWAIT != 0 { Wait::Never } else { file.wait() }
}

fn sys_sendto(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    if !call.addr(4).is_null() {
        let errno = if socket.kind() == Type::Datagram { Errno::EOPNOTSUPP } else { Errno::EISCONN };
        return err(errno, "address of a connected socket");
    }
    let mut source = Source::user(call.addr(1), call.size(2).min(MAX_TRANSFER));
    send(call, &file, &socket, &mut source, call.uint(3))
}

fn send(
    call: &Call<'_>,
    file: &OpenFile,
    socket: &Socket,
    source: &mut Source<'_>,
    flags: u32,
) -> Result<usize> {
    if flags & !(MSG_DONTWAIT | MSG_NOSIGNAL) != 0 {
        return err(Errno::EOPNOTSUPP, "flags");
    }
    let wait = wait(file, flags);
    let result = source.drive(|source| socket.send(source, wait));
    if let Err(error) = &result
        && flags & MSG_NOSIGNAL == 0
    {
        raise_sigpipe_for(call, error);
    }
    result
}

fn sys_recvfrom(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let mut sink = Sink::user(call.addr(1), call.size(2).min(MAX_TRANSFER));
    let (count, whole) = receive(&file, &socket, &mut sink, call.uint(3))?;
    if !call.addr(4).is_null() {
        write_address(call, 4, None)?;
    }
    Ok(if call.uint(3) & MSG_TRUNC != 0 { whole } else { count })
}

/// Bytes put, and the whole length of a message.
fn receive(
    file: &OpenFile,
    socket: &Socket,
    sink: &mut Sink<'_>,
    flags: u32,
) -> Result<(usize, usize)> {
    if flags & !(MSG_DONTWAIT | MSG_TRUNC | MSG_WAITALL | MSG_CMSG_CLOEXEC | MSG_NOSIGNAL) != 0 {
        return err(Errno::EOPNOTSUPP, "flags");
    }
    let wait = wait(file, flags);
    let mut whole = 0;
    let is_stream = socket.kind() == Type::Stream;
    let mut count = sink.drive(|sink| {
        whole = socket.receive(sink, wait)?;
        Ok(())
    })?;
    while is_stream && flags & MSG_WAITALL != 0 && sink.room() > 0 {
        let before = count;
        count = match sink.drive(|sink| socket.receive_more(sink, wait)) {
            Ok(count) if count > before => count,
            _ => break,
        };
    }
    Ok((count, if is_stream { count } else { whole }))
}

/// `struct msghdr` of x86-64.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MsgHdr {
    name: u64,
    name_size: u32,
    pad: u32,
    pieces: u64,
    piece_count: u64,
    control: u64,
    control_size: u64,
    flags: u32,
    pad2: u32,
}

fn sys_sendmsg(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let header: MsgHdr = user::read(call.addr(1))?;
    if header.control != 0 && header.control_size != 0 {
        return err(Errno::EOPNOTSUPP, "control messages");
    }
    if header.name != 0 && header.name_size != 0 {
        return err(Errno::EISCONN, "address of a connected socket");
    }
    let pieces = pieces_of(&header)?;
    send(call, &file, &socket, &mut Source::user_pieces(&pieces), call.uint(2))
}

fn sys_recvmsg(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let mut header: MsgHdr = user::read(call.addr(1))?;
    let pieces = pieces_of(&header)?;
    let flags = call.uint(2);
    let (count, whole) = receive(&file, &socket, &mut Sink::user_pieces(&pieces), flags)?;
    header.name_size = 0;
    header.control_size = 0;
    header.flags = if whole > count { MSG_TRUNC } else { 0 };
    user::write(call.addr(1), &header)?;
    Ok(if flags & MSG_TRUNC != 0 { whole } else { count })
}

fn pieces_of(header: &MsgHdr) -> Result<Vec<IoVec>> {
    if header.piece_count > 1024 {
        return err(Errno::EMSGSIZE, "more than IOV_MAX pieces");
    }
    read_pieces(UserAddr(header.pieces as usize), header.piece_count as usize)
}

const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const SO_TYPE: i32 = 3;
const SO_ERROR: i32 = 4;
const SO_SNDBUF: i32 = 7;
const SO_RCVBUF: i32 = 8;
const SO_KEEPALIVE: i32 = 9;
const SO_PASSCRED: i32 = 16;
const SO_PEERCRED: i32 = 17;
const SO_ACCEPTCONN: i32 = 30;
const SO_PROTOCOL: i32 = 38;
const SO_DOMAIN: i32 = 39;

fn sys_setsockopt(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    if call.int(1) != SOL_SOCKET {
        return err(Errno::ENOPROTOOPT, "level");
    }
    if call.uint(4) < 4 {
        return err(Errno::EINVAL, "size of the option");
    }
    let value: i32 = user::read(call.addr(3))?;
    match call.int(2) {
        SO_PASSCRED => socket.options().store(u32::from(value != 0), Ordering::Relaxed),
        SO_TYPE | SO_ERROR | SO_ACCEPTCONN | SO_PROTOCOL | SO_DOMAIN | SO_PEERCRED => {
            return err(Errno::ENOPROTOOPT, "can't be set");
        }
        _ => {}
    }
    Ok(0)
}

fn sys_getsockopt(call: &mut Call<'_>) -> Result<usize> {
    let (_, socket) = socket(call)?;
    if call.int(1) != SOL_SOCKET {
        return err(Errno::EOPNOTSUPP, "level");
    }
    let value: i32 = match call.int(2) {
        SO_TYPE => match socket.kind() {
            Type::Stream => 1,
            Type::Datagram => 2,
            Type::SeqPacket => 5,
        },
        SO_ERROR | SO_REUSEADDR | SO_KEEPALIVE | SO_PROTOCOL => 0,
        SO_SNDBUF | SO_RCVBUF => 212_992,
        SO_PASSCRED => socket.options().load(Ordering::Relaxed) as i32,
        SO_ACCEPTCONN => i32::from(socket.is_listening()),
        SO_DOMAIN => AF_UNIX as i32,
        SO_PEERCRED => {
            let peer = socket.peer();
            return give_option(call, [peer.pid, peer.uid, peer.gid].as_bytes());
        }
        _ => return err(Errno::ENOPROTOOPT, "unknown option"),
    };
    give_option(call, &value.to_le_bytes())
}

fn give_option(call: &Call<'_>, value: &[u8]) -> Result<usize> {
    let room = user::read::<i32>(call.addr(4))?;
    let Ok(room) = usize::try_from(room) else { return err(Errno::EINVAL, "negative size") };
    let size = value.len().min(room);
    user::write_bytes(call.addr(3), &value[..size])?;
    user::write(call.addr(4), &(size as i32))?;
    Ok(0)
}
