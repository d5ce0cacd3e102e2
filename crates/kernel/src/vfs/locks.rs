//! Record locks: POSIX (fcntl F_SETLK), OFD (F_OFD_SETLK) and flock(2). Advisory, kept by file.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::file::Wait;
use super::open::OpenFile;
use super::poll::wait_error;
use crate::error::{Errno, Error, Result, err};
use crate::sched::{SpinLock, WaitQueue};

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A process: its descriptor table, and its pid for F_GETLK.
    Process { table: u64, pid: u32 },
    /// An open file description.
    Open(usize),
}

/// flock(2) locks and record locks do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Record,
    Flock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Shared,
    Exclusive,
}

/// A lock on bytes `start..end`; `end` is `u64::MAX` for "to the end of the file".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub family: Family,
    pub owner: Owner,
    pub mode: Mode,
    pub start: u64,
    pub end: u64,
}

/// (device, inode)
type FileId = (u64, u64);

/// Files with locks, readable without the lock: closing a descriptor asks.
static LOCKED_FILES: AtomicUsize = AtomicUsize::new(0);
static LOCKS: SpinLock<BTreeMap<FileId, Vec<Lock>>> = SpinLock::new(BTreeMap::new());
static CHANGED: WaitQueue = WaitQueue::new();

impl Owner {
    pub fn of_open(file: &Arc<OpenFile>) -> Owner {
        Owner::Open(Arc::as_ptr(file) as usize)
    }

    fn is_same(&self, other: &Owner) -> bool {
        match (self, other) {
            (Owner::Process { table: a, .. }, Owner::Process { table: b, .. }) => a == b,
            _ => self == other,
        }
    }
}

impl Lock {
    fn conflicts(&self, other: &Lock) -> bool {
        self.family == other.family
            && !self.owner.is_same(&other.owner)
            && self.overlaps(other)
            && (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive)
    }

