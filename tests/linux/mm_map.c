/* mmap, munmap, mprotect: what is mapped reads as zeros, what is not faults, and errors are Linux's. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static const size_t page = 4096;
static sigjmp_buf back;
static volatile int code;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    code = signal * 100 + info->si_code;
    siglongjmp(back, 1);
}

/* 0, or signal * 100 + si_code */
static int touch(volatile char *at, int writes) {
    code = 0;
    if (sigsetjmp(back, 1) == 0) {
        if (writes)
            *at = 1;
        else
            (void)*at;
    }
    return code;
}

static const char *name(void *result) {
    return result == MAP_FAILED ? strerrorname_np(errno) : "mapped";
}

static const char *error(int result) {
    return result ? strerrorname_np(errno) : "ok";
}

static void *anonymous(void *at, size_t size, int prot, int flags) {
    return mmap(at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static int is_zero(const char *at, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (at[i]) return 0;
    return 1;
}

static void zeros(void) {
    static const size_t sizes[] = {1, 4096, 100000, 1 << 20, 9 << 20};
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char *at = anonymous(NULL, sizes[i], PROT_READ | PROT_WRITE, 0);
            if (at == MAP_FAILED || !is_zero(at, sizes[i])) printf("not zero: %zu\n", sizes[i]);
            memset(at, 0xa5, sizes[i]);
            if (munmap(at, sizes[i])) perror("munmap");
        }
    printf("zeros: ok\n");
}

static void holes(void) {
    char *at = anonymous(NULL, 5 * page, PROT_READ | PROT_WRITE, 0);
    memset(at, 7, 5 * page);
    printf("munmap middle: %d\n", munmap(at + page, page));
    printf("before %d, hole %d, after %d\n", touch(at, 1), touch(at + page, 1), touch(at + 2 * page, 1));
    printf("mprotect over the hole: %s\n", error(mprotect(at, 5 * page, PROT_READ)));
    printf("first page is read-only now: read %d, write %d\n", touch(at, 0), touch(at, 1));
    printf("third page is not: write %d\n", touch(at + 2 * page, 1));
    printf("refill: %s\n", name(anonymous(at + page, page, PROT_READ | PROT_WRITE, MAP_FIXED)));
    printf("zero %d, neighbours %d %d\n", is_zero(at + page, page), at[page - 1], at[2 * page + 1]);
    printf("munmap all, twice: %d %d\n", munmap(at, 5 * page), munmap(at, 5 * page));
}

static void protection(void) {
    char *at = anonymous(NULL, 2 << 20, PROT_NONE, MAP_NORESERVE);
    printf("none: read %d, write %d\n", touch(at, 0), touch(at, 1));
    mprotect(at + page, page, PROT_READ);
    printf("read: read %d, write %d\n", touch(at + page, 0), touch(at + page, 1));
    mprotect(at + page, 256 * page, PROT_READ | PROT_WRITE);
    strcpy(at + page, "kept");
    mprotect(at + page, page, PROT_NONE);
    printf("none again: read %d\n", touch(at + page, 0));
    mprotect(at + page, page, PROT_READ);
    printf("and back: %s\n", at + page);
    printf("unaligned: %s\n", error(mprotect(at + 1, page, PROT_READ)));
    printf("empty: %d\n", mprotect(at, 0, PROT_READ));
    printf("bad bits: %s\n", error(mprotect(at, page, 0x40)));
    munmap(at, 2 << 20);
}

static int call(char *code_at) {
    return ((int (*)(void))(uintptr_t)code_at)();
}

static void code_pages(void) {
    static const unsigned char answer[] = {0xb8, 42, 0, 0, 0, 0xc3};
    char *at = anonymous(NULL, page, PROT_READ | PROT_WRITE, 0);
    memcpy(at, answer, sizeof answer);
    code = 0;
    if (sigsetjmp(back, 1) == 0) call(at);
    printf("call of data: %d\n", code);
    mprotect(at, page, PROT_READ | PROT_EXEC);
    printf("call of code: %d\n", call(at));
    mprotect(at, page, PROT_READ | PROT_WRITE | PROT_EXEC);
    at[1] = 43;
    printf("call of changed code: %d\n", call(at));
    munmap(at, page);
}

static void errors(void) {
    char *at = anonymous(NULL, 4 * page, PROT_READ, 0);
    printf("size 0: %s\n", name(anonymous(NULL, 0, PROT_READ, 0)));
    printf("neither private nor shared: %s\n", name(mmap(NULL, page, PROT_READ, MAP_ANONYMOUS, -1, 0)));
    printf("no descriptor: %s\n", name(mmap(NULL, page, PROT_READ, MAP_PRIVATE, -1, 0)));
    printf("unaligned offset: %s\n", name(mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1)));
    printf("unaligned fixed: %s\n", name(anonymous(at + 1, page, PROT_READ, MAP_FIXED)));
    printf("huge: %s\n", name(anonymous(NULL, ~0ul - page, PROT_READ, 0)));
    printf("noreplace over something: %s\n", name(anonymous(at, page, PROT_READ, MAP_FIXED_NOREPLACE)));
    munmap(at + page, page);
    printf("noreplace into a hole: %s\n", name(anonymous(at + page, page, PROT_READ, MAP_FIXED_NOREPLACE)));
    printf("munmap unaligned: %s\n", error(munmap(at + 1, page)));
    printf("munmap size 0: %s\n", error(munmap(at, 0)));
    munmap(at, 4 * page);
}

static void hints(void) {
    char *at = anonymous(NULL, 16 * page, PROT_READ, 0);
    munmap(at, 16 * page);
    printf("free hint taken: %d\n", anonymous(at, 4 * page, PROT_READ, 0) == at);
    printf("taken hint moved: %d\n", anonymous(at, 4 * page, PROT_READ, 0) != at);
    char *go = (char *)0xc000000000;
    printf("far hint taken: %d\n", anonymous(go, 64 << 20, PROT_NONE, 0) == go);
    char *low = anonymous(NULL, page, PROT_READ, MAP_32BIT);
    printf("32 bit: %d\n", low != MAP_FAILED && (uintptr_t)low < 1ul << 31);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    zeros();
    holes();
    protection();
    code_pages();
    errors();
    hints();
    return 0;
}
