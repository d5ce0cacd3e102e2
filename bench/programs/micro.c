/* Small operations, each timed in batches; prints `name nanoseconds` (best batch of several). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void bench_getppid(long n) {
    while (n--) syscall(SYS_getppid);
}

static void bench_clock_gettime(long n) {
    struct timespec t;
    while (n--) clock_gettime(CLOCK_MONOTONIC, &t);
}

static void *nothing(void *arg) { return arg; }

static void bench_pthread(long n) {
    while (n--) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, nothing, NULL)) die("pthread_create");
        pthread_join(thread, NULL);
    }
}

static void bench_read_zero(long n) {
    char byte;
    int fd = open("/dev/zero", O_RDONLY);
    if (fd < 0) die("/dev/zero");
    while (n--) if (read(fd, &byte, 1) != 1) die("read");
    close(fd);
}

static void bench_stat(long n) {
    struct { char room[512]; } st;
    while (n--) if (syscall(SYS_stat, "/usr/bin", &st)) die("stat");
}

static void bench_pipe_self(long n) {
    int p[2];
    char byte = 0;
    if (pipe(p)) die("pipe");
    while (n--) if (write(p[1], &byte, 1) != 1 || read(p[0], &byte, 1) != 1) die("pipe io");
    close(p[0]);
    close(p[1]);
}

static volatile sig_atomic_t caught;
static void on_signal(int sig) { caught = sig; }

static void bench_signal_self(long n) {
    signal(SIGUSR1, on_signal);
    while (n--) raise(SIGUSR1);
}

static int ping[2], pong[2];

static void *echo(void *arg) {
    long n = (long)arg;
    char byte;
    while (n--) if (read(ping[0], &byte, 1) != 1 || write(pong[1], &byte, 1) != 1) die("echo");
    return NULL;
}

static void bench_pipe_pingpong(long n) {
    pthread_t thread;
    char byte = 0;
    if (pipe(ping) || pipe(pong)) die("pipe");
    if (pthread_create(&thread, NULL, echo, (void *)n)) die("pthread_create");
    for (long i = 0; i < n; i++)
        if (write(ping[1], &byte, 1) != 1 || read(pong[0], &byte, 1) != 1) die("pingpong");
    pthread_join(thread, NULL);
    close(ping[0]); close(ping[1]); close(pong[0]); close(pong[1]);
}

static int futex_word;

static void futex_turn(int mine, int other) {
    while (__atomic_load_n(&futex_word, __ATOMIC_ACQUIRE) != mine)
        syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, other, NULL, NULL, 0);
    __atomic_store_n(&futex_word, other, __ATOMIC_RELEASE);
    syscall(SYS_futex, &futex_word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *futex_echo(void *arg) {
    for (long n = (long)arg; n--;) futex_turn(1, 0);
    return NULL;
}

static void bench_futex_pingpong(long n) {
    pthread_t thread;
    futex_word = 0;
    if (pthread_create(&thread, NULL, futex_echo, (void *)n)) die("pthread_create");
    for (long i = 0; i < n; i++) futex_turn(0, 1);
    pthread_join(thread, NULL);
}

static void *yielder(void *arg) {
    for (long n = (long)arg; n--;) sched_yield();
    return NULL;
}

static void bench_sched_yield(long n) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(0, sizeof one, &one);
    pthread_t thread;
    if (pthread_create(&thread, NULL, yielder, (void *)n)) die("pthread_create");
    yielder((void *)n);
    pthread_join(thread, NULL);
    CPU_SET(1, &one);
    sched_setaffinity(0, sizeof one, &one);
}

static const char *spawn_target = "/bin/true";

static void bench_spawn(long n) {
    char *argv[] = {(char *)spawn_target, NULL};
    while (n--) {
        pid_t pid;
        int status;
        if (posix_spawn(&pid, spawn_target, NULL, NULL, argv, environ)) die("posix_spawn");
        if (waitpid(pid, &status, 0) != pid || status) die("waitpid");
    }
}

struct bench {
    const char *name;
    void (*run)(long);
    long count;
};

static const struct bench benches[] = {
    {"getppid", bench_getppid, 300000},
    {"clock_gettime", bench_clock_gettime, 1000000},
    {"read 1 byte /dev/zero", bench_read_zero, 100000},
    {"stat /usr/bin", bench_stat, 50000},
    {"pipe write+read, one thread", bench_pipe_self, 50000},
    {"signal to self", bench_signal_self, 30000},
    {"pthread create+join", bench_pthread, 2000},
    {"pipe ping-pong, two threads", bench_pipe_pingpong, 10000},
    {"futex ping-pong", bench_futex_pingpong, 10000},
    {"sched_yield pair", bench_sched_yield, 50000},
    {"posix_spawn+wait", bench_spawn, 50},
};

/* usage: micro [name-prefix] [spawn-target] */
int main(int argc, char **argv) {
    const char *only = argc > 1 ? argv[1] : "";
    if (argc > 2) spawn_target = argv[2];
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        const struct bench *b = &benches[i];
        if (strncmp(b->name, only, strlen(only))) continue;
        double best = 1e18;
        for (int round = 0; round < 5; round++) {
            double start = now_ns();
            b->run(b->count);
            double took = (now_ns() - start) / b->count;
            if (took < best) best = took;
        }
        printf("%s\t%.1f\n", b->name, best);
        fflush(stdout);
    }
    return 0;
}
