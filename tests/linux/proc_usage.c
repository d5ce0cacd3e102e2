// variants: glibc static
/* What was used: user and system time, faults, switches; of oneself, of threads, of children. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static long ms(struct timeval time) { return time.tv_sec * 1000 + time.tv_usec / 1000; }

static struct rusage used(int who) {
    struct rusage usage;
    CHECK(getrusage(who, &usage) == 0);
    return usage;
}

/* Uses so much processor time, in calls or in between. */
static void work(int in_calls) {
    long begin = ms(used(RUSAGE_SELF).ru_utime) + ms(used(RUSAGE_SELF).ru_stime);
    for (volatile long round = 0;; round++) {
        if (in_calls) syscall(SYS_getppid);
        if (round % 20000) continue;
        struct rusage now = used(RUSAGE_SELF);
        if (ms(now.ru_utime) + ms(now.ru_stime) > begin + 150) return;
    }
}

int main(void) {
    struct rusage before = used(RUSAGE_SELF), after;
    struct tms times_now;
    work(0);
    after = used(RUSAGE_SELF);
    CHECK(ms(after.ru_utime) - ms(before.ru_utime) > 80);
    before = after;
    work(1);
    after = used(RUSAGE_SELF);
    CHECK(ms(after.ru_stime) > ms(before.ru_stime) && ms(after.ru_utime) >= ms(before.ru_utime));
    CHECK(used(RUSAGE_THREAD).ru_utime.tv_sec * 1000 + ms(used(RUSAGE_THREAD).ru_stime) > 0);
    CHECK(times(&times_now) != -1 && times_now.tms_utime + times_now.tms_stime >= 20);
    before = used(RUSAGE_SELF);
    char *pages = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 1 << 20; i += 4096) pages[i] = 1;
    for (int i = 0; i < 5; i++) usleep(1000);
    after = used(RUSAGE_SELF);
    CHECK(after.ru_minflt > before.ru_minflt && after.ru_nvcsw >= before.ru_nvcsw + 5 && after.ru_maxrss > 0);
    pid_t pid = fork();
    if (pid == 0) {
        work(1);
        _exit(0);
    }
    CHECK(wait4(pid, NULL, 0, &before) == pid && ms(before.ru_utime) + ms(before.ru_stime) >= 100);
    after = used(RUSAGE_CHILDREN);
    CHECK(ms(after.ru_utime) + ms(after.ru_stime) >= 100);
    CHECK(times(&times_now) != -1 && times_now.tms_cutime + times_now.tms_cstime >= 10);
    struct rusage none;
    CHECK(getrusage(99, &none) == -1 && errno == EINVAL);
    puts("used");
    return 0;
}
