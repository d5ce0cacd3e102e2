//! Opening, reading and writing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::path::{self, AT_FDCWD};
use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::signal::{self, SigInfo, Signal};
use crate::user::{self, UserAddr, UserSlice};
use crate::vfs::busy;
use crate::vfs::create::{self, Mode};
use crate::vfs::file::Wait;
use crate::vfs::flags::*;
use crate::vfs::inotify::{self, IN_MODIFY};
use crate::vfs::inode::{Allocate, Kind};
use crate::vfs::open::Whence;
use crate::vfs::table::OnExec;
use crate::vfs::walk::Resolve;
use crate::vfs::transfer::{self, IoVec, MAX_TRANSFER};
use crate::vfs::{OpenFile, Sink, Source, access, mapping, mounts, size_limit};

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
    Syscall::full(74, "fsync", &[Fd], sys_fsync),
    Syscall::full(75, "fdatasync", &[Fd], sys_fsync),
    Syscall::full(76, "truncate", &[Path, Int], sys_truncate),
    Syscall::full(77, "ftruncate", &[Fd, Int], sys_ftruncate),
    Syscall::full(85, "creat", &[Path, Octal], sys_creat),
    Syscall::full(162, "sync", &[], sys_sync),
    Syscall::full(187, "readahead", &[Fd, Int, Uint], sys_readahead),
    Syscall::full(221, "fadvise64", &[Fd, Int, Uint, Int], sys_fadvise64),
    Syscall::full(437, "openat2", &[Fd, Path, Ptr, Uint], sys_openat2),
    Syscall::full(257, "openat", &[Fd, Path, Hex, Octal], sys_openat),
    Syscall::full(277, "sync_file_range", &[Fd, Int, Int, Hex], sys_sync_file_range),
    Syscall::full(285, "fallocate", &[Fd, Hex, Int, Int], sys_fallocate)
        .but("space is not reserved; FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE in encrypted stores only"),
    Syscall::full(295, "preadv", &[Fd, Ptr, Uint, Int], sys_preadv),
    Syscall::full(296, "pwritev", &[Fd, Ptr, Uint, Int], sys_pwritev),
    Syscall::full(306, "syncfs", &[Fd], sys_syncfs),
    Syscall::full(327, "preadv2", &[Fd, Ptr, Uint, Int, Int, Hex], sys_preadv2),
    Syscall::full(328, "pwritev2", &[Fd, Ptr, Uint, Int, Int, Hex], sys_pwritev2),
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

/// `struct open_how`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn sys_openat2(call: &mut Call<'_>) -> Result<usize> {
    let how = read_open_how(call.addr(2), call.size(3))?;
    let flags = how.flags as u32;
    let path = path::read(call, 1)?;
    let who = path::identity(call);
    let walker = path::walker_within(call, &who, call.int(0), path, Resolve::new(how.resolve)?)?;
    let mode = Mode { bits: how.mode as u32, umask: call.thread.fs().umask() };
    let file = create::open(walker, flags, mode)?;
    let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
    Ok(call.thread.files().insert(file, on_exec)? as usize)
}

/// openat2(2) refuses what open(2) ignores.
fn read_open_how(addr: UserAddr, size: usize) -> Result<OpenHow> {
    const PAGE: usize = 4096;
    if size < size_of::<OpenHow>() {
        return err(Errno::EINVAL, "open_how too short");
    }
    if size > PAGE {
        return err(Errno::E2BIG, "open_how too long");
    }
    let how: OpenHow = user::read(addr)?;
    let rest = UserSlice::<u8>::new(addr.offset(size_of::<OpenHow>()), size - size_of::<OpenHow>()).copy_in()?;
    if rest.iter().any(|&byte| byte != 0) {
        return err(Errno::E2BIG, "unknown fields of open_how");
    }
    let Ok(flags) = u32::try_from(how.flags) else { return err(Errno::EINVAL, "unknown flags") };
    const PATH_FLAGS: u32 = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC;
    let has_mode = flags & O_CREAT != 0 || flags & O_TMPFILE == O_TMPFILE;
    let is_wrong = flags & !OPEN_KNOWN != 0
        || (flags & O_PATH != 0 && flags & !PATH_FLAGS != 0)
        || how.mode > 0o7777
        || (how.mode != 0 && !has_mode);
    if is_wrong { err(Errno::EINVAL, "flags or mode") } else { Ok(how) }
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
    with_sigpipe(call, file, file.write(source))
}

fn with_sigpipe(call: &Call<'_>, file: &OpenFile, result: Result<usize>) -> Result<usize> {
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
pub(super) fn transfer_size(size: usize) -> Result<usize> {
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
const RWF_NOWAIT: u32 = 8;
const RWF_APPEND: u32 = 16;
const RWF_ALL: u32 = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;

/// Offset -1 is the file's own; `None` for that.
fn optional_offset(call: &Call<'_>) -> Result<Option<u64>> {
    if call.long(3) == -1 { Ok(None) } else { offset(call.long(3)).map(Some) }
}

fn sys_preadv2(call: &mut Call<'_>) -> Result<usize> {
    let at = optional_offset(call)?;
    let file = content(call, 0)?;
    file.check_readable()?;
    let pieces = read_pieces(call.addr(1), call.size(2))?;
    let wait = check_rw_flags(call, &file)?;
    let mut sink = Sink::user_pieces(&pieces);
    match at {
        Some(at) => file.read_at(at, &mut sink),
        None => file.read_with(&mut sink, wait),
    }
}

fn sys_pwritev2(call: &mut Call<'_>) -> Result<usize> {
    let at = optional_offset(call)?;
    let file = content(call, 0)?;
    file.check_writable()?;
    let pieces = read_pieces(call.addr(1), call.size(2))?;
    let wait = check_rw_flags(call, &file)?;
    let is_append = (call.uint(5) & RWF_APPEND != 0) || file.flags() & O_APPEND != 0;
    let mut source = Source::user_pieces(&pieces);
    let count = match at {
        Some(at) => file.write_at_with(at, &mut source, is_append)?,
        None => with_sigpipe(call, &file, file.write_with(&mut source, wait, is_append))?,
    };
    if call.uint(5) & (RWF_DSYNC | RWF_SYNC) != 0 && file.file().is_seekable() {
        file.file().sync()?;
    }
    Ok(count)
}

/// EOPNOTSUPP for unknown flags; says whether the call may wait.
fn check_rw_flags(call: &Call<'_>, file: &OpenFile) -> Result<Wait> {
    if call.uint(5) & !RWF_ALL != 0 {
        return err(Errno::EOPNOTSUPP, "RWF_ flag");
    }
    Ok(if call.uint(5) & RWF_NOWAIT != 0 { Wait::Never } else { file.wait() })
}

/// A file offset argument; EINVAL if negative.
pub(super) fn offset(value: i64) -> Result<u64> {
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
    let _writer = busy::write(path.inode())?;
    size_limit::check(path.inode(), size)?;
    mapping::resize(path.inode(), size)?;
    inotify::changed(&path.dentry, IN_MODIFY);
    Ok(0)
}

fn sys_ftruncate(call: &mut Call<'_>) -> Result<usize> {
    let size = offset(call.long(1))?;
    let file = content(call, 0)?;
    match file.inode() {
        Some(inode) if inode.kind() == Kind::Regular && file.is_writable() => {
            size_limit::check(inode, size)?;
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
    if matches!(how, Allocate::Extend | Allocate::ZeroRange) {
        size_limit::check(inode, (from + size) as u64)?;
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
