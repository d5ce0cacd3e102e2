//! One flow of a program (a Linux task).

use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use occlum_enclave::{host, vcpu};
use spin::{Mutex, Once};

use super::usage::{self, Usage};
use super::{Credentials, Process};
use crate::mm::AddressSpace;
use crate::sched::timer;
use crate::sched::{self, Local, TaskRef, WaitQueue};
use crate::signal::{SigSet, ThreadSignals};
use crate::vfs::{FileTable, FsContext};

/// A thread, and what it works with. Immutable; see the module head of `process`.
pub struct Thread {
    state: Arc<ThreadState>,
    space: Arc<AddressSpace>,
    files: Arc<FileTable>,
    fs: Arc<FsContext>,
}

impl Thread {
    pub fn new(
        state: Arc<ThreadState>,
        space: Arc<AddressSpace>,
        files: Arc<FileTable>,
        fs: Arc<FsContext>,
    ) -> Arc<Thread> {
        space.thread_joins();
        Arc::new(Thread { state, space, files, fs })
    }

    pub fn state(&self) -> &Arc<ThreadState> {
        &self.state
    }

    pub fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    pub fn files(&self) -> &Arc<FileTable> {
        &self.files
    }

    pub fn fs(&self) -> &Arc<FsContext> {
        &self.fs
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.space.thread_leaves();
    }
}

impl Deref for Thread {
    type Target = ThreadState;

    fn deref(&self) -> &ThreadState {
        &self.state
    }
}

/// What a thread has to look at before it goes back to user code.
pub struct Work;

impl Work {
    /// A signal may be deliverable.
    pub const SIGNAL: u32 = 1;
    /// The process stops.
    pub const STOP: u32 = 2;
    /// The thread ends.
    pub const EXIT: u32 = 4;
    /// The thread goes on as another `Thread`.
    pub const REPLACED: u32 = 8;
    /// The signal mask was replaced for one system call.
    pub const MASK: u32 = 16;
}

/// The vCPU of a thread that has not run yet.
const NOWHERE: usize = usize::MAX;

/// What stays with a thread for its whole life.
pub struct ThreadState {
    tid: AtomicU32,
    process: Arc<Process>,
    task: Once<TaskRef>,
    work: AtomicU32,
    /// Where it runs or ran last.
    vcpu: AtomicUsize,
    successor: Mutex<Option<Arc<Thread>>>,
    name: Mutex<Name>,
    credentials: Mutex<Arc<Credentials>>,
    signals: ThreadSignals,
    /// Where the thread's end is announced to other threads (set_tid_address, CLONE_CHILD_CLEARTID).
    pub(crate) clear_tid: AtomicUsize,
    /// Where a forked child writes its id before it runs (CLONE_CHILD_SETTID); its memory is not in place
    /// when it is made.
    pub(crate) set_tid: AtomicUsize,
    /// Head of the list of robust futexes.
    pub(crate) robust_list: AtomicUsize,
    /// See [`ThreadState::deadline_after`].
    restart_deadline: AtomicU64,
    is_restarting: AtomicBool,
    /// The wait status `exit` gave; used if the thread is the last.
    pub(crate) exit_status: AtomicU32,
    /// The parent that waits in vfork, if any.
    pub(crate) vfork: Mutex<Option<Arc<VforkGate>>>,
    pub(crate) parent_death_signal: AtomicI32,
    pub(crate) nice: AtomicI32,
    /// Scheduling policy in the low half, static priority in the high half; only remembered.
    pub(crate) policy: AtomicU64,
    /// Runtime, deadline and period of SCHED_DEADLINE.
    pub(crate) deadline: Mutex<[u64; 3]>,
    /// As ioprio_get(2) gives it.
    pub(crate) io_priority: AtomicU32,
    pub(crate) affinity: AtomicU64,
    pub(crate) no_new_privs: AtomicBool,
    pub(crate) timer_slack_ns: AtomicU64,
    minor_faults: AtomicU64,
    /// System calls made; cycles they took, estimated. Only the thread itself writes.
    calls: AtomicU32,
    system_cycles: AtomicU64,
    /// The largest user time told: it never shrinks, whatever the estimate says.
    user_ns_told: AtomicU64,
    start_ns: u64,
}

pub const SCHED_FIFO: u32 = 1;
pub const SCHED_RR: u32 = 2;
pub const SCHED_DEADLINE: u32 = 6;
pub const SCHED_RESET_ON_FORK: u32 = 0x4000_0000;

/// `comm`: at most 15 bytes and a NUL.
pub type Name = [u8; 16];

/// Where a parent waits until its vfork child no longer needs its memory.
#[derive(Default)]
pub struct VforkGate {
    is_open: AtomicBool,
    pub(crate) waiters: WaitQueue,
}

impl VforkGate {
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }
}

