// variants: glibc static
/* From process to process: memory, descriptors, comparisons; ids that are chosen; descriptors unshared; files
 * and programs that are busy; locks that would wait for each other. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)
#define FAILS(call, number) CHECK((call) == -1 && errno == (number))

static char text[20000];

static void memory(void) {
    int ready[2], go[2], status;
    char byte, got[30000];
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    memset(text, 'p', sizeof text);
    pid_t pid = fork();
    if (pid == 0) {
        memset(text, 'c', sizeof text);
        CHECK(write(ready[1], "x", 1) == 1 && read(go[0], &byte, 1) == 1);
        CHECK(memcmp(text, "written", 7) == 0 && text[19999] == 'z');
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    struct iovec here[2] = {{got, 100}, {got + 100, sizeof text - 100}};
    struct iovec there[3] = {{text, 10000}, {text + 10000, 0}, {text + 10000, 10000}};
    CHECK(process_vm_readv(pid, here, 2, there, 3, 0) == sizeof text);
    CHECK(got[0] == 'c' && got[19999] == 'c' && text[0] == 'p');
    struct iovec from = {"written", 7}, to = {text, 7};
    CHECK(process_vm_writev(pid, &from, 1, &to, 1, 0) == 7 && text[0] == 'p');
    from.iov_base = "z", from.iov_len = 1, to.iov_base = text + 19999, to.iov_len = 1;
    CHECK(process_vm_writev(pid, &from, 1, &to, 1, 0) == 1);
    to.iov_base = (void *)8;
    FAILS(process_vm_writev(pid, &from, 1, &to, 1, 0), EFAULT);
    FAILS(process_vm_readv(pid, here, 1, there, 1, 1), EINVAL);
    FAILS(process_vm_readv(-1, here, 1, there, 1, 0), ESRCH);
    CHECK(write(go[1], "x", 1) == 1 && waitpid(pid, &status, 0) == pid && status == 0);
    puts("memory");
}

static void descriptors(void) {
    int pipes[2], ready[2], status;
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(pipe(pipes) == 0 && dup2(pipes[0], 100) == 100 && write(pipes[1], "y", 1) == 1);
        CHECK(write(ready[1], "x", 1) == 1);
        pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, 100, 0);
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC && read(fd, &byte, 1) == 1 && byte == 'y');
    FAILS(syscall(SYS_pidfd_getfd, pidfd, 101, 0), EBADF);
    FAILS(syscall(SYS_pidfd_getfd, pidfd, 100, 1), EINVAL);
    FAILS(syscall(SYS_pidfd_getfd, 0, 100, 0), EBADF);
    CHECK(syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, fd, 100) == 0);
    CHECK(syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, 0, 0) == 0);
    CHECK(syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, fd, 0) > 0);
    CHECK(syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0) > 0);
    CHECK(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILES, 0, 0) == 0);
    FAILS(syscall(SYS_kcmp, getpid(), pid, 99, 0, 0), EINVAL);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
    FAILS(syscall(SYS_pidfd_getfd, pidfd, 100, 0), ESRCH);
    puts("descriptors");
}

static void *close_unshared(void *arg) {
    int fd = *(int *)arg;
    CHECK(syscall(SYS_close_range, fd, fd, 2) == 0);
    FAILS(fcntl(fd, F_GETFD), EBADF);
    return NULL;
}

static void close_ranges(void) {
    pthread_t thread;
    int fd = dup(0);
    CHECK(pthread_create(&thread, NULL, close_unshared, &fd) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(fcntl(fd, F_GETFD) == 0 && syscall(SYS_close_range, fd, fd, 4) == 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    FAILS(syscall(SYS_close_range, 5, 4, 0), EINVAL);
    FAILS(syscall(SYS_close_range, 5, 5, 8), EINVAL);
    CHECK(close(fd) == 0);
    puts("close_ranges");
}

struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static void chosen_id(void) {
    pid_t wanted = 29876;
    int status;
    struct clone_arguments args = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)&wanted, .set_tid_size = 1};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) _exit(getpid() == 29876 || syscall(SYS_getpid) == 29876 ? 7 : 8);
    CHECK(pid == 29876);
    FAILS(syscall(SYS_clone3, &args, sizeof args), EEXIST);
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
    wanted = 0;
    FAILS(syscall(SYS_clone3, &args, sizeof args), EINVAL);
    args.set_tid_size = 100;
    FAILS(syscall(SYS_clone3, &args, sizeof args), EINVAL);
    puts("chosen_id");
}

static void busy_files(void) {
    char *args[] = {"true", NULL};
    int status, in = open("/proc/self/exe", O_RDONLY), out = open("/tmp/across", O_WRONLY | O_CREAT | O_TRUNC, 0755);
    char block[65536];
    for (ssize_t size; (size = read(in, block, sizeof block)) > 0;) CHECK(write(out, block, size) == size);
    FAILS(execv("/tmp/across", args), ETXTBSY);
    FAILS(open("/proc/self/exe", O_WRONLY), ETXTBSY);
    CHECK(close(out) == 0);
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        char *waits[] = {"wait", NULL};
        dup2(ready[1], 50);
        execv("/tmp/across", waits);
        _exit(1);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    FAILS(open("/tmp/across", O_RDWR), ETXTBSY);
    FAILS(truncate("/tmp/across", 0), ETXTBSY);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
    out = open("/tmp/across", O_RDWR | O_TRUNC);
    CHECK(out >= 0 && close(out) == 0 && unlink("/tmp/across") == 0);
    puts("busy_files");
}

static int lock(int fd, int command, int kind, int start) {
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
    return fcntl(fd, command, &lock);
}

static void deadlock(void) {
    int ready[2], status;
    char byte;
    int fd = open("/tmp/across", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && pipe(ready) == 0 && lock(fd, F_SETLK, F_WRLCK, 0) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(lock(fd, F_SETLK, F_WRLCK, 1) == 0 && write(ready[1], "x", 1) == 1);
        CHECK(lock(fd, F_SETLKW, F_WRLCK, 0) == 0);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    usleep(100000);
    FAILS(lock(fd, F_SETLKW, F_WRLCK, 1), EDEADLK);
    CHECK(lock(fd, F_SETLK, F_UNLCK, 0) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0 && lock(fd, F_SETLKW, F_WRLCK, 1) == 0);
    CHECK(unlink("/tmp/across") == 0);
    puts("deadlock");
}

static uint32_t words[3] = {1, 2, 3};

static void *wake_second(void *arg) {
    usleep(20000);
    __atomic_store_n(&words[1], 9, __ATOMIC_SEQ_CST);
    while (syscall(SYS_futex, &words[1], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 0) usleep(1000);
    return arg;
}

struct wait_word {
    uint64_t expected, addr;
    uint32_t flags, reserved;
};

static void wait_any(void) {
    struct wait_word waits[3];
    struct timespec soon;
    pthread_t thread;
    for (int i = 0; i < 3; i++) waits[i] = (struct wait_word){words[i], (uint64_t)&words[i], 2 | 128, 0};
    clock_gettime(CLOCK_MONOTONIC, &soon);
    FAILS(syscall(449, waits, 3, 0, &soon, CLOCK_MONOTONIC), ETIMEDOUT);
    soon.tv_sec += 100;
    CHECK(pthread_create(&thread, NULL, wake_second, NULL) == 0);
    CHECK(syscall(449, waits, 3, 0, &soon, CLOCK_MONOTONIC) == 1 && pthread_join(thread, NULL) == 0);
    FAILS(syscall(449, waits, 3, 0, &soon, CLOCK_MONOTONIC), EAGAIN);
    waits[0].flags = 1;
    FAILS(syscall(449, waits, 3, 0, NULL, 0), EINVAL);
    FAILS(syscall(449, waits, 0, 0, NULL, 0), EINVAL);
    puts("wait_any");
}

int main(int count, char **args) {
    if (count > 0 && !strcmp(args[0], "wait")) {
        CHECK(write(50, "x", 1) == 1);
        pause();
    }
    memory();
    descriptors();
    close_ranges();
    chosen_id();
    busy_files();
    deadlock();
    wait_any();
    return 0;
}
