//! A tiny enclave, written in assembly, that does one thing at each entry. It has the address-space
//! layout of the real one: code at KERNEL_BASE, vCPU areas, one page of user memory. To a host that
//! starts it (RDI = 1) it says that the program has ended with status 7.
//!
//! Entered with CSSA = 0 it executes the command in RDI (RSI, RDX are its arguments) and leaves by
//! EEXIT with RDI = [`DONE`] and RSI, RDX, R8 as its results. Entered with CSSA = 1 after an exception,
//! it adds what RSI was at the first entry to the interrupted RIP; in any case it leaves with RDI = 0
//! (resume), RSI = EXITINFO, RDX = the interrupted RIP, R8 = EXINFO.MADDR, R9 = EXINFO.ERRCD,
//! R10 = the interrupted RAX.

#![allow(dead_code, reason = "each test program uses a part")]

mod key;

use num_bigint::BigUint;
use occlum_abi::layout;
use occlum_host::cpu::enclave::{Builder, CpuError, Enclave};
use occlum_sgx::attributes::{AttributeFlags, Attributes, Miscselect, Xfrm};
use occlum_sgx::secinfo::{Permissions, SecInfo};
use occlum_sgx::sgxs::{Content, Reader, Record, Writer};
use occlum_sgx::sigstruct::SigStruct;
use occlum_sgx::tcs::Tcs;
use occlum_sgx::{FromZeros, IntoBytes};
use std::arch::global_asm;
use std::sync::{Arc, OnceLock};

pub const DONE: u64 = 1000;

/// What goes into RDI.
pub mod command {
    /// Results: CSSA, RBX, GS base.
    pub const REPORT: u64 = 15;
    /// UD2.
    pub const INVALID: u64 = 2;
    /// Spins until the exception handler has run.
    pub const SPIN: u64 = 3;
    /// SYSCALL with RAX = 39.
    pub const SYSCALL: u64 = 4;
    pub const INT80: u64 = 5;
    /// Jumps to RDX.
    pub const JUMP: u64 = 6;
    /// Reads from RDX.
    pub const READ: u64 = 7;
    /// Fills all registers, counts down from RDX, executes UD2, compares. Result: 0 if all are as before.
    pub const KEEP_STATE: u64 = 8;
    /// EGETKEY(RSI = request, RDX = output). Results: RAX, ZF, 1 if other registers were kept.
    pub const EGETKEY: u64 = 9;
    /// Leaves without restoring RSP.
    pub const LEAVE_ASTRAY: u64 = 10;
    /// Calls the address in RDX, with a stack.
    pub const CALL: u64 = 11;
    /// INT3.
    pub const BREAKPOINT: u64 = 12;
    /// Divides by zero.
    pub const DIVIDE: u64 = 13;
    /// SYSENTER.
    pub const SYSENTER: u64 = 14;
}

/// A page of memory that the enclave may read and write.
pub const USER_PAGE: usize = 0x40_0000;

unsafe extern "C" {
    static probe_start: u8;
    static probe_end: u8;
}

