//! Sending and receiving: sendto, sendmsg, recvfrom, recvmsg and their many-message forms.
//!
//! ```text
//! struct msghdr    0 name  8 namelen(4)  16 iov  24 iovlen  32 control  40 controllen  48 flags(4)
//! struct mmsghdr   0 msghdr  56 len(4)
//! struct cmsghdr   0 len  8 level(4)  12 type(4)  16 data, padded to 8
//! ```

use alloc::sync::Arc;
use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Call;
use super::file::raise_sigpipe_for;
use super::socket::{RawAddress, socket, write_address};
use crate::error::{Errno, Error, Result, err};
use crate::net::address::ADDRESS_MAX;
use crate::net::message::*;
use crate::net::options::*;
use crate::net::rights::Rights;
use crate::net::{Kind, Socket};
use crate::process::credentials::Capability;
use crate::sched::timer;
use crate::user::{self, UserAddr, UserSlice};
use crate::vfs::file::Wait;
use crate::vfs::table::OnExec;
use crate::vfs::transfer::{self, IoVec, MAX_TRANSFER};
use crate::vfs::{OpenFile, Sink, Source};

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MsgHdr {
    name: usize,
    name_size: i32,
    pad: u32,
    pieces: usize,
    piece_count: usize,
    control: usize,
    control_size: usize,
    flags: u32,
    pad2: u32,
}

const MSGHDR_SIZE: usize = size_of::<MsgHdr>();
const MMSGHDR_SIZE: usize = MSGHDR_SIZE + 8;

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct CmsgHdr {
    size: usize,
    level: u32,
    kind: u32,
}

const CMSGHDR_SIZE: usize = size_of::<CmsgHdr>();
const SCM_RIGHTS: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
/// SCM_MAX_FD.
const RIGHTS_MAX: usize = 253;
/// `net.core.optmem_max`.
const CONTROL_MAX: usize = 131_072;

/// Pieces of a message; few need no memory of their own.
enum Pieces {
    Few([IoVec; FEW], usize),
    Many(Vec<IoVec>),
}

const FEW: usize = 8;
const IOV_MAX: usize = 1024;

impl Pieces {
    fn read(addr: UserAddr, count: usize) -> Result<Pieces> {
        if count > IOV_MAX {
            return err(Errno::EMSGSIZE, "more than IOV_MAX pieces");
        }
        if count > FEW {
            let mut pieces = UserSlice::<IoVec>::new(addr, count).copy_in()?;
            transfer::check_pieces(&mut pieces)?;
            return Ok(Pieces::Many(pieces));
        }
        let mut few = [IoVec::default(); FEW];
        user::read_bytes(addr, few[..count].as_mut_bytes())?;
        transfer::check_pieces(&mut few[..count])?;
        Ok(Pieces::Few(few, count))
    }

    fn all(&self) -> &[IoVec] {
        match self {
            Pieces::Few(pieces, count) => &pieces[..*count],
            Pieces::Many(pieces) => pieces,
        }
    }
}

fn wait_of(file: &OpenFile, flags: u32) -> Wait {
    if flags & MSG_DONTWAIT != 0 { Wait::Never } else { file.wait() }
}

pub(super) fn sys_sendto(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let flags = call.uint(3);
    let mut out = outgoing(&file, &socket, flags);
    if !call.addr(4).is_null() {
        let address = RawAddress::read(call.addr(4), call.int(5))?;
        set_destination(&socket, &mut out, &address)?;
    }
    let mut source = Source::user(call.addr(1), call.size(2).min(MAX_TRANSFER));
    send(call, &socket, &mut source, out)
}

fn outgoing(file: &OpenFile, socket: &Socket, flags: u32) -> Outgoing {
    let mut out = Outgoing::plain(socket.common().send_patience(wait_of(file, flags)));
    out.flags = flags;
    out
}

fn set_destination(socket: &Socket, out: &mut Outgoing, address: &RawAddress) -> Result<()> {
    if !address.bytes().is_empty() {
        out.to = Some(socket.protocol().parse_destination(socket.common(), address.bytes())?);
    }
    Ok(())
}

fn send(call: &Call<'_>, socket: &Socket, source: &mut Source<'_>, mut out: Outgoing) -> Result<usize> {
    let result = socket.send(source, &mut out);
    if let Err(error) = &result
        && socket.common().kind == Kind::Stream
        && out.flags & MSG_NOSIGNAL == 0
    {
        raise_sigpipe_for(call, error);
    }
    result
}

pub(super) fn sys_sendmsg(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    send_message(call, (&file, &socket), call.addr(1), call.uint(2))
}

