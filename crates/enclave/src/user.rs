//! User contexts: the registers of one user thread, and `run`, which enters user code.
//!
//! A context's XMM registers and MXCSR are always in memory while kernel code runs, because kernel
//! code itself uses XMM. The *rest* of the vector state (x87, upper halves, opmasks) and FS base stay
//! in the registers across a system call and are saved only when the vCPU leaves the context: at a
//! task switch, an ocall, or before wide vector code. The context whose rest is in the registers is
//! the vCPU's *resident*. With no resident the registers hold the initial state, or what the last one
//! left behind (`is_rest_stale`), which nobody reads and the next one does not get to see.

use core::arch::asm;
use core::arch::x86_64::{_rdtsc, _xgetbv};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use alloc::boxed::Box;

use crate::entry;
use crate::vcpu;

pub(crate) const TRAP_SYSCALL: u32 = 1;
pub(crate) const TRAP_INTERRUPT: u32 = 2;
pub(crate) const TRAP_EXCEPTION: u32 = 3;
pub(crate) const TRAP_CPUID: u32 = 4;

/// Largest XSAVE area kept for a context (standard format): x87, SSE, AVX, AVX-512, PKRU.
pub const XSAVE_MAX: usize = 2752;

/// General registers of a user thread.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Why user code stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call; number and arguments are in the registers, RIP is where to continue.
    Syscall,
    /// A patched `cpuid`; RAX and RCX are its operands, RIP is where to continue.
    Cpuid,
    /// A fault; RIP is the faulting instruction (or the next one for traps such as #BP).
    Exception(Exception),
    /// The vCPU has something pending ([`vcpu::take_pending`]).
    Interrupt,
}

/// A processor exception in user code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Exception {
    /// Vector number, SDM vol. 3A table 6-1.
    pub vector: u8,
    /// Error code; for #PF the P, W/R, U/S, I/D bits.
    pub error: u32,
    /// Faulting address of #PF; 0 for others.
    pub address: usize,
}

#[allow(missing_docs)]
impl Exception {
    pub const DIVIDE: u8 = 0;
    pub const DEBUG: u8 = 1;
    pub const BREAKPOINT: u8 = 3;
    pub const OVERFLOW: u8 = 4;
    pub const BOUND: u8 = 5;
    pub const INVALID_OPCODE: u8 = 6;
    pub const GENERAL_PROTECTION: u8 = 13;
    pub const PAGE_FAULT: u8 = 14;
    pub const X87: u8 = 16;
    pub const ALIGNMENT: u8 = 17;
    pub const SIMD: u8 = 19;

    pub const PF_PRESENT: u32 = 1;
    pub const PF_WRITE: u32 = 2;
    pub const PF_FETCH: u32 = 16;
}

/// RFLAGS bits a program may set: CF PF AF ZF SF DF OF NT AC ID (not TF: single-stepping the
/// kernel's own return path would fault).
pub const USER_RFLAGS: u64 = 0x24_4cd5;

/// The whole machine state of one user thread while it is not running.
#[repr(C, align(64))]
pub struct UserContext {
    /// XSAVE area, standard format. XMM and MXCSR are current whenever kernel code runs; the rest is
    /// current unless this context is resident on a vCPU.
    pub(crate) xsave: [u8; XSAVE_MAX],
    /// General registers.
    pub regs: Regs,
    pub(crate) trap: u32,
    pub(crate) exception: Exception,
    fs_base: u64,
    /// False if the rest of the vector state is the initial state and need not be restored.
    rest_saved: bool,
}

const _: () = assert!(offset_of!(UserContext, xsave) == 0);

/// XFRM the contexts save and restore; set once at start.
static XFRM: AtomicU64 = AtomicU64::new(3);
static XSAVE_SIZE: AtomicUsize = AtomicUsize::new(576);

const XFEATURE_SSE: u64 = 2;
const XSTATE_BV: usize = 512;

/// Sets which state components contexts have. `size` bytes must hold them in standard format.
pub(crate) fn set_xfrm(xfrm: u64, size: usize) {
    XFRM.store(xfrm, Ordering::Relaxed);
    XSAVE_SIZE.store(size, Ordering::Relaxed);
}

