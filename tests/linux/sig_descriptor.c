/* signalfd: reading, polling, sets that change, records of queued signals. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

int main(void) {
    sigset_t set;
    struct signalfd_siginfo info[4];
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(read(fd, info, sizeof info) == -1 && errno == EAGAIN);
    CHECK(read(fd, info, 5) == -1 && errno == EINVAL);
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    CHECK(poll(&polled, 1, 0) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK(poll(&polled, 1, 1000) == 1 && polled.revents == POLLIN);
    CHECK(read(fd, info, sizeof info) == sizeof info[0]);
    CHECK(info[0].ssi_signo == SIGUSR1 && info[0].ssi_code == SI_USER && (pid_t)info[0].ssi_pid == getpid());

    sigaddset(&set, SIGRTMIN + 1);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(signalfd(fd, &set, 0) == fd);
    for (int i = 1; i <= 3; i++) CHECK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}) == 0);
    CHECK(read(fd, info, sizeof info) == 3 * sizeof info[0]);
    CHECK(info[0].ssi_int == 1 && info[2].ssi_int == 3 && info[1].ssi_code == SI_QUEUE);

    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 7};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
    CHECK(raise(SIGUSR1) == 0);
    CHECK(epoll_wait(epoll, &event, 1, 1000) == 1 && event.data.u32 == 7);
    CHECK(signalfd(epoll, &set, 0) == -1 && errno == EINVAL);
    puts("signalfd");
    return 0;
}
