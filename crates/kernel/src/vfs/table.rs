//! A process's descriptors.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::locks;
use super::open::OpenFile;
use crate::error::{Errno, Error, Result, err};
use crate::sched::SpinLock;

/// What CLONE_FILES shares. Lookups take one short spin lock and allocate nothing.
pub struct FileTable {
    slots: SpinLock<Slots>,
    /// RLIMIT_NOFILE.
    limit: AtomicUsize,
    /// Names the table as the owner of POSIX record locks.
    id: u64,
}

#[derive(Default)]
struct Slots {
    files: Vec<Option<Slot>>,
    /// No slot below this one is free.
    lowest: usize,
}

#[derive(Clone)]
struct Slot {
    file: Arc<OpenFile>,
    closes_on_exec: bool,
}

/// FD_CLOEXEC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExec {
    Keep,
    Close,
}

impl OnExec {
    pub fn when(closes: bool) -> OnExec {
        if closes { OnExec::Close } else { OnExec::Keep }
    }
}

pub const DEFAULT_LIMIT: usize = 1024;
/// `fs.nr_open`.
pub const MAX_LIMIT: usize = 1 << 20;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl FileTable {
    pub fn new() -> FileTable {
        FileTable::with(Slots::default(), DEFAULT_LIMIT)
    }

    fn with(slots: Slots, limit: usize) -> FileTable {
        FileTable {
            slots: SpinLock::new(slots),
            limit: AtomicUsize::new(limit),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// A copy for a new process (clone without CLONE_FILES).
    pub fn copy(&self) -> FileTable {
        let slots = self.slots.lock();
        let copy = Slots { files: slots.files.clone(), lowest: slots.lowest };
        FileTable::with(copy, self.limit())
    }

    /// Owner of POSIX record locks.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets RLIMIT_NOFILE's soft limit.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit.min(MAX_LIMIT), Ordering::Relaxed);
    }

    /// The open file behind `fd`; EBADF.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let slots = self.slots.lock();
        match slots.files.get(fd as u32 as usize) {
            Some(Some(slot)) => Ok(slot.file.clone()),
            _ => err(Errno::EBADF, "no such descriptor"),
        }
    }

    /// As [`FileTable::get`], but EBADF for O_PATH descriptors, as calls that act on content want.
    pub fn get_content(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let file = self.get(fd)?;
        if file.is_path_only() {
            return err(Errno::EBADF, "O_PATH descriptor");
        }
        Ok(file)
    }

    /// Gives `file` the lowest free descriptor; EMFILE.
    pub fn insert(&self, file: Arc<OpenFile>, on_exec: OnExec) -> Result<i32> {
        self.insert_from(0, file, on_exec)
    }

    /// Gives `file` the lowest free descriptor that is `min` or more; EMFILE.
    pub fn insert_from(&self, min: usize, file: Arc<OpenFile>, on_exec: OnExec) -> Result<i32> {
        let mut slots = self.slots.lock();
        let start = min.max(slots.lowest);
        let fd = slots.first_free(start);
        if fd >= self.limit() {
            return err(Errno::EMFILE, "RLIMIT_NOFILE");
        }
        if min <= slots.lowest {
            slots.lowest = fd + 1;
        }
        slots.put(fd, Slot { file, closes_on_exec: on_exec == OnExec::Close })?;
        Ok(fd as i32)
    }

    /// Makes `fd` mean `file`, closing what it meant before (dup2); EBADF if out of range.
    pub fn replace(&self, fd: i32, file: Arc<OpenFile>, on_exec: OnExec) -> Result<()> {
        let index = fd as u32 as usize;
        if index >= self.limit() {
            return err(Errno::EBADF, "descriptor beyond RLIMIT_NOFILE");
        }
        let slot = Slot { file, closes_on_exec: on_exec == OnExec::Close };
        let old = self.slots.lock().put(index, slot)?;
        self.dispose(old);
        Ok(())
    }

    /// EBADF.
    pub fn close(&self, fd: i32) -> Result<()> {
        let old = self.slots.lock().take(fd as u32 as usize);
        if old.is_none() {
            return err(Errno::EBADF, "no such descriptor");
        }
        self.dispose(old);
        Ok(())
    }

    /// Closes the descriptors of `first..=last`.
    pub fn close_range(&self, first: usize, last: usize) {
        self.close_where(|fd, _| (first..=last).contains(&fd));
    }

    /// Sets FD_CLOEXEC on `first..=last`.
    pub fn close_range_on_exec(&self, first: usize, last: usize) {
        let mut slots = self.slots.lock();
        for slot in slots.files.iter_mut().take(last.saturating_add(1)).skip(first).flatten() {
            slot.closes_on_exec = true;
        }
    }

    /// execve: closes what is marked.
    pub fn close_on_exec(&self) {
        self.close_where(|_, closes| closes);
    }

    /// The last thread using the table ends.
    pub fn close_all(&self) {
        self.close_where(|_, _| true);
    }

    pub fn on_exec(&self, fd: i32) -> Result<OnExec> {
        let slots = self.slots.lock();
        match slots.files.get(fd as u32 as usize) {
            Some(Some(slot)) => Ok(OnExec::when(slot.closes_on_exec)),
            _ => err(Errno::EBADF, "no such descriptor"),
        }
    }

    pub fn set_on_exec(&self, fd: i32, on_exec: OnExec) -> Result<()> {
        let mut slots = self.slots.lock();
        match slots.files.get_mut(fd as u32 as usize) {
            Some(Some(slot)) => {
                slot.closes_on_exec = on_exec == OnExec::Close;
                Ok(())
            }
            _ => err(Errno::EBADF, "no such descriptor"),
        }
    }

    /// The descriptors in use, ascending.
    pub fn fds(&self) -> Vec<i32> {
        let slots = self.slots.lock();
        let used = slots.files.iter().enumerate().filter(|(_, slot)| slot.is_some());
        used.map(|(fd, _)| fd as i32).collect()
    }

    /// Slots allocated (`FDSize` of /proc/PID/status).
    pub fn capacity(&self) -> usize {
        self.slots.lock().files.len()
    }

    fn close_where(&self, mut closes: impl FnMut(usize, bool) -> bool) {
        // One at a time: closing runs file code, which must not meet the spin lock.
        let mut fd = 0;
        loop {
            let old = {
                let mut slots = self.slots.lock();
                let Some(slot) = slots.files.get(fd) else { return };
                let is_meant = slot.as_ref().is_some_and(|slot| closes(fd, slot.closes_on_exec));
                if is_meant { slots.take(fd) } else { None }
            };
            self.dispose(old);
            fd += 1;
        }
    }

    fn dispose(&self, old: Option<Slot>) {
        if let Some(slot) = old {
            locks::descriptor_closed(&slot.file, self.id);
        }
    }
}

impl Default for FileTable {
    fn default() -> FileTable {
        FileTable::new()
    }
}

impl Drop for FileTable {
    fn drop(&mut self) {
        self.close_all();
    }
}

impl Slots {
    fn first_free(&self, start: usize) -> usize {
        let free = self.files.iter().skip(start).position(Option::is_none);
        free.map_or(self.files.len().max(start), |offset| start + offset)
    }

    fn put(&mut self, fd: usize, slot: Slot) -> Result<Option<Slot>> {
        if fd >= self.files.len() {
            let more = (fd + 1).next_multiple_of(64) - self.files.len();
            let no_memory = |_| Error::new(Errno::ENOMEM, "descriptor table");
            self.files.try_reserve(more).map_err(no_memory)?;
            self.files.resize((fd + 1).next_multiple_of(64), None);
        }
        Ok(self.files[fd].replace(slot))
    }

    fn take(&mut self, fd: usize) -> Option<Slot> {
        let old = self.files.get_mut(fd)?.take()?;
        self.lowest = self.lowest.min(fd);
        Some(old)
    }
}