/// What a new thread takes over from the one that made it.
pub struct Inherited {
    pub name: Name,
    pub credentials: Arc<Credentials>,
    pub blocked: SigSet,
    pub nice: i32,
    pub policy: u64,
    pub io_priority: u32,
    pub affinity: u64,
    pub no_new_privs: bool,
    pub timer_slack_ns: u64,
}

impl Inherited {
    /// For the first program.
    pub fn initial(name: Name) -> Inherited {
        Inherited {
            name,
            credentials: Arc::new(Credentials::root()),
            blocked: SigSet::EMPTY,
            nice: 0,
            policy: 0,
            io_priority: 0,
            affinity: u64::MAX,
            no_new_privs: false,
            timer_slack_ns: 50_000,
        }
    }
}

impl ThreadState {
    pub fn new(tid: u32, process: Arc<Process>, from: Inherited) -> ThreadState {
        ThreadState {
            tid: AtomicU32::new(tid),
            process,
            task: Once::new(),
            work: AtomicU32::new(0),
            vcpu: AtomicUsize::new(NOWHERE),
            successor: Mutex::new(None),
            name: Mutex::new(from.name),
            credentials: Mutex::new(from.credentials),
            signals: ThreadSignals::new(from.blocked),
            clear_tid: AtomicUsize::new(0),
            set_tid: AtomicUsize::new(0),
            robust_list: AtomicUsize::new(0),
            restart_deadline: AtomicU64::new(0),
            is_restarting: AtomicBool::new(false),
            exit_status: AtomicU32::new(0),
            vfork: Mutex::new(None),
            parent_death_signal: AtomicI32::new(0),
            nice: AtomicI32::new(from.nice),
            policy: AtomicU64::new(from.policy),
            deadline: Mutex::new([0; 3]),
            io_priority: AtomicU32::new(from.io_priority),
            affinity: AtomicU64::new(from.affinity),
            no_new_privs: AtomicBool::new(from.no_new_privs),
            timer_slack_ns: AtomicU64::new(from.timer_slack_ns),
            minor_faults: AtomicU64::new(0),
            calls: AtomicU32::new(0),
            system_cycles: AtomicU64::new(0),
            user_ns_told: AtomicU64::new(0),
            start_ns: timer::now_ns(),
        }
    }

    /// What a child or new thread starts with.
    pub fn to_inherit(&self) -> Inherited {
        let (nice, policy) = self.inherited_priority();
        Inherited {
            name: self.name(),
            credentials: self.credentials(),
            blocked: self.signals.blocked(),
            nice,
            policy,
            io_priority: self.io_priority.load(Ordering::Relaxed),
            affinity: self.affinity.load(Ordering::Relaxed),
            no_new_privs: self.no_new_privs.load(Ordering::Relaxed),
            timer_slack_ns: self.timer_slack_ns.load(Ordering::Relaxed),
        }
    }

    /// Nice value and policy for a child: the usual ones after SCHED_RESET_ON_FORK.
    fn inherited_priority(&self) -> (i32, u64) {
        let (nice, policy) = (self.nice.load(Ordering::Relaxed), self.policy.load(Ordering::Relaxed));
        match policy as u32 & SCHED_RESET_ON_FORK {
            0 => (nice, policy),
            _ if matches!(policy as u32 & !SCHED_RESET_ON_FORK, SCHED_FIFO | SCHED_RR | SCHED_DEADLINE) => (0, 0),
            _ => (nice.max(0), policy & !u64::from(SCHED_RESET_ON_FORK)),
        }
    }

    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// The thread that executes a program becomes the leader of its process.
    pub(super) fn set_tid(&self, tid: u32) {
        self.tid.store(tid, Ordering::Relaxed);
    }

