/* Makes one system call, a number that no kernel has, in the way that argv[1] names, and prints what
 * came back. ENOSYS is the answer of the enclave's kernel; what the host's would do, the test sees to.
 *
 * Some ways are no system calls in a 64-bit program of ours: then the signal that came is printed. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAGIC = 19018, PAGE = 4096 };

extern char **environ;

static sigjmp_buf back;

static void caught(int signal) {
    siglongjmp(back, signal);
}

typedef long code_function(void);

/* mov eax, MAGIC; syscall; ret */
static const unsigned char plain[] = {0xb8, 0x4a, 0x4a, 0, 0, 0x0f, 0x05, 0xc3};
/* mov eax, MAGIC; rex.w syscall; ret */
static const unsigned char prefixed[] = {0xb8, 0x4a, 0x4a, 0, 0, 0x48, 0x0f, 0x05, 0xc3};
/* mov eax, MAGIC; jmp 1f + 1; 1: mov ecx, imm32 with a syscall in it; ret */
static const unsigned char inside_another[] = {0xb8, 0x4a, 0x4a, 0,    0,    0xeb, 0x01,
                                               0xb9, 0x0f, 0x05, 0x90, 0x90, 0xc3};
/* mov eax, MAGIC; int 0x80; ret */
static const unsigned char int80[] = {0xb8, 0x4a, 0x4a, 0, 0, 0xcd, 0x80, 0xc3};
/* mov eax, MAGIC; mov ebp, esp; sysenter; ret */
static const unsigned char sysenter[] = {0xb8, 0x4a, 0x4a, 0, 0, 0x0f, 0x34, 0xc3};

static void *code_page(int prot) {
    void *page = mmap(NULL, 2 * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return page;
}

/* As a JIT compiler does it: write, then make executable. */
static long run_at(size_t offset, const unsigned char *code, size_t size) {
    char *page = code_page(PROT_READ | PROT_WRITE);
    memcpy(page + offset, code, size);
    if (mprotect(page, 2 * PAGE, PROT_READ | PROT_EXEC)) {
        perror("mprotect");
        exit(1);
    }
    return ((code_function *)(page + offset))();
}

#define RUN(code) run_at(0, code, sizeof code)

static long in_program(void) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "0"((long)MAGIC) : "rcx", "r11", "memory");
    return result;
}

static long by_libc(void) {
    return syscall(MAGIC) < 0 ? -errno : 0;
}

static long in_writable_code(void) {
    char *page = code_page(PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(page, plain, sizeof plain);
    return ((code_function *)page)();
}

static long across_pages(void) {
    return run_at(PAGE - 6, plain, sizeof plain);
}

static long changed_code(void) {
    unsigned char *page = code_page(PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(page, plain, sizeof plain);
    memset(page + 5, 0x90, 2);
    ((code_function *)page)();
    memcpy(page + 5, plain + 5, 2);
    return ((code_function *)page)();
}

static volatile long from_handler;

static void call_in_handler(int signal) {
    (void)signal;
    from_handler = RUN(plain);
}

static long in_signal_handler(void) {
    signal(SIGUSR1, call_in_handler);
    raise(SIGUSR1);
    return from_handler;
}

static void *call_in_thread(void *unused) {
    (void)unused;
    return (void *)RUN(plain);
}

static long in_thread(void) {
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, call_in_thread, NULL);
    pthread_join(thread, &result);
    return (long)result;
}

static long in_child(void) {
    char *const argv[] = {"ways", "generated", NULL};
    pid_t child;
    int status;
    if ((errno = posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ)))
        return -errno;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? -ENOSYS : 1;
}

static long by_vsyscall_page(void) {
    long (*gettimeofday_at)(void *, void *) = (void *)0xffffffffff600000;
    return gettimeofday_at(NULL, NULL);
}

static long by_generated(void) { return RUN(plain); }
static long by_prefixed(void) { return RUN(prefixed); }
static long by_inside_another(void) { return RUN(inside_another); }
static long by_int80(void) { return RUN(int80); }
static long by_sysenter(void) { return RUN(sysenter); }

static const struct {
    const char *name;
    code_function *call;
} ways[] = {
    {"program", in_program},
    {"libc", by_libc},
    {"generated", by_generated},
    {"writable", in_writable_code},
    {"across-pages", across_pages},
    {"changed", changed_code},
    {"prefixed", by_prefixed},
    {"inside-another", by_inside_another},
    {"signal-handler", in_signal_handler},
    {"thread", in_thread},
    {"child", in_child},
    {"int80", by_int80},
    {"sysenter", by_sysenter},
    {"vsyscall", by_vsyscall_page},
};

int main(int argc, char **argv) {
    const int faults[] = {SIGSEGV, SIGILL, SIGBUS, SIGTRAP};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        signal(faults[i], caught);
    int signal = sigsetjmp(back, 1);
    if (signal) {
        printf("signal %s\n", sigabbrev_np(signal));
        return 0;
    }
    for (size_t i = 0; argc == 2 && i < sizeof ways / sizeof *ways; i++) {
        if (strcmp(ways[i].name, argv[1]))
            continue;
        long result = ways[i].call();
        printf("answer %ld\n", result);
        return result != -ENOSYS;
    }
    return 2;
}
