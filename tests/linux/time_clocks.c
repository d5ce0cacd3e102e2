/* Clocks, sleeping, interval timers and POSIX timers. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static long long ns(clockid_t clock) {
    struct timespec now;
    CHECK(clock_gettime(clock, &now) == 0);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static volatile int expiries;

static void on_timer(int signal) {
    (void)signal;
    expiries++;
}

static void clocks(void) {
    struct timespec value;
    CHECK(clock_gettime(12345, &value) == -1 && errno == EINVAL);
    CHECK(clock_getres(CLOCK_MONOTONIC, &value) == 0 && value.tv_sec == 0 && value.tv_nsec == 1);
    clockid_t all[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_PROCESS_CPUTIME_ID,
                       CLOCK_THREAD_CPUTIME_ID};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        long long before = ns(all[i]);
        for (volatile int spin = 0; spin < 1000000; spin++) {
        }
        CHECK(ns(all[i]) > before);
    }
    long long cpu = ns(CLOCK_THREAD_CPUTIME_ID);
    usleep(30000);
    CHECK(ns(CLOCK_THREAD_CPUTIME_ID) - cpu < 20000000);
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    struct tms ticks;
    CHECK(times(&ticks) != (clock_t)-1);
    puts("clocks");
}

static void sleeping(void) {
    struct timespec ten_ms = {.tv_nsec = 10000000}, bad = {.tv_nsec = -1};
    long long start = ns(CLOCK_MONOTONIC);
    CHECK(nanosleep(&ten_ms, NULL) == 0 && ns(CLOCK_MONOTONIC) - start >= 10000000);
    CHECK(nanosleep(&bad, NULL) == -1 && errno == EINVAL);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    until.tv_nsec = 0;
    CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0);
    CHECK(ns(CLOCK_MONOTONIC) >= until.tv_sec * 1000000000LL);
    CHECK(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &ten_ms, NULL) == EINVAL);
    puts("sleeping");
}

static void intervals(void) {
    signal(SIGALRM, on_timer);
    struct itimerval every_10ms = {{0, 10000}, {0, 10000}}, left, off = {0};
    CHECK(setitimer(ITIMER_REAL, &every_10ms, NULL) == 0);
    while (expiries < 3) pause();
    CHECK(getitimer(ITIMER_REAL, &left) == 0 && left.it_interval.tv_usec == 10000);
    CHECK(setitimer(ITIMER_REAL, &off, &left) == 0 && (left.it_value.tv_usec || left.it_value.tv_sec));
    CHECK(alarm(100) == 0 && alarm(0) == 100);
    signal(SIGVTALRM, on_timer);
    expiries = 0;
    CHECK(setitimer(ITIMER_VIRTUAL, &every_10ms, NULL) == 0);
    while (expiries < 2) {
    }
    CHECK(setitimer(ITIMER_VIRTUAL, &off, NULL) == 0);
    puts("intervals");
}

static void posix_timers(void) {
    timer_t timer;
    sigset_t set;
    siginfo_t info;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 5};
    struct itimerspec setting = {{0, 5000000}, {0, 5000000}}, now;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &setting, NULL) == 0);
    CHECK(sigwaitinfo(&set, &info) == SIGRTMIN && info.si_code == SI_TIMER && info.si_value.sival_int == 5);
    usleep(30000);
    CHECK(sigwaitinfo(&set, &info) == SIGRTMIN && info.si_overrun >= 3);
    CHECK(timer_getoverrun(timer) == info.si_overrun);
    CHECK(timer_gettime(timer, &now) == 0 && now.it_interval.tv_nsec == 5000000);
    CHECK(timer_delete(timer) == 0);
    puts("posix timers");
}

int main(void) {
    clocks();
    sleeping();
    intervals();
    posix_timers();
    return 0;
}
