/* Bad addresses in every kind of call: the errno is EFAULT, the process lives. For calls that take
 * more than one pointer each is tried alone. Prints one line for each call. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define BAD 0xbadbad /* stands for the address under test */

static unsigned long unmapped, half, read_only;

struct attempt {
    const char *name;
    long number;
    unsigned long args[6];
};

static int pipe_fds[2], file, directory, epoll_fd, zero;

static void try(const struct attempt *a, unsigned long address, const char *kind) {
    unsigned long v[6];
    for (int i = 0; i < 6; i++) v[i] = a->args[i] == BAD ? address : a->args[i];
    errno = 0;
    long result = syscall(a->number, v[0], v[1], v[2], v[3], v[4], v[5]);
    printf(" %s:%s", kind, result < 0 ? strerrorname_np(errno) : "ok");
}

static void try_all(const struct attempt *a) {
    printf("%s", a->name);
    try(a, 8, "low");
    try(a, unmapped, "unmapped");
    try(a, 0x1f0000001000, "middle");
    try(a, 0xffff800000000000, "upper");
    try(a, ~0UL - 7, "last");
    printf("\n");
}

int main(void) {
    char *area = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(area + 4096, 4096, PROT_NONE); /* unmapped, it could be given to somebody else */
    unmapped = (unsigned long)area + 4096;
    half = unmapped - 4;
    read_only = (unsigned long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pipe(pipe_fds)) return 1;
    if (write(pipe_fds[1], "some bytes for the readers", 26) != 26) return 1;
    file = open("/tmp/user_pointers.data", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (write(file, area, 4096) != 4096) return 1;
    directory = open("/", O_RDONLY | O_DIRECTORY);
    zero = open("/dev/zero", O_RDWR);
    epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pipe_fds[0], &event);

    struct attempt attempts[] = {
        {"read file", SYS_pread64, {file, BAD, 100, 0}},
        {"read pipe", SYS_read, {pipe_fds[0], BAD, 4}},
        {"read zero", SYS_read, {zero, BAD, 100}},
        {"write file", SYS_pwrite64, {file, BAD, 100, 0}},
        {"write pipe", SYS_write, {pipe_fds[1], BAD, 10}},
        {"readv", SYS_readv, {file, BAD, 1}},
        {"writev", SYS_writev, {file, BAD, 1}},
        {"open", SYS_open, {BAD, O_RDONLY}},
        {"openat", SYS_openat, {AT_FDCWD, BAD, O_RDONLY}},
        {"stat path", SYS_stat, {BAD, (unsigned long)area}},
        {"stat buffer", SYS_stat, {(unsigned long)"/", BAD}},
        {"fstat", SYS_fstat, {file, BAD}},
        {"newfstatat", SYS_newfstatat, {AT_FDCWD, (unsigned long)"/", BAD, 0}},
        {"statx", SYS_statx, {AT_FDCWD, (unsigned long)"/", 0, STATX_BASIC_STATS, BAD}},
        {"statfs", SYS_statfs, {(unsigned long)"/", BAD}},
        {"access", SYS_access, {BAD, F_OK}},
        {"readlink path", SYS_readlink, {BAD, (unsigned long)area, 100}},
        {"readlink buffer", SYS_readlink, {(unsigned long)"/proc/self/exe", BAD, 100}},
        {"getdents64", SYS_getdents64, {directory, BAD, 4096}},
        {"getcwd", SYS_getcwd, {BAD, 4096}},
        {"chdir", SYS_chdir, {BAD}},
        {"mkdir", SYS_mkdir, {BAD, 0700}},
        {"unlink", SYS_unlink, {BAD}},
        {"rename", SYS_rename, {(unsigned long)"/tmp/user_pointers.data", BAD}},
        {"truncate", SYS_truncate, {BAD, 0}},
        {"pipe", SYS_pipe, {BAD}},
        {"select", SYS_select, {5, BAD, 0, 0, 0}},
        {"poll", SYS_poll, {BAD, 1, 0}},
        {"epoll_wait", SYS_epoll_wait, {epoll_fd, BAD, 1, 0}},
        {"epoll_ctl", SYS_epoll_ctl, {epoll_fd, EPOLL_CTL_MOD, pipe_fds[0], BAD}},
        {"clock_gettime", SYS_clock_gettime, {CLOCK_MONOTONIC, BAD}},
        {"nanosleep", SYS_nanosleep, {BAD, 0}},
        {"gettimeofday", SYS_gettimeofday, {BAD, 0}},
        {"times", SYS_times, {BAD}},
        {"uname", SYS_uname, {BAD}},
        {"sysinfo", SYS_sysinfo, {BAD}},
        {"getrlimit", SYS_getrlimit, {RLIMIT_NOFILE, BAD}},
        {"setrlimit", SYS_setrlimit, {RLIMIT_CORE, BAD}},
        {"getrusage", SYS_getrusage, {RUSAGE_SELF, BAD}},
        {"rt_sigaction new", SYS_rt_sigaction, {SIGUSR1, BAD, 0, 8}},
        {"rt_sigaction old", SYS_rt_sigaction, {SIGUSR1, 0, BAD, 8}},
        {"rt_sigprocmask", SYS_rt_sigprocmask, {SIG_BLOCK, BAD, 0, 8}},
        {"rt_sigpending", SYS_rt_sigpending, {BAD, 8}},
        {"sigaltstack", SYS_sigaltstack, {BAD, 0}},
        {"futex", SYS_futex, {BAD & ~3UL, 0, 0, 0, 0, 0}},
        {"getrandom", SYS_getrandom, {BAD, 16, 0}},
        {"execve", SYS_execve, {BAD, 0, 0}},
        {"execve argv", SYS_execve, {(unsigned long)"/proc/self/exe", BAD, 0}},
        {"wait4 none", SYS_wait4, {(unsigned long)-1, BAD, WNOHANG, 0}},
        {"sched_getaffinity", SYS_sched_getaffinity, {0, 128, BAD}},
        {"getgroups", SYS_getgroups, {0, BAD}},
        {"socketpair", SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0, BAD}},
        {"utimensat", SYS_utimensat, {AT_FDCWD, BAD, 0, 0}},
        {"set_robust_list", SYS_set_robust_list, {BAD, 24}},
        {"mincore", SYS_mincore, {(unsigned long)area, 4096, BAD}},
        {"eventfd write", SYS_write, {-1, BAD, 8}},
    };
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        if (attempts[i].number == SYS_futex) attempts[i].args[0] = BAD;
        try_all(&attempts[i]);
    }

    /* A range that is good at its start. */
    errno = 0;
    long got = pread(file, (void *)half, 100, 0);
    printf("pread half: %s\n", got > 0 && got <= 4 ? "short" : got < 0 ? strerrorname_np(errno) : "?");
    struct iovec parts[2] = {{area, 10}, {(void *)unmapped, 10}};
    got = preadv(file, parts, 2, 0);
    printf("preadv second part bad: %ld\n", got);
    struct stat *st = (struct stat *)half;
    printf("fstat half: %d %s\n", fstat(file, st), strerrorname_np(errno));
    printf("read into read-only: %ld %s\n", (long)pread(file, (void *)read_only, 10, 0), strerrorname_np(errno));
    char path[4] = "/tm"; /* a path that runs into the hole */
    memcpy((char *)unmapped - 3, path, 3);
    printf("open path without end: %d %s\n", open((char *)unmapped - 3, O_RDONLY), strerrorname_np(errno));
    unlink("/tmp/user_pointers.data");
    return 0;
}