type Open<'a> = (&'a Arc<OpenFile>, &'a Arc<Socket>);

fn send_message(call: &Call<'_>, to: Open<'_>, addr: UserAddr, flags: u32) -> Result<usize> {
    let (file, socket) = to;
    let header: MsgHdr = user::read(addr)?;
    let pieces = Pieces::read(UserAddr(header.pieces), header.piece_count)?;
    let mut out = outgoing(file, socket, flags);
    if header.name != 0 && header.name_size != 0 {
        let size = clamp_name(header.name_size)?;
        let address = RawAddress::read(UserAddr(header.name), size)?;
        set_destination(socket, &mut out, &address)?;
    }
    if header.control != 0 && header.control_size > 0 {
        read_control(call, socket, &header, &mut out)?;
    }
    send(call, socket, &mut Source::user_pieces(pieces.all()), out)
}

fn clamp_name(size: i32) -> Result<i32> {
    if size < 0 {
        return err(Errno::EINVAL, "negative address size");
    }
    Ok(size.min(ADDRESS_MAX as i32))
}

/// Takes what travels with the message from the control buffer.
fn read_control(call: &Call<'_>, socket: &Socket, header: &MsgHdr, out: &mut Outgoing) -> Result<()> {
    if header.control_size > CONTROL_MAX {
        return err(Errno::ENOBUFS, "control data too long");
    }
    let control = UserSlice::<u8>::new(UserAddr(header.control), header.control_size).copy_in()?;
    let mut rest = &control[..];
    while rest.len() >= CMSGHDR_SIZE {
        let Ok((head, _)) = CmsgHdr::read_from_prefix(rest) else { break };
        if head.size < CMSGHDR_SIZE || head.size > rest.len() {
            return err(Errno::EINVAL, "control message size");
        }
        let data = &rest[CMSGHDR_SIZE..head.size];
        match head.level {
            SOL_SOCKET => take_control(call, socket, (head.kind, data), out)?,
            SOL_IP | SOL_IPV6 => take_origin(head.level, head.kind, data, out)?,
            _ => {}
        }
        rest = rest.get(head.size.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(())
}

fn take_control(call: &Call<'_>, socket: &Socket, message: (u32, &[u8]), out: &mut Outgoing) -> Result<()> {
    match message {
        // Other families take no such messages.
        _ if socket.common().domain != crate::net::address::AF_UNIX => Ok(()),
        (SCM_RIGHTS, data) => take_rights(call, data, out),
        (SCM_CREDENTIALS, data) => {
            out.ids = Some(claimed_ids(call, data)?);
            Ok(())
        }
        _ => err(Errno::EINVAL, "unknown control message"),
    }
}

/// From which address a datagram is sent, with how many hops and which traffic class. Others change
/// nothing here.
fn take_origin(level: u32, kind: u32, data: &[u8], out: &mut Outgoing) -> Result<()> {
    let word = |at: usize| data.get(at..).and_then(<[u8]>::first_chunk::<4>).copied();
    match (level, kind) {
        (SOL_IP, IP_PKTINFO) => {
            // struct in_pktinfo: index, local address, destination
            let (Some(index), Some(local), Some(_)) = (word(0), word(4), word(8)) else {
                return err(Errno::EINVAL, "size of struct in_pktinfo");
            };
            out.origin.local = Some(local.into());
            out.origin.interface = u32::from_le_bytes(index);
        }
        (SOL_IPV6, IPV6_PKTINFO) => {
            let (Some(local), Some(index)) = (data.first_chunk::<16>(), word(16)) else {
                return err(Errno::EINVAL, "size of struct in6_pktinfo");
            };
            out.origin.local = Some((*local).into());
            out.origin.interface = u32::from_le_bytes(index);
        }
        (SOL_IP, IP_TTL) | (SOL_IPV6, IPV6_HOPLIMIT) => out.origin.hops = byte(data)?,
        (SOL_IPV6, IPV6_TCLASS) => out.origin.traffic_class = byte(data)?,
        (SOL_IP, IP_TOS) if data.len() == 1 => out.origin.traffic_class = Some(data[0]),
        (SOL_IP, IP_TOS) => out.origin.traffic_class = byte(data)?,
        _ => {}
    }
    Ok(())
}

/// An int of one byte's range; -1 for what it is anyway.
fn byte(data: &[u8]) -> Result<Option<u8>> {
    let Ok(value) = <[u8; 4]>::try_from(data).map(i32::from_le_bytes) else {
        return err(Errno::EINVAL, "not an int");
    };
    match u8::try_from(value) {
        Ok(value) => Ok(Some(value)),
        _ if value == -1 => Ok(None),
        _ => err(Errno::EINVAL, "not from -1 to 255"),
    }
}

fn take_rights(call: &Call<'_>, data: &[u8], out: &mut Outgoing) -> Result<()> {
    let count = data.len() / 4;
    if count + out.rights.files().len() > RIGHTS_MAX {
        return err(Errno::EINVAL, "more than SCM_MAX_FD descriptors");
    }
    let mut files = Vec::new();
    files.try_reserve_exact(count).map_err(|_| Error::new(Errno::ENOMEM, "descriptors"))?;
    for raw in data.as_chunks::<4>().0 {
        files.push(call.thread.files().get_content(i32::from_le_bytes(*raw))?);
    }
    out.rights.append(&mut Rights::new(files));
    Ok(())
}

/// `struct ucred` as a sender claims it: its own ids, unless it is privileged.
fn claimed_ids(call: &Call<'_>, data: &[u8]) -> Result<PeerIds> {
    let Ok(&[pid, uid, gid]) = <&[u8; 12]>::try_from(data).map(|data| data.as_chunks::<4>().0) else {
        return err(Errno::EINVAL, "size of struct ucred");
    };
    let ids = PeerIds {
        pid: u32::from_le_bytes(pid),
        uid: u32::from_le_bytes(uid),
        gid: u32::from_le_bytes(gid),
    };
    let own = call.thread.credentials();
    let may_pid = ids.pid == call.thread.process().pid() || own.has(Capability::SysAdmin);
    let may_uid = own.user.may_become(ids.uid) || own.has(Capability::Setuid);
    let may_gid = own.group.may_become(ids.gid) || own.has(Capability::Setgid);
    if !(may_pid && may_uid && may_gid) {
        return err(Errno::EPERM, "ids of somebody else");
    }
    if crate::process::find_process(ids.pid).is_none() {
        return err(Errno::ESRCH, "no such process");
    }
    Ok(ids)
}

/// UIO_MAXIOV: messages of one sendmmsg or recvmmsg.
const MESSAGES_MAX: usize = 1024;

pub(super) fn sys_sendmmsg(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let count = call.size(2).min(MESSAGES_MAX);
    for index in 0..count {
        let addr = call.addr(1).offset(index * MMSGHDR_SIZE);
        let sent = send_message(call, (&file, &socket), addr, call.uint(3))
            .and_then(|size| user::write(addr.offset(MSGHDR_SIZE), &(size as u32)));
        match sent {
            Ok(()) => {}
            Err(_) if index > 0 => return Ok(index),
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

pub(super) fn sys_recvfrom(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let wanted = wanted(&file, &socket, call.uint(3));
    let mut sink = Sink::user(call.addr(1), call.size(2).min(MAX_TRANSFER));
    let incoming = socket.receive(&mut sink, &wanted)?;
    if !call.addr(4).is_null() {
        match &incoming.from {
            Some(from) => write_address(&from.encode(), call.addr(4), call.addr(5))?,
            None if call.addr(5).is_null() => {}
            None => user::write(call.addr(5), &0i32)?,
        }
    }
    Ok(received(&incoming, &sink, wanted.flags))
}

fn wanted(file: &OpenFile, socket: &Socket, flags: u32) -> Wanted {
    let patience = socket.common().receive_patience(wait_of(file, flags));
    Wanted { flags, patience, wants_ids: socket.common().wants_ids() }
}

/// What the call returns: with MSG_TRUNC the size of the whole message.
fn received(incoming: &Incoming, sink: &Sink<'_>, flags: u32) -> usize {
    if flags & MSG_TRUNC != 0 { incoming.size } else { sink.done() }
}

pub(super) fn sys_recvmsg(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let wanted = wanted(&file, &socket, call.uint(2));
    receive_message(call, &socket, call.addr(1), &wanted)
}

fn receive_message(call: &Call<'_>, socket: &Socket, addr: UserAddr, wanted: &Wanted) -> Result<usize> {
    let header: MsgHdr = user::read(addr)?;
    if header.name != 0 {
        clamp_name(header.name_size)?;
    }
    let pieces = Pieces::read(UserAddr(header.pieces), header.piece_count)?;
    let mut sink = Sink::user_pieces(pieces.all());
    let incoming = socket.receive(&mut sink, wanted)?;
    let name_size = UserAddr(addr.offset(8).0);
    if header.name != 0 {
        match &incoming.from {
            Some(from) => write_address(&from.encode(), UserAddr(header.name), name_size)?,
            None => user::write(name_size, &0i32)?,
        }
    }
    let mut control = Control::new(&header, wanted.flags);
    control.put_all(call, &incoming, wanted)?;
    let flags = incoming.flags | control.flags | wanted.flags & MSG_CMSG_CLOEXEC;
    user::write(addr.offset(48), &flags)?;
    user::write(addr.offset(40), &control.used)?;
    Ok(received(&incoming, &sink, wanted.flags))
}

/// The control buffer of a receiver.
struct Control {
    addr: UserAddr,
    size: usize,
    used: usize,
    /// MSG_CTRUNC when something did not fit.
    flags: u32,
    on_exec: OnExec,
}

impl Control {
    fn new(header: &MsgHdr, flags: u32) -> Control {
        Control {
            addr: UserAddr(header.control),
            size: if header.control == 0 { 0 } else { header.control_size },
            used: 0,
            flags: 0,
            on_exec: OnExec::when(flags & MSG_CMSG_CLOEXEC != 0),
        }
    }

    fn put_all(&mut self, call: &Call<'_>, incoming: &Incoming, wanted: &Wanted) -> Result<()> {
        if wanted.wants_ids {
            let ids = incoming.ids.unwrap_or(PeerIds::UNKNOWN);
            self.put(SOL_SOCKET, SCM_CREDENTIALS, [ids.pid, ids.uid, ids.gid].as_bytes())?;
        }
        for note in &incoming.notes {
            self.put(note.level, note.kind, &note.data)?;
        }
        if !incoming.rights.is_empty() {
            self.put_rights(call, &incoming.rights)?;
        }
        Ok(())
    }

    fn room(&self) -> usize {
        self.size - self.used
    }

    /// Puts one message, cut to what fits.
    fn put(&mut self, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        if self.room() < CMSGHDR_SIZE {
            self.flags |= MSG_CTRUNC;
            return Ok(());
        }
        let whole = CMSGHDR_SIZE + data.len();
        let size = whole.min(self.room());
        if size < whole {
            self.flags |= MSG_CTRUNC;
        }
        let at = self.addr.offset(self.used);
        user::write(at, &CmsgHdr { size, level, kind })?;
        user::write_bytes(at.offset(CMSGHDR_SIZE), &data[..size - CMSGHDR_SIZE])?;
        self.used += whole.next_multiple_of(8).min(self.room());
        Ok(())
    }

    /// Gives the receiver descriptors for as many files as it has room for.
    fn put_rights(&mut self, call: &Call<'_>, rights: &Rights) -> Result<()> {
        let fits = self.room().saturating_sub(CMSGHDR_SIZE) / 4;
        let mut fds = Vec::new();
        for file in rights.files().iter().take(fits) {
            match call.thread.files().insert(file.clone(), self.on_exec) {
                Ok(fd) => fds.push(fd),
                Err(_) => break,
            }
        }
        if fds.len() < rights.files().len() {
            self.flags |= MSG_CTRUNC;
        }
        if fds.is_empty() {
            return Ok(());
        }
        self.put(SOL_SOCKET, SCM_RIGHTS, fds.as_bytes())
    }
}

pub(super) fn sys_recvmmsg(call: &mut Call<'_>) -> Result<usize> {
    let (file, socket) = socket(call)?;
    let flags = call.uint(3);
    let deadline = match call.addr(4) {
        addr if addr.is_null() => None,
        addr => Some(deadline(addr)?),
    };
    if let Some(errno) = socket.protocol().take_error() {
        return err(errno, "the socket failed");
    }
    let mut wanted = wanted(&file, &socket, flags & !MSG_WAITFORONE);
    let count = call.size(2).min(MESSAGES_MAX);
    for index in 0..count {
        let addr = call.addr(1).offset(index * MMSGHDR_SIZE);
        let got = receive_message(call, &socket, addr, &wanted)
            .and_then(|size| user::write(addr.offset(MSGHDR_SIZE), &(size as u32)));
        match got {
            Ok(()) => {}
            Err(_) if index > 0 => return Ok(index),
            Err(error) => return Err(error),
        }
        if deadline.is_some_and(|deadline| timer::now_ns() >= deadline) {
            return Ok(index + 1);
        }
        if flags & MSG_WAITFORONE != 0 {
            wanted.patience = crate::net::patience::Patience::Never;
        }
    }
    Ok(count)
}

/// The `struct timespec` of recvmmsg, looked at after each message.
fn deadline(addr: UserAddr) -> Result<u64> {
    let [s, ns] = user::read::<[i64; 2]>(addr)?;
    if s < 0 || !(0..1_000_000_000).contains(&ns) {
        return err(Errno::EINVAL, "time-out");
    }
    let timeout = (s as u64).saturating_mul(1_000_000_000).saturating_add(ns as u64);
    Ok(timer::now_ns().saturating_add(timeout))
}
