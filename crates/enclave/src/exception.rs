//! The AEX handler: second step of an exception (SDM: the handler runs on SSA frame 1 and edits
//! frame 0; ERESUME then continues where it was told).
//!
//! Runs on the exception stack with CSSA = 1. It must not allocate, lock, or make ocalls.

use core::ptr;
use core::sync::atomic::Ordering;

use occlum_abi::layout;

use crate::copy;
use crate::entry;
use crate::lang;
use crate::user::{Exception, Regs, TRAP_EXCEPTION, TRAP_INTERRUPT};
use crate::vcpu::{self, PENDING_TICK, VcpuPage};

/// GPRSGX, the last 184 bytes of an SSA frame (SDM vol. 3D).
#[repr(C)]
struct GprSgx {
    rax: u64,
    rcx: u64,
    rdx: u64,
    rbx: u64,
    rsp: u64,
    rbp: u64,
    rsi: u64,
    rdi: u64,
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rflags: u64,
    rip: u64,
    ursp: u64,
    urbp: u64,
    exit_info: u32,
    _reserved: [u8; 3],
    aex_notify: u8,
    fs_base: u64,
    gs_base: u64,
}

pub(crate) const GPR_SIZE: usize = 184;
const _: () = assert!(size_of::<GprSgx>() == GPR_SIZE);

/// EXINFO, just below GPRSGX when MISCSELECT.EXINFO is set.
#[repr(C)]
struct ExInfo {
    address: u64,
    error: u32,
    _reserved: u32,
}

const EXIT_INFO_VALID: u32 = 1 << 31;
const CLEAN_FLAGS: u64 = 0x202;

/// Called from `exception_entry`.
pub(crate) extern "C" fn handle_aex() {
    let page = vcpu::page();
    // SAFETY: the SSA frame 0 of this vCPU holds the interrupted state and nobody else uses it while
    // CSSA = 1.
    let gpr = unsafe { &mut *((*page).ssa0_gpr as *mut GprSgx) };
    let exception = exception_of(gpr);
    // It is told once: a host that enters here again before ERESUME has only interrupted us.
    gpr.exit_info = 0;
    // The host can't forge GS in the frame, but user code can have changed it.
    gpr.gs_base = page as u64;
    if is_kernel_address(gpr.rip as usize) {
        interrupted_kernel(page, gpr, exception);
    } else {
        interrupted_user(page, gpr, exception);
    }
}

fn exception_of(gpr: &GprSgx) -> Option<Exception> {
    if gpr.exit_info & EXIT_INFO_VALID == 0 {
        return None;
    }
    let vector = (gpr.exit_info & 0xff) as u8;
    let mut exception = Exception { vector, ..Exception::default() };
    if vector == Exception::PAGE_FAULT || vector == Exception::GENERAL_PROTECTION {
        // SAFETY: EXINFO lies directly below GPRSGX in the same frame.
        let info = unsafe { &*(ptr::from_ref(gpr).cast::<ExInfo>().sub(1)) };
        exception.error = info.error;
        exception.address = info.address as usize;
    }
    Some(exception)
}

fn interrupted_kernel(page: *mut VcpuPage, gpr: &mut GprSgx, exception: Option<Exception>) {
    let rip = gpr.rip as usize;
    let window = entry::run_window as *const () as usize..entry::run_window_end as *const () as usize;
    match exception {
        Some(exception) => match copy::landing_for(rip) {
            Some(landing) => gpr.rip = landing as u64,
            None => lang::redirect_to_fault_report(
                &mut gpr.rip, &mut gpr.rsp, &mut gpr.rflags, exception),
        },
        None => {
            // SAFETY: this vCPU's page; the field is atomic.
            unsafe { (*page).pending.fetch_or(PENDING_TICK, Ordering::AcqRel) };
            if window.contains(&rip) {
                // Registers are half the user's: start the way back over, which now sees the flag.
                // SAFETY: the page's fields are those `run_user` stored.
                unsafe {
                    gpr.rdi = (*page).user_ctx as u64;
                    gpr.rsp = (*page).kernel_rsp as u64;
                }
                gpr.rip = window.start as u64;
                gpr.rflags = CLEAN_FLAGS;
            }
        }
    }
}

fn interrupted_user(page: *mut VcpuPage, gpr: &mut GprSgx, exception: Option<Exception>) {
    // SAFETY: user code runs only inside `run_user`, whose context outlives it and is referred to by
    // nobody else meanwhile.
    unsafe {
        let context = &mut *(*page).user_ctx;
        context.regs = Regs {
            rax: gpr.rax, rbx: gpr.rbx, rcx: gpr.rcx, rdx: gpr.rdx,
            rsi: gpr.rsi, rdi: gpr.rdi, rbp: gpr.rbp, rsp: gpr.rsp,
            r8: gpr.r8, r9: gpr.r9, r10: gpr.r10, r11: gpr.r11,
            r12: gpr.r12, r13: gpr.r13, r14: gpr.r14, r15: gpr.r15,
            rip: gpr.rip, rflags: gpr.rflags,
        };
        let area = ((*page).ssa0_gpr + GPR_SIZE - layout::SSA_FRAME_SIZE) as *mut u8;
        context.load_from_ssa(area, gpr.fs_base);
        (*page).resident = ptr::null_mut();
        (*page).is_rest_stale = false;
        reset_ssa_vector_state(area);
        match exception {
            Some(exception) => {
                context.trap = TRAP_EXCEPTION;
                context.exception = exception;
            }
            None => {
                context.trap = TRAP_INTERRUPT;
                (*page).pending.fetch_or(PENDING_TICK, Ordering::AcqRel);
            }
        }
        gpr.rsp = (*page).kernel_rsp as u64;
    }
    gpr.rip = entry::aex_return as *const () as u64;
    gpr.rflags = CLEAN_FLAGS;
}

/// Makes ERESUME load the initial vector state: the kernel continues with no resident context.
///
/// # Safety
/// `area` is the XSAVE area of an SSA frame that nobody else uses.
unsafe fn reset_ssa_vector_state(area: *mut u8) {
    // SAFETY: the caller's promise; the legacy region and header are 576 bytes.
    unsafe {
        area.add(24).cast::<u32>().write_unaligned(0x1f80);
        ptr::write_bytes(area.add(512), 0, 64);
    }
}

/// Whether an address lies in the kernel's own code.
fn is_kernel_address(rip: usize) -> bool {
    (layout::KERNEL_BASE..layout::BOOT_CONFIG_BASE).contains(&rip)
}
