//! The virtual CPU: one host thread that entered through one TCS, and its page at GS base.

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use alloc::sync::Arc;
use occlum_abi::layout;

use crate::task::Task;
use crate::user::UserContext;

/// The vCPU's own page (GS base). Assembly in `entry.rs` uses the plain fields; the rest is Rust's.
///
/// Only code running on the vCPU touches its page, except `pending`, which is atomic.
#[repr(C)]
pub(crate) struct VcpuPage {
    /// Address of this page, so that `gs:[0]` is the pointer to it.
    pub this: usize,
    pub index: usize,
    pub syscall_entry: usize,
    pub cpuid_entry: usize,
    pub user_ctx: *mut UserContext,
    pub kernel_rsp: usize,
    pub scratch: usize,
    pub user_rip: usize,
    pub ocall_rsp: usize,
    pub host_return: usize,
    pub host_return_exception: usize,
    pub exception_stack_top: usize,
    pub ssa0_gpr: usize,
    pub ssa1_gpr: usize,
    pub started: usize,
    pub pending: AtomicU32,
    pub simulated: u8,
    /// The context whose FS base and wide vector state are in the registers; null if none.
    pub resident: *mut UserContext,
    /// The wide vector registers hold what a context evicted from here left behind.
    pub is_rest_stale: bool,
    pub current: Option<Arc<Task>>,
    /// The task switched away from, until the next one has left its stack.
    pub previous: Option<Arc<Task>>,
    pub idle: Option<Arc<Task>>,
}

const _: () = assert!(offset_of!(VcpuPage, syscall_entry) == layout::vcpu_page::SYSCALL_ENTRY);
const _: () = assert!(offset_of!(VcpuPage, cpuid_entry) == layout::vcpu_page::CPUID_ENTRY);
const _: () = assert!(offset_of!(VcpuPage, index) == layout::vcpu_page::INDEX);
const _: () = assert!(size_of::<VcpuPage>() <= layout::PAGE_SIZE);

/// The page of the vCPU this code runs on.
pub(crate) fn page() -> *mut VcpuPage {
    let page: *mut VcpuPage;
    // SAFETY: GS base is the vCPU page in all kernel code, and its first word points to itself.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) page, options(pure, readonly, nostack, preserves_flags));
    }
    page
}

/// The page of any vCPU of the image.
pub(crate) fn page_of(index: usize) -> *mut VcpuPage {
    (layout::VCPU_AREA_BASE + index * layout::VCPU_AREA_STRIDE + layout::VCPU_PAGE) as *mut VcpuPage
}

/// Index of the vCPU this code runs on. Stable as long as the caller does not switch tasks.
pub fn index() -> usize {
    // SAFETY: `page()` is valid and the field is set before any Rust code runs on the vCPU.
    unsafe { (*page()).index }
}

static COUNT: AtomicU32 = AtomicU32::new(0);
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Number of vCPUs that take part.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed) as usize
}

pub(crate) fn set_count(count: u32) {
    COUNT.store(count, Ordering::Relaxed);
}

/// Lets the other vCPUs run `vcpu_main`; called once by the kernel when it can schedule.
pub fn release_others() {
    RELEASED.store(true, Ordering::Release);
}

pub(crate) fn wait_for_release() {
    while !RELEASED.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
}

/// Something `run` must report before it enters user code.
pub const PENDING_TICK: u32 = 1;
/// Another vCPU wants this one to look at its task's state (a signal, a stop).
pub const PENDING_KICK: u32 = 2;

/// Takes and clears the pending flags of this vCPU.
pub fn take_pending() -> u32 {
    // SAFETY: `page()` is valid; the field is atomic.
    unsafe { (*page()).pending.swap(0, Ordering::AcqRel) }
}

/// Sets pending flags of a vCPU and says whether one of them is new; to interrupt user code there, follow with
/// [`crate::host::kick`] if so. Else somebody has kicked it and it has not looked yet: one more kick would tell it
/// nothing, and kicks that come faster than they are served pile up on the host's signal stack.
///
/// # Panics
/// If there is no such vCPU.
pub fn set_pending(index: usize, flags: u32) -> bool {
    assert!(index < count(), "vCPU index out of range");
    // SAFETY: the page of an existing vCPU is always mapped; the field is atomic.
    let old = unsafe { (*page_of(index)).pending.fetch_or(flags, Ordering::AcqRel) };
    old & flags != flags
}
