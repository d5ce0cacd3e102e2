//! A process: threads that share an id, signals, limits and an end.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use occlum_abi::Errno;
use spin::Mutex;

use super::limits::Limits;
use super::thread::Name;
use super::usage::{self, Usage};
use super::{Limit, Resource, Thread, Work, tree};
use crate::error::{Result, err};
use crate::mm::MemoryLimits;
use crate::sched::timer::Alarm;
use crate::sched::{WaitQueue, timer};
use crate::signal::{Dispositions, ProcessSignals};
use crate::time::ProcessTimers;
use crate::vfs::busy;

/// A thread group.
pub struct Process {
    pid: u32,
    pub(super) ppid: AtomicU32,
    pub(super) pgid: AtomicU32,
    pub(super) sid: AtomicU32,
    /// Sent to the parent at the end; 0 for none.
    pub(super) exit_signal: AtomicI32,
    threads: Mutex<Threads>,
    is_ending: AtomicBool,
    /// Woken when a thread leaves the group.
    pub(super) thread_gone: WaitQueue,
    signals: ProcessSignals,
    /// Woken when a child ends, stops or continues.
    pub(super) child_change: WaitQueue,
    /// Woken when the process has become a zombie: pidfds.
    pub ended: WaitQueue,
    limits: Mutex<Limits>,
    /// RLIMIT_FSIZE's soft limit, for each write to look at.
    file_size_limit: AtomicU64,
    pub(super) cpu_alarm: Mutex<Option<Alarm>>,
    /// `comm` of the last thread that ended, for zombies.
    last_name: Mutex<Name>,
    /// The real user of the last thread, for those who wait for a zombie.
    last_uid: AtomicU32,
    /// /proc/PID/oom_score_adj: -1000 is never killed for want of memory.
    pub(crate) oom_score_adj: AtomicI32,
    /// prctl(2): PR_SET_MDWE's bits, PR_SET_THP_DISABLE.
    pub(crate) mdwe: AtomicU32,
    pub(crate) no_huge_pages: AtomicBool,
    program: Mutex<Program>,
    /// Of threads that have ended.
    past_usage: Mutex<Usage>,
    /// Of children that were waited for.
    children_usage: Mutex<Usage>,
    timers: ProcessTimers,
    pub(super) is_subreaper: AtomicBool,
    is_dumpable: AtomicBool,
    /// It has executed a program since it was made (setpgid refuses it then).
    pub(super) has_executed: AtomicBool,
    /// Another process lives, or may live, in the same address space.
    shares_space: AtomicBool,
    pub(crate) personality: AtomicU32,
    /// membarrier(2) commands registered for.
    pub(crate) membarrier: AtomicU32,
    start_ns: u64,
}

/// Which program a process runs, for /proc.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Absolute path of the executable.
    pub path: Arc<Vec<u8>>,
    /// The beginning of the arguments, each ended by NUL.
    pub command: Arc<Vec<u8>>,
    /// Addresses of the argument strings in user memory.
    pub args: (usize, usize),
    /// Addresses of the environment strings.
    pub env: (usize, usize),
    /// The auxiliary vector as given to the program.
    pub auxv: Arc<Vec<u64>>,
    /// Bottom of the stack's contents at the start.
    pub stack: usize,
    /// While it stands, the executable is not written.
    pub running: Option<Arc<busy::Running>>,
}

#[derive(Default)]
struct Threads {
    /// The leader first, if it is still there.
    list: Vec<Arc<Thread>>,
    /// The wait status, once the whole group ends.
    ending: Option<u32>,
    /// The leader's own wait status, if it ended before the others.
    leader_status: Option<u32>,
    /// A thread replaces the program and gets rid of the others.
    is_executing: bool,
}

/// What [`Process::remove_thread`] left.
pub(super) enum Remaining {
    Threads,
    /// None; the process ends with this wait status.
    Nobody(u32),
}

