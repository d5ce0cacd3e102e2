/* fork(2) in its common uses; prints `name <tab> nanoseconds` (best batch of several). */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, DIRTY = 16, TOUCHED = 128 << 20 };

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void fork_one(int is_executing) {
    int status;
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        if (is_executing) execl("/bin/true", "true", (char *)0);
        _exit(is_executing ? 127 : 0);
    }
    if (waitpid(pid, &status, 0) != pid || status) die("waitpid");
}

static void fork_exit(long n) {
    while (n--) fork_one(0);
}

static void fork_exec(long n) {
    while (n--) fork_one(1);
}

static char *touched;

/* Forks a process with much memory, of which the parent changes a little each time. */
static void fork_large(long n) {
    if (!touched) {
        touched = mmap(0, TOUCHED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (touched == MAP_FAILED) die("mmap");
        memset(touched, 1, TOUCHED);
    }
    while (n--) {
        fork_one(0);
        for (int i = 0; i < DIRTY; i++) touched[i * (TOUCHED / DIRTY)]++;
    }
}

static char pages[DIRTY * PAGE] __attribute__((aligned(4096)));

static void dirty_all(void) {
    for (int i = 0; i < DIRTY; i++) pages[i * PAGE]++;
}

/* Parent and child wake each other; both write the same 16 pages each time. One operation is one turn. */
static void take_turns(long n) {
    int to[2], from[2], status;
    char byte = 0;
    if (pipe(to) || pipe(from)) die("pipe");
    pid_t pid = fork();
    if (pid < 0) die("fork");
    for (long i = 0; i < n / 2; i++) {
        dirty_all();
        if (pid ? write(to[1], &byte, 1) != 1 || read(from[0], &byte, 1) != 1
                : read(to[0], &byte, 1) != 1 || write(from[1], &byte, 1) != 1)
            die("pipe io");
    }
    if (pid == 0) _exit(0);
    if (waitpid(pid, &status, 0) != pid || status) die("waitpid");
    close(to[0]); close(to[1]); close(from[0]); close(from[1]);
}

static const struct {
    const char *name;
    void (*run)(long);
    long count;
} benches[] = {
    {"fork+exit+wait", fork_exit, 200},
    {"fork+exec+wait", fork_exec, 30},
    {"turn of two, 16 pages each", take_turns, 2000},
    {"fork, 128 MB touched", fork_large, 5},
};

/* usage: fork [name-prefix] */
int main(int argc, char **argv) {
    const char *only = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        if (strncmp(benches[i].name, only, strlen(only))) continue;
        double best = 1e18;
        for (int round = 0; round < 5; round++) {
            double start = now_ns();
            benches[i].run(benches[i].count);
            double took = (now_ns() - start) / benches[i].count;
            if (took < best) best = took;
        }
        printf("%s\t%.1f\n", benches[i].name, best);
        fflush(stdout);
    }
    return 0;
}