global_asm!(
    r#"
    .section .rodata.probe, "a", @progbits
    .globl probe_start
probe_start:
    test    eax, eax
    jnz     20f
    mov     gs:[0x40], rcx
    mov     gs:[0x108], rsi
    mov     qword ptr gs:[0x80], 0
    cmp     edi, 1
    je      15f
    cmp     edi, 15
    je      1f
    cmp     edi, 2
    je      2f
    cmp     edi, 3
    je      3f
    cmp     edi, 4
    je      4f
    cmp     edi, 5
    je      5f
    cmp     edi, 6
    je      6f
    cmp     edi, 7
    je      7f
    cmp     edi, 8
    je      8f
    cmp     edi, 9
    je      9f
    cmp     edi, 10
    je      10f
    cmp     edi, 11
    je      11f
    cmp     edi, 12
    je      12f
    cmp     edi, 13
    je      13f
    cmp     edi, 14
    je      14f
    jmp     30f

1:  mov     esi, eax
    mov     rdx, rbx
    rdgsbase r8
    jmp     30f
2:  ud2
    jmp     30f
3:  pause
    cmp     qword ptr gs:[0x80], 0
    je      3b
    jmp     30f
4:  mov     eax, 39
    syscall
    mov     rsi, rax
    jmp     30f
5:  mov     eax, 20
    int     0x80
    mov     rsi, rax
    jmp     30f
6:  jmp     rdx
7:  mov     rsi, [rdx]
    jmp     30f
10: lea     rsp, [rsp - 16]
    jmp     31f
11: rdgsbase rax
    lea     rsp, [rax + {STACK}]
    call    rdx
    jmp     30f
12: int3
    jmp     30f
13: xor     edx, edx
    xor     eax, eax
    xor     ecx, ecx
    div     ecx
    jmp     30f
15: // What a host expects at its first entry: the call Exit(7 << 8).
    mov     edi, 1
    mov     esi, 0x700
    jmp     33f
14: sysenter
    jmp     30f

8:  // Every register holds a pattern of its own when UD2 is met.
    mov     gs:[0x118], rsp
    mov     gs:[0x128], rdx
    mov     rax, 0x123456789000
    wrfsbase rax
    mov     rax, 0x1111111111111111
    lea     rbx, [rax + rax]
    lea     rcx, [rbx + rax]
    lea     rdx, [rcx + rax]
    lea     rsi, [rdx + rax]
    lea     rdi, [rsi + rax]
    lea     rbp, [rdi + rax]
    lea     rsp, [rbp + rax]
    lea     r8,  [rsp + rax]
    lea     r9,  [r8 + rax]
    lea     r10, [r9 + rax]
    lea     r11, [r10 + rax]
    lea     r12, [r11 + rax]
    lea     r13, [r12 + rax]
    lea     r14, [r13 + rax]
    lea     r15, [r14 + 0x77]
    movq    xmm0, r14
    movq    xmm15, r15
    fldpi
    mov     rax, gs:[0x128]
    stc
82: dec     rax
    jg      82b
    mov     rax, 0x1111111111111111
    ud2
    mov     gs:[0x120], rsp
    mov     rsp, 0
    adc     rsp, -1
    jnz     80f
    mov     rsp, gs:[0x120]
    sub     r15, 0x77
    cmp     r15, r14
    jne     80f
    add     r15, 0x77
    sub     r14, rax
    cmp     r14, r13
    jne     80f
    add     r14, rax
    sub     r13, rax
    cmp     r13, r12
    jne     80f
    sub     r12, rax
    cmp     r12, r11
    jne     80f
    sub     r11, rax
    cmp     r11, r10
    jne     80f
    sub     r10, rax
    cmp     r10, r9
    jne     80f
    sub     r9, rax
    cmp     r9, r8
    jne     80f
    sub     r8, rax
    cmp     r8, rsp
    jne     80f
    sub     rsp, rax
    cmp     rsp, rbp
    jne     80f
    sub     rbp, rax
    cmp     rbp, rdi
    jne     80f
    sub     rdi, rax
    cmp     rdi, rsi
    jne     80f
    sub     rsi, rax
    cmp     rsi, rdx
    jne     80f
    sub     rdx, rax
    cmp     rdx, rcx
    jne     80f
    rdfsbase rcx
    mov     rdx, 0x123456789000
    cmp     rcx, rdx
    jne     80f
    movq    rcx, xmm0
    cmp     rcx, r14
    jne     80f
    movq    rcx, xmm15
    cmp     rcx, r15
    jne     80f
    fldpi
    fcomip  st, st(1)
    jne     80f
    fstp    st
    xor     esi, esi
    jmp     81f
80: mov     esi, 1
81: mov     rsp, gs:[0x118]
    jmp     30f

9:  rdgsbase rax
    lea     rsp, [rax + {STACK}]
    mov     rbx, rsi
    mov     rcx, rdx
    mov     r9, 0x9999
    mov     r10, rbx
    mov     r11, rcx
    movq    xmm7, r9
    mov     eax, 1
    movabs  r12, {GATE}
    call    r12
    setz    dl
    movzx   edx, dl
    mov     esi, eax
    xor     r8d, r8d
    cmp     rbx, r10
    jne     30f
    cmp     rcx, r11
    jne     30f
    movq    rax, xmm7
    cmp     rax, r9
    jne     30f
    mov     r8d, 1
    jmp     30f

20: // The exception handler.
    mov     gs:[0x48], rcx
    inc     qword ptr gs:[0x80]
    mov     esi, gs:[{SSA0} + 160]
    mov     rdx, gs:[{SSA0} + 136]
    mov     r8,  gs:[{SSA0} - 16]
    mov     r9d, gs:[{SSA0} - 8]
    mov     r10, gs:[{SSA0} + 0]
    test    esi, esi
    jns     21f
    mov     rax, gs:[0x108]
    add     gs:[{SSA0} + 136], rax
21:
    mov     rsp, gs:[{SSA1} + 144]
    mov     rbp, gs:[{SSA1} + 152]
    mov     rbx, gs:[0x48]
    xor     edi, edi
    jmp     32f

30: mov     rsp, gs:[{SSA0} + 144]
    mov     rbp, gs:[{SSA0} + 152]
31: mov     edi, 1000
33: mov     rbx, gs:[0x40]
32: mov     eax, 4
    movabs  rcx, {GATE}
    jmp     rcx
    .globl probe_end
probe_end:
    .text
    "#,
    GATE = const layout::SIM_ENCLU_GATE,
    STACK = const layout::VCPU_IDLE_STACK + layout::VCPU_IDLE_STACK_SIZE - layout::VCPU_PAGE,
    SSA0 = const GPRSGX,
    SSA1 = const GPRSGX + layout::SSA_FRAME_SIZE as isize,
);

