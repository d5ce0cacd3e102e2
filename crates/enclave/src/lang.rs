//! What the language needs from a platform without a C library: memory routines, panics, and the
//! report when kernel code itself faults.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_abi::boot::LogLevel;
use occlum_abi::layout;
use occlum_abi::ocall::{Ocall, StopReason};

use crate::heap;
use crate::host::{self, HostMisbehaved};
use crate::log;
use crate::user::Exception;
use crate::vcpu;

// memcpy & co. as the compiler expects them (System V). Small sizes by overlapping loads and stores,
// large ones by REP MOVSB/STOSB, which CPUs with SGX run at full width.
global_asm!(
    r#"
    .text
    .globl memcpy
    .p2align 5
memcpy:
    mov     rax, rdi
memcpy_forward:
    cmp     rdx, 16
    jb      copy_small
    cmp     rdx, 256
    ja      3f
    movups  xmm1, [rsi + rdx - 16]
    lea     r8, [rdi + rdx - 16]
1:  cmp     rdx, 16
    jbe     2f
    movups  xmm0, [rsi]
    movups  [rdi], xmm0
    add     rsi, 16
    add     rdi, 16
    sub     rdx, 16
    jmp     1b
2:  movups  [r8], xmm1
    ret
3:  mov     rcx, rdx
    rep movsb
    ret
copy_small:
    cmp     edx, 8
    jae     4f
    cmp     edx, 4
    jae     5f
    cmp     edx, 2
    jae     6f
    test    edx, edx
    jz      7f
    mov     cl, [rsi]
    mov     [rdi], cl
7:  ret
4:  mov     rcx, [rsi]
    mov     r8, [rsi + rdx - 8]
    mov     [rdi], rcx
    mov     [rdi + rdx - 8], r8
    ret
5:  mov     ecx, [rsi]
    mov     r8d, [rsi + rdx - 4]
    mov     [rdi], ecx
    mov     [rdi + rdx - 4], r8d
    ret
6:  movzx   ecx, word ptr [rsi]
    movzx   r8d, word ptr [rsi + rdx - 2]
    mov     [rdi], cx
    mov     [rdi + rdx - 2], r8w
    ret

    .globl memmove
    .p2align 5
memmove:
    mov     rax, rdi
    cmp     rdx, 16
    jb      copy_small
    mov     rcx, rdi
    sub     rcx, rsi
    cmp     rcx, rdx
    jae     8f
    // dst inside the source: copy from the end
    movups  xmm1, [rsi]
9:  cmp     rdx, 16
    jbe     10f
    movups  xmm0, [rsi + rdx - 16]
    movups  [rdi + rdx - 16], xmm0
    sub     rdx, 16
    jmp     9b
10: movups  [rdi], xmm1
    ret
8:  cmp     rdx, 256
    ja      11f
    // forward, but the ranges may overlap with dst below src: no early tail load
12: cmp     rdx, 16
    jb      copy_small
    movups  xmm0, [rsi]
    movups  [rdi], xmm0
    add     rsi, 16
    add     rdi, 16
    sub     rdx, 16
    jmp     12b
11: mov     rcx, rdx
    rep movsb
    ret

    .globl memset
    .p2align 5
memset:
    mov     r8, rdi
    cmp     rdx, 64
    jae     13f
    movzx   eax, sil
    mov     rcx, 0x0101010101010101
    imul    rax, rcx
14: cmp     rdx, 8
    jb      15f
    mov     [rdi], rax
    add     rdi, 8
    sub     rdx, 8
    jmp     14b
15: test    rdx, rdx
    jz      16f
    mov     [rdi], al
    inc     rdi
    dec     rdx
    jmp     15b
13: mov     eax, esi
    mov     rcx, rdx
    rep stosb
16: mov     rax, r8
    ret

    .globl memcmp
    .globl bcmp
    .p2align 5
memcmp:
bcmp:
17: cmp     rdx, 8
    jb      18f
    mov     rax, [rdi]
    mov     rcx, [rsi]
    cmp     rax, rcx
    jne     19f
    add     rdi, 8
    add     rsi, 8
    sub     rdx, 8
    jmp     17b
18: test    rdx, rdx
    jz      20f
    movzx   eax, byte ptr [rdi]
    movzx   ecx, byte ptr [rsi]
    sub     eax, ecx
    jne     21f
    inc     rdi
    inc     rsi
    dec     rdx
    jmp     18b
20: xor     eax, eax
21: ret
19: bswap   rax
    bswap   rcx
    cmp     rax, rcx
    sbb     eax, eax
    or      eax, 1
    ret

    .globl strlen
strlen:
    xor     eax, eax
22: cmp     byte ptr [rdi + rax], 0
    je      23f
    inc     rax
    jmp     22b
23: ret

    // core and alloc come compiled for unwinding; nothing here unwinds.
    .globl rust_eh_personality
    .globl _Unwind_Resume
rust_eh_personality:
_Unwind_Resume:
    ud2
    "#
);

