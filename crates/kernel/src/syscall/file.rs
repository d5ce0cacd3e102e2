//! Opening, reading and writing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::path::{self, AT_FDCWD};
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::signal::{self, SigInfo, Signal};
use crate::user::{self, UserAddr, UserSlice};
use crate::vfs::create::{self, Mode};
use crate::vfs::file::Wait;
use crate::vfs::flags::*;
use crate::vfs::inotify::{self, IN_MODIFY};
use crate::vfs::inode::{Allocate, Kind};
use crate::vfs::open::Whence;
use crate::vfs::pipe::PIPE_BUF;
use crate::vfs::table::OnExec;
use crate::vfs::transfer::{self, IoVec, MAX_TRANSFER};
use crate::vfs::{Events, OpenFile, Sink, Source, access, mapping, mounts};

use Arg::{Fd, Hex, Int, Octal, Path, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(0, "read", &[Fd, Ptr, Uint], sys_read),
    Syscall::full(1, "write", &[Fd, Ptr, Uint], sys_write),
    Syscall::full(2, "open", &[Path, Hex, Octal], sys_open),
    Syscall::full(3, "close", &[Fd], sys_close),
    Syscall::full(8, "lseek", &[Fd, Int, Int], sys_lseek),
    Syscall::full(17, "pread64", &[Fd, Ptr, Uint, Int], sys_pread64),
    Syscall::full(18, "pwrite64", &[Fd, Ptr, Uint, Int], sys_pwrite64),
    Syscall::full(19, "readv", &[Fd, Ptr, Uint], sys_readv),
    Syscall::full(20, "writev", &[Fd, Ptr, Uint], sys_writev),
    Syscall::full(40, "sendfile", &[Fd, Fd, Ptr, Uint], sys_sendfile),
    Syscall::full(74, "fsync", &[Fd], sys_fsync),
    Syscall::full(75, "fdatasync", &[Fd], sys_fsync),
    Syscall::full(76, "truncate", &[Path, Int], sys_truncate),
    Syscall::full(77, "ftruncate", &[Fd, Int], sys_ftruncate),
    Syscall::full(85, "creat", &[Path, Octal], sys_creat),
    Syscall::full(162, "sync", &[], sys_sync),
    Syscall::full(187, "readahead", &[Fd, Int, Uint], sys_readahead),
    Syscall::full(221, "fadvise64", &[Fd, Int, Uint, Int], sys_fadvise64),
    Syscall::full(257, "openat", &[Fd, Path, Hex, Octal], sys_openat),
    Syscall::full(275, "splice", &[Fd, Ptr, Fd, Ptr, Uint, Hex], sys_splice).but("data is copied"),
    Syscall::full(277, "sync_file_range", &[Fd, Int, Int, Hex], sys_sync_file_range),
    Syscall::full(285, "fallocate", &[Fd, Hex, Int, Int], sys_fallocate)
        .but("space is not reserved; FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE in encrypted stores only"),
    Syscall::full(295, "preadv", &[Fd, Ptr, Uint, Int], sys_preadv),
    Syscall::full(296, "pwritev", &[Fd, Ptr, Uint, Int], sys_pwritev),
    Syscall::full(306, "syncfs", &[Fd], sys_syncfs),
    Syscall::full(326, "copy_file_range", &[Fd, Ptr, Fd, Ptr, Uint, Hex], sys_copy_file_range),
    Syscall::full(327, "preadv2", &[Fd, Ptr, Uint, Int, Int, Hex], sys_preadv2)
        .but("RWF_NOWAIT and RWF_APPEND are refused"),
    Syscall::full(328, "pwritev2", &[Fd, Ptr, Uint, Int, Int, Hex], sys_pwritev2)
        .but("RWF_NOWAIT and RWF_APPEND are refused"),
];

fn sys_open(call: &mut Call<'_>) -> Result<usize> {
    open_at(call, AT_FDCWD, 0, call.uint(1), call.uint(2))
}

fn sys_openat(call: &mut Call<'_>) -> Result<usize> {
    open_at(call, call.int(0), 1, call.uint(2), call.uint(3))
}

fn sys_creat(call: &mut Call<'_>) -> Result<usize> {
    open_at(call, AT_FDCWD, 0, O_CREAT | O_WRONLY | O_TRUNC, call.uint(1))
}

fn open_at(call: &Call<'_>, dirfd: i32, index: usize, flags: u32, mode: u32) -> Result<usize> {
    let path = path::read(call, index)?;
    let who = path::identity(call);
    let walker = path::walker(call, &who, dirfd, path)?;
    let mode = Mode { bits: mode, umask: call.thread.fs().umask() };
    let file = create::open(walker, flags, mode)?;
    let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
    Ok(call.thread.files().insert(file, on_exec)? as usize)
}

fn sys_close(call: &mut Call<'_>) -> Result<usize> {
    call.thread.files().close(call.int(0))?;
    Ok(0)
}

/// The open file of a descriptor argument, for calls that act on content.
pub(super) fn content(call: &Call<'_>, index: usize) -> Result<Arc<OpenFile>> {
    call.thread.files().get_content(call.int(index))
}

