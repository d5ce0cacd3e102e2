/* Random system calls with random and nasty arguments, in the style of trinity.
 *
 *     fuzz SEED SECONDS [WORKERS [CALLS]]
 *
 * A supervisor keeps WORKERS processes going. Each makes CALLS calls that its number and SEED decide, from
 * two threads, and ends, or is killed after a while; then the next one starts. At the end all processes are
 * killed and reaped. Nothing is expected of a single call: what must hold is that the supervisor comes to its
 * end. With WORKERS 1 and SECONDS 0, one worker runs: that repeats the worker whose seed a log names.
 *
 * It kills everything it can reach and mounts and deletes what it likes, so it refuses to run on Linux.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ARENA = 64 << 10, LAST_NUMBER = 462, WORKER_MS = 1500 };

static __thread uint64_t state;
static char *arena;      /* readable and writable; the page behind it is not there */
static char *read_only;  /* one page */
static unsigned calls_each = 600;

static uint64_t any(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull;
}

static unsigned below(unsigned end) { return (unsigned)(any() >> 33) % end; }

static void seed_with(uint64_t seed) {
    state = seed * 0x9e3779b97f4a7c15ull + 1;
    for (int i = 0; i < 8; i++) any();
}

static const char *const paths[] = {
    "/tmp/fuzz/a", "/tmp/fuzz/b", "/tmp/fuzz/dir", "/tmp/fuzz/dir/c", "/tmp/fuzz/fifo", "/tmp/fuzz/link",
    "/tmp/fuzz/socket", "/tmp/fuzz", ".", "..", "", "/", "a", "dir/../b", "/dev/null", "/dev/zero", "/dev/full",
    "/dev/random", "/dev/ptmx", "/dev/tty", "/dev/shm/fuzz", "/proc/self/maps", "/proc/self/fd",
    "/proc/self/fd/5", "/proc/self/status", "/proc/self/task", "/proc/self/comm", "/proc/self/mem",
    "/proc/self/oom_score_adj", "/proc/self/exe", "/proc/stat", "/proc/sys/kernel/hostname", "/sys", "/etc/hostname",
    "/proc/self/smaps", "/proc/self/limits", "/proc/self/fdinfo/6", "/proc/meminfo",
};

static const uint64_t numbers[] = {
    0, 1, 2, 3, 4, 7, 8, 16, 63, 64, 255, 256, 511, 512, 1023, 1024, 4095, 4096, 4097, 8192, 65535, 65536,
    0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, ~0ull - 1,
    ~0ull - 4095, 1 << 20, 1 << 24, 1 << 30, 1ull << 40, 1ull << 46, 1ull << 47, 0xdeadbeef, (uint64_t)-100,
};

static uint64_t small(void) { return below(24); }
static uint64_t flags(void) { return 1ull << below(33) | 1ull << below(33) | (below(3) ? 0 : 1ull << below(33)); }
static uint64_t descriptor(void) { return below(12) == 0 ? numbers[below(39)] : 3 + below(40); }

static uint64_t pointer(void) {
    switch (below(16)) {
    case 0: return 0;
    case 1: return (uint64_t)arena + ARENA - below(64);            /* across the end */
    case 2: return (uint64_t)read_only + below(4096);
    case 3: return any();
    case 4: return 0xffff800000000000ull | below(1 << 20);
    case 5: return (uint64_t)arena + below(ARENA);                 /* not aligned */
    case 6: return (uint64_t)paths[below(sizeof paths / sizeof *paths)];
    case 7: return 8 + below(4096);
    default: return (uint64_t)arena + (below(ARENA) & ~15u);
    }
}

/* What programs give: words that are descriptors, sizes, addresses of the arena, times. */
static void fill(char *at, unsigned words) {
    for (unsigned i = 0; i < words; i++) {
        uint64_t word;
        switch (below(8)) {
        case 0: word = any(); break;
        case 1: word = numbers[below(39)]; break;
        case 2: word = descriptor() | (uint64_t)below(64) << 32; break;
        case 3: word = pointer(); break;
        case 4: word = flags(); break;
        default: word = small();
        }
        memcpy(at + 8 * i, &word, 8);
    }
}