    fn overlaps(&self, other: &Lock) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// All locks, by file.
pub fn all() -> Vec<(FileId, Lock)> {
    let locks = LOCKS.lock();
    locks.iter().flat_map(|(id, list)| list.iter().map(|lock| (*id, *lock))).collect()
}

/// The lock that stands in the way of `wanted`, if any (F_GETLK).
pub fn conflict(file: &OpenFile, wanted: &Lock) -> Result<Option<Lock>> {
    let id = file_id(file)?;
    let locks = LOCKS.lock();
    let list = locks.get(&id).map_or(&[][..], |list| &list[..]);
    Ok(list.iter().find(|held| held.conflicts(wanted)).copied())
}

/// Takes `wanted` in place of what its owner holds there; EAGAIN if somebody else's lock is in the way
/// and `wait` does not allow to wait for it.
pub fn acquire(file: &OpenFile, wanted: Lock, wait: Wait) -> Result<()> {
    let id = file_id(file)?;
    file.has_locks.store(true, Ordering::Relaxed);
    if try_acquire(id, &wanted).is_some() {
        CHANGED.wake_all();
        return Ok(());
    }
    if wait == Wait::Never {
        return err(Errno::EAGAIN, "locked by another");
    }
    let Owner::Process { table, .. } = wanted.owner else {
        return CHANGED.wait_until(None, true, || try_acquire(id, &wanted)).map_err(wait_error);
    };
    let blocked = Blocked::enter(table, id, wanted)?;
    let result = CHANGED.wait_until(None, true, || try_acquire(id, &wanted)).map_err(wait_error);
    drop(blocked);
    result
}

/// A process that waits for a POSIX lock; those of open files and flock's can't be traced to who waits.
struct Blocked {
    number: u64,
}

/// Who waits for what, oldest first. Taken under `LOCKS`.
static BLOCKED: SpinLock<Vec<(u64, u64, FileId, Lock)>> = SpinLock::new(Vec::new());

impl Blocked {
    /// EDEADLK if the one that holds the lock waits, through however many others, for this owner.
    fn enter(table: u64, id: FileId, wanted: Lock) -> Result<Blocked> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let locks = LOCKS.lock();
        let mut blocked = BLOCKED.lock();
        if waits_for(&locks, &blocked, (id, wanted), table) {
            return err(Errno::EDEADLK, "the holder waits for the caller");
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        blocked.try_reserve(1).map_err(|_| Error::new(Errno::ENOLCK, "too many waiters"))?;
        blocked.push((number, table, id, wanted));
        Ok(Blocked { number })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        BLOCKED.lock().retain(|(number, ..)| *number != self.number);
    }
}

/// Follows holders and what they wait for, from the lock wanted on.
fn waits_for(
    locks: &BTreeMap<FileId, Vec<Lock>>,
    blocked: &[(u64, u64, FileId, Lock)],
    wanted: (FileId, Lock),
    table: u64,
) -> bool {
    /// As Linux: longer chains are left undetected.
    const DEPTH_MAX: usize = 10;
    let (mut id, mut lock) = wanted;
    for _ in 0..DEPTH_MAX {
        let holder = locks.get(&id).and_then(|list| list.iter().find(|held| held.conflicts(&lock)));
        let Some(Owner::Process { table: holder, .. }) = holder.map(|held| held.owner) else { return false };
        if holder == table {
            return true;
        }
        let Some((_, _, next, next_lock)) = blocked.iter().find(|(_, owner, ..)| *owner == holder) else {
            return false;
        };
        (id, lock) = (*next, *next_lock);
    }
    false
}

fn try_acquire(id: FileId, wanted: &Lock) -> Option<()> {
    let mut locks = LOCKS.lock();
    let has_conflict = |list: &Vec<Lock>| list.iter().any(|held| held.conflicts(wanted));
    if locks.get(&id).is_some_and(has_conflict) {
        return None;
    }
    let list = locks.entry(id).or_default();
    cut(list, wanted);
    list.push(*wanted);
    LOCKED_FILES.store(locks.len(), Ordering::Relaxed);
    Some(())
}

/// Gives up what the owner holds in the range (the mode does not matter).
pub fn release(file: &OpenFile, range: &Lock) -> Result<()> {
    let id = file_id(file)?;
    {
        let mut locks = LOCKS.lock();
        if let Some(list) = locks.get_mut(&id) {
            cut(list, range);
            if list.is_empty() {
                locks.remove(&id);
            }
            LOCKED_FILES.store(locks.len(), Ordering::Relaxed);
        }
    }
    CHANGED.wake_all();
    Ok(())
}

/// Removes the range from the owner's locks; what sticks out on either side stays.
fn cut(list: &mut Vec<Lock>, range: &Lock) {
    let mut rests = Vec::new();
    list.retain(|held| {
        let is_hit =
            held.family == range.family && held.owner.is_same(&range.owner) && held.overlaps(range);
        if is_hit && held.start < range.start {
            rests.push(Lock { end: range.start, ..*held });
        }
        if is_hit && held.end > range.end {
            rests.push(Lock { start: range.end, ..*held });
        }
        !is_hit
    });
    list.extend(rests);
}

/// A process closed a descriptor of `file`: POSIX locks of that process on the file end, whichever
/// descriptor they were taken through.
pub(super) fn descriptor_closed(file: &Arc<OpenFile>, table: u64) {
    if LOCKED_FILES.load(Ordering::Relaxed) > 0 {
        release_all(file, Owner::Process { table, pid: 0 });
    }
}

impl Drop for OpenFile {
    /// OFD and flock locks end with the open file description.
    fn drop(&mut self) {
        self.tell_closed();
        self.disarm();
        if let Some(path) = self.path().filter(|_| self.is_writable()) {
            path.mount.count_writer(-1);
        }
        if self.has_locks.load(Ordering::Relaxed) {
            let owner = Owner::Open(core::ptr::from_ref(self) as usize);
            release_all(self, owner);
        }
    }
}

fn release_all(file: &OpenFile, owner: Owner) {
    let all = |family| Lock { family, owner, mode: Mode::Shared, start: 0, end: u64::MAX };
    for family in [Family::Record, Family::Flock] {
        // Only a file without attributes fails, and then it has no locks.
        let _ = release(file, &all(family));
    }
}

fn file_id(file: &OpenFile) -> Result<FileId> {
    let attr = file.file().attr()?;
    Ok((attr.dev, attr.ino))
}
