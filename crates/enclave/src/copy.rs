//! The only code that touches memory the kernel does not own: user memory and host memory.
//!
//! Each routine here may fault; the AEX handler looks the faulting RIP up in [`landing_for`] and
//! continues at the landing, which reports what was not done. Nothing else in the kernel may fault.

use core::arch::global_asm;

global_asm!(
    r#"
    .text
    // copy_unowned(dst = rdi, src = rsi, size = rdx) -> bytes not copied
    .globl copy_unowned
    .hidden copy_unowned
    .p2align 5
copy_unowned:
    mov     rcx, rdx
    cmp     rdx, 128
    jae     3f
    .globl copy_words
    .hidden copy_words
copy_words:
    cmp     rcx, 8
    jb      2f
    mov     rax, [rsi]
    mov     [rdi], rax
    add     rsi, 8
    add     rdi, 8
    sub     rcx, 8
    jmp     copy_words
    .globl copy_words_end
    .hidden copy_words_end
copy_words_end:
2:  test    rcx, rcx
    jz      4f
    mov     al, [rsi]
    mov     [rdi], al
    inc     rsi
    inc     rdi
    dec     rcx
    jmp     2b
3:  rep movsb
4:  xor     eax, eax
    ret

    // fill_unowned(dst = rdi, byte = sil, size = rdx) -> bytes not written
    .globl fill_unowned
    .hidden fill_unowned
fill_unowned:
    mov     eax, esi
    mov     rcx, rdx
    rep stosb
    xor     eax, eax
    ret

    // A word may lie on two pages, of which the first is good: go on by bytes, to fault exactly.
    .globl copy_words_landing
    .hidden copy_words_landing
copy_words_landing:
    rep movsb
    xor     eax, eax
    ret
    .globl copy_unowned_end
    .hidden copy_unowned_end
copy_unowned_end:

    .globl copy_unowned_landing
    .hidden copy_unowned_landing
copy_unowned_landing:
    mov     rax, rcx
    ret

    // load_unowned(addr = rdi) -> (value, faulted)
    .globl load_unowned
    .hidden load_unowned
load_unowned:
    mov     eax, [rdi]
    xor     edx, edx
    ret

    // cas_unowned(addr = rdi, expected = esi, new = edx) -> (old value, faulted)
    .globl cas_unowned
    .hidden cas_unowned
cas_unowned:
    mov     eax, esi
    lock cmpxchg [rdi], edx
    xor     edx, edx
    ret
    .globl atomic_unowned_end
    .hidden atomic_unowned_end
atomic_unowned_end:

    .globl atomic_unowned_landing
    .hidden atomic_unowned_landing
atomic_unowned_landing:
    xor     eax, eax
    mov     edx, 1
    ret
    "#
);

#[repr(C)]
pub(crate) struct Atomic32 {
    pub value: u64,
    pub faulted: u64,
}

unsafe extern "C" {
    /// Copies `size` bytes; returns how many were not copied because of a fault.
    pub(crate) fn copy_unowned(dst: *mut u8, src: *const u8, size: usize) -> usize;
    /// Fills `size` bytes; returns how many were not written because of a fault.
    pub(crate) fn fill_unowned(dst: *mut u8, byte: u8, size: usize) -> usize;
    /// Reads an aligned 32-bit word.
    pub(crate) fn load_unowned(addr: *const u32) -> Atomic32;
    /// Compares and exchanges an aligned 32-bit word; gives the old value.
    pub(crate) fn cas_unowned(addr: *mut u32, expected: u32, new: u32) -> Atomic32;
    fn copy_words();
    fn copy_words_end();
    fn copy_words_landing();
    fn copy_unowned_end();
    fn copy_unowned_landing();
    fn atomic_unowned_end();
    fn atomic_unowned_landing();
}

/// Where to continue after a fault at `rip`, if `rip` is code that may fault.
pub(crate) fn landing_for(rip: usize) -> Option<usize> {
    let words = copy_words as *const () as usize..copy_words_end as *const () as usize;
    let copies = copy_unowned as *const () as usize..copy_unowned_end as *const () as usize;
    let atomics = load_unowned as *const () as usize..atomic_unowned_end as *const () as usize;
    if words.contains(&rip) {
        return Some(copy_words_landing as *const () as usize);
    }
    if copies.contains(&rip) {
        return Some(copy_unowned_landing as *const () as usize);
    }
    if atomics.contains(&rip) {
        return Some(atomic_unowned_landing as *const () as usize);
    }
    None
}
