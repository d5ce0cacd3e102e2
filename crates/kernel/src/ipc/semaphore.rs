//! Semaphore sets (semget(2), semop(2)).
//!
//! An operation takes effect as a whole or not at all. Those that must wait try again at every change of
//! the set. What SEM_UNDO would give back is kept in the set, by process.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::object::{IPC_NOWAIT, Inner, MAY_READ, MAY_WRITE, Object, Request, Table, now_s};
use crate::error::{Errno, Error, Result, Restart, err};
use crate::process::Credentials;
use crate::sched::WaitError;

/// SEMMNI, SEMMSL, SEMOPM, SEMVMX.
pub const SETS_MAX: usize = 32000;
pub const SEMAPHORES_MAX: usize = 32000;
pub const OPERATIONS_MAX: usize = 500;
pub const VALUE_MAX: i32 = 32767;

const SEM_UNDO: i32 = 0x1000;

pub static SETS: Table<Set> = Table::new(SETS_MAX);

/// Undo records of all sets, so that most processes end without a look at any.
static UNDO_COUNT: AtomicUsize = AtomicUsize::new(0);
static NEXT_TICKET: AtomicU64 = AtomicU64::new(0);

pub struct Set {
    pub semaphores: Vec<Semaphore>,
    pub operated_s: i64,
    pub changed_s: i64,
    /// What each process's end adds, by semaphore.
    undo: BTreeMap<u32, Vec<i16>>,
    /// What waiting operations wait for.
    blocked: BTreeMap<u64, Block>,
}

#[derive(Clone, Copy, Default)]
pub struct Semaphore {
    pub value: i32,
    /// Who changed it last.
    pub pid: u32,
}

/// `struct sembuf`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Operation {
    pub index: u16,
    pub change: i16,
    pub flags: i16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    Increase,
    Zero,
}

/// The operation that can't be done now.
#[derive(Clone, Copy, Debug)]
struct Block {
    index: u16,
    what: WaitsFor,
}

/// semget(2).
pub fn get(request: &Request<'_>, count: usize) -> Result<i32> {
    if count > SEMAPHORES_MAX {
        return err(Errno::EINVAL, "too many semaphores");
    }
    let check = |set: &Set| {
        if count > set.semaphores.len() {
            return err(Errno::EINVAL, "the set is smaller");
        }
        Ok(())
    };
    SETS.get(request, check, |_| Set::new(count))
}

