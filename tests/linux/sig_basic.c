// variants: glibc musl static
/* Handlers, masks, pending sets, queues, alternate stacks, restarts, and what frames show. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static volatile int count, last_code, last_value, order[8], ordered;
static volatile pid_t last_pid;
static void *volatile last_address;
static sigjmp_buf jump;

static void on_info(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    count++;
    last_code = info->si_code;
    last_pid = info->si_pid;
    last_value = info->si_value.sival_int;
    last_address = info->si_addr;
    if (ordered < 8) order[ordered++] = info->si_value.sival_int;
}

static void install(int signal, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static void sending(void) {
    install(SIGUSR1, on_info, 0);
    CHECK(raise(SIGUSR1) == 0 && count == 1 && last_code == SI_TKILL && last_pid == getpid());
    CHECK(kill(getpid(), SIGUSR1) == 0 && count == 2 && last_code == SI_USER);
    union sigval value = {.sival_int = 77};
    CHECK(sigqueue(getpid(), SIGUSR1, value) == 0 && count == 3 && last_code == SI_QUEUE && last_value == 77);
    CHECK(kill(getpid(), 0) == 0);
    CHECK(kill(getpid(), 65) == -1 && errno == EINVAL);
    CHECK(kill(999999, 0) == -1 && errno == ESRCH);
    puts("sending");
}

static void masks_and_queues(void) {
    sigset_t set, old, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 3);
    install(SIGRTMIN + 3, on_info, 0);
    count = ordered = 0;
    CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
    raise(SIGUSR1);
    raise(SIGUSR1);
    for (int i = 1; i <= 3; i++) CHECK(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = i}) == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) && count == 0);
    CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
    CHECK(count == 4);
    CHECK(order[1] + order[2] + order[3] + order[0] >= 6);
    struct timespec none = {0};
    siginfo_t info;
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(sigtimedwait(&set, &info, &none) == -1 && errno == EAGAIN);
    CHECK(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 9}) == 0);
    CHECK(sigtimedwait(&set, &info, &none) == SIGRTMIN + 3 && info.si_value.sival_int == 9);
    CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
    puts("masks and queues");
}

static void on_segv(int signal, siginfo_t *info, void *context) {
    (void)signal;
    ucontext_t *user = context;
    last_code = info->si_code;
    last_address = info->si_addr;
    count = user->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(jump, 1);
}

static void faults(void) {
    install(SIGSEGV, on_segv, 0);
    install(SIGFPE, on_segv, 0);
    install(SIGILL, on_segv, 0);
    install(SIGTRAP, on_segv, 0);
    if (sigsetjmp(jump, 1) == 0) *(volatile int *)32 = 1;
    CHECK(last_code == SEGV_MAPERR && last_address == (void *)32 && count == 14);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sigsetjmp(jump, 1) == 0) *(volatile char *)page = 1;
    CHECK(last_code == SEGV_ACCERR && last_address == page);
    volatile int zero = 0, seven = 7;
    if (sigsetjmp(jump, 1) == 0) zero = seven / zero;
    CHECK(last_code == FPE_INTDIV && count == 0);
    if (sigsetjmp(jump, 1) == 0) __asm__ volatile("ud2");
    CHECK(last_code == ILL_ILLOPN && count == 6);
    if (sigsetjmp(jump, 1) == 0) __asm__ volatile("int3");
    CHECK(last_code == SI_KERNEL && count == 3);
    if (sigsetjmp(jump, 1) == 0) __asm__ volatile("movq $0x123456789abcdef0, %%rax; movb $1, (%%rax)" ::: "rax");
    CHECK(last_code == SI_KERNEL && count == 13 && last_address == NULL);
    puts("faults");
}

static void skip_instruction(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)info;
    ucontext_t *user = context;
    user->uc_mcontext.gregs[REG_RIP] += 2;
    user->uc_mcontext.gregs[REG_RAX] = 42;
    /* Vector state travels through the frame. */
    user->uc_mcontext.fpregs->_xmm[3].element[0] = 4711;
}

