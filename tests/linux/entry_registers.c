/* A system call keeps every register but RAX, RCX and R11, all vector registers, flags and the red
 * zone: from code the loader has seen, and from code made at run time. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct state {
    uint64_t rax, rbx, rdx, rsi, rdi, rbp, r8, r9, r10, r12, r13, r14, r15;
    uint64_t rcx_is_next, flags_before, r11;
    uint64_t red_zone[8]; /* offset 128 */
    unsigned char ymm[16][32];
};

/* Once as code the loader sees, once as data to be copied: RDI = state; calls getppid. */
#define ROUTINE \
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n" \
    "mov %rdi, -8(%rsp)\n" \
    "mov %rdi, %r15\n" \
    "vmovdqu 192(%r15), %ymm0; vmovdqu 224(%r15), %ymm1; vmovdqu 256(%r15), %ymm2\n" \
    "vmovdqu 288(%r15), %ymm3; vmovdqu 320(%r15), %ymm4; vmovdqu 352(%r15), %ymm5\n" \
    "vmovdqu 384(%r15), %ymm6; vmovdqu 416(%r15), %ymm7; vmovdqu 448(%r15), %ymm8\n" \
    "vmovdqu 480(%r15), %ymm9; vmovdqu 512(%r15), %ymm10; vmovdqu 544(%r15), %ymm11\n" \
    "vmovdqu 576(%r15), %ymm12; vmovdqu 608(%r15), %ymm13; vmovdqu 640(%r15), %ymm14\n" \
    "vmovdqu 672(%r15), %ymm15\n" \
    "movq $0x1111, -16(%rsp); movq $0x2222, -24(%rsp); movq $0x3333, -128(%rsp)\n" \
    "mov $0xb0b, %rbx; mov $0xd0d, %rdx; mov $0x51, %rsi; mov $0xd1, %rdi; mov $0xb9, %rbp\n" \
    "mov $0x808, %r8; mov $0x909, %r9; mov $0x1010, %r10; mov $0x1212, %r12\n" \
    "mov $0x1313, %r13; mov $0x1414, %r14; mov $0x1515, %r15\n" \
    "xor %eax, %eax; cmp $1, %eax; stc\n" \
    "mov $110, %eax\n" \
    "syscall\n" \
    "7: lea 7b(%rip), %rax\n" \
    "sub %rax, %rcx\n" \
    "mov -8(%rsp), %rax\n" \
    "mov %r11, 120(%rax)\n" \
    "mov %rcx, 104(%rax)\n" \
    "mov %rbx, 8(%rax); mov %rdx, 16(%rax); mov %rsi, 24(%rax); mov %rdi, 32(%rax)\n" \
    "mov %rbp, 40(%rax); mov %r8, 48(%rax); mov %r9, 56(%rax); mov %r10, 64(%rax)\n" \
    "mov %r12, 72(%rax); mov %r13, 80(%rax); mov %r14, 88(%rax); mov %r15, 96(%rax)\n" \
    "mov -16(%rsp), %rbx; mov %rbx, 128(%rax)\n" \
    "mov -24(%rsp), %rbx; mov %rbx, 136(%rax)\n" \
    "mov -128(%rsp), %rbx; mov %rbx, 144(%rax)\n" \
    "vmovdqu %ymm0, 192(%rax); vmovdqu %ymm1, 224(%rax); vmovdqu %ymm2, 256(%rax)\n" \
    "vmovdqu %ymm3, 288(%rax); vmovdqu %ymm4, 320(%rax); vmovdqu %ymm5, 352(%rax)\n" \
    "vmovdqu %ymm6, 384(%rax); vmovdqu %ymm7, 416(%rax); vmovdqu %ymm8, 448(%rax)\n" \
    "vmovdqu %ymm9, 480(%rax); vmovdqu %ymm10, 512(%rax); vmovdqu %ymm11, 544(%rax)\n" \
    "vmovdqu %ymm12, 576(%rax); vmovdqu %ymm13, 608(%rax); vmovdqu %ymm14, 640(%rax)\n" \
    "vmovdqu %ymm15, 672(%rax)\n" \
    "vzeroupper\n" \
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n" \
    "ret\n"

extern unsigned char routine[], template[], template_end[];
__asm__(".text\n.p2align 4\nroutine:\n" ROUTINE
        ".section .rodata\ntemplate:\n" ROUTINE "template_end:\n.text\n");

_Static_assert(sizeof(struct state) == 192 + 512, "layout used by the routine");

static void check(const char *where, void (*run)(struct state *)) {
    static struct state s;
    unsigned char ymm[16][32];
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 32; j++) ymm[i][j] = s.ymm[i][j] = i * 32 + j + 1;
    run(&s);
    printf("%s: rbx %lx rdx %lx rsi %lx rdi %lx rbp %lx r8 %lx r9 %lx r10 %lx\n", where, s.rbx, s.rdx,
           s.rsi, s.rdi, s.rbp, s.r8, s.r9, s.r10);
    printf("%s: r12 %lx r13 %lx r14 %lx r15 %lx\n", where, s.r12, s.r13, s.r14, s.r15);
    printf("%s: carry kept %d\n", where, (int)(s.r11 & 1));
    printf("%s: red zone %lx %lx %lx\n", where, s.red_zone[0], s.red_zone[1], s.red_zone[2]);
    printf("%s: vectors %s\n", where, memcmp(ymm, s.ymm, sizeof ymm) ? "CHANGED" : "kept");
}

int main(void) {
    if (!__builtin_cpu_supports("avx2")) {
        puts("no AVX2 here");
        return 0;
    }
    check("loaded", (void (*)(struct state *))routine);
    size_t size = template_end - template;
    unsigned char *made = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) return 1;
    memcpy(made, template, size);
    check("made", (void (*)(struct state *))made);
    /* Written, then made executable. */
    unsigned char *later = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(later, template, size);
    if (mprotect(later, 8192, PROT_READ | PROT_EXEC)) return 1;
    check("protected", (void (*)(struct state *))later);
    return 0;
}
