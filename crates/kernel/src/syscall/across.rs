//! Into other processes: process_vm_readv(2), process_vm_writev(2), pidfd_getfd(2), kcmp(2).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::file::read_pieces;
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::mm::{self, AddressSpace};
use crate::process::{Thread, inspect, pidfd, tree};
use crate::user::{self, UserAddr};
use crate::vfs::table::OnExec;
use crate::vfs::transfer::IoVec;

use Arg::{Fd, Hex, Int, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(310, "process_vm_readv", &[Int, Ptr, Uint, Ptr, Uint, Hex], sys_process_vm_readv),
    Syscall::full(311, "process_vm_writev", &[Int, Ptr, Uint, Ptr, Uint, Hex], sys_process_vm_writev),
    Syscall::full(312, "kcmp", &[Int, Int, Int, Hex, Hex], sys_kcmp).but("no KCMP_EPOLL_TFD"),
    Syscall::full(438, "pidfd_getfd", &[Fd, Fd, Hex], sys_pidfd_getfd),
];

/// Bytes on their way between two processes.
const CHUNK: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    FromRemote,
    ToRemote,
}

fn sys_process_vm_readv(call: &mut Call<'_>) -> Result<usize> {
    transfer(call, Direction::FromRemote)
}

fn sys_process_vm_writev(call: &mut Call<'_>) -> Result<usize> {
    transfer(call, Direction::ToRemote)
}

fn transfer(call: &Call<'_>, direction: Direction) -> Result<usize> {
    if call.args[5] != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let local = read_pieces(call.addr(1), call.size(2))?;
    let remote = read_pieces(call.addr(3), call.size(4))?;
    let total = |pieces: &[IoVec]| pieces.iter().map(|piece| piece.size).sum::<usize>();
    let mut left = total(&local).min(total(&remote));
    let target = find_thread(call.int(0))?;
    inspect::check_may_inspect(call.thread, &target)?;
    let (mut here, mut there) = (Position::new(&local), Position::new(&remote));
    let mut buf = buffer(left.min(CHUNK))?;
    let mut done = 0;
    while left > 0 {
        let size = left.min(CHUNK).min(here.left()).min(there.left());
        let piece = &mut buf[..size];
        let moved = match direction {
            Direction::FromRemote => read_remote(target.space(), there.address(), piece)
                .and_then(|()| user::write_bytes(here.address(), piece)),
            Direction::ToRemote => user::read_bytes(here.address(), piece)
                .and_then(|()| mm::within(target.space(), || user::write_bytes(there.address(), piece))),
        };
        match moved {
            Ok(()) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        here.advance(size);
        there.advance(size);
        done += size;
        left -= size;
    }
    Ok(done)
}

/// Bytes of another process's memory.
pub(super) fn read_remote(space: &Arc<AddressSpace>, from: UserAddr, buf: &mut [u8]) -> Result<()> {
    mm::within(space, || user::read_bytes(from, buf))
}

fn buffer(size: usize) -> Result<Vec<u8>> {
    let mut buf = Vec::new();
    buf.try_reserve_exact(size).map_err(|_| Error::new(Errno::ENOMEM, "copy buffer"))?;
    buf.resize(size, 0);
    Ok(buf)
}

/// A place in a list of pieces; pieces end in pages, so that a bad one ends the call where Linux ends it.
struct Position<'a> {
    pieces: &'a [IoVec],
    offset: usize,
}

impl<'a> Position<'a> {
    fn new(pieces: &'a [IoVec]) -> Position<'a> {
        let mut position = Position { pieces, offset: 0 };
        position.advance(0);
        position
    }

    fn address(&self) -> UserAddr {
        let base = self.pieces.first().map_or(0, |piece| piece.base);
        UserAddr(base).offset(self.offset)
    }

    /// Bytes up to the end of the piece or the page.
    fn left(&self) -> usize {
        let in_piece = self.pieces.first().map_or(0, |piece| piece.size - self.offset);
        in_piece.min(mm::PAGE_SIZE - self.address().0 % mm::PAGE_SIZE)
    }

    fn advance(&mut self, size: usize) {
        self.offset += size;
        while let Some((first, rest)) = self.pieces.split_first()
            && self.offset >= first.size
        {
            self.pieces = rest;
            self.offset = 0;
        }
    }
}

fn find_thread(tid: i32) -> Result<Arc<Thread>> {
    u32::try_from(tid).ok().and_then(tree::find_thread).ok_or_else(tree::no_such_process)
}

/// The file that another process has at a descriptor, as a descriptor of the caller.
fn sys_pidfd_getfd(call: &mut Call<'_>) -> Result<usize> {
    if call.uint(2) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let (process, _) = pidfd::process_of(call.thread, call.int(0))?;
    let target = process.main_thread().ok_or_else(tree::no_such_process)?;
    inspect::check_may_inspect(call.thread, &target)?;
    let file = target.files().get(call.int(1))?;
    call.thread.files().insert(file, OnExec::Close).map(|fd| fd as usize)
}

const KCMP_FILE: i32 = 0;
const KCMP_VM: i32 = 1;
const KCMP_FILES: i32 = 2;
const KCMP_FS: i32 = 3;
const KCMP_SIGHAND: i32 = 4;
const KCMP_IO: i32 = 5;
const KCMP_SYSVSEM: i32 = 6;

fn sys_kcmp(call: &mut Call<'_>) -> Result<usize> {
    let (one, other) = (find_thread(call.int(0))?, find_thread(call.int(1))?);
    inspect::check_may_inspect(call.thread, &one)?;
    inspect::check_may_inspect(call.thread, &other)?;
    let same = |thread: &Arc<Thread>, index: usize| -> Result<usize> {
        Ok(match call.int(2) {
            KCMP_FILE => Arc::as_ptr(&thread.files().get(call.int(index))?) as usize,
            KCMP_VM => Arc::as_ptr(thread.space()) as usize,
            KCMP_FILES => Arc::as_ptr(thread.files()) as usize,
            KCMP_FS => Arc::as_ptr(thread.fs()) as usize,
            KCMP_SIGHAND => Arc::as_ptr(&thread.process().signals().dispositions()) as usize,
            // Nobody shares an I/O context, and undo lists are a process's.
            KCMP_IO => Arc::as_ptr(thread.state()) as usize,
            KCMP_SYSVSEM => Arc::as_ptr(thread.process()) as usize,
            _ => return err(Errno::EINVAL, "unknown kind of object"),
        })
    };
    let (one, other) = (same(&one, 3)?, same(&other, 4)?);
    Ok(match one.cmp(&other) {
        core::cmp::Ordering::Equal => 0,
        core::cmp::Ordering::Less => 1,
        core::cmp::Ordering::Greater => 2,
    })
}
