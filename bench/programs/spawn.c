/* Starting programs: `spawn COUNT PROGRAM [ARGUMENT ...]` prints the best time of one posix_spawn+wait of
 * PROGRAM, in nanoseconds, over five batches of COUNT. Standard output and error of PROGRAM go to /dev/null. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
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

static void spawn(const posix_spawn_file_actions_t *actions, char **argv) {
    pid_t pid;
    int status;
    if (posix_spawn(&pid, argv[0], actions, NULL, argv, environ)) die("posix_spawn");
    if (waitpid(pid, &status, 0) != pid || status) die("waitpid");
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    long count = atol(argv[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    double best = 1e18;
    for (int round = 0; round < 5; round++) {
        double start = now_ns();
        for (long i = 0; i < count; i++) spawn(&actions, argv + 2);
        double took = (now_ns() - start) / count;
        if (took < best) best = took;
    }
    printf("spawn\t%.1f\n", best);
    return 0;
}