impl Process {
    pub(super) fn new(pid: u32, dispositions: Arc<Dispositions>, limits: Limits) -> Process {
        Process {
            pid,
            ppid: AtomicU32::new(0),
            pgid: AtomicU32::new(pid),
            sid: AtomicU32::new(pid),
            exit_signal: AtomicI32::new(crate::signal::Signal::CHLD.number()),
            threads: Mutex::new(Threads::default()),
            is_ending: AtomicBool::new(false),
            thread_gone: WaitQueue::new(),
            signals: ProcessSignals::new(dispositions),
            child_change: WaitQueue::new(),
            ended: WaitQueue::new(),
            file_size_limit: AtomicU64::new(limits.get(Resource::FSIZE).soft),
            limits: Mutex::new(limits),
            cpu_alarm: Mutex::new(None),
            last_name: Mutex::new(Name::default()),
            last_uid: AtomicU32::new(0),
            oom_score_adj: AtomicI32::new(0),
            mdwe: AtomicU32::new(0),
            no_huge_pages: AtomicBool::new(false),
            program: Mutex::new(Program::default()),
            past_usage: Mutex::new(Usage::default()),
            children_usage: Mutex::new(Usage::default()),
            timers: ProcessTimers::new(),
            is_subreaper: AtomicBool::new(false),
            is_dumpable: AtomicBool::new(true),
            has_executed: AtomicBool::new(false),
            shares_space: AtomicBool::new(false),
            personality: AtomicU32::new(0),
            membarrier: AtomicU32::new(0),
            start_ns: timer::now_ns(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The parent's id; 1 for orphans and for the first program.
    pub fn ppid(&self) -> u32 {
        self.ppid.load(Ordering::Relaxed)
    }

    /// Process group.
    pub fn pgid(&self) -> u32 {
        self.pgid.load(Ordering::Relaxed)
    }

    /// Session.
    pub fn sid(&self) -> u32 {
        self.sid.load(Ordering::Relaxed)
    }

    pub fn signals(&self) -> &ProcessSignals {
        &self.signals
    }

    pub fn timers(&self) -> &ProcessTimers {
        &self.timers
    }

    pub fn limit(&self, resource: Resource) -> Limit {
        self.limits.lock().get(resource)
    }

    pub(crate) fn set_limit(&self, resource: Resource, limit: Limit) {
        if resource == Resource::FSIZE {
            self.file_size_limit.store(limit.soft, Ordering::Relaxed);
        }
        self.limits.lock().set(resource, limit);
    }

    /// RLIMIT_FSIZE.
    pub fn file_size_limit(&self) -> u64 {
        self.file_size_limit.load(Ordering::Relaxed)
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits.lock().clone()
    }

    pub(crate) fn memory_limits(&self) -> MemoryLimits {
        self.limits.lock().memory()
    }

    pub fn program(&self) -> Program {
        self.program.lock().clone()
    }

    pub(super) fn set_program(&self, program: Program) {
        let old = core::mem::replace(&mut *self.program.lock(), program);
        drop(old);
    }

    pub fn is_dumpable(&self) -> bool {
        self.is_dumpable.load(Ordering::Relaxed)
    }

    pub(crate) fn set_dumpable(&self, is_dumpable: bool) {
        self.is_dumpable.store(is_dumpable, Ordering::Relaxed);
    }

    pub(super) fn shares_space(&self) -> bool {
        self.shares_space.load(Ordering::Relaxed)
    }

    pub(super) fn set_shares_space(&self, shares: bool) {
        self.shares_space.store(shares, Ordering::Relaxed);
    }

    pub(crate) fn set_subreaper(&self, is_subreaper: bool) {
        self.is_subreaper.store(is_subreaper, Ordering::Relaxed);
    }

    pub(crate) fn is_subreaper(&self) -> bool {
        self.is_subreaper.load(Ordering::Relaxed)
    }

    /// When it was made, CLOCK_MONOTONIC.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// The threads that have not ended, the leader first.
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        self.threads.lock().list.clone()
    }

    pub fn thread_count(&self) -> usize {
        self.threads.lock().list.len()
    }

    /// The main thread, or the oldest one left; `None` for a zombie.
    pub fn main_thread(&self) -> Option<Arc<Thread>> {
        self.threads.lock().list.first().cloned()
    }

    /// The first thread that satisfies `wanted`, the leader first. `wanted` runs under the list's lock.
    pub fn find_thread(&self, wanted: impl Fn(&Thread) -> bool) -> Option<Arc<Thread>> {
        self.threads.lock().list.iter().find(|thread| wanted(thread)).cloned()
    }

    /// `comm` of the main thread, or of the last one a zombie had.
    pub fn name(&self) -> Name {
        self.main_thread().map_or_else(|| *self.last_name.lock(), |thread| thread.name())
    }

    pub(crate) fn exit_signal(&self) -> i32 {
        self.exit_signal.load(Ordering::Relaxed)
    }

    /// The real user: of the main thread, or of the last one a zombie had.
    pub fn real_uid(&self) -> u32 {
        match self.main_thread() {
            Some(thread) => thread.credentials().user.real,
            None => self.last_uid.load(Ordering::Relaxed),
        }
    }

    /// Calls `visit` under the list's lock.
    pub fn for_each_thread(&self, mut visit: impl FnMut(&Thread)) {
        self.threads.lock().list.iter().for_each(|thread| visit(thread));
    }

    /// Adds a thread; EAGAIN if the group is about to end or to be replaced.
    pub(super) fn add_thread(&self, thread: Arc<Thread>) -> Result<()> {
        let mut threads = self.threads.lock();
        if threads.ending.is_some() || threads.is_executing {
            return err(Errno::EAGAIN, "the process is ending");
        }
        if threads.list.try_reserve(1).is_err() {
            return err(Errno::ENOMEM, "thread list");
        }
        threads.list.push(thread);
        Ok(())
    }

    /// Puts `new` in the place of the `Thread` with the same state.
    pub(super) fn replace_thread(&self, new: &Arc<Thread>) {
        let old = {
            let mut threads = self.threads.lock();
            let same = |thread: &&mut Arc<Thread>| Arc::ptr_eq(thread.state(), new.state());
            let place = threads.list.iter_mut().find(same);
            place.map(|place| core::mem::replace(place, new.clone()))
        };
        drop(old);
    }

    /// Takes out a thread that has ended with `status`.
    pub(super) fn remove_thread(&self, thread: &Thread, status: u32) -> Remaining {
        self.past_usage.lock().add(&thread.usage());
        self.last_uid.store(thread.credentials().user.real, Ordering::Relaxed);
        *self.last_name.lock() = thread.name();
        usage::count_past(&thread.usage());
        let (gone, remaining) = {
            let mut threads = self.threads.lock();
            let is_this = |other: &Arc<Thread>| Arc::ptr_eq(other.state(), thread.state());
            let index = threads.list.iter().position(is_this);
            let gone = index.map(|index| threads.list.remove(index));
            if thread.tid() == self.pid {
                threads.leader_status = Some(status);
            }
            let remaining = match threads.list.is_empty() {
                true => Remaining::Nobody(threads.ending.or(threads.leader_status).unwrap_or(status)),
                false => Remaining::Threads,
            };
            (gone, remaining)
        };
        drop(gone);
        self.thread_gone.wake_all();
        remaining
    }

    /// The whole group ends with `status`, unless it is ending already.
    pub fn begin_exit(&self, status: u32) {
        {
            let mut threads = self.threads.lock();
            if threads.ending.is_none() {
                threads.ending = Some(status);
            }
            self.is_ending.store(true, Ordering::SeqCst);
        }
        for thread in self.threads() {
            thread.notify(Work::EXIT);
        }
        self.signals.resume.wake_all();
    }

    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// Tells all threads but `survivor` to end, because it executes a program. EAGAIN if another
    /// thread does already, or the group ends.
    pub(super) fn begin_exec(&self, survivor: &Thread) -> Result<()> {
        let others: Vec<_> = {
            let mut threads = self.threads.lock();
            if threads.ending.is_some() || threads.is_executing {
                return err(Errno::EAGAIN, "the process is ending");
            }
            threads.is_executing = true;
            let is_other = |other: &&Arc<Thread>| !Arc::ptr_eq(other.state(), survivor.state());
            threads.list.iter().filter(is_other).cloned().collect()
        };
        for thread in others {
            thread.notify(Work::EXIT);
        }
        Ok(())
    }

    pub(super) fn end_exec(&self) {
        let mut threads = self.threads.lock();
        threads.is_executing = false;
        threads.leader_status = None;
    }

    /// What all threads have used so far.
    pub fn usage(&self) -> Usage {
        let mut usage = *self.past_usage.lock();
        self.for_each_thread(|thread| usage.add(&thread.usage()));
        usage
    }

    /// Processor time of all threads, nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        self.usage().cpu_ns
    }

    /// What children used that were waited for, with their own such children.
    pub fn children_usage(&self) -> Usage {
        *self.children_usage.lock()
    }

    pub(super) fn add_children_usage(&self, usage: &Usage) {
        self.children_usage.lock().add(usage);
    }

    /// The parent may learn that the process continued; under the signal lock.
    pub(crate) fn mark_continued(&self) {
        tree::set_report(self.pid, Some(tree::Report::Continued));
    }

    /// Tells the parent that the process continued, if it did and nobody told.
    pub(crate) fn tell_parent_if_continued(&self) {
        if tree::report(self.pid) == Some(tree::Report::Continued) {
            super::exit::tell_parent(self, crate::signal::info::CLD_CONTINUED, crate::signal::Signal::CONT.number());
        }
    }
}
