//! Run queues, one for each vCPU, and the idle loop that steals from the others.
//!
//! A woken task goes to the queue of the vCPU that wakes it, because it most often continues what
//! that one just did (a pipe, a futex). It moves to another vCPU only when it has waited a while:
//! an idle vCPU steals what is older than `STEAL_AFTER_CYCLES`, and a busy one wakes a parked vCPU when
//! more than one task waits or one waits for as long as waking takes.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use occlum_abi::Errno;
use occlum_abi::layout::MAX_VCPUS;
use occlum_enclave::task::{self, Task};
use occlum_enclave::{host, time, vcpu};
use spin::Mutex;

use super::{events, presence, timer};
use crate::error::{Error, Result};

pub type TaskRef = Arc<Task>;

/// What the scheduler hangs on each task.
struct Slot {
    name: String,
    state: AtomicU8,
    /// A signal (or the like) wants interruptible waits to end.
    interrupted: AtomicBool,
    /// TSC when it was queued.
    queued_at: AtomicU64,
    /// While it waits: cycles it has run. While it runs: `RUNNING`, and the TSC at which it would have
    /// begun had it never waited. One word, so that others read it whole.
    cycles: AtomicU64,
    switches: AtomicU64,
    preemptions: AtomicU64,
    /// What higher layers attach, by [`Local`].
    locals: [Mutex<Option<Arc<LocalData>>>; 2],
}

/// What a higher layer attached to a task.
pub type LocalData = dyn Any + Send + Sync;

/// Which attachment: the scheduler knows that they exist, not what they are.
#[derive(Clone, Copy, Debug)]
pub enum Local {
    /// `process::Thread`.
    Thread = 0,
    /// `mm::AddressSpace`.
    Space = 1,
}

const EMPTY: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;
/// Finished: an `unpark` that comes too late finds anything but PARKED and does nothing.
const DEAD: u8 = 3;

struct RunQueue {
    tasks: Mutex<VecDeque<TaskRef>>,
    /// Length, readable without the lock.
    len: AtomicUsize,
}

static QUEUES: [RunQueue; MAX_VCPUS] =
    [const { RunQueue { tasks: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) } }; MAX_VCPUS];

/// Bit v: vCPU v is parked in the host, or about to be.
static PARKED_VCPUS: AtomicU64 = AtomicU64::new(0);

/// Bit of `Slot::cycles`.
const RUNNING: u64 = 1 << 63;

/// About 20 us at 2-3 GHz; the exact value does not matter.
const STEAL_AFTER_CYCLES: u64 = 50_000;
/// What a wait is worth to wake a parked vCPU: that costs about as much. A parent whose child executes a
/// small program goes on here when the child has ended.
const WAKE_AFTER_CYCLES: u64 = 150_000;
/// How long an idle vCPU looks for work before it parks, in cycles.
const SPIN_CYCLES: u64 = 100_000;

fn slot(task: &Task) -> &Slot {
    task.data().downcast_ref::<Slot>().expect("every task is made by the scheduler")
}

fn new_slot(name: String) -> Box<Slot> {
    Box::new(Slot {
        name,
        state: AtomicU8::new(EMPTY),
        interrupted: AtomicBool::new(false),
        queued_at: AtomicU64::new(0),
        cycles: AtomicU64::new(0),
        switches: AtomicU64::new(0),
        preemptions: AtomicU64::new(0),
        locals: [const { Mutex::new(None) }; 2],
    })
}

/// A new task that will run `body`; it starts when first unparked.
pub fn spawn(name: String, body: Box<dyn FnOnce() + Send>) -> Result<TaskRef> {
    let slot = new_slot(name);
    slot.state.store(PARKED, Ordering::Relaxed);
    Task::new(body, slot).map_err(|_| Error::new(Errno::EAGAIN, "no kernel stack left"))
}

/// The task this code runs in.
pub fn current() -> TaskRef {
    task::current()
}

/// The name given to [`spawn`].
pub fn name(task: &TaskRef) -> &str {
    &slot(task).name
}

/// Attaches data of a higher layer to a task, in place of what was there.
pub fn set_local(task: &TaskRef, which: Local, data: Option<Arc<LocalData>>) {
    let old = core::mem::replace(&mut *slot(task).locals[which as usize].lock(), data);
    drop(old);
}

/// What is attached to the current task, if it is a `T`.
pub fn local<T: Any + Send + Sync>(which: Local) -> Option<Arc<T>> {
    task::with_current(|task| {
        let data = slot(task).locals[which as usize].lock().clone()?;
        data.downcast::<T>().ok()
    })
}

/// Whether a vCPU sleeps in the host, or is about to.
pub fn is_vcpu_parked(index: usize) -> bool {
    PARKED_VCPUS.load(Ordering::SeqCst) & (1 << index) != 0
}