static uint64_t path(void) {
    if (below(10) == 0) return pointer();
    char *at = arena + (below(ARENA - 4200) & ~15u);
    if (below(40) == 0) {
        memset(at, 'x', 4100);
        at[below(4100)] = 0;
    } else {
        strcpy(at, paths[below(sizeof paths / sizeof *paths)]);
    }
    return (uint64_t)at;
}

static uint64_t argument(void) {
    switch (below(9)) {
    case 0: return small();
    case 1: return numbers[below(39)];
    case 2: return flags();
    case 3: case 4: return descriptor();
    case 5: return path();
    case 6: return any();
    default: return pointer();
    }
}

/* Numbers whose first argument is a process: it must not be the supervisor. */
static int names_process(long number) {
    switch (number) {
    case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_rt_sigqueueinfo: case SYS_rt_tgsigqueueinfo:
    case SYS_prlimit64: case SYS_pidfd_open: case SYS_process_vm_writev: case SYS_ptrace: case SYS_kcmp:
        return 1;
    default:
        return 0;
    }
}

static int is_left_out(long number) {
    switch (number) {
    case SYS_exit_group: case SYS_exit: case SYS_pause: case SYS_rt_sigreturn: case SYS_vfork: case SYS_reboot:
        return below(20) != 0;
    case SYS_clone: case SYS_fork: case SYS_clone3: case SYS_execve: case SYS_execveat: case SYS_rt_sigsuspend:
        return below(4) != 0;
    case SYS_setsid: case SYS_umount2: case SYS_chroot: case SYS_setrlimit:
        return below(8) != 0;
    default:
        return 0;
    }
}

static const short favourites[] = {
    SYS_read, SYS_write, SYS_mmap, SYS_mprotect, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_openat, SYS_close,
    SYS_dup2, SYS_futex, SYS_ioctl, SYS_fcntl, SYS_splice, SYS_poll, SYS_epoll_ctl, SYS_epoll_wait, SYS_socket,
    SYS_sendmsg, SYS_recvmsg, SYS_bind, SYS_connect, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_timer_create,
    SYS_timer_settime, SYS_clone, SYS_wait4, SYS_waitid, SYS_shmat, SYS_semop, SYS_msgsnd, SYS_rename, SYS_fallocate,
};

static void one_call(void) {
    long number = below(3) ? (long)below(LAST_NUMBER) : favourites[below(sizeof favourites / sizeof *favourites)];
    uint64_t args[6];
    if (is_left_out(number)) return;
    fill(arena + (below(ARENA - 512) & ~15u), 1 + below(48));
    for (int i = 0; i < 6; i++) args[i] = argument();
    if (names_process(number)) args[0] = below(3) ? (uint64_t)getpid() : (uint64_t)gettid();
    if (number == SYS_mmap && below(2)) args[3] = MAP_ANONYMOUS | (below(2) ? MAP_SHARED : MAP_PRIVATE);
    if ((number == SYS_mmap || number == SYS_mremap) && below(4)) args[1] &= 0xffffff;
    if (number == SYS_wait4 || number == SYS_waitid) args[number == SYS_wait4 ? 2 : 3] |= WNOHANG;
    syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

static void on_signal(int signal) { (void)signal; }

static void *make_calls(void *seed) {
    seed_with((uint64_t)seed);
    for (unsigned i = 0; i < calls_each; i++) {
        /* Whatever the last call did to them: waits end, and the thread can be interrupted. */
        if (i % 16 == 0) {
            struct itimerval beat = {{0, 5000}, {0, 5000}};
            sigset_t none;
            struct sigaction action = {.sa_handler = on_signal};
            sigemptyset(&none);
            sigprocmask(SIG_SETMASK, &none, NULL);
            sigaction(SIGALRM, &action, NULL);
            setitimer(ITIMER_REAL, &beat, NULL);
        }
        one_call();
    }
    return NULL;
}

static void make_world(void) {
    int pair[2];
    char name[] = "/tmp/fuzz/socket";
    mkdir("/tmp/fuzz", 0777);
    mkdir("/tmp/fuzz/dir", 0777);
    mkfifo("/tmp/fuzz/fifo", 0666);
    if (symlink("a", "/tmp/fuzz/link") && chdir("/tmp/fuzz")) return;
    open("/tmp/fuzz/a", O_RDWR | O_CREAT, 0666);
    open("/tmp/fuzz/dir", O_RDONLY);
    if (pipe2(pair, O_NONBLOCK)) return;
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);
    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair);
    socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, 0);
    epoll_create1(0);
    eventfd(1, EFD_NONBLOCK);
    timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    inotify_init1(IN_NONBLOCK);
    memfd_create("fuzz", MFD_ALLOW_SEALING);
    open("/dev/ptmx", O_RDWR | O_NONBLOCK | O_NOCTTY);
    open("/proc/self/fd", O_RDONLY);
    open("/dev/zero", O_RDWR);
    (void)name;
}

