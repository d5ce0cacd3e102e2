// variants: glibc static
/* Resource limits: enforced, inherited, changed from outside. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

/* Processes are counted by user: nobody else is this one. */
static int own_id;
static volatile sig_atomic_t signals;
static void count(int signal) { (void)signal, signals++; }

static void set(int resource, rlim_t soft, rlim_t hard) {
    struct rlimit limit = {soft, hard};
    CHECK(setrlimit(resource, &limit) == 0);
}

/* Runs `body` in a child; gives its wait status. */
static int in_child(void (*body)(void)) {
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void file_size(void) {
    char block[4096] = {0};
    int fd = open("/tmp/proc_limits", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    signal(SIGXFSZ, count);
    set(RLIMIT_FSIZE, 10000, RLIM_INFINITY);
    CHECK(write(fd, block, 4096) == 4096 && write(fd, block, 4096) == 4096);
    CHECK(write(fd, block, 4096) == 10000 - 8192 && signals == 0);
    CHECK(write(fd, block, 1) == -1 && errno == EFBIG && signals == 1);
    CHECK(pwrite(fd, block, 4096, 9000) == 1000 && pwrite(fd, block, 1, 20000) == -1 && errno == EFBIG);
    CHECK(ftruncate(fd, 10001) == -1 && errno == EFBIG && signals == 3);
    CHECK(ftruncate(fd, 10000) == 0 && ftruncate(fd, 10) == 0);
    CHECK(truncate("/tmp/proc_limits", 20000) == -1 && errno == EFBIG);
    CHECK(lseek(fd, 0, SEEK_END) == 10);
    int append = open("/tmp/proc_limits", O_WRONLY | O_APPEND);
    for (int i = 0; i < 2; i++) CHECK(write(append, block, 4096) == 4096);
    CHECK(write(append, block, 4096) == 10000 - 10 - 8192);
    int pipes[2];
    CHECK(pipe(pipes) == 0 && write(pipes[1], block, 4096) == 4096 && write(pipes[1], block, 4096) == 4096 &&
          write(pipes[1], block, 4096) == 4096);
    signal(SIGXFSZ, SIG_DFL);
    pwrite(fd, block, 1, 10000);
}

static void burn(void) {
    for (volatile long i = 0;; i++) {
    }
}

static int told[2];
static void tell(int signal) { (void)signal, (void)!write(told[1], "x", 1); }

static void processor_time(void) {
    signal(SIGXCPU, tell);
    set(RLIMIT_CPU, 1, 2);
    burn();
}

static void processes(void) {
    CHECK(setgid(own_id) == 0 && setuid(own_id) == 0);
    set(RLIMIT_NPROC, 3, 3);
    pid_t first = fork();
    if (first == 0) pause();
    pid_t second = fork();
    if (second == 0) pause();
    CHECK(first > 0 && second > 0);
    CHECK(fork() == -1 && errno == EAGAIN);
    kill(first, SIGKILL);
    waitpid(first, NULL, 0);
    pid_t third = fork();
    if (third == 0) _exit(0);
    CHECK(third > 0 && waitpid(third, NULL, 0) == third);
    kill(second, SIGKILL);
    waitpid(second, NULL, 0);
}

static void priorities(void) {
    struct sched_param param = {.sched_priority = 5};
    set(RLIMIT_NICE, 0, 0);
    set(RLIMIT_RTPRIO, 0, 0);
    CHECK(setgid(own_id) == 0 && setuid(own_id) == 0);
    CHECK(setpriority(PRIO_PROCESS, 0, 10) == 0 && getpriority(PRIO_PROCESS, 0) == 10);
    CHECK(setpriority(PRIO_PROCESS, 0, 9) == -1 && errno == EACCES);
    CHECK(setpriority(PRIO_PROCESS, getppid(), 0) == -1 && errno == EPERM);
    CHECK(sched_setscheduler(0, SCHED_FIFO, &param) == -1 && errno == EPERM);
    param.sched_priority = 0;
    CHECK(sched_setscheduler(0, SCHED_IDLE, &param) == 0);
    CHECK(sched_setscheduler(0, SCHED_OTHER, &param) == -1 && errno == EPERM);
}

static void memory(void) {
    char *page;
    set(RLIMIT_DATA, 64 << 20, 64 << 20);
    CHECK(mmap(NULL, 80 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
    CHECK(mmap(NULL, 80 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    CHECK(sbrk(80 << 20) == (void *)-1 && errno == ENOMEM);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    set(RLIMIT_AS, 200 << 20, 200 << 20);
    CHECK(mmap(NULL, 201 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
    set(RLIMIT_MEMLOCK, 8192, 8192);
    CHECK(setgid(own_id) == 0 && setuid(own_id) == 0);
    CHECK(mlock(page, 4096) == 0 && mlock(page, 4096) == 0);
    char *more = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mlock(more, 8192) == -1 && errno == ENOMEM);
    CHECK(mlock(more, 4096) == 0);
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) == MAP_FAILED && errno == EAGAIN);
    CHECK(munlock(more, 8192) == 0 && munlock(page, 4096) == 0);
    set(RLIMIT_MEMLOCK, 0, 0);
    CHECK(mlock(page, 4096) == -1 && errno == EPERM);
}

static void descriptors(void) {
    int pipes[2];
    set(RLIMIT_NOFILE, 10, 20);
    int last;
    while ((last = dup(0)) >= 0) CHECK(last < 10);
    CHECK(errno == EMFILE && dup2(0, 10) == -1 && errno == EBADF && pipe(pipes) == -1 && errno == EMFILE);
    CHECK(fcntl(0, F_DUPFD, 10) == -1 && errno == EINVAL);
    set(RLIMIT_NOFILE, 20, 20);
    CHECK(dup(0) >= 10);
}

/* A parent changes its child's limits; the child sees them, and its own child inherits. */
static void from_outside(void) {
    int ask[2], tell[2];
    char byte;
    struct rlimit limit = {77, 78}, old;
    CHECK(pipe(ask) == 0 && pipe(tell) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(read(ask[0], &byte, 1) == 1);
        pid_t inner = fork();
        if (inner == 0) {
            CHECK(getrlimit(RLIMIT_CORE, &limit) == 0);
            char line[64];
            int size = snprintf(line, sizeof line, "%lu %lu", (long)limit.rlim_cur, (long)limit.rlim_max);
            CHECK(write(tell[1], line, size) == size);
            _exit(0);
        }
        waitpid(inner, NULL, 0);
        _exit(0);
    }
    CHECK(prlimit(pid, RLIMIT_CORE, &limit, &old) == 0);
    CHECK(prlimit(pid, RLIMIT_CORE, NULL, &old) == 0 && old.rlim_cur == 77 && old.rlim_max == 78);
    CHECK(write(ask[1], "x", 1) == 1);
    char line[64] = {0};
    CHECK(read(tell[0], line, sizeof line - 1) > 0);
    puts(line);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK(prlimit(pid, RLIMIT_CORE, NULL, &old) == -1 && errno == ESRCH);
    CHECK(prlimit(0, 16, NULL, &old) == -1 && errno == EINVAL);
    limit.rlim_cur = 3, limit.rlim_max = 2;
    CHECK(setrlimit(RLIMIT_CORE, &limit) == -1 && errno == EINVAL);
}

static void unprivileged(void) {
    struct rlimit limit = {5, 5};
    set(RLIMIT_CORE, 4, 4);
    CHECK(setgid(own_id) == 0 && setuid(own_id) == 0);
    CHECK(setrlimit(RLIMIT_CORE, &limit) == -1 && errno == EPERM);
    limit.rlim_cur = limit.rlim_max = 3;
    CHECK(setrlimit(RLIMIT_CORE, &limit) == 0);
    CHECK(prlimit(getppid(), RLIMIT_CORE, NULL, &limit) == -1 && errno == EPERM);
}

static void core(void) {
    set(RLIMIT_CORE, 0, RLIM_INFINITY);
    abort();
}

int main(void) {
    own_id = 20000 + getpid() % 20000;
    int status = in_child(file_size);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
    unlink("/tmp/proc_limits");
    char byte;
    CHECK(pipe2(told, O_NONBLOCK) == 0);
    status = in_child(processor_time);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && read(told[0], &byte, 1) == 1);
    CHECK(in_child(processes) == 0 && in_child(priorities) == 0 && in_child(memory) == 0);
    CHECK(in_child(descriptors) == 0 && in_child(from_outside) == 0 && in_child(unprivileged) == 0);
    status = in_child(core);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && !WCOREDUMP(status));
    puts("limits hold");
    return 0;
}