/// Waits until somebody calls [`unpark`] for this task. May also return for no reason.
pub fn park() {
    presence::leave();
    // The clock stops before the task can be found parked, and so be run, elsewhere.
    let now = stop_clock();
    let may_return = task::with_current(|task| {
        let state = &slot(task).state;
        let may_return = state.compare_exchange(EMPTY, PARKED, Ordering::AcqRel, Ordering::Acquire).is_err()
            && state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED;
        if may_return {
            start_clock(slot(task), now);
        }
        may_return
    });
    if !may_return {
        switch_away(now);
    }
}

/// Lets a parked task run again, or makes its next [`park`] return at once. Says whether it was parked.
pub fn unpark(task: &TaskRef) -> bool {
    let slot = slot(task);
    let was_parked = slot.state.swap(NOTIFIED, Ordering::AcqRel) == PARKED;
    if was_parked {
        slot.state.store(EMPTY, Ordering::Release);
        enqueue(task.clone());
    }
    was_parked
}

/// Ends the interruptible wait a task is in, or will be in before [`clear_interrupt`]. Says whether it
/// was parked, and so will pass through the kernel before it runs user code.
pub fn interrupt(task: &TaskRef) -> bool {
    slot(task).interrupted.store(true, Ordering::Release);
    unpark(task)
}

/// Cycles a task has run.
pub fn cycles(task: &TaskRef) -> u64 {
    match slot(task).cycles.load(Ordering::Relaxed) {
        start if start & RUNNING != 0 => time::tsc().saturating_sub(start & !RUNNING),
        cycles => cycles,
    }
}

/// How often a task gave up its vCPU.
pub fn switches(task: &TaskRef) -> u64 {
    slot(task).switches.load(Ordering::Relaxed)
}

/// How often its vCPU was taken away for another task.
pub fn preemptions(task: &TaskRef) -> u64 {
    slot(task).preemptions.load(Ordering::Relaxed)
}

/// Whether a task waits for an [`unpark`].
pub fn is_parked(task: &TaskRef) -> bool {
    slot(task).state.load(Ordering::Relaxed) == PARKED
}

/// Whether interruptible waits of the current task shall end.
pub fn is_interrupted() -> bool {
    task::with_current(|task| slot(task).interrupted.load(Ordering::Acquire))
}

/// The current task has looked at why it was interrupted.
pub fn clear_interrupt() {
    task::with_current(|task| slot(task).interrupted.store(false, Ordering::Release));
}

/// Lets other runnable tasks of this vCPU go first.
pub fn yield_now() {
    // Before looking for others: it may make one runnable.
    let _aside = presence::step_aside();
    let Some(next) = pop_local() else { return };
    let now = stop_clock();
    requeue(current());
    switch(next, now);
}