/// State components (XCR0 bits) and bytes of the XSAVE area user programs see.
pub fn xsave_layout() -> (u64, usize) {
    (XFRM.load(Ordering::Relaxed), XSAVE_SIZE.load(Ordering::Relaxed))
}

impl UserContext {
    /// A context with zeroed registers and the initial vector state (as after execve).
    pub fn new() -> Box<UserContext> {
        let mut context = Box::new(UserContext {
            xsave: [0; XSAVE_MAX],
            regs: Regs::default(),
            trap: 0,
            exception: Exception::default(),
            fs_base: 0,
            rest_saved: false,
        });
        context.reset_vector_state();
        context
    }

    /// A copy of this context, for a new thread of the caller.
    pub fn duplicate(&mut self) -> Box<UserContext> {
        self.evict();
        Box::new(UserContext {
            xsave: self.xsave,
            regs: self.regs,
            trap: 0,
            exception: Exception::default(),
            fs_base: self.fs_base,
            rest_saved: self.rest_saved,
        })
    }

    /// Enters user code at `regs.rip` and returns when it traps.
    ///
    /// The caller answers for RIP lying in user memory only as far as the user's own sanity goes: a
    /// wild RIP faults. RFLAGS is reduced to what a program may set.
    pub fn run(&mut self) -> Trap {
        self.regs.rflags = (self.regs.rflags & USER_RFLAGS) | 0x202;
        self.make_resident();
        // SAFETY: `self` is exclusively borrowed until `enter_user` returns, which happens on this
        // same kernel stack; the vCPU page refers to it only in between (and as resident, which
        // `Drop` and `evict` undo).
        unsafe { entry::enter_user(self) };
        match self.trap {
            TRAP_SYSCALL => Trap::Syscall,
            TRAP_CPUID => Trap::Cpuid,
            TRAP_EXCEPTION => Trap::Exception(self.exception),
            _ => Trap::Interrupt,
        }
    }

    /// FS base (thread pointer).
    pub fn fs_base(&mut self) -> u64 {
        self.evict();
        self.fs_base
    }

    /// Sets FS base; takes effect at the next `run`.
    pub fn set_fs_base(&mut self, value: u64) {
        self.evict();
        self.fs_base = value;
    }

    /// The complete vector state in XSAVE standard format, as a signal frame holds it:
    /// XSTATE_BV says which components are not in their initial state.
    pub fn vector_state(&mut self) -> &[u8] {
        self.evict();
        if !self.rest_saved {
            self.set_xstate_bv(0);
        }
        let bv = self.xstate_bv() | XFEATURE_SSE;
        self.set_xstate_bv(bv);
        &self.xsave[..XSAVE_SIZE.load(Ordering::Relaxed)]
    }

