/* Many processes, and pairs of them. Prints `name<TAB>figure` lines.
 *   processes pingpong          1 byte to another process and back through two pipes, ns
 *   processes throughput        MiB/s to another process: pipe and unix socket, 4 KiB and 64 KiB at a time
 *   processes sleepers N        N processes that sleep at once: us to start one, us to end one
 *   processes flat N PROGRAM    N times posix_spawn+wait: ns for one, and how kernel memory grew
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char self[4096];

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static pid_t start(const char *program, char *const argv[]) {
    pid_t pid;
    errno = posix_spawn(&pid, program, NULL, NULL, argv, environ);
    if (errno) die("posix_spawn");
    return pid;
}

static void reap(pid_t pid) {
    int status;
    if (waitpid(pid, &status, 0) != pid || status) die("waitpid");
}

/* A child of this program: `mode`, and two descriptors it inherits. */
static pid_t start_self(const char *mode, int in, int out, size_t size) {
    char a[16], b[16], c[16];
    snprintf(a, sizeof a, "%d", in);
    snprintf(b, sizeof b, "%d", out);
    snprintf(c, sizeof c, "%zu", size);
    char *argv[] = {self, (char *)mode, a, b, c, NULL};
    return start(self, argv);
}

static void echo(int in, int out) {
    char byte;
    while (read(in, &byte, 1) == 1)
        if (write(out, &byte, 1) != 1) die("echo");
}

static void pingpong(void) {
    int ping[2], pong[2];
    char byte = 0;
    double best = 1e18;
    if (pipe(ping) || pipe2(pong, 0)) die("pipe");
    /* The child must not hold the end that tells it to stop. */
    int keep = fcntl(ping[1], F_DUPFD_CLOEXEC, 0);
    close(ping[1]);
    pid_t pid = start_self("echo", ping[0], pong[1], 0);
    for (int round = 0; round < 10; round++) {
        double begin = now_ns();
        for (int i = 0; i < 5000; i++)
            if (write(keep, &byte, 1) != 1 || read(pong[0], &byte, 1) != 1) die("pingpong");
        double took = (now_ns() - begin) / 5000;
        if (took < best) best = took;
    }
    close(keep);
    reap(pid);
    printf("pipe ping-pong, two processes\t%.1f\n", best);
}

enum { TOTAL = 256 << 20 };
static char buffer[64 << 10];

static void drain(int in, size_t size) {
    ssize_t got;
    while ((got = read(in, buffer, size)) > 0) {
    }
    if (got < 0) die("drain");
}

static void stream(const char *name, int in, int out, size_t size) {
    /* The child must not hold the writing end. */
    int keep = fcntl(out, F_DUPFD_CLOEXEC, 0);
    close(out);
    pid_t pid = start_self("drain", in, -1, size);
    close(in);
    double best = 1e18;
    for (int round = 0; round < 4; round++) {
        double begin = now_ns();
        for (size_t done = 0; done < TOTAL / 4; done += size)
            for (size_t part = 0; part < size;) {
                ssize_t put = write(keep, buffer + part, size - part);
                if (put <= 0) die("stream");
                part += put;
            }
        double took = now_ns() - begin;
        if (took < best) best = took;
    }
    close(keep);
    reap(pid);
    printf("%s, %zu KiB\t%.1f\n", name, size >> 10, (double)(TOTAL / 4) / (1 << 20) / (best / 1e9));
}

static void throughput(void) {
    for (size_t size = 4 << 10; size <= 64 << 10; size <<= 4) {
        int ends[2];
        if (pipe(ends)) die("pipe");
        stream("pipe throughput", ends[0], ends[1], size);
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) die("socketpair");
        stream("unix socket throughput", ends[0], ends[1], size);
    }
}

static void sleepers(int count) {
    int gate[2], ready[2];
    char byte;
    pid_t *pids = calloc(count, sizeof *pids);
    if (!pids || pipe(gate) || pipe(ready)) die("sleepers");
    int keep = fcntl(gate[1], F_DUPFD_CLOEXEC, 0);
    close(gate[1]);
    double begin = now_ns();
    for (int i = 0; i < count; i++) pids[i] = start_self("sleep", gate[0], ready[1], 0);
    for (int i = 0; i < count; i++)
        if (read(ready[0], &byte, 1) != 1) die("ready");
    double alive = now_ns();
    for (int i = 0; i < count; i++)
        if (waitpid(pids[i], NULL, WNOHANG) != 0) die("not alive");
    close(keep);
    double ending = now_ns();
    for (int i = 0; i < count; i++) reap(pids[i]);
    double end = now_ns();
    printf("%d sleepers, start of one\t%.1f\n", count, (alive - begin) / count / 1e3);
    printf("%d sleepers, end of one\t%.1f\n", count, (end - ending) / count / 1e3);
}

static void wait_for_end(int gate, int ready) {
    char byte = 0;
    if (write(ready, &byte, 1) != 1 || read(gate, &byte, 1) != 0) die("sleep");
}

/* A line of /proc/meminfo, in KiB; 0 if there is none. */
static long meminfo(const char *key) {
    char line[256];
    long value = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key))) value = atol(line + strlen(key) + 1);
    if (file) fclose(file);
    return value;
}

static void flat(long count, char *const argv[]) {
    for (int i = 0; i < 100; i++) reap(start(argv[0], argv));
    long free_before = meminfo("MemAvailable"), slab_before = meminfo("Slab");
    double begin = now_ns();
    for (long i = 0; i < count; i++) reap(start(argv[0], argv));
    double took = (now_ns() - begin) / count;
    printf("%ld spawns, one\t%.1f\n", count, took);
    printf("%ld spawns, memory lost\t%ld\n", count, free_before - meminfo("MemAvailable"));
    printf("%ld spawns, kernel memory lost\t%ld\n", count, meminfo("Slab") - slab_before);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len < 0) die("readlink");
    const char *mode = argv[1];
    if (argc > 4 && !strcmp(mode, "echo")) echo(atoi(argv[2]), atoi(argv[3]));
    else if (argc > 4 && !strcmp(mode, "drain")) drain(atoi(argv[2]), atol(argv[4]));
    else if (argc > 4 && !strcmp(mode, "sleep")) wait_for_end(atoi(argv[2]), atoi(argv[3]));
    else if (!strcmp(mode, "pingpong")) pingpong();
    else if (!strcmp(mode, "throughput")) throughput();
    else if (argc > 2 && !strcmp(mode, "sleepers")) sleepers(atoi(argv[2]));
    else if (argc > 3 && !strcmp(mode, "flat")) flat(atol(argv[2]), argv + 3);
    else return 2;
    return 0;
}