static void editing(void) {
    install(SIGILL, skip_instruction, 0);
    long result = 0;
    uint32_t vector = 0;
    __asm__ volatile("ud2; movd %%xmm3, %1" : "=a"(result), "=r"(vector) : : "xmm3");
    CHECK(result == 42 && vector == 4711);
    puts("editing");
}

static char alternate[1 << 16];
static volatile int was_on_alternate;

static void on_alternate(int signal, siginfo_t *info, void *context) {
    (void)info;
    (void)context;
    char here;
    was_on_alternate = &here >= alternate && &here < alternate + sizeof alternate;
    if (signal == SIGSEGV) siglongjmp(jump, 1);
}

static volatile int for_ever = 1;

static int deep(int n) {
    volatile char space[4096];
    space[0] = n;
    if (!for_ever) return 0;
    return deep(n + 1) + space[0];
}

static void stacks(void) {
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, old;
    CHECK(sigaltstack(&stack, NULL) == 0 && sigaltstack(NULL, &old) == 0 && old.ss_flags == 0);
    install(SIGUSR2, on_alternate, SA_ONSTACK);
    raise(SIGUSR2);
    CHECK(was_on_alternate);
    was_on_alternate = 0;
    install(SIGSEGV, on_alternate, SA_ONSTACK);
    if (sigsetjmp(jump, 1) == 0) deep(0);
    CHECK(was_on_alternate);
    stack.ss_flags = SS_DISABLE;
    CHECK(sigaltstack(&stack, NULL) == 0);
    puts("stacks");
}

static void on_alarm(int signal) {
    (void)signal;
    count++;
}

static int pipes[2];

static void *write_later(void *unused) {
    usleep(60000);
    CHECK(write(pipes[1], "x", 1) == 1);
    return unused;
}

static void restarts(void) {
    struct itimerval in_20ms = {.it_value.tv_usec = 20000};
    struct sigaction action = {.sa_handler = on_alarm};
    char byte;
    pthread_t thread;
    sigset_t set;
    CHECK(pipe(pipes) == 0);
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    count = 0;
    setitimer(ITIMER_REAL, &in_20ms, NULL);
    CHECK(read(pipes[0], &byte, 1) == -1 && errno == EINTR && count == 1);
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_create(&thread, NULL, write_later, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    setitimer(ITIMER_REAL, &in_20ms, NULL);
    CHECK(read(pipes[0], &byte, 1) == 1 && byte == 'x' && count == 2);
    pthread_join(thread, NULL);
    struct timespec second = {.tv_sec = 1}, left;
    setitimer(ITIMER_REAL, &in_20ms, NULL);
    CHECK(nanosleep(&second, &left) == -1 && errno == EINTR && left.tv_sec == 0 && left.tv_nsec > 500000000);
    sigset_t none;
    sigemptyset(&none);
    setitimer(ITIMER_REAL, &in_20ms, NULL);
    CHECK(sigsuspend(&none) == -1 && errno == EINTR && count == 4);
    puts("restarts");
}

static void *wait_for_usr1(void *unused) {
    sigset_t set;
    int signal;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    CHECK(sigwait(&set, &signal) == 0 && signal == SIGUSR1);
    return unused;
}

static volatile int spins = 1;

static void *spin(void *unused) {
    while (spins) {
    }
    return unused;
}

static void stop_spinning(int signal) {
    (void)signal;
    spins = 0;
}

static void threads(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_usr1, NULL);
    usleep(20000);
    CHECK(pthread_kill(thread, SIGUSR1) == 0 && pthread_join(thread, NULL) == 0);
    /* Running user code is interrupted. */
    signal(SIGUSR2, stop_spinning);
    pthread_create(&thread, NULL, spin, NULL);
    usleep(20000);
    CHECK(pthread_kill(thread, SIGUSR2) == 0 && pthread_join(thread, NULL) == 0);
    puts("threads");
}

int main(void) {
    sending();
    masks_and_queues();
    faults();
    editing();
    stacks();
    restarts();
    threads();
    return 0;
}
