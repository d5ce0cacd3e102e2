//! RLIMIT_FSIZE: no file grows beyond it through a process that has it (setrlimit(2)).

use super::inode::{InodeRef, Position};
use super::transfer::Source;
use crate::error::{Errno, Error, Result};
use crate::process;
use crate::signal::{self, SigInfo, Signal};

/// Bytes a file may have for the current process; `u64::MAX` for no limit.
fn current() -> u64 {
    process::current().map_or(u64::MAX, |thread| thread.process().file_size_limit())
}

/// SIGXFSZ and EFBIG unless the current process may make a file `size` bytes long, or it is already.
pub fn check(inode: &InodeRef, size: u64) -> Result<()> {
    if size <= current() || size <= inode.attr()?.size { Ok(()) } else { Err(exceeded()) }
}

/// Runs `write` with as much of `source` as may go to `at`; what does not fit at all is refused as
/// [`check`] does.
pub fn limited<'a>(
    inode: &InodeRef,
    at: Position,
    source: &mut Source<'a>,
    write: impl FnOnce(&mut Source<'a>) -> Result<u64>,
) -> Result<u64> {
    let limit = current();
    if limit == u64::MAX || source.left() == 0 {
        return write(source);
    }
    let start = match at {
        Position::At(offset) => offset,
        Position::End => inode.attr()?.size,
    };
    if start >= limit {
        return Err(exceeded());
    }
    source.capped(usize::try_from(limit - start).unwrap_or(usize::MAX), write)
}

fn exceeded() -> Error {
    if let Some(thread) = process::current() {
        // An ordinary signal to oneself can't fail.
        let _ = signal::send_to_thread(&thread, Signal::XFSZ, SigInfo::kernel(Signal::XFSZ));
    }
    Error::new(Errno::EFBIG, "RLIMIT_FSIZE")
}
