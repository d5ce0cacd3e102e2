//! All ways into and out of the enclave's code, in assembly.
//!
//! Register contracts:
//! - `enclave_entry` (OENTRY): as EENTER leaves them: RAX = CSSA, RBX = TCS, RCX = host return
//!   address, RDI/RSI/RDX = the host's arguments, GS = vCPU page. RSP is the host's and never used.
//! - `ocall_exit(nr, a0, a1, a2, a3, a4)`: System V arguments; returns RAX, RDX.
//! - `run_user(ctx)`: saves the callee-saved registers on the kernel stack and enters user code;
//!   comes back as a return when the user traps. `ctx.trap` says why. Neither the way in nor the way out
//!   is a CALL or RET: the processor's return predictor then stays in step with the user's calls.
//! - `syscall_entry`: user registers, RCX = address to continue at; no user stack is touched.
//! - `cpuid_entry`: user registers, RDX = address to continue at; what `cpuid` leaves alone is kept.
//! - `aex_return`: where ERESUME continues after an AEX from user code; RSP = the kernel stack as
//!   `run_user` left it.
//! - `run_window..run_window_end`: user registers are being restored; an interrupt here restarts the
//!   window (`exception.rs`), so everything it reads must stay in memory.
//! - `switch_stack(save, next)`: callee-saved registers and RSP, nothing else.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use crate::user::{Regs, UserContext, TRAP_CPUID, TRAP_INTERRUPT, TRAP_SYSCALL};
use crate::vcpu::VcpuPage;
use occlum_abi::layout;

/// RFLAGS bits other than the arithmetic flags, IF and the one that is always set.
const FLAGS_RARE: u32 = !0xad7;
/// RFLAGS bits that must be clear in kernel code: TF, DF, NT, AC.
const FLAGS_FIX: u32 = (1 << 8) | (1 << 10) | (1 << 14) | (1 << 18);