/// SSA[0].GPRSGX, from the vCPU page.
const GPRSGX: isize =
    (layout::VCPU_SSA + layout::SSA_FRAME_SIZE) as isize - 184 - layout::VCPU_PAGE as isize;

pub fn code() -> &'static [u8] {
    let (start, end) = (&raw const probe_start, &raw const probe_end);
    // SAFETY: both label one section, in this order.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// The probe, ready to be entered. Signing takes longest, so it is done once.
pub fn enclave() -> Arc<Enclave> {
    static SIGNED: OnceLock<(Vec<u8>, SigStruct)> = OnceLock::new();
    let (stream, sigstruct) = SIGNED.get_or_init(|| {
        let stream = stream();
        let sigstruct = sign(&stream, |_| {});
        (stream, sigstruct)
    });
    build(stream, sigstruct).expect("the probe is a good enclave")
}

/// The canonical stream of a probe with two vCPUs.
pub fn stream() -> Vec<u8> {
    let read_write = SecInfo::reg(Permissions::R | Permissions::W);
    let mut writer =
        Writer::new(layout::ELRANGE_SIZE as u64, layout::SSA_FRAME_PAGES as u32).unwrap();
    let mut add = |at: usize, secinfo: &SecInfo, page: &[u8; 4096]| {
        writer
            .page(
                (at - layout::ELRANGE_BASE) as u64,
                secinfo,
                page,
                Content::Measured,
            )
            .unwrap();
    };
    add(USER_PAGE, &read_write, &[7; 4096]);
    let mut page = [0xCC; 4096];
    page[..code().len()].copy_from_slice(code());
    add(
        layout::KERNEL_BASE,
        &SecInfo::reg(Permissions::R | Permissions::X),
        &page,
    );
    for vcpu in 0..2 {
        let area = layout::VCPU_AREA_BASE + vcpu * layout::VCPU_AREA_STRIDE;
        let tcs = tcs(area);
        add(
            area + layout::VCPU_TCS,
            &SecInfo::tcs(),
            tcs.as_bytes().try_into().unwrap(),
        );
        let pages = (layout::VCPU_SSA
            ..layout::VCPU_SSA + layout::SSA_FRAMES * layout::SSA_FRAME_SIZE)
            .chain(layout::VCPU_PAGE..layout::VCPU_PAGE + 4096)
            .chain(layout::VCPU_IDLE_STACK..layout::VCPU_IDLE_STACK + layout::VCPU_IDLE_STACK_SIZE);
        for offset in pages.step_by(4096) {
            add(area + offset, &read_write, &[0; 4096]);
        }
    }
    writer.finish().0
}

