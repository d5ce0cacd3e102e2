// variants: glibc static-pie musl
/* CPUID in a program's text, where it is replaced, says and changes what the instruction does, which runs as it
 * is in memory the program writes itself. */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

/* Loads r8 to r11 and the flags, executes CPUID, and stores what they are then. */
struct frame {
    uint64_t in[5], out[5];
};
void in_text(uint32_t regs[4], struct frame *frame);
extern const char in_text_end[];
asm(".text\n.globl in_text, in_text_end\n.type in_text, @function\n"
    "in_text:\n .cfi_startproc\n"
    "  push %rbx\n push %rdi\n"
    "  mov 0(%rsi), %r8\n mov 8(%rsi), %r9\n mov 16(%rsi), %r10\n mov 24(%rsi), %r11\n"
    "  movl 0(%rdi), %eax\n movl 8(%rdi), %ecx\n"
    "  mov $-1, %rbx\n mov $-1, %rdx\n"
    "  pushq 32(%rsi)\n popfq\n"
    "  movq %r8, -64(%rsp)\n"
    "  cpuid\n"
    "  pushfq\n popq 72(%rsi)\n"
    "  mov %r8, 40(%rsi)\n mov %r9, 48(%rsi)\n mov %r10, 56(%rsi)\n mov %r11, 64(%rsi)\n"
    "  mov -64(%rsp), %r8\n"
    "  pop %rdi\n"
    "  movl %eax, 0(%rdi)\n movl %ebx, 4(%rdi)\n movl %ecx, 8(%rdi)\n movl %edx, 12(%rdi)\n"
    "  shr $32, %rbx\n shr $32, %rdx\n or %rbx, %rdx\n jz 1f\n movl $-1, 0(%rdi)\n"
    "1: pop %rbx\n ret\n .cfi_endproc\n"
    ".size in_text, .-in_text\nin_text_end: nop\n");

static void (*in_memory)(uint32_t[4], struct frame *);

static void ask(void (*how)(uint32_t[4], struct frame *), uint32_t leaf, uint32_t subleaf, uint32_t regs[4]) {
    struct frame frame = {.in = {0x1111111111111111, 0x2222222222222222, 0x3333333333333333,
                                 0x4444444444444444, 0x2 | 0x8d5}};
    regs[0] = leaf;
    regs[1] = 0;
    regs[2] = subleaf;
    regs[3] = 0;
    how(regs, &frame);
    CHECK(!memcmp(frame.in, frame.out, 4 * sizeof(uint64_t)));
    CHECK((frame.out[4] & 0xcd5) == 0x8d5);
    /* The processor's own number differs from call to call. */
    if (leaf == 1) regs[1] &= 0x00ffffff;
}

static void compare(uint32_t leaf, uint32_t subleaf) {
    uint32_t one[4], other[4], again[4];
    ask(in_text, leaf, subleaf, one);
    ask(in_memory, leaf, subleaf, other);
    ask(in_text, leaf, subleaf, again);
    CHECK(!memcmp(one, other, sizeof one));
    CHECK(!memcmp(one, again, sizeof one));
}

static volatile int ticks;
static void on_tick(int signal) { ticks += signal != 0; }

static void interrupted(void) {
    struct itimerval timer = {{0, 500}, {0, 500}};
    uint32_t expected[4], regs[4];
    signal(SIGALRM, on_tick);
    ask(in_text, 0, 0, expected);
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    while (ticks < 50) {
        ask(in_text, 0, 0, regs);
        CHECK(!memcmp(regs, expected, sizeof regs));
    }
    memset(&timer, 0, sizeof timer);
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

int main(void) {
    /* A page of code that no table knows, with the instruction put together at run time: the text may show
     * a jump in its place. */
    size_t size = in_text_end - (const char *)in_text;
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    memcpy(page, (const void *)in_text, size);
    static const unsigned char around[] = {0x4c, 0x89, 0x44, 0x24, 0xc0, 0x0f, 0xa2, 0x9c, 0x8f, 0x46, 0x48};
    unsigned char *saved = page;
    for (size_t at = 0; at + 7 < size; at++)
        if (page[at] == 0x9d) saved = page + at + 1; /* after popfq */
    memcpy(saved, around, sizeof around);
    CHECK(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
    in_memory = (void (*)(uint32_t[4], struct frame *))page;

    static const uint32_t leaves[] = {0, 1, 2, 4, 7, 0xd, 0x40000000, 0x80000000, 0x80000001, 0x80000002,
                                      0x80000008, 0x7fffffff};
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) compare(leaves[i], 0);
    compare(4, 1);
    compare(0xd, 1);
    interrupted();
    puts("cpuid is the same everywhere");
    return 0;
}