/// semtimedop(2). `pid` is who the changes are noted for.
pub fn operate(
    set: &Object<Set>,
    operations: &[Operation],
    who: &Credentials,
    pid: u32,
    deadline_ns: Option<u64>,
) -> Result<()> {
    let wanted = if operations.iter().any(|each| each.change != 0) { MAY_WRITE } else { MAY_READ };
    {
        let inner = set.inner.lock();
        if operations.iter().any(|each| usize::from(each.index) >= inner.state.semaphores.len()) {
            return err(Errno::EFBIG, "no such semaphore");
        }
        inner.permissions.check(who, wanted)?;
    }
    let ticket = NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
    let result = set.changed.wait_until(deadline_ns, true, || attempt(&mut set.inner.lock(), operations, pid, ticket));
    let mut inner = set.inner.lock();
    inner.state.blocked.remove(&ticket);
    drop(inner);
    match result {
        Ok(Ok(())) => {
            set.changed.wake_all();
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(WaitError::TimedOut) => err(Errno::EAGAIN, "time is up"),
        // Never restarted (signal(7)).
        Err(WaitError::Interrupted) => {
            Err(Error { restart: Restart::Never, ..crate::error::interrupted() })
        }
    }
}

/// `None` if it must wait.
fn attempt(inner: &mut Inner<Set>, operations: &[Operation], pid: u32, ticket: u64) -> Option<Result<()>> {
    if let Err(error) = inner.check_alive() {
        return Some(Err(error));
    }
    match inner.state.apply(operations, pid) {
        Ok(None) => Some(Ok(())),
        Ok(Some(block)) => {
            inner.state.blocked.insert(ticket, block);
            None
        }
        Err(error) => Some(Err(error)),
    }
}

/// A process has ended.
pub fn undo_all(pid: u32) {
    if UNDO_COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    for set in SETS.all() {
        let is_changed = set.inner.lock().state.undo(pid);
        if is_changed {
            set.changed.wake_all();
        }
    }
}

/// IPC_RMID.
pub fn remove(set: &Arc<Object<Set>>) {
    set.inner.lock().state.clear_undo();
    SETS.remove(set);
}

impl Set {
    fn new(count: usize) -> Result<Set> {
        if count == 0 {
            return err(Errno::EINVAL, "no semaphores");
        }
        Ok(Set {
            semaphores: vec![Semaphore::default(); count],
            operated_s: 0,
            changed_s: now_s(),
            undo: BTreeMap::new(),
            blocked: BTreeMap::new(),
        })
    }

    /// How many operations wait for a semaphore.
    pub fn waiting(&self, index: usize, what: WaitsFor) -> usize {
        let is_meant = |block: &&Block| usize::from(block.index) == index && block.what == what;
        self.blocked.values().filter(is_meant).count()
    }

    /// SETVAL: who wanted to undo something no longer does.
    pub fn set_value(&mut self, index: usize, value: i32, pid: u32) {
        self.semaphores[index] = Semaphore { value, pid };
        for adjustments in self.undo.values_mut() {
            adjustments[index] = 0;
        }
        self.changed_s = now_s();
    }

    /// SETALL.
    pub fn set_values(&mut self, values: &[u16], pid: u32) {
        for (semaphore, &value) in self.semaphores.iter_mut().zip(values) {
            *semaphore = Semaphore { value: i32::from(value), pid };
        }
        self.clear_undo();
        self.changed_s = now_s();
    }

    fn clear_undo(&mut self) {
        UNDO_COUNT.fetch_sub(self.undo.len(), Ordering::Relaxed);
        self.undo.clear();
    }

    /// Does all operations, or none and tells which must wait.
    fn apply(&mut self, operations: &[Operation], pid: u32) -> Result<Option<Block>> {
        let before = self.semaphores.clone();
        let mut adjustments = self.adjustments(operations, pid);
        let done = self.try_apply(operations, pid, &mut adjustments);
        if !matches!(done, Ok(None)) {
            self.semaphores = before;
            return done;
        }
        if let Some(adjustments) = adjustments
            && self.undo.insert(pid, adjustments).is_none()
        {
            UNDO_COUNT.fetch_add(1, Ordering::Relaxed);
        }
        self.operated_s = now_s();
        done
    }

    fn adjustments(&self, operations: &[Operation], pid: u32) -> Option<Vec<i16>> {
        if !operations.iter().any(|each| i32::from(each.flags) & SEM_UNDO != 0) {
            return None;
        }
        Some(self.undo.get(&pid).cloned().unwrap_or_else(|| vec![0; self.semaphores.len()]))
    }

    fn try_apply(
        &mut self,
        operations: &[Operation],
        pid: u32,
        adjustments: &mut Option<Vec<i16>>,
    ) -> Result<Option<Block>> {
        for each in operations {
            let index = usize::from(each.index);
            let semaphore = &mut self.semaphores[index];
            let value = semaphore.value + i32::from(each.change);
            let is_blocked = if each.change == 0 { semaphore.value != 0 } else { value < 0 };
            if is_blocked && i32::from(each.flags) & IPC_NOWAIT != 0 {
                return err(Errno::EAGAIN, "would wait");
            }
            if is_blocked {
                let what = if each.change == 0 { WaitsFor::Zero } else { WaitsFor::Increase };
                return Ok(Some(Block { index: each.index, what }));
            }
            if value > VALUE_MAX {
                return err(Errno::ERANGE, "value above SEMVMX");
            }
            if i32::from(each.flags) & SEM_UNDO != 0
                && let Some(adjustments) = adjustments
            {
                let Some(adjusted) = adjustments[index].checked_sub(each.change) else {
                    return err(Errno::ERANGE, "adjustment above SEMAEM");
                };
                adjustments[index] = adjusted;
            }
            *semaphore = Semaphore { value, pid };
        }
        Ok(None)
    }

    /// Applies what a process that ended left to undo. Says whether there was anything.
    fn undo(&mut self, pid: u32) -> bool {
        let Some(adjustments) = self.undo.remove(&pid) else { return false };
        UNDO_COUNT.fetch_sub(1, Ordering::Relaxed);
        for (semaphore, adjustment) in self.semaphores.iter_mut().zip(adjustments) {
            if adjustment != 0 {
                let value = (semaphore.value + i32::from(adjustment)).clamp(0, VALUE_MAX);
                *semaphore = Semaphore { value, pid };
            }
        }
        self.operated_s = now_s();
        true
    }
}
