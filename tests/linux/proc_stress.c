// variants: glibc static-pie
/* Children that are killed, stopped, continued and signalled at random; all of them are reaped, and
 * nothing is left over. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

enum { CHILDREN = 24, MILLISECONDS = 1500 };

extern char **environ;
static char self[4096];
static unsigned seed = 12345;

static unsigned any(unsigned end) {
    seed = seed * 1103515245 + 12345;
    return (seed >> 16) % end;
}

static void on_signal(int signal) { (void)signal; }

static void *busy(void *arg) {
    for (volatile long i = 0;; i++)
        if (i % 100000 == 0) usleep(100);
    return arg;
}

_Noreturn static void child(void) {
    pthread_t thread;
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, on_signal);
    pthread_create(&thread, NULL, busy, NULL);
    for (;;) {
        int status;
        pid_t pid;
        char *args[] = {"leaf", NULL};
        if (posix_spawn(&pid, self, NULL, NULL, args, environ)) usleep(1000);
        else
            while (waitpid(pid, &status, 0) == -1 && errno == EINTR) {
            }
    }
}

static pid_t start(void) {
    pid_t pid;
    char *args[] = {"child", NULL};
    CHECK(posix_spawn(&pid, self, NULL, NULL, args, environ) == 0);
    return pid;
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int count, char **args) {
    static const int signals[] = {SIGUSR1, SIGUSR2, SIGSTOP, SIGCONT, SIGCONT, SIGKILL, SIGTERM, SIGUSR1};
    pid_t children[CHILDREN];
    int status;
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(size > 0);
    if (!strcmp(args[0], "child")) child();
    if (!strcmp(args[0], "leaf")) return count - 1;
    for (int i = 0; i < CHILDREN; i++) children[i] = start();
    for (long end = now_ms() + MILLISECONDS; now_ms() < end;) {
        int victim = any(CHILDREN);
        CHECK(kill(children[victim], signals[any(8)]) == 0);
        if (waitpid(children[victim], &status, WNOHANG) == children[victim]) {
            CHECK(WIFSIGNALED(status));
            children[victim] = start();
        }
        if (any(16) == 0) usleep(500);
    }
    for (int i = 0; i < CHILDREN; i++) CHECK(kill(children[i], SIGKILL) == 0);
    for (int i = 0; i < CHILDREN; i++) CHECK(waitpid(children[i], &status, 0) == children[i]);
    CHECK(wait(&status) == -1 && errno == ECHILD);
    puts("all reaped");
    return 0;
}
