//! What stands behind an open file description: [`File`].

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use super::{mapping, size_limit};
use super::inode::{Attr, DirEntry, InodeRef, Kind, Position, Visit};
use super::poll::Events;
use super::transfer::{Sink, Source};
use crate::error::{Errno, Result, err};
use crate::sched::Wake;
use crate::user::UserAddr;

/// Whether a call may wait for data or room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Never,
    Allowed,
}

/// Something open. Access modes, offsets and flags are the [`super::OpenFile`]'s business.
///
/// The defaults answer what Linux answers for objects without the operation.
pub trait File: Send + Sync + Any {
    fn attr(&self) -> Result<Attr>;

    /// What /proc/PID/fd shows for a file without a name.
    fn label(&self) -> String {
        String::from("anon_inode:[file]")
    }

    /// Lines of its own in /proc/PID/fdinfo.
    fn describe(&self) -> String {
        String::new()
    }

    /// The inode whose data this is, if it has one.
    fn inode(&self) -> Option<&InodeRef> {
        None
    }

    /// False for streams: no offset, ESPIPE for lseek and pread.
    fn is_seekable(&self) -> bool {
        false
    }

    /// Puts data into `sink`. A stream ignores `offset` and waits only if nothing was put yet.
    fn read(&self, _offset: u64, _sink: &mut Sink<'_>, _wait: Wait) -> Result<()> {
        err(Errno::EINVAL, "can't be read")
    }

    /// Takes data from `source`; gives the offset behind it, for a stream anything.
    fn write(&self, _at: Position, _source: &mut Source<'_>, _wait: Wait) -> Result<u64> {
        err(Errno::EINVAL, "can't be written")
    }

    /// What is ready now. With a `waker`, also remembers to wake it at the next change; the caller takes it
    /// back with [`File::forget_waker`].
    fn poll(&self, _waker: Option<&Arc<dyn Wake>>) -> Events {
        Events::IN | Events::OUT
    }

    fn forget_waker(&self, _waker: &Arc<dyn Wake>) {}

    /// False if a waker is forgotten once it was woken: epoll then gives it again.
    fn keeps_wakers(&self) -> bool {
        true
    }

    /// False for what epoll refuses (regular files, directories).
    fn is_pollable(&self) -> bool {
        true
    }

    /// Whether O_ASYNC has an effect: pipes, sockets, terminals.
    fn can_signal(&self) -> bool {
        false
    }

    fn ioctl(&self, _request: u32, _arg: UserAddr) -> Result<usize> {
        err(Errno::ENOTTY, "no such ioctl")
    }

    /// Bytes that can be read at once (FIONREAD).
    fn readable_bytes(&self) -> Result<usize> {
        err(Errno::ENOTTY, "no FIONREAD")
    }

    /// Whether EPIPE from writing comes with a SIGPIPE: pipes and stream sockets.
    fn raises_sigpipe(&self) -> bool {
        true
    }

    fn read_dir(&self, _cursor: u64, _visit: &mut Visit<'_>) -> Result<()> {
        err(Errno::ENOTDIR, "not a directory")
    }

    fn sync(&self) -> Result<()> {
        err(Errno::EINVAL, "nothing to sync")
    }
}

/// The data of an inode: regular files and directories.
pub struct InodeFile {
    inode: InodeRef,
}

impl InodeFile {
    pub fn new(inode: InodeRef) -> Arc<InodeFile> {
        Arc::new(InodeFile { inode })
    }

    fn is_dir(&self) -> bool {
        self.inode.kind() == Kind::Directory
    }
}

impl File for InodeFile {
    fn attr(&self) -> Result<Attr> {
        self.inode.attr()
    }

    fn inode(&self) -> Option<&InodeRef> {
        Some(&self.inode)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, sink: &mut Sink<'_>, _wait: Wait) -> Result<()> {
        if self.is_dir() {
            return err(Errno::EISDIR, "read of a directory");
        }
        mapping::read_at(&self.inode, offset, sink)
    }

    fn write(&self, at: Position, source: &mut Source<'_>, _wait: Wait) -> Result<u64> {
        size_limit::limited(&self.inode, at, source, |source| mapping::write_at(&self.inode, at, source))
    }

    fn is_pollable(&self) -> bool {
        false
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(usize::try_from(self.inode.attr()?.size).unwrap_or(usize::MAX))
    }

    fn read_dir(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        self.inode.read_dir(cursor, &mut |entry: DirEntry<'_>| visit(entry))
    }

    fn sync(&self) -> Result<()> {
        self.inode.sync()
    }
}

/// A name of a file without right to its data (O_PATH).
pub struct PathFile {
    inode: InodeRef,
}

impl PathFile {
    pub fn new(inode: InodeRef) -> Arc<PathFile> {
        Arc::new(PathFile { inode })
    }
}

impl File for PathFile {
    fn attr(&self) -> Result<Attr> {
        self.inode.attr()
    }

    fn inode(&self) -> Option<&InodeRef> {
        Some(&self.inode)
    }

    fn is_pollable(&self) -> bool {
        false
    }
}