/// Stops the current task's clock. Only its own vCPU does, before the task can run elsewhere.
fn stop_clock() -> u64 {
    let now = time::tsc();
    task::with_current(|task| {
        let slot = slot(task);
        let start = slot.cycles.load(Ordering::Relaxed);
        if start & RUNNING != 0 {
            slot.cycles.store(now.saturating_sub(start & !RUNNING), Ordering::Relaxed);
        }
        slot.switches.store(slot.switches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    });
    now
}

fn switch(next: TaskRef, now: u64) {
    start_clock(slot(&next), now);
    task::switch_to(next);
}

fn start_clock(slot: &Slot, now: u64) {
    let ran = slot.cycles.load(Ordering::Relaxed);
    if ran & RUNNING == 0 {
        slot.cycles.store(now.saturating_sub(ran) | RUNNING, Ordering::Relaxed);
    }
}

/// Ends the current task. Nothing of it may be left on its stack but what leaks by design.
pub fn exit() -> ! {
    presence::leave();
    let now = stop_clock();
    task::with_current(|task| slot(task).state.store(DEAD, Ordering::Release));
    switch_away(now);
    unreachable!("a finished task was run again");
}

/// Runs something else; the current task's clock was stopped at `now`.
fn switch_away(now: u64) {
    let next = pop_local().unwrap_or_else(task::idle);
    if timer::is_armed() && PARKED_VCPUS.load(Ordering::Relaxed) == 0 {
        host::want_tick(true);
    }
    switch(next, now);
}

fn enqueue(task: TaskRef) {
    slot(&task).queued_at.store(time::tsc(), Ordering::Relaxed);
    let queue = &QUEUES[vcpu::index()];
    let waiting = {
        let mut tasks = queue.tasks.lock();
        tasks.push_back(task);
        queue.len.store(tasks.len(), Ordering::Release);
        tasks.len()
    };
    host::want_tick(true);
    if waiting > 1 {
        wake_a_parked_vcpu();
    }
}

/// Back to the end of the queue: it keeps its place in time, so that others may steal it.
fn requeue(task: TaskRef) {
    slot(&task).queued_at.store(time::tsc(), Ordering::Relaxed);
    let queue = &QUEUES[vcpu::index()];
    let mut tasks = queue.tasks.lock();
    tasks.push_back(task);
    queue.len.store(tasks.len(), Ordering::Release);
}

fn pop_local() -> Option<TaskRef> {
    let queue = &QUEUES[vcpu::index()];
    if queue.len.load(Ordering::Acquire) == 0 {
        return None;
    }
    let mut tasks = queue.tasks.lock();
    let task = tasks.pop_front();
    queue.len.store(tasks.len(), Ordering::Release);
    task
}

/// Takes the oldest task of another vCPU if it has waited long enough.
fn steal() -> Option<TaskRef> {
    let me = vcpu::index();
    let count = vcpu::count();
    (1..count).map(|i| &QUEUES[(me + i) % count]).find_map(|queue| {
        if queue.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut tasks = queue.tasks.try_lock()?;
        let waited = time::tsc().wrapping_sub(slot(tasks.front()?).queued_at.load(Ordering::Relaxed));
        if waited < STEAL_AFTER_CYCLES || waited > u64::MAX / 2 {
            return None;
        }
        let task = tasks.pop_front();
        queue.len.store(tasks.len(), Ordering::Release);
        task
    })
}

/// Tasks that wait for a vCPU, and vCPUs that run one; the caller's own is not counted.
pub fn active_tasks() -> usize {
    let queued: usize = QUEUES.iter().map(|queue| queue.len.load(Ordering::Relaxed)).sum();
    let parked = PARKED_VCPUS.load(Ordering::Relaxed).count_ones() as usize;
    queued + vcpu::count().saturating_sub(parked + 1)
}

fn wake_a_parked_vcpu() {
    let parked = PARKED_VCPUS.load(Ordering::Acquire);
    if parked == 0 {
        return;
    }
    let index = parked.trailing_zeros() as usize;
    let bit = 1 << index;
    if PARKED_VCPUS.fetch_and(!bit, Ordering::AcqRel) & bit != 0 {
        host::wake(index);
    }
}

/// To be called before every return to user code: handles what became pending on this vCPU.
pub fn before_user() {
    let queue = &QUEUES[vcpu::index()];
    if queue.len.load(Ordering::Relaxed) != 0 && PARKED_VCPUS.load(Ordering::Relaxed) != 0 {
        help_a_waiting_task(queue);
    }
}

/// A task waits here although a vCPU sleeps: after a while it's worth waking that one.
fn help_a_waiting_task(queue: &RunQueue) {
    let is_old = {
        let Some(tasks) = queue.tasks.try_lock() else { return };
        tasks.front().is_some_and(|task| {
            let waited = time::tsc().wrapping_sub(slot(task).queued_at.load(Ordering::Relaxed));
            (WAKE_AFTER_CYCLES..u64::MAX / 2).contains(&waited)
        })
    };
    if is_old {
        wake_a_parked_vcpu();
    }
}

/// User code on this vCPU was interrupted: a tick, or a kick by another vCPU.
pub fn tick() {
    timer::expire();
    events::look_for_requests();
    events::look();
    let is_alone = QUEUES[vcpu::index()].len.load(Ordering::Acquire) == 0;
    if is_alone && !(timer::is_armed() && PARKED_VCPUS.load(Ordering::Relaxed) == 0) {
        host::want_tick(false);
    }
    let mine = current();
    let before = switches(&mine);
    yield_now();
    if switches(&mine) != before {
        slot(&mine).preemptions.fetch_add(1, Ordering::Relaxed);
    }
}

/// What each vCPU does when it has no task: look around, then sleep in the host.
pub fn idle_loop() -> ! {
    task::adopt_idle(new_slot(String::from("idle")));
    loop {
        timer::expire();
        events::look_for_requests();
        match pop_local().or_else(steal).or_else(search_a_while) {
            Some(next) => switch(next, time::tsc()),
            None => sleep_in_host(),
        }
    }
}

fn search_a_while() -> Option<TaskRef> {
    let someone_runs = PARKED_VCPUS.load(Ordering::Relaxed).count_ones() + 1 < vcpu::count() as u32;
    if !someone_runs {
        return None;
    }
    let start = time::tsc();
    while time::tsc().wrapping_sub(start) < SPIN_CYCLES {
        if let Some(task) = pop_local().or_else(steal) {
            return Some(task);
        }
        core::hint::spin_loop();
    }
    None
}

fn sleep_in_host() {
    let bit = 1u64 << vcpu::index();
    host::want_tick(false);
    PARKED_VCPUS.fetch_or(bit, Ordering::AcqRel);
    let has_work = QUEUES[vcpu::index()].len.load(Ordering::Acquire) != 0;
    if !has_work {
        let deadline = timer::next_deadline().unwrap_or(u64::MAX);
        events::park_until(deadline);
    }
    PARKED_VCPUS.fetch_and(!bit, Ordering::AcqRel);
}
