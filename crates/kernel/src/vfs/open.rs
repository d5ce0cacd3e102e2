//! Open file descriptions: what descriptors share after dup and fork.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::file::{File, InodeFile, PathFile, Wait};
use super::flags::*;
use super::inotify::{self, IN_ACCESS, IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, IN_MODIFY, IN_OPEN};
use super::inode::{InodeRef, Position, Seek};
use super::busy;
use super::mount::{MS_SYNCHRONOUS, Path};
use super::sigio::Async;
use super::transfer::{Sink, Source};
use crate::error::{Errno, Result, err};
use crate::sched::Mutex;

/// An open file description: a [`File`] with its offset, access mode and status flags.
pub struct OpenFile {
    file: Arc<dyn File>,
    /// Where it was opened; `None` for pipes, sockets and the like.
    path: Option<Path>,
    /// As F_GETFL shows them, access mode included.
    flags: AtomicU32,
    offset: Mutex<u64>,
    /// Whether record locks were ever taken through it: then closing must look for them.
    pub(super) has_locks: AtomicBool,
    pub(super) asynchronous: Async,
    /// Counts it among the writers of a regular file.
    _writer: Option<busy::Writer>,
}

/// lseek(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    Set,
    Current,
    End,
    Data,
    Hole,
}

impl OpenFile {
    /// An open object without a name. `flags` are those of open(2) that stay.
    pub fn new(file: Arc<dyn File>, flags: u32) -> Arc<OpenFile> {
        OpenFile::with_path(file, None, flags)
    }

    pub fn with_path(file: Arc<dyn File>, path: Option<Path>, flags: u32) -> Arc<OpenFile> {
        OpenFile::assemble(file, path, flags, None)
    }

    fn assemble(
        file: Arc<dyn File>,
        path: Option<Path>,
        flags: u32,
        writer: Option<busy::Writer>,
    ) -> Arc<OpenFile> {
        let is_writer = flags & O_PATH == 0 && flags & O_ACCMODE != O_RDONLY;
        if let Some(path) = path.as_ref().filter(|_| is_writer) {
            path.mount.count_writer(1);
        }
        Arc::new(OpenFile {
            file,
            path,
            flags: AtomicU32::new(flags & !OPEN_ONLY),
            offset: Mutex::new(0),
            has_locks: AtomicBool::new(false),
            asynchronous: Async::default(),
            _writer: writer,
        })
    }

    /// Opens the object at `path`, whose permissions were checked.
    pub fn open(path: Path, flags: u32) -> Result<Arc<OpenFile>> {
        OpenFile::open_counted(path, flags, None)
    }

    /// The same for one that was counted as a writer.
    pub fn open_counted(path: Path, flags: u32, writer: Option<busy::Writer>) -> Result<Arc<OpenFile>> {
        let inode = path.inode().clone();
        let file: Arc<dyn File> = if flags & O_PATH != 0 {
            PathFile::new(inode)
        } else {
            match inode.clone().open(flags)? {
                Some(file) => file,
                None => InodeFile::new(inode),
            }
        };
        let file = OpenFile::assemble(file, Some(path), flags, writer);
        file.tell(IN_OPEN);
        Ok(file)
    }

    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    pub fn inode(&self) -> Option<&InodeRef> {
        self.file.inode().or(self.path.as_ref().map(Path::inode))
    }

    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// F_SETFL: changes the flags that may change.
    pub fn set_flags(&self, flags: u32) {
        let keep = self.flags() & !SETTABLE;
        let settable = if self.file.can_signal() { SETTABLE } else { SETTABLE & !O_ASYNC };
        let old = self.flags.swap(keep | flags & settable, Ordering::Relaxed);
        if (old ^ flags) & settable & O_ASYNC != 0 {
            self.arm();
        }
    }

    /// Who hears of readiness by signal.
    pub fn asynchronous(&self) -> &Async {
        &self.asynchronous
    }

    /// FIONBIO.
    pub fn set_nonblocking(&self, wait: Wait) {
        match wait {
            Wait::Never => self.flags.fetch_or(O_NONBLOCK, Ordering::Relaxed),
            Wait::Allowed => self.flags.fetch_and(!O_NONBLOCK, Ordering::Relaxed),
        };
    }

    pub fn wait(&self) -> Wait {
        if self.flags() & O_NONBLOCK != 0 { Wait::Never } else { Wait::Allowed }
    }

    pub fn is_path_only(&self) -> bool {
        self.flags() & O_PATH != 0
    }

    pub fn is_readable(&self) -> bool {
        let flags = self.flags();
        flags & O_PATH == 0 && flags & O_ACCMODE != O_WRONLY
    }

    pub fn is_writable(&self) -> bool {
        let flags = self.flags();
        flags & O_PATH == 0 && matches!(flags & O_ACCMODE, O_WRONLY | O_RDWR)
    }

    pub fn check_readable(&self) -> Result<()> {
        if self.is_readable() { Ok(()) } else { err(Errno::EBADF, "not open for reading") }
    }

    pub fn check_writable(&self) -> Result<()> {
        if self.is_writable() { Ok(()) } else { err(Errno::EBADF, "not open for writing") }
    }

    /// read(2): at the offset, which moves.
    pub fn read(&self, sink: &mut Sink<'_>) -> Result<usize> {
        self.read_with(sink, self.wait())
    }