global_asm!(
    r#"
    .text
    .globl _start
    .hidden _start
    .type _start, @function
_start:
enclave_entry:
    test    eax, eax
    jnz     exception_entry
    mov     gs:[{HOST_RETURN}], rcx
    mov     rsp, gs:[{OCALL_RSP}]
    test    rsp, rsp
    jz      first_entry
    // Back from an ocall. Nothing the host left in flags may reach kernel code.
    mov     qword ptr gs:[{OCALL_RSP}], 0
    push    2
    popfq
    mov     rax, rdi
    mov     rdx, rsi
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbp
    pop     rbx
    ret

first_entry:
    // RBX comes from the CPU (EENTER keeps it: the TCS), GS from the TCS. Trust GS.
    rdgsbase rax
    cmp     qword ptr gs:[{STARTED}], 0
    jne     entered_twice
    mov     qword ptr gs:[{STARTED}], 1
    lea     rsp, [rax + {IDLE_TOP}]
    push    2
    popfq
    xor     ebp, ebp
    mov     rdx, rax
    // start_vcpu(command = rdi, host_info = rsi, vcpu_page = rdx)
    call    {start_vcpu}
    ud2
entered_twice:
    ud2

exception_entry:
    mov     gs:[{HOST_RETURN_EXC}], rcx
    mov     rsp, gs:[{EXC_TOP}]
    push    2
    popfq
    xor     ebp, ebp
    call    {handle_aex}
    // Leave with Ocall::Resume = 0.
    xor     edi, edi
    xor     esi, esi
    xor     edx, edx
    xor     r8d, r8d
    xor     r9d, r9d
    xor     r10d, r10d
    mov     rbx, gs:[{HOST_RETURN_EXC}]
    mov     rcx, gs:[{SSA1_GPR}]
    jmp     leave_enclave

    .globl ocall_exit
    .hidden ocall_exit
ocall_exit:
    push    rbx
    push    rbp
    push    r12
    push    r13
    push    r14
    push    r15
    mov     gs:[{OCALL_RSP}], rsp
    mov     rax, rcx
    mov     r10, r9
    mov     r9, r8
    mov     r8, rax
    mov     rbx, gs:[{HOST_RETURN}]
    mov     rcx, gs:[{SSA0_GPR}]
    // fall through: rdi, rsi, rdx, r8, r9, r10 carry the call
leave_enclave:
    mov     rsp, [rcx + 144]
    mov     rbp, [rcx + 152]
    xor     r11d, r11d
    xor     r12d, r12d
    xor     r13d, r13d
    xor     r14d, r14d
    xor     r15d, r15d
    mov     eax, 4
    cmp     byte ptr gs:[{SIMULATED}], 0
    je      1f
    movabs  rcx, {GATE}
    jmp     rcx
1:  xor     ecx, ecx
    .byte   0x0f, 0x01, 0xd7
    ud2

    .globl run_user
    .hidden run_user
run_user:
    push    rbx
    push    rbp
    push    r12
    push    r13
    push    r14
    push    r15
    mov     gs:[{USER_CTX}], rdi
    mov     gs:[{KERNEL_RSP}], rsp
    .globl run_window
    .hidden run_window
run_window:
    cmp     dword ptr gs:[{PENDING}], 0
    jne     run_interrupted
    movaps  xmm0,  [rdi + {XMM} + 0x00]
    movaps  xmm1,  [rdi + {XMM} + 0x10]
    movaps  xmm2,  [rdi + {XMM} + 0x20]
    movaps  xmm3,  [rdi + {XMM} + 0x30]
    movaps  xmm4,  [rdi + {XMM} + 0x40]
    movaps  xmm5,  [rdi + {XMM} + 0x50]
    movaps  xmm6,  [rdi + {XMM} + 0x60]
    movaps  xmm7,  [rdi + {XMM} + 0x70]
    movaps  xmm8,  [rdi + {XMM} + 0x80]
    movaps  xmm9,  [rdi + {XMM} + 0x90]
    movaps  xmm10, [rdi + {XMM} + 0xa0]
    movaps  xmm11, [rdi + {XMM} + 0xb0]
    movaps  xmm12, [rdi + {XMM} + 0xc0]
    movaps  xmm13, [rdi + {XMM} + 0xd0]
    movaps  xmm14, [rdi + {XMM} + 0xe0]
    movaps  xmm15, [rdi + {XMM} + 0xf0]
    ldmxcsr [rdi + {MXCSR}]
    mov     rax, [rdi + {RIP}]
    mov     gs:[{USER_RIP}], rax
    mov     eax, [rdi + {RFLAGS}]
    test    eax, {FLAGS_RARE}
    jnz     2f
    // The arithmetic flags without POPFQ, which costs some 20 cycles: OF by an addition that
    // overflows if it was set, the others by SAHF.
    mov     ecx, eax
    shr     ecx, 11
    and     ecx, 1
    mov     ah, al
    add     cl, 0x7f
    sahf
3:
    mov     rax, [rdi + {RAX}]
    mov     rbx, [rdi + {RBX}]
    mov     rcx, [rdi + {RCX}]
    mov     rdx, [rdi + {RDX}]
    mov     rsi, [rdi + {RSI}]
    mov     rbp, [rdi + {RBP}]
    mov     r8,  [rdi + {R8}]
    mov     r9,  [rdi + {R9}]
    mov     r10, [rdi + {R10}]
    mov     r11, [rdi + {R11}]
    mov     r12, [rdi + {R12}]
    mov     r13, [rdi + {R13}]
    mov     r14, [rdi + {R14}]
    mov     r15, [rdi + {R15}]
    mov     rsp, [rdi + {RSP}]
    mov     rdi, [rdi + {RDI}]
    jmp     qword ptr gs:[{USER_RIP}]
2:  push    rax
    popfq
    jmp     3b
    .globl run_window_end
    .hidden run_window_end
run_window_end:

run_interrupted:
    mov     dword ptr [rdi + {TRAP}], {TRAP_INTERRUPT}
    jmp     run_leave

    .globl cpuid_entry
    .hidden cpuid_entry
cpuid_entry:
    mov     gs:[{SCRATCH}], rsp
    mov     rsp, gs:[{USER_CTX}]
    mov     [rsp + {RBX}], rbx
    mov     rbx, rsp
    mov     rsp, gs:[{KERNEL_RSP}]
    mov     [rbx + {RIP}], rdx
    mov     [rbx + {R11}], r11
    pushfq
    pop     r11
    mov     dword ptr [rbx + {TRAP}], {TRAP_CPUID}
    jmp     save_registers

    .globl syscall_entry
    .hidden syscall_entry
    .p2align 6
syscall_entry:
    mov     gs:[{SCRATCH}], rsp
    mov     rsp, gs:[{USER_CTX}]
    mov     [rsp + {RBX}], rbx
    mov     rbx, rsp
    mov     rsp, gs:[{KERNEL_RSP}]
    mov     [rbx + {RIP}], rcx
    pushfq
    pop     r11
    mov     [rbx + {R11}], r11
    mov     dword ptr [rbx + {TRAP}], {TRAP_SYSCALL}
save_registers:
    mov     [rbx + {RFLAGS}], r11
    mov     [rbx + {RAX}], rax
    mov     [rbx + {RCX}], rcx
    mov     [rbx + {RDX}], rdx
    mov     [rbx + {RSI}], rsi
    mov     [rbx + {RDI}], rdi
    mov     [rbx + {RBP}], rbp
    mov     [rbx + {R8}],  r8
    mov     [rbx + {R9}],  r9
    mov     [rbx + {R10}], r10
    mov     [rbx + {R12}], r12
    mov     [rbx + {R13}], r13
    mov     [rbx + {R14}], r14
    mov     [rbx + {R15}], r15
    mov     rax, gs:[{SCRATCH}]
    mov     [rbx + {RSP}], rax
    movaps  [rbx + {XMM} + 0x00], xmm0
    movaps  [rbx + {XMM} + 0x10], xmm1
    movaps  [rbx + {XMM} + 0x20], xmm2
    movaps  [rbx + {XMM} + 0x30], xmm3
    movaps  [rbx + {XMM} + 0x40], xmm4
    movaps  [rbx + {XMM} + 0x50], xmm5
    movaps  [rbx + {XMM} + 0x60], xmm6
    movaps  [rbx + {XMM} + 0x70], xmm7
    movaps  [rbx + {XMM} + 0x80], xmm8
    movaps  [rbx + {XMM} + 0x90], xmm9
    movaps  [rbx + {XMM} + 0xa0], xmm10
    movaps  [rbx + {XMM} + 0xb0], xmm11
    movaps  [rbx + {XMM} + 0xc0], xmm12
    movaps  [rbx + {XMM} + 0xd0], xmm13
    movaps  [rbx + {XMM} + 0xe0], xmm14
    movaps  [rbx + {XMM} + 0xf0], xmm15
    stmxcsr [rbx + {MXCSR}]
    test    r11d, {FLAGS_FIX}
    jz      run_leave
    push    2
    popfq
run_leave:
    .globl aex_return
    .hidden aex_return
aex_return:
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbp
    pop     rbx
    pop     rcx
    jmp     rcx

    .globl switch_stack
    .hidden switch_stack
switch_stack:
    push    rbx
    push    rbp
    push    r12
    push    r13
    push    r14
    push    r15
    mov     [rdi], rsp
    mov     rsp, rsi
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbp
    pop     rbx
    ret

    .globl task_trampoline
    .hidden task_trampoline
task_trampoline:
    // First switch into a new task: RBX = its start record.
    mov     rdi, rbx
    xor     ebp, ebp
    call    {task_start}
    ud2
    "#,
    start_vcpu = sym crate::start::start_vcpu,
    handle_aex = sym crate::exception::handle_aex,
    task_start = sym crate::task::task_start,
    HOST_RETURN = const offset_of!(VcpuPage, host_return),
    HOST_RETURN_EXC = const offset_of!(VcpuPage, host_return_exception),
    OCALL_RSP = const offset_of!(VcpuPage, ocall_rsp),
    STARTED = const offset_of!(VcpuPage, started),
    EXC_TOP = const offset_of!(VcpuPage, exception_stack_top),
    SSA0_GPR = const offset_of!(VcpuPage, ssa0_gpr),
    SSA1_GPR = const offset_of!(VcpuPage, ssa1_gpr),
    SIMULATED = const offset_of!(VcpuPage, simulated),
    USER_CTX = const offset_of!(VcpuPage, user_ctx),
    KERNEL_RSP = const offset_of!(VcpuPage, kernel_rsp),
    PENDING = const offset_of!(VcpuPage, pending),
    USER_RIP = const offset_of!(VcpuPage, user_rip),
    SCRATCH = const offset_of!(VcpuPage, scratch),
    GATE = const layout::SIM_ENCLU_GATE,
    IDLE_TOP = const layout::VCPU_IDLE_STACK + layout::VCPU_IDLE_STACK_SIZE - layout::VCPU_PAGE,
    XMM = const offset_of!(UserContext, xsave) + 160,
    MXCSR = const offset_of!(UserContext, xsave) + 24,
    TRAP = const offset_of!(UserContext, trap),
    RAX = const offset_of!(UserContext, regs) + offset_of!(Regs, rax),
    RBX = const offset_of!(UserContext, regs) + offset_of!(Regs, rbx),
    RCX = const offset_of!(UserContext, regs) + offset_of!(Regs, rcx),
    RDX = const offset_of!(UserContext, regs) + offset_of!(Regs, rdx),
    RSI = const offset_of!(UserContext, regs) + offset_of!(Regs, rsi),
    RDI = const offset_of!(UserContext, regs) + offset_of!(Regs, rdi),
    RBP = const offset_of!(UserContext, regs) + offset_of!(Regs, rbp),
    RSP = const offset_of!(UserContext, regs) + offset_of!(Regs, rsp),
    R8 = const offset_of!(UserContext, regs) + offset_of!(Regs, r8),
    R9 = const offset_of!(UserContext, regs) + offset_of!(Regs, r9),
    R10 = const offset_of!(UserContext, regs) + offset_of!(Regs, r10),
    R11 = const offset_of!(UserContext, regs) + offset_of!(Regs, r11),
    R12 = const offset_of!(UserContext, regs) + offset_of!(Regs, r12),
    R13 = const offset_of!(UserContext, regs) + offset_of!(Regs, r13),
    R14 = const offset_of!(UserContext, regs) + offset_of!(Regs, r14),
    R15 = const offset_of!(UserContext, regs) + offset_of!(Regs, r15),
    RIP = const offset_of!(UserContext, regs) + offset_of!(Regs, rip),
    RFLAGS = const offset_of!(UserContext, regs) + offset_of!(Regs, rflags),
    FLAGS_FIX = const FLAGS_FIX,
    FLAGS_RARE = const FLAGS_RARE,
    TRAP_INTERRUPT = const TRAP_INTERRUPT,
    TRAP_SYSCALL = const TRAP_SYSCALL,
    TRAP_CPUID = const TRAP_CPUID,
);

