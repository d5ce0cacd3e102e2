/* Threads that never make a system call hold patterns of their own in every vector, mask, x87 and
 * control register, more threads than processors: only preemption switches between them. Each compares
 * all the time; argv[1] is how long, in milliseconds.
 *
 *   0  nothing was ever mixed, and every thread got its turn
 *   1  a register held another value; which, is on standard error
 *   3  a thread did not run
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 6, SPIN = 20000, X87 = 8 };

struct state {
    uint64_t zmm[32][8];
    uint64_t mask[8];
    double x87[X87];
    uint32_t mxcsr;
    uint16_t control;
} __attribute__((aligned(64)));

static atomic_int is_over, is_mixed;
static atomic_uint_fast64_t rounds[THREADS];
static int has_avx512, has_avx;

static uint64_t pattern(int thread, int what, int word) {
    return (uint64_t)(thread + 1) * 0x0101010101010101u ^ (uint64_t)what << 32 ^ (uint64_t)word << 8;
}

static void fill(struct state *state, int thread) {
    memset(state, 0, sizeof *state);
    int registers = has_avx512 ? 32 : 16;
    int words = has_avx512 ? 8 : has_avx ? 4 : 2;
    for (int i = 0; i < registers; i++)
        for (int word = 0; word < words; word++)
            state->zmm[i][word] = pattern(thread, i, word);
    for (int i = 0; i < 8 && has_avx512; i++)
        state->mask[i] = pattern(thread, 64 + i, 0) & 0xffff;
    for (int i = 0; i < X87; i++)
        state->x87[i] = thread * 1000.0 + i + 0.5;
    state->mxcsr = 0x1f80 | (uint32_t)(thread & 3) << 13;
    state->control = 0x027f | (uint16_t)(thread & 3) << 10;
}

#define EACH_LOW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define EACH_HIGH(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define EACH_MASK(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

#define LOAD_ZMM(n) "vmovdqu64 64*" #n "(%0), %%zmm" #n "\n"
#define STORE_ZMM(n) "vmovdqu64 %%zmm" #n ", 64*" #n "(%1)\n"
#define LOAD_MASK(n) "kmovw 2048+8*" #n "(%0), %%k" #n "\n"
#define STORE_MASK(n) "kmovw %%k" #n ", 2048+8*" #n "(%1)\n"
#define LOAD_YMM(n) "vmovdqu 64*" #n "(%0), %%ymm" #n "\n"
#define STORE_YMM(n) "vmovdqu %%ymm" #n ", 64*" #n "(%1)\n"
#define LOAD_XMM(n) "movdqu 64*" #n "(%0), %%xmm" #n "\n"
#define STORE_XMM(n) "movdqu %%xmm" #n ", 64*" #n "(%1)\n"
#define LOAD_X87(n) "fldl 2112+8*(7-" #n ")(%0)\n"
#define STORE_X87(n) "fstpl 2112+8*" #n "(%1)\n"

#define LOAD_CONTROL "fninit\n" EACH_MASK(LOAD_X87) "fldcw 2180(%0)\n" "ldmxcsr 2176(%0)\n"
#define STORE_CONTROL "stmxcsr 2176(%1)\n" "fnstcw 2180(%1)\n" EACH_MASK(STORE_X87) "fninit\n" "ldmxcsr %3\n"
#define HOLD "mov %2, %%ecx\n1: dec %%ecx\njnz 1b\n"

static const uint32_t usual = 0x1f80;

#define BODY(load, store)                                                                          \
    __asm__ volatile(load LOAD_CONTROL HOLD store STORE_CONTROL "vzeroupper\n"                       \
                     :                                                                             \
                     : "r"(from), "r"(to), "i"(SPIN), "m"(usual)                                    \
                     : "rcx", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

static void hold(const struct state *from, struct state *to) {
    if (has_avx512)
        BODY(EACH_LOW(LOAD_ZMM) EACH_HIGH(LOAD_ZMM) EACH_MASK(LOAD_MASK),
             EACH_LOW(STORE_ZMM) EACH_HIGH(STORE_ZMM) EACH_MASK(STORE_MASK));
    else if (has_avx)
        BODY(EACH_LOW(LOAD_YMM), EACH_LOW(STORE_YMM));
    else
        __asm__ volatile(EACH_LOW(LOAD_XMM) LOAD_CONTROL HOLD EACH_LOW(STORE_XMM) STORE_CONTROL
                         :
                         : "r"(from), "r"(to), "i"(SPIN), "m"(usual)
                         : "rcx", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static const char *difference(const struct state *is, const struct state *must_be) {
    if (memcmp(is->zmm, must_be->zmm, sizeof is->zmm))
        return "vector register";
    if (memcmp(is->mask, must_be->mask, sizeof is->mask))
        return "mask register";
    if (memcmp(is->x87, must_be->x87, sizeof is->x87))
        return "x87 register";
    if (is->mxcsr != must_be->mxcsr)
        return "MXCSR";
    return is->control != must_be->control ? "x87 control word" : NULL;
}

static void *run(void *argument) {
    int thread = (int)(intptr_t)argument;
    struct state mine, seen;
    fill(&mine, thread);
    memset(&seen, 0, sizeof seen);
    while (!is_over) {
        hold(&mine, &seen);
        rounds[thread]++;
        const char *what = difference(&seen, &mine);
        if (what) {
            dprintf(2, "thread %d: %s\n", thread, what);
            is_mixed = 1;
            return NULL;
        }
    }
    return NULL;
}

_Static_assert(__builtin_offsetof(struct state, mask) == 2048, "as in LOAD_MASK");
_Static_assert(__builtin_offsetof(struct state, x87) == 2112, "as in LOAD_X87");
_Static_assert(__builtin_offsetof(struct state, mxcsr) == 2176, "as in LOAD_CONTROL");
_Static_assert(__builtin_offsetof(struct state, control) == 2180, "as in LOAD_CONTROL");

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    long duration_ms = argc > 1 ? atol(argv[1]) : 1000;
    has_avx512 = __builtin_cpu_supports("avx512f");
    has_avx = __builtin_cpu_supports("avx");
    for (intptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, run, (void *)i);
    nanosleep(&(struct timespec){duration_ms / 1000, duration_ms % 1000 * 1000000}, NULL);
    is_over = 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    if (is_mixed)
        return 1;
    for (int i = 0; i < THREADS; i++)
        if (rounds[i] < 10)
            return 3;
    printf("%s: not mixed\n", has_avx512 ? "avx512" : has_avx ? "avx" : "sse");
    return 0;
}