/// A panic is a bug of ours: say where, then stop the enclave.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Most allocations of the kernel can't fail, and then say so by a panic.
    if heap::is_refused() {
        host::stop_for(HostMisbehaved::NoMemory);
    }
    epitaph(format_args!("kernel bug: {info}"))
}

static DYING: AtomicBool = AtomicBool::new(false);

/// Logs the reason and the call chain, then stops the enclave.
pub(crate) fn epitaph(message: fmt::Arguments<'_>) -> ! {
    if DYING.swap(true, Ordering::AcqRel) {
        host::stop(StopReason::KernelBug);
    }
    let mut text = Text::new();
    let _ = text.write_fmt(message);
    let _ = write!(text, "; vCPU {}, call chain:", vcpu::index());
    append_call_chain(&mut text);
    log::write_unfiltered(LogLevel::Error, text.as_str());
    host::stop(StopReason::KernelBug)
}

/// Follows frame pointers (the kernel is built with them) as long as they look like a stack.
fn append_call_chain(text: &mut Text) {
    let mut frame: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    for _ in 0..24 {
        let in_kernel = (layout::KERNEL_BASE..layout::KERNEL_STACKS_END).contains(&frame);
        if !in_kernel || !frame.is_multiple_of(8) {
            return;
        }
        let mut pair = [0usize; 2];
        // SAFETY: `copy_unowned` reports a fault instead of taking it.
        let left = unsafe {
            crate::copy::copy_unowned(pair.as_mut_ptr().cast(), frame as *const u8, 16)
        };
        if left != 0 || pair[1] < layout::KERNEL_BASE {
            return;
        }
        let _ = write!(text, " +{:#x}", pair[1] - layout::KERNEL_BASE);
        if pair[0] <= frame {
            return;
        }
        frame = pair[0];
    }
}

struct FaultReport {
    rip: u64,
    rsp: u64,
    exception: Exception,
}

static FAULT: spin::Mutex<FaultReport> = spin::Mutex::new(FaultReport {
    rip: 0,
    rsp: 0,
    exception: Exception { vector: 0, error: 0, address: 0 },
});

/// Makes ERESUME continue in the report of a fault in kernel code, on the vCPU's idle stack.
pub(crate) fn redirect_to_fault_report(
    rip: &mut u64,
    rsp: &mut u64,
    rflags: &mut u64,
    exception: Exception,
) {
    if let Some(mut report) = FAULT.try_lock() {
        *report = FaultReport { rip: *rip, rsp: *rsp, exception };
    }
    let area = layout::VCPU_AREA_BASE + vcpu::index() * layout::VCPU_AREA_STRIDE;
    *rip = report_fault as *const () as u64;
    *rsp = (area + layout::VCPU_IDLE_STACK + layout::VCPU_IDLE_STACK_SIZE - 8) as u64;
    *rflags = 0x202;
}

extern "C" fn report_fault() -> ! {
    let (rip, rsp, exception) = {
        let report = FAULT.lock();
        (report.rip, report.rsp, report.exception)
    };
    // The page shared with the host is used in place. It was there when the host promised it.
    let is_page_fault = exception.vector == Exception::PAGE_FAULT;
    if is_page_fault && host::is_host_address(exception.address) {
        host::stop_for(HostMisbehaved::UnreadableMemory);
    }
    if is_page_fault && heap::is_granted(exception.address) {
        host::stop_for(HostMisbehaved::BadResult(Ocall::Protect));
    }
    epitaph(format_args!(
        "kernel bug: exception {} (error {:#x}, address {:#x}) at kernel+{:#x}, rsp {:#x}",
        exception.vector,
        exception.error,
        exception.address,
        rip.wrapping_sub(layout::KERNEL_BASE as u64),
        rsp
    ))
}

/// A fixed buffer for text when the heap can't be trusted; what does not fit is cut off.
struct Text {
    bytes: [u8; 1024],
    used: usize,
}

impl Text {
    fn new() -> Text {
        Text { bytes: [0; 1024], used: 0 }
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.used]).unwrap_or("(unprintable)")
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for ch in text.chars() {
            let mut utf8 = [0; 4];
            let encoded = ch.encode_utf8(&mut utf8).as_bytes();
            if self.used + encoded.len() > self.bytes.len() {
                return Err(fmt::Error);
            }
            self.bytes[self.used..self.used + encoded.len()].copy_from_slice(encoded);
            self.used += encoded.len();
        }
        Ok(())
    }
}
