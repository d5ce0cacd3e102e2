//! EENTER, EEXIT, ERESUME and the first and last instructions of an asynchronous exit.
//!
//! Register contracts
//! - `cpu_eenter(thread, registers) -> How`: System V. Enters at OENTRY with RAX = CSSA, RBX = TCS,
//!   RCX = where EEXIT must go, RDI/RSI/RDX from `registers`, FS and GS from the TCS. It returns when
//!   the enclave leaves; after EEXIT, RDI, RSI, RDX, R8, R9, R10 are in `registers`.
//! - `cpu_eresume(thread, registers) -> How`: System V. Restores all state from the frame at
//!   `thread.frame`; returns as `cpu_eenter` does.
//! - `cpu_gate`: ENCLU from inside. EAX = leaf, RBX, RCX, RDX = operands. EEXIT (4) goes to RBX; other
//!   leaves keep every register but RAX and the flags, and return by RET.
//! - `cpu_signal_entry`: signal handler, on the thread's own signal stack. RDI, RSI, RDX as sigaction(2).
//!
//! While `inside` is 1 and RIP is in this section or in the gate page, the processor is *not* in the
//! enclave: `signal.rs` relies on it. Between loading the enclave's FS base and entering, and between
//! leaving and restoring the host's, nothing may fault or touch thread-local data.
//!
//! GS base is not restored outside: nothing there uses it.

use super::Registers;
use super::frame::{BLOCK_SIZE, HostThread, InterruptReturn, LEAF_XSAVE};
use occlum_abi::layout;
use std::arch::global_asm;
use std::mem::offset_of;

/// How the enclave was left.
pub const LEFT_BY_EEXIT: u32 = 0;
pub const LEFT_BY_AEX: u32 = 1;
/// EEXIT without restoring RSP.
pub const LEFT_ASTRAY: u32 = 2;

/// RFLAGS that ERESUME loads from the frame: CF PF AF ZF SF TF DF OF RF AC ID.
const RESTORED_FLAGS: u32 = 0x25_0DD5;
/// IF and the bit that is always set.
const FIXED_FLAGS: u32 = 0x202;

unsafe extern "C" {
    pub fn cpu_eenter(thread: *mut HostThread, registers: *mut Registers) -> u32;
    pub fn cpu_eresume(thread: *mut HostThread, registers: *mut Registers) -> u32;
    static cpu_gate: u8;
    static cpu_signal_entry: u8;
    static cpu_signal_return: u8;
    static cpu_text_start: u8;
    static cpu_text_end: u8;
}

/// Where the gate page must jump.
pub fn gate_address() -> usize {
    (&raw const cpu_gate).addr()
}

/// Signal handler and restorer.
pub fn signal_addresses() -> (usize, usize) {
    (
        (&raw const cpu_signal_entry).addr(),
        (&raw const cpu_signal_return).addr(),
    )
}

/// Whether `rip` is in code that enters and leaves the enclave.
pub fn is_transition(rip: u64) -> bool {
    let start = &raw const cpu_text_start as u64;
    let end = &raw const cpu_text_end as u64;
    let gate = layout::SIM_ENCLU_GATE as u64;
    (start..end).contains(&rip) || (gate..gate + layout::PAGE_SIZE as u64).contains(&rip)
}