fn sys_read(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    file.check_readable()?;
    let size = transfer_size(call.size(2))?;
    file.read(&mut Sink::user(call.addr(1), size))
}

fn sys_write(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    file.check_writable()?;
    let size = transfer_size(call.size(2))?;
    write(call, &file, &mut Source::user(call.addr(1), size))
}

/// write(2) with its signal: a pipe or socket without reader raises SIGPIPE.
pub(super) fn write(call: &Call<'_>, file: &OpenFile, source: &mut Source<'_>) -> Result<usize> {
    let result = file.write(source);
    if let Err(error) = &result
        && file.file().raises_sigpipe()
    {
        raise_sigpipe_for(call, error);
    }
    result
}

pub(super) fn raise_sigpipe_for(call: &Call<'_>, error: &Error) {
    if error.errno == Errno::EPIPE {
        let info = SigInfo::kernel(Signal::PIPE);
        // An ordinary signal to oneself can't fail.
        let _ = signal::send_to_thread(call.thread, Signal::PIPE, info);
    }
}

/// At most MAX_RW_COUNT at once; no memory is larger than SSIZE_MAX.
fn transfer_size(size: usize) -> Result<usize> {
    if size > isize::MAX as usize {
        return err(Errno::EFAULT, "size above SSIZE_MAX");
    }
    Ok(size.min(MAX_TRANSFER))
}

fn sys_readv(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    file.check_readable()?;
    let pieces = read_pieces(call.addr(1), call.size(2))?;
    file.read(&mut Sink::user_pieces(&pieces))
}

fn sys_writev(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    file.check_writable()?;
    let pieces = read_pieces(call.addr(1), call.size(2))?;
    write(call, &file, &mut Source::user_pieces(&pieces))
}

/// UIO_MAXIOV.
const MAX_PIECES: usize = 1024;

/// The `struct iovec` array at `addr`, checked.
pub(super) fn read_pieces(addr: UserAddr, count: usize) -> Result<Vec<IoVec>> {
    if count > MAX_PIECES {
        return err(Errno::EINVAL, "more than IOV_MAX pieces");
    }
    let mut pieces = UserSlice::<IoVec>::new(addr, count).copy_in()?;
    transfer::check_pieces(&mut pieces)?;
    Ok(pieces)
}

fn sys_pread64(call: &mut Call<'_>) -> Result<usize> {
    let offset = offset(call.long(3))?;
    let file = content(call, 0)?;
    let size = transfer_size(call.size(2))?;
    check_range(offset, size)?;
    file.read_at(offset, &mut Sink::user(call.addr(1), size))
}

fn sys_pwrite64(call: &mut Call<'_>) -> Result<usize> {
    let offset = offset(call.long(3))?;
    let file = content(call, 0)?;
    let size = transfer_size(call.size(2))?;
    check_range(offset, size)?;
    file.write_at(offset, &mut Source::user(call.addr(1), size))
}

/// EINVAL for what ends beyond the largest offset.
fn check_range(offset: u64, size: usize) -> Result<()> {
    match offset.checked_add(size as u64) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => err(Errno::EINVAL, "beyond the largest offset"),
    }
}

fn sys_preadv(call: &mut Call<'_>) -> Result<usize> {
    let offset = offset(call.long(3))?;
    let file = content(call, 0)?;
    let pieces = read_pieces(call.addr(1), call.size(2))?;
    file.read_at(offset, &mut Sink::user_pieces(&pieces))
}

fn sys_pwritev(call: &mut Call<'_>) -> Result<usize> {
    let offset = offset(call.long(3))?;
    let file = content(call, 0)?;
    let pieces = read_pieces(call.addr(1), call.size(2))?;
    file.write_at(offset, &mut Source::user_pieces(&pieces))
}

const RWF_HIPRI: u32 = 1;
const RWF_DSYNC: u32 = 2;
const RWF_SYNC: u32 = 4;

fn sys_preadv2(call: &mut Call<'_>) -> Result<usize> {
    check_rw_flags(call.uint(5))?;
    if call.long(3) == -1 { sys_readv(call) } else { sys_preadv(call) }
}

fn sys_pwritev2(call: &mut Call<'_>) -> Result<usize> {
    check_rw_flags(call.uint(5))?;
    let count = if call.long(3) == -1 { sys_writev(call) } else { sys_pwritev(call) }?;
    if call.uint(5) & (RWF_DSYNC | RWF_SYNC) != 0 {
        content(call, 0)?.file().sync()?;
    }
    Ok(count)
}

fn check_rw_flags(flags: u32) -> Result<()> {
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC) != 0 {
        return err(Errno::EOPNOTSUPP, "RWF_ flag");
    }
    Ok(())
}

/// A file offset argument; EINVAL if negative.
fn offset(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::new(Errno::EINVAL, "negative offset"))
}