    /// Replaces the vector state by an XSAVE image from user memory (sigreturn). Components beyond
    /// `state`'s length or outside XFRM become initial; reserved bits are cleared, so XRSTOR can't
    /// fault on what a program wrote.
    pub fn set_vector_state(&mut self, state: &[u8]) {
        self.evict();
        let size = XSAVE_SIZE.load(Ordering::Relaxed).min(state.len());
        if size < 512 {
            return;
        }
        let has_header = size >= 576;
        self.xsave[..size].copy_from_slice(&state[..size]);
        let components = if has_header {
            self.xstate_bv() & XFRM.load(Ordering::Relaxed)
        } else {
            3
        };
        if components & XFEATURE_SSE == 0 {
            self.xsave[160..416].fill(0);
        }
        self.xsave[XSTATE_BV + 8..XSTATE_BV + 64].fill(0);
        self.set_xstate_bv(components);
        let mxcsr = self.mxcsr() & MXCSR_VALID;
        self.xsave[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        self.rest_saved = true;
    }

    /// Back to the state a program starts with: x87 and vector registers initial.
    pub fn reset_vector_state(&mut self) {
        self.evict();
        self.xsave[..576].fill(0);
        self.xsave[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
        self.xsave[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        self.rest_saved = false;
    }

    fn mxcsr(&self) -> u32 {
        u32::from_le_bytes([self.xsave[24], self.xsave[25], self.xsave[26], self.xsave[27]])
    }

    fn xstate_bv(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.xsave[XSTATE_BV..XSTATE_BV + 8]);
        u64::from_le_bytes(bytes)
    }

    fn set_xstate_bv(&mut self, bv: u64) {
        self.xsave[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&bv.to_le_bytes());
    }

    fn make_resident(&mut self) {
        // SAFETY: the vCPU page is valid and only this vCPU touches these fields.
        unsafe {
            let page = vcpu::page();
            if (*page).resident == core::ptr::from_mut(self) {
                return;
            }
            evict_resident();
            let rest = XFRM.load(Ordering::Relaxed) & !XFEATURE_SSE;
            if self.rest_saved {
                xrstor(self.xsave.as_ptr(), rest);
                (*page).is_rest_stale = false;
            } else if (*page).is_rest_stale {
                reset_vector_registers(rest);
            }
            wrfsbase(self.fs_base);
            (*page).resident = self;
        }
    }

    /// If this context is resident here, saves its FS base and rest into memory.
    fn evict(&mut self) {
        // SAFETY: as in `make_resident`. A context is resident only on the vCPU whose task owns it,
        // because every switch between tasks evicts.
        unsafe {
            if (*vcpu::page()).resident == core::ptr::from_mut(self) {
                evict_resident();
            }
        }
    }

    /// Takes the complete state from an SSA frame's XSAVE area; called by the AEX handler, after which
    /// nothing of this context is in registers but FS base (passed in).
    ///
    /// # Safety
    /// `area` must hold an XSAVE image of the configured size.
    pub(crate) unsafe fn load_from_ssa(&mut self, area: *const u8, fs_base: u64) {
        let size = XSAVE_SIZE.load(Ordering::Relaxed);
        // SAFETY: the caller's promise; `size` <= XSAVE_MAX was checked by `set_xfrm`'s caller.
        unsafe { core::ptr::copy_nonoverlapping(area, self.xsave.as_mut_ptr(), size) };
        let bv = self.xstate_bv();
        if bv & XFEATURE_SSE == 0 {
            self.xsave[160..416].fill(0);
            if bv & 4 == 0 {
                self.xsave[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
            }
        }
        self.rest_saved = bv & !XFEATURE_SSE != 0;
        self.fs_base = fs_base;
    }
}

/// MXCSR bits that may be set without #GP on any CPU with SSE2 and DAZ.
const MXCSR_VALID: u32 = 0xffff;

impl Drop for UserContext {
    fn drop(&mut self) {
        self.evict();
    }
}

// SAFETY: a context is plain data; the raw pointer to it in a vCPU page is removed by `evict` before
// another vCPU can see the context (every task switch evicts, and `Drop` does).
unsafe impl Send for UserContext {}

/// Saves the resident context's FS base and rest. What is left in the registers is stale: it is
/// replaced when the next context becomes resident, or when the enclave is left.
pub(crate) fn evict_resident() {
    // SAFETY: the vCPU page is valid and only this vCPU touches `resident`, which is null or points
    // to a live context (its `Drop` evicts).
    unsafe {
        let page = vcpu::page();
        let resident = (*page).resident;
        if resident.is_null() {
            return;
        }
        (*page).resident = core::ptr::null_mut();
        (*resident).fs_base = rdfsbase();
        let rest = XFRM.load(Ordering::Relaxed) & !XFEATURE_SSE;
        (*resident).rest_saved = xinuse() & rest != 0;
        if (*resident).rest_saved {
            let mxcsr = (*resident).mxcsr();
            xsave((*resident).xsave.as_mut_ptr(), rest);
            // XSAVE of AVX state also wrote the kernel's MXCSR.
            (&mut (*resident).xsave)[24..28].copy_from_slice(&mxcsr.to_le_bytes());
            (*page).is_rest_stale = true;
        }
    }
}

#[repr(align(64))]
struct InitialState([u8; 576]);

static INITIAL: InitialState = {
    let mut state = [0u8; 576];
    state[0] = 0x7f;
    state[1] = 0x03;
    state[24] = 0x80;
    state[25] = 0x1f;
    InitialState(state)
};

/// Puts vector state components (all, or all but SSE) into their initial state, and MXCSR to its
/// default.
pub(crate) fn reset_vector_registers(components: u64) {
    // SAFETY: INITIAL is a valid XSAVE image whose XSTATE_BV is 0, so only its first 576 bytes are
    // read. The vCPU page is this vCPU's.
    unsafe {
        xrstor(INITIAL.0.as_ptr(), components);
        (*vcpu::page()).is_rest_stale = false;
    }
}

/// All components the enclave may use; for crossing the enclave's boundary.
pub(crate) fn all_components() -> u64 {
    XFRM.load(Ordering::Relaxed)
}

/// Room for any component this kernel knows, wherever a CPU puts it.
#[repr(align(64))]
struct XsaveProbe([u8; 4096]);

/// Bytes of an XSAVE area in standard format for these components. CPUID would tell, but an enclave
/// can't execute it, and the host's word would do: this looks how far XSAVE writes.
pub(crate) fn measure_xsave(components: u64) -> usize {
    const UNTOUCHED: u8 = 0xA5;
    let mut probe = XsaveProbe([UNTOUCHED; 4096]);
    reset_vector_registers(components);
    // Not by `xsave`, which leaves out what is in its initial state.
    // SAFETY: the components are enabled, and there is room for them.
    unsafe {
        asm!("xsave64 [{}]", in(reg) probe.0.as_mut_ptr(), in("eax") components as u32,
             in("edx") (components >> 32) as u32, options(nostack, preserves_flags));
    }
    let written = probe.0.iter().rposition(|&byte| byte != UNTOUCHED).map_or(0, |last| last + 1);
    // The last bytes of PKRU's component are reserved and not written.
    written.next_multiple_of(8)
}

/// The state components that the CPU has enabled (XCR0; in an enclave, its XFRM).
pub(crate) fn enabled_components() -> u64 {
    extended_control(0)
}

/// The components of those that are not in their initial state. XGETBV with ECX=1 exists on every
/// CPU with SGX (it came with XSAVEC); the software CPU's loader checks for it.
fn xinuse() -> u64 {
    extended_control(1)
}

fn extended_control(register: u32) -> u64 {
    // SAFETY: every CPU with SGX has XSAVE; the software CPU's loader checks for it.
    unsafe { xgetbv(register) }
}

#[target_feature(enable = "xsave")]
unsafe fn xgetbv(register: u32) -> u64 {
    // SAFETY: XGETBV reads a register.
    unsafe { _xgetbv(register) }
}

unsafe fn xsave(area: *mut u8, components: u64) {
    // SAFETY: the caller gives a 64-byte aligned area large enough for XFRM.
    unsafe {
        asm!("xsaveopt64 [{}]", in(reg) area, in("eax") components as u32,
             in("edx") (components >> 32) as u32, options(nostack, preserves_flags));
    }
}

unsafe fn xrstor(area: *const u8, components: u64) {
    // SAFETY: the caller gives a valid XSAVE image. XMM registers are in memory (or dead) whenever
    // this is called, and the compiler is told that they change.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) area, in("eax") components as u32,
             in("edx") (components >> 32) as u32,
             out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
             out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
             out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
             out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
             out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
             out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
             options(nostack, preserves_flags));
    }
}

pub(crate) fn rdfsbase() -> u64 {
    let value;
    // SAFETY: reads a register; FSGSBASE is required by the loader.
    unsafe { asm!("rdfsbase {}", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

pub(crate) fn wrfsbase(value: u64) {
    // A non-canonical base would fault in the kernel; arch_prctl refuses it before.
    let canonical = ((value as i64) << 16 >> 16) as u64;
    // SAFETY: FS base is the user's; kernel code never uses FS.
    unsafe { asm!("wrfsbase {}", in(reg) canonical, options(nomem, nostack, preserves_flags)) };
}

/// Cycles since an arbitrary start (RDTSC). Not serialising.
pub(crate) fn tsc() -> u64 {
    // SAFETY: RDTSC is allowed inside SGX2 enclaves and in simulation.
    unsafe { _rdtsc() }
}
