//! Kernel tasks: a stack and a saved stack pointer. Which one runs next is the kernel's business.
//!
//! Life cycle: `Task::new` prepares a stack whose first switch lands in `task_start`; [`switch_to`]
//! moves the vCPU to another task; when the body returns, the kernel's `task_exit` runs on the task's
//! stack and must switch away for good. The last `Arc` frees the stack, always from another stack.
//!
//! Invariant: a task runs on at most one vCPU (`on_cpu`); a vCPU that wants a task which another one
//! is just leaving spins for those few instructions.

use core::any::Any;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::entry;
use crate::stack::{KernelStack, StackError};
use crate::user;
use crate::vcpu;

/// What the kernel hangs on a task: its thread, and the scheduler's fields.
pub type TaskData = dyn Any + Send + Sync;

/// One kernel task.
pub struct Task {
    /// Where `switch_stack` saved RSP; valid while the task does not run.
    rsp: UnsafeCell<usize>,
    on_cpu: AtomicBool,
    data: Box<TaskData>,
    /// None for a vCPU's idle task, which runs on the stack of its area.
    _stack: Option<KernelStack>,
}

// SAFETY: `rsp` is written only by `switch_to` on the vCPU that holds `on_cpu`.
unsafe impl Sync for Task {}

struct Start {
    body: Box<dyn FnOnce() + Send>,
}

impl Task {
    /// A task that will run `body` on a fresh kernel stack at its first switch.
    pub fn new(body: Box<dyn FnOnce() + Send>, data: Box<TaskData>) -> Result<Arc<Task>, StackError> {
        let stack = KernelStack::new()?;
        let start = Box::into_raw(Box::new(Start { body }));
        // The frame `switch_stack` pops: r15 r14 r13 r12 rbp rbx, return address.
        let frame = [0, 0, 0, 0, 0, start as usize, entry::task_trampoline as *const () as usize];
        let rsp = stack.top() - 16 - size_of_val(&frame);
        // SAFETY: the stack is ours, mapped and larger than the frame.
        unsafe { (rsp as *mut [usize; 7]).write(frame) };
        Ok(Arc::new(Task {
            rsp: UnsafeCell::new(rsp),
            on_cpu: AtomicBool::new(false),
            data,
            _stack: Some(stack),
        }))
    }

    /// What was given to [`Task::new`].
    pub fn data(&self) -> &TaskData {
        &*self.data
    }
}

/// The task running on this vCPU; its idle task if none.
pub fn current() -> Arc<Task> {
    // SAFETY: `current` is set before the kernel runs on the vCPU and only changed by `switch_to`.
    let current = unsafe { (*vcpu::page()).current.clone() };
    current.expect("a vCPU has a current task from its start on")
}

/// Runs `body` with the current task, without touching its reference count.
pub fn with_current<R>(body: impl FnOnce(&Task) -> R) -> R {
    // SAFETY: the task that executes this code is current until the code switches away, and comes
    // back to it only as current; the vCPU page keeps it alive in between.
    let current = unsafe { (*vcpu::page()).current.as_deref().map(core::ptr::from_ref) };
    let current = current.expect("a vCPU has a current task from its start on");
    // SAFETY: see above: the reference outlives `body`, whose stack belongs to that task.
    body(unsafe { &*current })
}

/// Makes the code that runs now the vCPU's idle task; called once per vCPU.
pub fn adopt_idle(data: Box<TaskData>) -> Arc<Task> {
    let task = Arc::new(Task {
        rsp: UnsafeCell::new(0),
        on_cpu: AtomicBool::new(true),
        data,
        _stack: None,
    });
    // SAFETY: only this vCPU touches its page.
    unsafe {
        (*vcpu::page()).current = Some(task.clone());
        (*vcpu::page()).idle = Some(task.clone());
    }
    task
}

/// This vCPU's idle task.
pub fn idle() -> Arc<Task> {
    // SAFETY: as in `current`.
    let idle = unsafe { (*vcpu::page()).idle.clone() };
    idle.expect("adopt_idle ran at the vCPU's start")
}

/// Leaves the current task and continues `next`; returns when somebody switches back.
///
/// If `next` is the current task, returns at once. The caller holds no spin lock.
pub fn switch_to(next: Arc<Task>) {
    // SAFETY: the vCPU page belongs to this vCPU. `next` is not running elsewhere once `on_cpu` is
    // ours, so its `rsp` is the one its last switch saved.
    unsafe {
        let page = vcpu::page();
        let current = (*page).current.as_ref().expect("a vCPU has a current task");
        if Arc::ptr_eq(current, &next) {
            return;
        }
        let save = current.rsp.get();
        user::evict_resident();
        while next.on_cpu.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        let resume = *next.rsp.get();
        (*page).previous = (*page).current.replace(next);
        entry::switch_stack(save, resume);
    }
    finish_switch();
}

/// On the new task's stack: the previous one may now run elsewhere, or be freed.
fn finish_switch() {
    // SAFETY: the vCPU page belongs to this vCPU (it may be another vCPU than before the switch).
    let previous = unsafe { (*vcpu::page()).previous.take() };
    if let Some(previous) = previous {
        previous.on_cpu.store(false, Ordering::Release);
    }
}

/// First code of a new task, from `task_trampoline`.
///
/// # Safety
/// `start` comes from `Task::new` and is used once.
pub(crate) unsafe extern "C" fn task_start(start: *mut ()) -> ! {
    finish_switch();
    // Taken apart, so that the box is freed: this function never returns.
    // SAFETY: the caller's promise.
    let Start { body } = unsafe { *Box::from_raw(start.cast::<Start>()) };
    body();
    crate::occlum_kernel_task_exit()
}