unsafe extern "C" {
    /// See the module head. Leaves the enclave; the caller has saved the user's vector state and FS.
    pub(crate) fn ocall_exit(nr: u64, a0: u64, a1: u64, a2: u64, a3: u64, a4: u64) -> OcallReturn;
    fn run_user();
    /// See the module head.
    pub(crate) fn switch_stack(save: *mut usize, next: usize);
    pub(crate) fn task_trampoline();
    pub(crate) fn syscall_entry();
    pub(crate) fn cpuid_entry();
    pub(crate) fn aex_return();
    pub(crate) fn run_window();
    pub(crate) fn run_window_end();
}

/// Enters user code; returns when it traps.
///
/// # Safety
/// `ctx` must be exclusive to this vCPU until the return, and its XMM area, FS base and rest in the
/// state `user.rs` describes.
pub(crate) unsafe fn enter_user(ctx: *mut UserContext) {
    // SAFETY: `run_user` restores the callee-saved registers and pops the return address.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "push rax",
            "jmp {run}",
            "2:",
            run = sym run_user,
            in("rdi") ctx,
            clobber_abi("C"),
        );
    }
}

/// RAX and RDX after an ocall, both chosen by the host.
#[repr(C)]
pub(crate) struct OcallReturn {
    pub value: i64,
    pub second: u64,
}
