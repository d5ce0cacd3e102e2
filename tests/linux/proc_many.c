// variants: static-pie
/* More processes than an enclave keeps ready at once: they sleep, some are woken, all have what they had. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

enum { SLEEPERS = 1700, WOKEN = 100, SIZE = 24 << 10 };

extern char **environ;
static unsigned char pattern[SIZE];
static unsigned seed;
static int ready;

static unsigned char byte_at(int i) { return (unsigned char)(i * 31 + seed * 7 + i / 4096); }

static int is_intact(void) {
    for (int i = 0; i < SIZE; i++)
        if (pattern[i] != byte_at(i)) return 0;
    return 1;
}

static void on_signal(int number) {
    char byte = is_intact() && number == SIGUSR1;
    if (write(ready, &byte, 1) != 1) _exit(3);
}

/* Sleeps until the gate closes. */
static int sleeper(int gate) {
    char byte = 1;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < SIZE; i++) pattern[i] = byte_at(i);
    if (write(ready, &byte, 1) != 1 || read(gate, &byte, 1) != 0) return 2;
    return is_intact() ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc == 4) {
        seed = (unsigned)atoi(argv[1]);
        ready = atoi(argv[3]);
        return sleeper(atoi(argv[2]));
    }
    static pid_t pids[SLEEPERS];
    int gate[2], news[2];
    char byte;
    CHECK(pipe(gate) == 0 && pipe(news) == 0);
    CHECK(fcntl(gate[1], F_SETFD, FD_CLOEXEC) == 0);
    for (int i = 0; i < SLEEPERS; i++) {
        char number[16], in[16], out[16];
        snprintf(number, sizeof number, "%d", i);
        snprintf(in, sizeof in, "%d", gate[0]);
        snprintf(out, sizeof out, "%d", news[1]);
        char *args[] = {"sleeper", number, in, out, NULL};
        errno = posix_spawn(&pids[i], "/proc/self/exe", NULL, NULL, args, environ);
        CHECK(errno == 0);
    }
    for (int i = 0; i < SLEEPERS; i++) CHECK(read(news[0], &byte, 1) == 1 && byte == 1);
    for (int i = 0; i < WOKEN; i++) {
        int which = (i * 37) % SLEEPERS;
        CHECK(kill(pids[which], SIGUSR1) == 0);
        CHECK(read(news[0], &byte, 1) == 1 && byte == 1);
    }
    for (int i = 0; i < SLEEPERS; i++) CHECK(waitpid(pids[i], NULL, WNOHANG) == 0);
    close(gate[1]);
    for (int i = 0; i < SLEEPERS; i++) {
        int status;
        CHECK(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
    }
    puts("all slept and woke");
    return 0;
}