    /// Where it runs or ran last.
    pub fn last_vcpu(&self) -> usize {
        match self.vcpu.load(Ordering::Relaxed) {
            NOWHERE => 0,
            vcpu => vcpu,
        }
    }

    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub fn signals(&self) -> &ThreadSignals {
        &self.signals
    }

    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.lock().clone()
    }

    pub fn set_credentials(&self, new: Credentials) {
        let old = core::mem::replace(&mut *self.credentials.lock(), Arc::new(new));
        drop(old);
    }

    pub fn name(&self) -> Name {
        *self.name.lock()
    }

    /// Sets `comm`; what does not fit is cut off.
    pub fn set_name(&self, name: &[u8]) {
        *self.name.lock() = to_name(name);
    }

    pub(super) fn set_task(&self, task: TaskRef) {
        self.task.call_once(|| task);
    }

    /// Makes the thread look at `work`: ends its interruptible wait, or interrupts its user code.
    pub fn notify(&self, work: u32) {
        self.set_work(work);
        let Some(task) = self.task.get() else { return };
        if sched::interrupt(task) {
            return;
        }
        let vcpu = self.vcpu.load(Ordering::SeqCst);
        if vcpu != NOWHERE && vcpu != vcpu::index() {
            if vcpu::set_pending(vcpu, vcpu::PENDING_KICK) {
                host::kick(vcpu);
            }
        }
    }

    /// Has the thread look at `work` when it goes back to user code; for the thread itself.
    pub fn set_work(&self, work: u32) {
        self.work.fetch_or(work, Ordering::SeqCst);
    }

    /// Whether there is something to look at, before user code runs on this vCPU. The order of the
    /// two accesses makes sure that a sender either sees the vCPU or is seen here.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        let here = vcpu::index();
        if self.vcpu.load(Ordering::Relaxed) != here {
            self.vcpu.store(here, Ordering::SeqCst);
        }
        self.work.load(Ordering::SeqCst) != 0
    }

    pub(crate) fn take_work(&self) -> u32 {
        // That it ends is never forgotten.
        self.work.fetch_and(Work::EXIT, Ordering::SeqCst)
    }

    /// Goes on as `successor` when the current system call is over. For the thread itself.
    pub(super) fn replace_with(&self, successor: Arc<Thread>) {
        *self.successor.lock() = Some(successor);
        self.set_work(Work::REPLACED);
    }

    pub(super) fn take_successor(&self) -> Option<Arc<Thread>> {
        self.successor.lock().take()
    }

    /// When a wait of `timeout_ns` from now is over. In a system call that runs again after a signal
    /// this is the time found when it ran first. For calls that fail with
    /// `error::interrupted_unless_handled`.
    pub fn deadline_after(&self, timeout_ns: u64) -> u64 {
        if self.is_restarting.load(Ordering::Relaxed) {
            return self.restart_deadline.load(Ordering::Relaxed);
        }
        let deadline = timer::now_ns().saturating_add(timeout_ns);
        self.restart_deadline.store(deadline, Ordering::Relaxed);
        deadline
    }

    pub(super) fn set_restarting(&self, is_restarting: bool) {
        self.is_restarting.store(is_restarting, Ordering::Relaxed);
    }

    /// Whether the thread is to end whatever it waits for.
    pub fn is_dying(&self) -> bool {
        self.work.load(Ordering::SeqCst) & Work::EXIT != 0 || self.process.is_ending()
    }

    /// When it was made, CLOCK_MONOTONIC.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    pub fn count_fault(&self) {
        self.minor_faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Processor time used, nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        usage::cycles_to_ns(self.cycles())
    }

    /// A system call begins. Gives the cycles used so far if this one is measured.
    #[inline]
    pub(super) fn begin_call(&self) -> Option<u64> {
        let calls = self.calls.load(Ordering::Relaxed).wrapping_add(1);
        self.calls.store(calls, Ordering::Relaxed);
        calls.is_multiple_of(usage::SAMPLE).then(|| self.cycles())
    }

    /// A measured system call is over: it stands for those that were not.
    #[cold]
    pub(super) fn end_call(&self, begin: u64) {
        let taken = self.cycles().saturating_sub(begin).saturating_mul(u64::from(usage::SAMPLE));
        let before = self.system_cycles.load(Ordering::Relaxed);
        self.system_cycles.store(before.saturating_add(taken), Ordering::Relaxed);
    }

    fn cycles(&self) -> u64 {
        self.task.get().map_or(0, sched::run::cycles)
    }

    pub fn usage(&self) -> Usage {
        let cpu_ns = self.cpu_ns();
        let estimate = usage::cycles_to_ns(self.system_cycles.load(Ordering::Relaxed)).min(cpu_ns);
        let user_ns = cpu_ns - estimate;
        let user_ns = self.user_ns_told.fetch_max(user_ns, Ordering::Relaxed).max(user_ns).min(cpu_ns);
        Usage {
            cpu_ns,
            system_ns: cpu_ns - user_ns,
            preemptions: self.task.get().map_or(0, sched::run::preemptions),
            minor_faults: self.minor_faults.load(Ordering::Relaxed),
            switches: self.task.get().map_or(0, sched::run::switches),
            ..Usage::default()
        }
    }

    /// Whether the thread waits for something (state S in /proc).
    pub fn is_sleeping(&self) -> bool {
        self.task.get().is_some_and(sched::run::is_parked)
    }
}

/// A name cut to what `comm` holds.
pub fn to_name(text: &[u8]) -> Name {
    let mut name = [0; 16];
    let len = text.iter().position(|&byte| byte == 0).unwrap_or(text.len()).min(15);
    name[..len].copy_from_slice(&text[..len]);
    name
}

/// Makes `thread` what its task runs for.
pub(super) fn attach(task: &TaskRef, thread: &Arc<Thread>) {
    sched::set_local(task, Local::Thread, Some(thread.clone()));
    sched::set_local(task, Local::Space, Some(thread.space().clone()));
}

/// Undoes [`attach`], so that task and thread do not keep each other alive.
pub(super) fn detach(task: &TaskRef) {
    sched::set_local(task, Local::Thread, None);
    sched::set_local(task, Local::Space, None);
}
