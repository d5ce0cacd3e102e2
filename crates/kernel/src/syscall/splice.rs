//! From one descriptor to another inside the kernel: sendfile(2), copy_file_range(2), splice(2), tee(2),
//! vmsplice(2). Data is copied: pages of an enclave don't change their owner.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::file::{content, offset, read_pieces, transfer_size, write};
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::user::{self, UserAddr};
use crate::vfs::file::Wait;
use crate::vfs::flags::*;
use crate::vfs::inode::Kind;
use crate::vfs::open::Whence;
use crate::vfs::pipe::{PIPE_BUF, PipeEnd};
use crate::vfs::{Events, OpenFile, Sink, Source};

use Arg::{Fd, Hex, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(40, "sendfile", &[Fd, Fd, Ptr, Uint], sys_sendfile),
    Syscall::full(275, "splice", &[Fd, Ptr, Fd, Ptr, Uint, Hex], sys_splice).but(COPIED),
    Syscall::full(276, "tee", &[Fd, Fd, Uint, Hex], sys_tee).but(COPIED),
    Syscall::full(278, "vmsplice", &[Fd, Ptr, Uint, Hex], sys_vmsplice).but(COPIED),
    Syscall::full(326, "copy_file_range", &[Fd, Ptr, Fd, Ptr, Uint, Hex], sys_copy_file_range),
];

const COPIED: &str = "data is copied";

/// Bytes moved between two files in one piece.
const COPY_CHUNK: usize = 128 << 10;

fn sys_sendfile(call: &mut Call<'_>) -> Result<usize> {
    let input = content(call, 1)?;
    input.check_readable()?;
    let output = content(call, 0)?;
    output.check_writable()?;
    if output.flags() & O_APPEND != 0 {
        return err(Errno::EINVAL, "sendfile to O_APPEND");
    }
    let size = transfer_size(call.size(3))?;
    if call.addr(2).is_null() {
        let mut from = input.offset();
        let sent = copy(call, &input, &mut from, &output, None, size)?;
        if input.file().is_seekable() {
            input.with_offset(|offset| *offset = from);
        }
        return Ok(sent);
    }
    let mut from = offset(user::read::<i64>(call.addr(2))?)?;
    if !input.file().is_seekable() {
        return err(Errno::ESPIPE, "offset of a stream");
    }
    let sent = copy(call, &input, &mut from, &output, None, size)?;
    user::write(call.addr(2), &(from as i64))?;
    Ok(sent)
}

fn sys_copy_file_range(call: &mut Call<'_>) -> Result<usize> {
    let input = content(call, 0)?;
    let output = content(call, 2)?;
    input.check_readable()?;
    output.check_writable()?;
    for file in [&input, &output] {
        match file.inode().map(|inode| inode.kind()) {
            Some(Kind::Regular) => {}
            Some(Kind::Directory) => return err(Errno::EISDIR, "a directory"),
            _ => return err(Errno::EINVAL, "not a regular file"),
        }
    }
    if call.uint(5) != 0 {
        return err(Errno::EINVAL, "flags");
    }
    if output.flags() & O_APPEND != 0 {
        return err(Errno::EBADF, "output is O_APPEND");
    }
    let size = transfer_size(call.size(4))?;
    let mut from = position(call.addr(1), &input)?;
    let mut to = position(call.addr(3), &output)?;
    let is_same = input.file().attr()?.ino == output.file().attr()?.ino;
    if is_same && from < to.saturating_add(size as u64) && to < from.saturating_add(size as u64) {
        return err(Errno::EINVAL, "ranges overlap");
    }
    let count = copy(call, &input, &mut from, &output, Some(&mut to), size)?;
    store_position(call.addr(1), &input, from)?;
    store_position(call.addr(3), &output, to)?;
    Ok(count)
}

/// How much may be read from `input` before `output` has taken it. What was read from a stream can't be
/// put back, so an output that does not wait must have room first.
fn check_outlet(input: &OpenFile, output: &OpenFile) -> Result<usize> {
    if input.file().is_seekable() || output.wait() == Wait::Allowed {
        return Ok(COPY_CHUNK);
    }
    if !output.file().poll(None).has(Events::OUT) {
        return err(Errno::EAGAIN, "the output has no room");
    }
    Ok(PIPE_BUF)
}

const SPLICE_F_NONBLOCK: u32 = 2;

fn sys_splice(call: &mut Call<'_>) -> Result<usize> {
    let (input, output) = (content(call, 0)?, content(call, 2)?);
    input.check_readable()?;
    output.check_writable()?;
    if call.uint(5) > 15 {
        return err(Errno::EINVAL, "flags");
    }
    let (from_pipe, to_pipe) = (is_pipe(&input)?, is_pipe(&output)?);
    if !from_pipe && !to_pipe {
        return err(Errno::EINVAL, "none of the two is a pipe");
    }
    if from_pipe && to_pipe && pipe_of(&input)?.is_same_pipe(&*pipe_of(&output)?) {
        return err(Errno::EINVAL, "the same pipe");
    }
    let has_offset = |is_pipe: bool, addr: UserAddr| is_pipe && !addr.is_null();
    if has_offset(from_pipe, call.addr(1)) || has_offset(to_pipe, call.addr(3)) {
        return err(Errno::ESPIPE, "offset of a pipe");
    }
    if output.flags() & O_APPEND != 0 {
        return err(Errno::EINVAL, "output is O_APPEND");
    }
    if call.uint(5) & SPLICE_F_NONBLOCK != 0 && !to_pipe && !input.file().poll(None).has(Events::IN) {
        return err(Errno::EAGAIN, "would block");
    }
    // No more than the pipe holds, so that nothing read is left without a place.
    let size = transfer_size(call.size(4))?.min(PIPE_PIECE);
    let mut from = if from_pipe { 0 } else { position(call.addr(1), &input)? };
    let mut to = if to_pipe { 0 } else { position(call.addr(3), &output)? };
    let place = output.file().is_seekable().then_some(&mut to);
    let count = copy(call, &input, &mut from, &output, place, size)?;
    if input.file().is_seekable() {
        store_position(call.addr(1), &input, from)?;
    }
    if output.file().is_seekable() {
        store_position(call.addr(3), &output, to)?;
    }
    Ok(count)
}