global_asm!(
    r#"
    .section .text.software_cpu, "ax", @progbits
    .globl cpu_text_start
    .hidden cpu_text_start
cpu_text_start:

    .globl cpu_eenter
    .hidden cpu_eenter
    .type cpu_eenter, @function
    .p2align 6
cpu_eenter:
    push    rbp
    push    rbx
    push    r12
    push    r13
    push    r14
    push    r15
    push    rsi
    mov     r11, rdi
    mov     [r11 + {HOST_RSP}], rsp
    mov     rax, [r11 + {GPRSGX}]
    mov     [rax + {URSP}], rsp
    mov     [rax + {URBP}], rbp
    mov     rax, [r11 + {ENTER_GS}]
    wrgsbase rax
    mov     rax, [r11 + {ENTER_FS}]
    wrfsbase rax
    mov     rdi, [rsi + {RDI}]
    mov     rdx, [rsi + {RDX}]
    mov     rsi, [rsi + {RSI}]
    mov     eax, [r11 + {CSSA}]
    mov     rbx, [r11 + {TCS}]
    lea     rcx, [rip + left_by_eexit]
    mov     dword ptr [r11 + {INSIDE}], 1
    jmp     qword ptr [r11 + {ENTRY}]

    .p2align 4
left_by_eexit:
    cmp     rsp, [r11 + {HOST_RSP}]
    jne     left_astray
    pop     rax
    mov     [rax + {RDI}], rdi
    mov     [rax + {RSI}], rsi
    mov     [rax + {RDX}], rdx
    mov     [rax + {R8}], r8
    mov     [rax + {R9}], r9
    mov     [rax + {R10}], r10
    xor     eax, eax
leave:
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbx
    pop     rbp
    ret
left_astray:
    mov     rsp, [r11 + {HOST_RSP}]
    pop     rcx
    mov     eax, {LEFT_ASTRAY}
    jmp     leave

    .globl cpu_eresume
    .hidden cpu_eresume
    .type cpu_eresume, @function
    .p2align 6
cpu_eresume:
    push    rbp
    push    rbx
    push    r12
    push    r13
    push    r14
    push    r15
    push    rsi
    mov     [rdi + {HOST_RSP}], rsp
    mov     r11, [rdi + {GPRSGX}]
    mov     [r11 + {URSP}], rsp
    mov     [r11 + {URBP}], rbp
    mov     eax, [rdi + {XFRM}]
    mov     edx, [rdi + {XFRM} + 4]
    mov     rcx, [rdi + {FRAME}]
    xrstor64 [rcx]
    mov     rax, [r11 + {GPR_RIP}]
    mov     [rdi + {IRET_RIP}], rax
    mov     rax, [r11 + {GPR_RFLAGS}]
    and     eax, {RESTORED_FLAGS}
    or      eax, {FIXED_FLAGS}
    mov     [rdi + {IRET_RFLAGS}], rax
    mov     rax, [r11 + {GPR_RSP}]
    mov     [rdi + {IRET_RSP}], rax
    lea     rsp, [rdi + {IRET_RIP}]
    mov     rax, [r11 + {GPR_GSBASE}]
    wrgsbase rax
    mov     rax, [r11 + {GPR_FSBASE}]
    wrfsbase rax
    mov     rax, [r11 + 0]
    mov     rcx, [r11 + 8]
    mov     rdx, [r11 + 16]
    mov     rbx, [r11 + 24]
    mov     rbp, [r11 + 40]
    mov     rsi, [r11 + 48]
    mov     r8,  [r11 + 64]
    mov     r9,  [r11 + 72]
    mov     r10, [r11 + 80]
    mov     r12, [r11 + 96]
    mov     r13, [r11 + 104]
    mov     r14, [r11 + 112]
    mov     r15, [r11 + 120]
    mov     dword ptr [rdi + {INSIDE}], 1
    mov     rdi, [r11 + 56]
    mov     r11, [r11 + 88]
    iretq

    .globl cpu_gate
    .hidden cpu_gate
    .type cpu_gate, @function
    .p2align 6
cpu_gate:
    cmp     eax, 4
    jne     leaf
    mov     r11, gs:[{HIDDEN}]
    mov     dword ptr [r11 + {INSIDE}], 0
    mov     rcx, [r11 + {HOST_FS}]
    wrfsbase rcx
    cld
    jmp     rbx

leaf:
    push    r11
    mov     r11, gs:[{HIDDEN}]
    mov     dword ptr [r11 + {INSIDE}], 0
    mov     [r11 + {LEAF_RSP}], rsp
    mov     rsp, [r11 + {HOST_RSP}]
    push    rdi
    push    rsi
    push    rdx
    push    rcx
    push    r8
    push    r9
    push    r10
    push    r11
    mov     rdi, r11
    mov     esi, eax
    mov     r8, rdx
    rdfsbase rax
    mov     [r11 + {LEAF_FS}], rax
    mov     rax, [r11 + {HOST_FS}]
    wrfsbase rax
    mov     eax, [r11 + {XFRM}]
    mov     edx, [r11 + {XFRM} + 4]
    xsave64 [r11 + {LEAF_XSAVE}]
    mov     rdx, rbx
    cld
    call    {leaf_function}
    mov     rsi, rax
    mov     r11, [rsp]
    mov     eax, [r11 + {XFRM}]
    mov     edx, [r11 + {XFRM} + 4]
    xrstor64 [r11 + {LEAF_XSAVE}]
    mov     rax, [r11 + {LEAF_FS}]
    wrfsbase rax
    mov     rax, rsi
    pop     r11
    pop     r10
    pop     r9
    pop     r8
    pop     rcx
    pop     rdx
    pop     rsi
    pop     rdi
    mov     rsp, [r11 + {LEAF_RSP}]
    mov     dword ptr [r11 + {INSIDE}], 1
    // RAX is the leaf's error code; ZF = 1 if there is one.
    test    eax, eax
    jz      1f
    xor     r11d, r11d
    pop     r11
    ret
1:  test    rsp, rsp
    pop     r11
    ret

    .globl cpu_signal_entry
    .hidden cpu_signal_entry
    .type cpu_signal_entry, @function
    .p2align 6
cpu_signal_entry:
    // Alignment checks, NT and the like are the enclave's.
    push    2
    popfq
    mov     r12, rsp
    and     r12, {BLOCK_MASK}
    mov     r15d, [r12 + {INSIDE}]
    mov     dword ptr [r12 + {INSIDE}], 0
    rdfsbase r13
    mov     rax, [r12 + {HOST_FS}]
    wrfsbase rax
    rdgsbase r8
    mov     rdi, rsi
    mov     rsi, rdx
    mov     rdx, r12
    mov     rcx, r13
    mov     r9d, r15d
    sub     rsp, 8
    call    {signal_handler}
    test    eax, eax
    jnz     left_by_aex
    add     rsp, 8
    wrfsbase r13
    mov     [r12 + {INSIDE}], r15d
    ret
    // The signal frame is left behind: all it held is in the SSA frame, and no signal was blocked.
left_by_aex:
    mov     rsp, [r12 + {HOST_RSP}]
    pop     rcx
    mov     eax, {LEFT_BY_AEX}
    jmp     leave

    .globl cpu_signal_return
    .hidden cpu_signal_return
    .type cpu_signal_return, @function
    .p2align 4
cpu_signal_return:
    mov     eax, 15
    syscall
    ud2

    .globl cpu_text_end
    .hidden cpu_text_end
cpu_text_end:
    .text
    "#,
    leaf_function = sym super::leaf::leaf_function,
    signal_handler = sym super::signal::signal_handler,
    HOST_RSP = const offset_of!(HostThread, host_rsp),
    HOST_FS = const offset_of!(HostThread, host_fs),
    TCS = const offset_of!(HostThread, tcs),
    ENTRY = const offset_of!(HostThread, entry),
    ENTER_FS = const offset_of!(HostThread, enter_fs),
    ENTER_GS = const offset_of!(HostThread, enter_gs),
    FRAME = const offset_of!(HostThread, frame),
    GPRSGX = const offset_of!(HostThread, gprsgx),
    XFRM = const offset_of!(HostThread, xfrm),
    IRET_RIP = const offset_of!(HostThread, iret) + offset_of!(InterruptReturn, rip),
    IRET_RFLAGS = const offset_of!(HostThread, iret) + offset_of!(InterruptReturn, rflags),
    IRET_RSP = const offset_of!(HostThread, iret) + offset_of!(InterruptReturn, rsp),
    LEAF_RSP = const offset_of!(HostThread, leaf_rsp),
    LEAF_FS = const offset_of!(HostThread, leaf_fs),
    INSIDE = const offset_of!(HostThread, inside),
    CSSA = const offset_of!(HostThread, cssa),
    RDI = const offset_of!(Registers, rdi),
    RSI = const offset_of!(Registers, rsi),
    RDX = const offset_of!(Registers, rdx),
    R8 = const offset_of!(Registers, r8),
    R9 = const offset_of!(Registers, r9),
    R10 = const offset_of!(Registers, r10),
    GPR_RSP = const 32,
    GPR_RFLAGS = const 128,
    GPR_RIP = const 136,
    URSP = const 144,
    URBP = const 152,
    GPR_FSBASE = const 168,
    GPR_GSBASE = const 176,
    HIDDEN = const layout::SIM_TCS_HIDDEN as isize - layout::VCPU_PAGE as isize,
    BLOCK_MASK = const -(BLOCK_SIZE as i64),
    LEAF_XSAVE = const LEAF_XSAVE,
    LEFT_BY_AEX = const LEFT_BY_AEX,
    LEFT_ASTRAY = const LEFT_ASTRAY,
    RESTORED_FLAGS = const RESTORED_FLAGS,
    FIXED_FLAGS = const FIXED_FLAGS,
);
