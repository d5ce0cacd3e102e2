//! Reading and writing without blocking, and terminals.
//!
//! The standard descriptors are shared with the shell, so their flags stay as they are: O_NONBLOCK would
//! be set for everyone. Instead, RWF_NOWAIT where the file knows it, else poll(2) first and then no
//! more than a ready file takes at once.

use super::files::File;
use super::{Call, Served};
use crate::sys;
use crate::terminal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{self, Errno, IoSlice, IoSliceMut, ReadWriteFlags};
use rustix::time::Timespec;

/// "The current position" for preadv2(2) and pwritev2(2).
const CURRENT: u64 = u64::MAX;
/// What a pipe that polls writable takes without blocking (PIPE_BUF).
const READY_CHUNK: usize = 4096;

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

pub(super) fn read(call: &Call) -> Served {
    let file = call.file()?;
    let buffer = call.buffer(1)?;
    if buffer.is_empty() || call.instance.files.is_regular(call.args[0], &file)? {
        return Ok(io::read(&file, buffer)?.into());
    }
    match io::preadv2(
        &file,
        &mut [IoSliceMut::new(buffer)],
        CURRENT,
        ReadWriteFlags::NOWAIT,
    ) {
        Err(Errno::OPNOTSUPP) => {}
        done => return Ok(done?.into()),
    }
    if !is_ready(&file, PollFlags::IN)? {
        return Err(Errno::AGAIN);
    }
    Ok(io::read(&file, buffer)?.into())
}

pub(super) fn write(call: &Call) -> Served {
    let file = call.file()?;
    let buffer = call.buffer(1)?;
    if buffer.is_empty() || call.instance.files.is_regular(call.args[0], &file)? {
        return Ok(io::write(&file, buffer)?.into());
    }
    match io::pwritev2(
        &file,
        &[IoSlice::new(buffer)],
        CURRENT,
        ReadWriteFlags::NOWAIT,
    ) {
        Err(Errno::OPNOTSUPP) => {}
        done => return Ok(done?.into()),
    }
    Ok(write_while_ready(&file, buffer)?.into())
}

fn write_while_ready(file: &File, buffer: &[u8]) -> Result<usize, Errno> {
    let mut written = 0;
    for chunk in buffer.chunks(READY_CHUNK) {
        if !is_ready(file, PollFlags::OUT)? {
            break;
        }
        match io::write(file, chunk) {
            Ok(taken) => written += taken,
            Err(errno) if written == 0 => return Err(errno),
            Err(_) => break,
        }
        if !written.is_multiple_of(READY_CHUNK) {
            break;
        }
    }
    if written == 0 {
        Err(Errno::AGAIN)
    } else {
        Ok(written)
    }
}

/// Errors and hang-ups count as ready: the call then tells.
fn is_ready(file: &File, events: PollFlags) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(file, events)];
    loop {
        match poll(&mut fds, Some(&AT_ONCE)) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

pub(super) fn ioctl(call: &Call) -> Served {
    let file = call.file()?;
    let request = u32::try_from(call.args[1]).map_err(|_| Errno::INVAL)?;
    let buffer = call.buffer(2)?;
    if sys::is_terminal_change(request) {
        terminal::remember();
    }
    sys::terminal_request(&file, request, buffer)?;
    Ok(().into())
}