    pub fn read_with(&self, sink: &mut Sink<'_>, wait: Wait) -> Result<usize> {
        self.check_readable()?;
        if !self.file.is_seekable() {
            return sink.drive(|sink| self.file.read(0, sink, wait));
        }
        let mut offset = self.offset.lock();
        let start = *offset;
        let count = sink.drive(|sink| self.file.read(start + sink.done() as u64, sink, wait))?;
        *offset = start + count as u64;
        drop(offset);
        self.accessed();
        self.tell_if(count, IN_ACCESS);
        Ok(count)
    }

    /// write(2): at the offset or the end, the offset moves.
    pub fn write(&self, source: &mut Source<'_>) -> Result<usize> {
        self.write_with(source, self.wait(), self.flags() & O_APPEND != 0)
    }

    pub fn write_with(&self, source: &mut Source<'_>, wait: Wait, is_append: bool) -> Result<usize> {
        self.check_writable()?;
        if !self.file.is_seekable() {
            let at = Position::End;
            return source.drive(|source| self.file.write(at, source, wait).map(drop));
        }
        let mut offset = self.offset.lock();
        let mut end = *offset;
        let count = source.drive(|source| {
            let at = if is_append { Position::End } else { Position::At(end) };
            end = self.file.write(at, source, wait)?;
            Ok(())
        })?;
        if count > 0 {
            *offset = end;
        }
        drop(offset);
        self.written(count)
    }

    /// pread(2).
    pub fn read_at(&self, offset: u64, sink: &mut Sink<'_>) -> Result<usize> {
        if !self.file.is_seekable() {
            return err(Errno::ESPIPE, "stream");
        }
        self.check_readable()?;
        let count = sink.drive(|sink| {
            let at = offset.saturating_add(sink.done() as u64);
            self.file.read(at, sink, self.wait())
        })?;
        self.accessed();
        self.tell_if(count, IN_ACCESS);
        Ok(count)
    }

    /// It was read: its access time.
    pub fn accessed(&self) {
        if let Some(path) = self.path.as_ref().filter(|_| self.flags() & O_NOATIME == 0) {
            path.accessed();
        }
    }

    /// pwrite(2). As on Linux, O_APPEND wins over the offset.
    pub fn write_at(&self, offset: u64, source: &mut Source<'_>) -> Result<usize> {
        self.write_at_with(offset, source, self.flags() & O_APPEND != 0)
    }

    pub fn write_at_with(&self, offset: u64, source: &mut Source<'_>, is_append: bool) -> Result<usize> {
        if !self.file.is_seekable() {
            return err(Errno::ESPIPE, "stream");
        }
        self.check_writable()?;
        let count = source.drive(|source| {
            let here = Position::At(offset.saturating_add(source.done() as u64));
            let at = if is_append { Position::End } else { here };
            self.file.write(at, source, self.wait()).map(drop)
        })?;
        self.written(count)
    }

    /// What follows a write at an offset: O_SYNC and O_DSYNC, and who watches.
    fn written(&self, count: usize) -> Result<usize> {
        let is_sync_mount = || self.path.as_ref().is_some_and(|path| path.mount.has(MS_SYNCHRONOUS));
        if count > 0 && (self.flags() & O_DSYNC != 0 || is_sync_mount()) {
            self.file.sync()?;
        }
        self.tell_if(count, IN_MODIFY);
        Ok(count)
    }

    /// Tells who watches the file, or its directory. O_PATH descriptors do nothing that counts.
    pub fn tell(&self, event: u32) {
        if let Some(path) = &self.path
            && !self.is_path_only()
        {
            inotify::changed(&path.dentry, event);
        }
    }

    pub(super) fn tell_closed(&self) {
        self.tell(if self.is_writable() { IN_CLOSE_WRITE } else { IN_CLOSE_NOWRITE });
    }

    fn tell_if(&self, count: usize, event: u32) {
        if count > 0 {
            self.tell(event);
        }
    }

    /// lseek(2); gives the new offset.
    pub fn seek(&self, distance: i64, whence: Whence) -> Result<u64> {
        if self.is_path_only() {
            return err(Errno::EBADF, "O_PATH descriptor");
        }
        if !self.file.is_seekable() {
            return err(Errno::ESPIPE, "stream");
        }
        let mut offset = self.offset.lock();
        let target = match whence {
            Whence::Set => Some(distance),
            Whence::Current => (*offset as i64).checked_add(distance),
            Whence::End => (self.file.attr()?.size as i64).checked_add(distance),
            Whence::Data => Some(self.seek_content(Seek::Data, distance)?),
            Whence::Hole => Some(self.seek_content(Seek::Hole, distance)?),
        };
        match target {
            Some(target) if target >= 0 => {
                *offset = target as u64;
                Ok(*offset)
            }
            Some(_) => err(Errno::EINVAL, "offset before the start"),
            None => err(Errno::EOVERFLOW, "offset too large"),
        }
    }

    fn seek_content(&self, what: Seek, from: i64) -> Result<i64> {
        let Ok(from) = u64::try_from(from) else { return err(Errno::ENXIO, "negative offset") };
        match self.inode() {
            Some(inode) => Ok(inode.seek(what, from)? as i64),
            None => err(Errno::EINVAL, "no data"),
        }
    }

    /// The offset, for directory streams and `sendfile`: read it, act, set it, under one lock.
    pub fn with_offset<R>(&self, act: impl FnOnce(&mut u64) -> R) -> R {
        act(&mut self.offset.lock())
    }

    pub fn offset(&self) -> u64 {
        *self.offset.lock()
    }
}
