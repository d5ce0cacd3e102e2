// variants: glibc musl
/* Pipes beyond read and write: packets, sizes, tee and vmsplice, signals about them, exclusive watchers. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1u << 28)
#endif

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)
#define FAILS(call, number) CHECK((call) == -1 && errno == (number))

static char block[70000], got[70000];

static void packets(void) {
    int fds[2], unread;
    CHECK(pipe2(fds, O_DIRECT | O_NONBLOCK) == 0 && fcntl(fds[1], F_GETFL) & O_DIRECT);
    CHECK(write(fds[1], "first", 5) == 5 && write(fds[1], "second", 6) == 6);
    CHECK(ioctl(fds[0], FIONREAD, &unread) == 0 && unread == 11);
    CHECK(read(fds[0], got, 3) == 3 && !memcmp(got, "fir", 3));
    CHECK(read(fds[0], got, 100) == 6 && !memcmp(got, "second", 6));
    FAILS(read(fds[0], got, 1), EAGAIN);
    CHECK(write(fds[1], block, 6000) == 6000 && read(fds[0], got, 70000) == 4096 && read(fds[0], got, 70000) == 1904);
    CHECK(fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0 && !(fcntl(fds[1], F_GETFL) & O_DIRECT));
    CHECK(write(fds[1], "ab", 2) == 2 && write(fds[1], "cd", 2) == 2 && read(fds[0], got, 100) == 4);
    close(fds[0]), close(fds[1]);
    puts("packets");
}

static void sizes(void) {
    int fds[2];
    CHECK(pipe2(fds, O_NONBLOCK) == 0 && fcntl(fds[0], F_GETPIPE_SZ) == 65536);
    CHECK(fcntl(fds[0], F_SETPIPE_SZ, 5000) == 8192 && fcntl(fds[1], F_GETPIPE_SZ) == 8192);
    CHECK(write(fds[1], block, 70000) == 8192);
    FAILS(write(fds[1], block, 1), EAGAIN);
    FAILS(fcntl(fds[0], F_SETPIPE_SZ, 4096), EBUSY);
    CHECK(fcntl(fds[0], F_SETPIPE_SZ, 131072) == 131072 && write(fds[1], block, 70000) == 70000);
    FAILS(fcntl(0, F_GETPIPE_SZ + 1000), EINVAL);
    close(fds[0]), close(fds[1]);
    puts("sizes");
}

static void duplicates(void) {
    int one[2], two[2];
    CHECK(pipe(one) == 0 && pipe(two) == 0);
    struct iovec pieces[2] = {{"hello ", 6}, {"world", 5}};
    CHECK(vmsplice(one[1], pieces, 2, 0) == 11);
    CHECK(tee(one[0], two[1], 5, 0) == 5 && tee(one[0], two[1], 100, 0) == 11);
    CHECK(read(two[0], got, 100) == 16 && !memcmp(got, "hellohello world", 16));
    CHECK(read(one[0], got, 100) == 11 && !memcmp(got, "hello world", 11));
    FAILS(tee(one[0], two[1], 10, SPLICE_F_NONBLOCK), EAGAIN);
    FAILS(tee(one[0], one[1], 10, 0), EINVAL);
    FAILS(tee(0, one[1], 10, 16), EINVAL);
    FAILS(splice(one[0], NULL, one[1], NULL, 10, 0), EINVAL);
    int file = open("/proc/self/exe", O_RDONLY);
    FAILS(vmsplice(file, pieces, 1, 0), EBADF);
    FAILS(tee(file, one[1], 10, 0), EINVAL);
    CHECK(write(one[1], "back", 4) == 4);
    struct iovec into = {got, 100};
    CHECK(vmsplice(one[0], &into, 1, 0) == 4 && !memcmp(got, "back", 4));
    close(one[1]);
    CHECK(tee(one[0], two[1], 10, 0) == 0);
    puts("duplicates");
}

static volatile sig_atomic_t plain, with_data, from_fd;
static void on_io(int signal) { (void)signal, plain++; }
static void on_rt(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    with_data++;
    from_fd = info->si_code == POLL_IN && info->si_band == (POLLIN | POLLRDNORM) ? info->si_fd : -1;
}

static void signals(void) {
    int fds[2], pair[2];
    struct sigaction action = {.sa_sigaction = on_rt, .sa_flags = SA_SIGINFO};
    CHECK(pipe(fds) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    signal(SIGIO, on_io);
    sigaction(SIGRTMIN, &action, NULL);
    CHECK(fcntl(fds[0], F_GETOWN) == 0 && fcntl(fds[0], F_SETOWN, getpid()) == 0 && fcntl(fds[0], F_GETOWN) == getpid());
    CHECK(write(fds[1], "x", 1) == 1 && plain == 0);
    CHECK(fcntl(fds[0], F_SETFL, O_ASYNC) == 0 && fcntl(fds[0], F_GETFL) & O_ASYNC);
    CHECK(write(fds[1], "x", 1) == 1 && plain == 1);
    CHECK(fcntl(fds[0], F_SETSIG, SIGRTMIN) == 0 && fcntl(fds[0], F_GETSIG) == SIGRTMIN);
    CHECK(read(fds[0], got, 10) == 2 && write(fds[1], "x", 1) == 1);
    CHECK(plain == 1 && with_data == 1 && from_fd == fds[0]);
    CHECK(fcntl(fds[0], F_SETFL, 0) == 0 && write(fds[1], "x", 1) == 1 && with_data == 1);
    int on = 1;
    CHECK(fcntl(pair[0], F_SETOWN, -getpgrp()) == 0 && ioctl(pair[0], FIOASYNC, &on) == 0);
    CHECK(fcntl(pair[0], F_GETFL) & O_ASYNC && write(pair[1], "x", 1) == 1);
    CHECK(plain >= 2);
    FAILS(fcntl(fds[0], F_SETSIG, 65), EINVAL);
    FAILS(fcntl(fds[0], F_SETOWN, 4000000), ESRCH);
    puts("signals");
}

enum { WATCHERS = 4 };
static int shared[2];
static volatile int woken;

static void *watch(void *arg) {
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET | EPOLLEXCLUSIVE};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, shared[0], &event) == 0);
    FAILS(epoll_ctl(epoll, EPOLL_CTL_MOD, shared[0], &event), EINVAL);
    if (epoll_wait(epoll, &event, 1, 400) == 1) __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
    return arg;
}

static void exclusive(void) {
    pthread_t threads[WATCHERS];
    CHECK(pipe(shared) == 0);
    for (int i = 0; i < WATCHERS; i++) CHECK(pthread_create(&threads[i], NULL, watch, NULL) == 0);
    usleep(150000);
    CHECK(write(shared[1], "x", 1) == 1);
    for (int i = 0; i < WATCHERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(woken == 1);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT | EPOLLEXCLUSIVE};
    FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, shared[0], &event), EINVAL);
    puts("exclusive");
}

int main(void) {
    CHECK(getpgrp() == getpid() || setpgid(0, 0) == 0);
    packets();
    sizes();
    duplicates();
    signals();
    exclusive();
    return 0;
}