static _Noreturn void worker(uint64_t seed) {
    pthread_t thread;
    struct rlimit memory = {256 << 20, 256 << 20};
    int null = open("/dev/null", O_RDWR);
    setsid();
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    setrlimit(RLIMIT_AS, &memory);
    make_world();
    arena = mmap(NULL, ARENA + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    read_only = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED || read_only == MAP_FAILED) _exit(2);
    munmap(arena + ARENA, 4096);
    if (seed % 2) pthread_create(&thread, NULL, make_calls, (void *)(seed ^ 0x5555));
    if (seed % 5 == 0) {
        setgid(1000);
        if (setuid(1000)) _exit(2);
    }
    make_calls((void *)seed);
    _exit(0);
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int is_inside(void) {
    struct utsname name;
    return uname(&name) == 0 && strstr(name.release, "occlum") != NULL;
}

/* Reaps what has ended; the number of the worker's slot, -1 for somebody else's orphan, -2 for nobody. */
static int reap(const pid_t *pids, unsigned count) {
    pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);
    if (pid <= 0) return -2;
    for (unsigned i = 0; i < count; i++)
        if (pids[i] == pid) return (int)i;
    return -1;
}

int main(int count, char **args) {
    enum { WORKERS_MAX = 32 };
    pid_t pids[WORKERS_MAX] = {0};
    long started[WORKERS_MAX];
    uint64_t seed = count > 1 ? strtoull(args[1], NULL, 0) : 1, next = seed << 20;
    long end = now_ms() + 1000 * (count > 2 ? atol(args[2]) : 10);
    unsigned workers = count > 3 ? (unsigned)atoi(args[3]) : 6, ran = 0;
    if (count > 4) calls_each = (unsigned)atoi(args[4]);
    if (!is_inside()) {
        fputs("fuzz: this is Linux, not an enclave\n", stderr);
        return 2;
    }
    if (workers > WORKERS_MAX) workers = WORKERS_MAX;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    do {
        for (unsigned i = 0; i < workers; i++) {
            if (pids[i] > 0) {
                if (now_ms() > started[i] + WORKER_MS) kill(pids[i], SIGKILL);
                continue;
            }
            pids[i] = fork();
            if (pids[i] == 0) worker(next);
            started[i] = now_ms();
            if (pids[i] > 0) next++, ran++;
        }
        for (int slot; (slot = reap(pids, workers)) != -2;)
            if (slot >= 0) pids[slot] = 0;
        usleep(2000);
    } while (now_ms() < end);
    if (workers == 1 && count > 2 && atol(args[2]) == 0)
        for (long limit = now_ms() + WORKER_MS; now_ms() < limit && reap(pids, 1) != 0;) usleep(1000);
    /* A child may be making another one while it is looked for. */
    for (int left = 0; left < 100; left++) {
        kill(-1, SIGKILL);
        while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) left = 0;
        if (waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD) break;
        usleep(10000);
    }
    if (waitpid(-1, NULL, WNOHANG | __WALL) != -1 || errno != ECHILD) {
        puts("somebody can't be killed");
        return 1;
    }
    fprintf(stderr, "%u workers, last seed %llu\n", ran, (unsigned long long)(next - 1));
    puts("the system lives");
    return 0;
}
