/* membarrier from two threads at once, unshare of descriptors, limits, names. */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static long membarrier(int command) { return syscall(SYS_membarrier, command, 0, 0); }

static void *many(void *arg) {
    for (int i = 0; i < 200; i++) CHECK(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0);
    return arg;
}

static int opened;

static void *alone(void *arg) {
    CHECK(unshare(CLONE_FILES) == 0);
    CHECK(close(opened) == 0);
    return arg;
}

int main(void) {
    pthread_t thread;
    CHECK(membarrier(MEMBARRIER_CMD_QUERY) & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    CHECK(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == -1 && errno == EPERM);
    CHECK(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0);
    pthread_create(&thread, NULL, many, NULL);
    many(NULL);
    pthread_join(thread, NULL);
    puts("membarrier");

    opened = open("/", O_RDONLY);
    pthread_create(&thread, NULL, alone, NULL);
    pthread_join(thread, NULL);
    CHECK(fcntl(opened, F_GETFD) == 0);
    puts("unshare");

    struct rlimit limit, set = {64, 128};
    CHECK(setrlimit(RLIMIT_NOFILE, &set) == 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max == 128);
    CHECK(dup2(0, 100) == -1 && errno == EBADF);
    set.rlim_cur = 256;
    CHECK(setrlimit(RLIMIT_NOFILE, &set) == -1 && errno == EINVAL);
    CHECK(getrlimit(99, &limit) == -1 && errno == EINVAL);
    puts("limits");

    char name[17] = {0};
    CHECK(prctl(PR_SET_NAME, "a name that is too long") == 0 && prctl(PR_GET_NAME, name) == 0);
    CHECK(!strcmp(name, "a name that is "));
    struct utsname system;
    CHECK(uname(&system) == 0 && !strcmp(system.sysname, "Linux") && !strcmp(system.machine, "x86_64"));
    CHECK(sched_getscheduler(0) == SCHED_OTHER && sched_get_priority_max(SCHED_FIFO) == 99);
    puts("names");
    return 0;
}