/// What one splice moves at most: a pipe of the usual size.
const PIPE_PIECE: usize = 64 << 10;

fn is_pipe(file: &OpenFile) -> Result<bool> {
    Ok(Kind::from_mode(file.file().attr()?.mode) == Some(Kind::Fifo))
}

fn position(addr: UserAddr, file: &OpenFile) -> Result<u64> {
    if addr.is_null() { Ok(file.offset()) } else { offset(user::read::<i64>(addr)?) }
}

fn store_position(addr: UserAddr, file: &OpenFile, position: u64) -> Result<()> {
    if addr.is_null() {
        return file.seek(position as i64, Whence::Set).map(drop);
    }
    user::write(addr, &(position as i64))
}

/// Copies up to `size` bytes from `input` at `from` to `output`, at its own offset or at `to`.
fn copy(
    call: &Call<'_>,
    input: &OpenFile,
    from: &mut u64,
    output: &OpenFile,
    mut to: Option<&mut u64>,
    size: usize,
) -> Result<usize> {
    let mut buf = buffer(size.min(COPY_CHUNK))?;
    let mut done = 0;
    while done < size {
        let piece = match check_outlet(input, output) {
            Ok(most) => (size - done).min(most),
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        };
        let mut sink = Sink::kernel(&mut buf[..piece]);
        let wait = if done > 0 { Wait::Never } else { input.wait() };
        let got = match sink.drive(|sink| input.file().read(*from + sink.done() as u64, sink, wait)) {
            Ok(got) => got,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        };
        let mut source = Source::kernel(&buf[..got]);
        let result = match &mut to {
            Some(to) => output.write_at(**to, &mut source),
            None => write(call, output, &mut source),
        };
        let put = match result {
            Ok(put) => put,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        };
        done += put;
        *from += put as u64;
        if let Some(to) = &mut to {
            **to += put as u64;
        }
        if got < piece || put < got {
            break;
        }
    }
    Ok(done)
}

fn pipe_of(file: &OpenFile) -> Result<Arc<PipeEnd>> {
    let any: Arc<dyn core::any::Any + Send + Sync> = file.file().clone();
    any.downcast::<PipeEnd>().or_else(|_| err(Errno::EINVAL, "not a pipe"))
}

fn sys_tee(call: &mut Call<'_>) -> Result<usize> {
    if call.uint(3) & !SPLICE_F_ALL != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let (input, output) = (content(call, 0)?, content(call, 1)?);
    input.check_readable()?;
    output.check_writable()?;
    let (from, to) = (pipe_of(&input)?, pipe_of(&output)?);
    if from.is_same_pipe(&to) {
        return err(Errno::EINVAL, "the same pipe");
    }
    let size = transfer_size(call.size(2))?.min(PIPE_PIECE);
    if size == 0 {
        return Ok(0);
    }
    let is_nonblocking = call.uint(3) & SPLICE_F_NONBLOCK != 0;
    let wait = |file: &OpenFile| if is_nonblocking { Wait::Never } else { file.wait() };
    to.wait_for_room(wait(&output)).inspect_err(|error| super::file::raise_sigpipe_for(call, error))?;
    let mut buf = buffer(size)?;
    let got = from.peek(&mut buf, wait(&input))?;
    let room = to.room().min(got);
    let mut source = Source::kernel(&buf[..room]);
    let result = source.drive(|source| output.file().write(crate::vfs::inode::Position::End, source, Wait::Never).map(drop));
    result.inspect_err(|error| super::file::raise_sigpipe_for(call, error))
}

const SPLICE_F_ALL: u32 = 15;

/// Into a pipe, or out of one, as writev and readv do.
fn sys_vmsplice(call: &mut Call<'_>) -> Result<usize> {
    if call.uint(3) & !SPLICE_F_ALL != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let file = content(call, 0)?;
    if pipe_of(&file).is_err() {
        return err(Errno::EBADF, "not a pipe");
    }
    let pieces = read_pieces(call.addr(1), call.size(2))?;
    let wait = if call.uint(3) & SPLICE_F_NONBLOCK != 0 { Wait::Never } else { file.wait() };
    if !file.is_writable() {
        return file.read_with(&mut Sink::user_pieces(&pieces), wait);
    }
    let mut source = Source::user_pieces(&pieces);
    let result = file.write_with(&mut source, wait, false);
    result.inspect_err(|error| super::file::raise_sigpipe_for(call, error))
}

/// Memory for `size` bytes on their way; ENOMEM.
fn buffer(size: usize) -> Result<Vec<u8>> {
    let mut buf = Vec::new();
    buf.try_reserve_exact(size).map_err(|_| Error::new(Errno::ENOMEM, "copy buffer"))?;
    buf.resize(size, 0);
    Ok(buf)
}