fn tcs(area: usize) -> Tcs {
    let mut tcs = Tcs::new_zeroed();
    let offset = |at: usize| ((at - layout::ELRANGE_BASE) as u64).into();
    tcs.ossa = offset(area + layout::VCPU_SSA);
    tcs.nssa = (layout::SSA_FRAMES as u32).into();
    tcs.oentry = offset(layout::KERNEL_BASE);
    tcs.ogs_base = offset(area + layout::VCPU_PAGE);
    tcs
}

/// A SIGSTRUCT for the stream, with the fields changed by `change` before it is signed.
pub fn sign(stream: &[u8], change: impl FnOnce(&mut SigStruct)) -> SigStruct {
    let mut sigstruct = SigStruct::unsigned();
    let flags = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
    sigstruct.attributes =
        Attributes::new(flags, Xfrm::LEGACY | Xfrm::AVX | Xfrm::AVX512 | Xfrm::PKRU);
    sigstruct.attribute_mask = Attributes::new(AttributeFlags::from_bits_retain(!0), Xfrm::LEGACY);
    sigstruct.miscselect = Miscselect::EXINFO.bits().into();
    sigstruct.misc_mask = (!0).into();
    sigstruct.enclave_hash = occlum_sgx::sgxs::measure(stream).unwrap();
    change(&mut sigstruct);
    let modulus = number(key::MODULUS);
    let signature =
        padded_digest(&sigstruct.signed_bytes()).modpow(&number(key::PRIVATE_EXPONENT), &modulus);
    sigstruct
        .attach(&little_endian(&modulus), &little_endian(&signature))
        .unwrap()
}

fn number(hexadecimal: &str) -> BigUint {
    BigUint::parse_bytes(hexadecimal.as_bytes(), 16).unwrap()
}

fn little_endian(number: &BigUint) -> [u8; 384] {
    let mut bytes = number.to_bytes_le();
    bytes.resize(384, 0);
    bytes.try_into().unwrap()
}

/// PKCS #1 v1.5.
fn padded_digest(message: &[u8]) -> BigUint {
    use sha2::Digest;
    const SHA256_INFO: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    let mut padded = vec![0xFF; 384];
    padded[0] = 0;
    padded[1] = 1;
    padded[384 - 52] = 0;
    padded[384 - 51..384 - 32].copy_from_slice(&SHA256_INFO);
    padded[384 - 32..].copy_from_slice(&sha2::Sha256::digest(message));
    BigUint::from_bytes_be(&padded)
}

/// Builds the enclave as the records say.
pub fn build(stream: &[u8], sigstruct: &SigStruct) -> Result<Arc<Enclave>, CpuError> {
    let mut builder = None;
    for record in Reader::new(stream) {
        match (record.unwrap(), &mut builder) {
            (
                Record::Ecreate {
                    size,
                    ssa_frame_size,
                },
                _,
            ) => builder = Some(Builder::ecreate(size, ssa_frame_size, sigstruct)?),
            (Record::Eadd { offset, secinfo }, Some(builder)) => builder.eadd(offset, &secinfo)?,
            (Record::Eextend { offset, data }, Some(builder)) => builder.eextend(offset, data)?,
            (Record::Unmeasured { offset, data }, Some(builder)) => builder.load(offset, data)?,
            (_, None) => unreachable!("the reader wants ECREATE first"),
        }
    }
    builder
        .expect("a stream begins with ECREATE")
        .einit(sigstruct)
}
