/* Clocks: the vDSO and the system call agree, never go back, and EFAULT is the system call's. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ns(struct timespec t) {
    return t.tv_sec * 1000000000l + t.tv_nsec;
}

static void agree(int clock, const char *name) {
    struct timespec before, between, after;
    syscall(SYS_clock_gettime, clock, &before);
    clock_gettime(clock, &between);
    syscall(SYS_clock_gettime, clock, &after);
    /* The coarse clocks tick in steps. */
    long slack = 20000000;
    printf("%s: %d\n", name, ns(before) - slack <= ns(between) && ns(between) <= ns(after) + slack);
}

int main(void) {
    printf("vdso: %d\n", getauxval(AT_SYSINFO_EHDR) != 0);
    agree(CLOCK_REALTIME, "realtime");
    agree(CLOCK_MONOTONIC, "monotonic");
    agree(CLOCK_MONOTONIC_RAW, "raw");
    agree(CLOCK_BOOTTIME, "boottime");
    agree(CLOCK_REALTIME_COARSE, "coarse realtime");
    agree(CLOCK_MONOTONIC_COARSE, "coarse monotonic");
    struct timespec last = {0}, now;
    int back = 0;
    for (int i = 0; i < 1000000; i++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        back += ns(now) < ns(last);
        last = now;
    }
    printf("went back: %d\n", back);
    struct timeval tv;
    gettimeofday(&tv, NULL);
    time_t t = time(NULL);
    printf("seconds agree: %d\n", t - tv.tv_sec <= 1 && t >= tv.tv_sec);
    int result = clock_gettime(12345, &now);
    printf("bad clock: %d %d\n", result, errno == EINVAL);
    result = (int)syscall(SYS_clock_gettime, CLOCK_MONOTONIC, (void *)8);
    printf("bad pointer: %d %d\n", result, errno == EFAULT);
    unsigned cpu = 99, node = 99;
    result = getcpu(&cpu, &node);
    printf("getcpu: %d %d %d\n", result, cpu < 64, node == 0);
    return 0;
}