fn sys_lseek(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    let whence = match call.uint(2) {
        0 => Whence::Set,
        1 => Whence::Current,
        2 => Whence::End,
        3 => Whence::Data,
        4 => Whence::Hole,
        _ => return err(Errno::EINVAL, "unknown whence"),
    };
    Ok(file.seek(call.long(1), whence)? as usize)
}

fn sys_truncate(call: &mut Call<'_>) -> Result<usize> {
    let size = offset(call.long(1))?;
    let who = path::identity(call);
    let path = path::object(call, &who, AT_FDCWD, 0, crate::vfs::walk::LastLink::Follow)?;
    match path.dentry.kind() {
        Kind::Regular => {}
        Kind::Directory => return err(Errno::EISDIR, "truncate of a directory"),
        _ => return err(Errno::EINVAL, "truncate of a special file"),
    }
    create::check_writable_mount(&path)?;
    access::check(&**path.inode(), &who, access::MAY_WRITE)?;
    mapping::resize(path.inode(), size)?;
    inotify::changed(&path.dentry, IN_MODIFY);
    Ok(0)
}

fn sys_ftruncate(call: &mut Call<'_>) -> Result<usize> {
    let size = offset(call.long(1))?;
    let file = content(call, 0)?;
    match file.inode() {
        Some(inode) if inode.kind() == Kind::Regular && file.is_writable() => {
            mapping::resize(inode, size)?;
            file.tell(IN_MODIFY);
            Ok(0)
        }
        _ => err(Errno::EINVAL, "not a regular file open for writing"),
    }
}

const FALLOC_FL_KEEP_SIZE: u32 = 1;
const FALLOC_FL_PUNCH_HOLE: u32 = 2;
const FALLOC_FL_COLLAPSE_RANGE: u32 = 8;
const FALLOC_FL_ZERO_RANGE: u32 = 16;
const FALLOC_FL_INSERT_RANGE: u32 = 32;

fn sys_fallocate(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    let (from, size) = (call.long(2), call.long(3));
    if from < 0 || size <= 0 {
        return err(Errno::EINVAL, "negative offset, or no size");
    }
    const PUNCH: u32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP: u32 = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    let how = match call.uint(1) {
        0 => Allocate::Extend,
        FALLOC_FL_KEEP_SIZE => Allocate::KeepSize,
        PUNCH => Allocate::PunchHole,
        FALLOC_FL_ZERO_RANGE => Allocate::ZeroRange,
        ZERO_KEEP => Allocate::ZeroRangeKeepSize,
        FALLOC_FL_COLLAPSE_RANGE => Allocate::Collapse,
        FALLOC_FL_INSERT_RANGE => Allocate::Insert,
        _ => return err(Errno::EOPNOTSUPP, "fallocate mode"),
    };
    file.check_writable()?;
    let Some(inode) = file.inode() else { return err(Errno::ESPIPE, "fallocate of a stream") };
    match inode.kind() {
        Kind::Regular => {}
        Kind::Fifo => return err(Errno::ESPIPE, "fallocate of a FIFO"),
        _ => return err(Errno::ENODEV, "fallocate of a special file"),
    }
    if from.checked_add(size).is_none() {
        return err(Errno::EFBIG, "beyond the largest file");
    }
    mapping::allocate(inode, how, from as u64, size as u64)?;
    Ok(0)
}

fn sys_fsync(call: &mut Call<'_>) -> Result<usize> {
    content(call, 0)?.file().sync()?;
    Ok(0)
}

fn sys_sync(_call: &mut Call<'_>) -> Result<usize> {
    mounts::sync_all();
    Ok(0)
}

fn sys_syncfs(call: &mut Call<'_>) -> Result<usize> {
    if let Some(path) = content(call, 0)?.path() {
        path.mount.fs.sync()?;
    }
    Ok(0)
}

fn sys_sync_file_range(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    if call.uint(3) > 7 || call.long(1) < 0 || call.long(2) < 0 {
        return err(Errno::EINVAL, "flags or range");
    }
    if !file.file().is_seekable() {
        return err(Errno::ESPIPE, "stream");
    }
    file.file().sync()?;
    Ok(0)
}

/// The page cache reads as it needs: a hint.
fn sys_readahead(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    file.check_readable()?;
    match file.inode().map(|inode| inode.kind()) {
        Some(Kind::Regular) => Ok(0),
        _ => err(Errno::EINVAL, "readahead of a special file"),
    }
}

fn sys_fadvise64(call: &mut Call<'_>) -> Result<usize> {
    let file = content(call, 0)?;
    if file.inode().is_none_or(|inode| inode.kind() == Kind::Fifo) {
        return err(Errno::ESPIPE, "fadvise of a stream");
    }
    if call.uint(3) > 5 || call.long(2) < 0 {
        return err(Errno::EINVAL, "advice or size");
    }
    Ok(0)
}

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
    let mut buf = Vec::new();
    let no_memory = |_| Error::new(Errno::ENOMEM, "copy buffer");
    buf.try_reserve_exact(size.min(COPY_CHUNK)).map_err(no_memory)?;
    buf.resize(size.min(COPY_CHUNK), 0);
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
