/* Files to wait for: pipes, eventfd, timerfd, Unix sockets, by read, poll, select and epoll. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SHOW(call) \
    do { \
        errno = 0; \
        long result = (long)(call); \
        if (result < 0) \
            printf("%s = %s\n", #call, strerrorname_np(errno)); \
        else \
            printf("%s = %ld\n", #call, result); \
    } while (0)

static short ready(int fd, short events) {
    struct pollfd poller = {fd, events, 0};
    int count = poll(&poller, 1, 0);
    printf("poll %x: %d %x\n", events, count, poller.revents);
    return poller.revents;
}

static void pipes(void) {
    int fds[2];
    char buf[8192];
    memset(buf, 'p', sizeof buf);
    SHOW(pipe2(fds, O_NONBLOCK | O_CLOEXEC));
    SHOW(pipe2(fds + 0, 0x7));
    SHOW(fcntl(fds[0], F_GETFL));
    SHOW(fcntl(fds[1], F_GETFD));
    SHOW(read(fds[0], buf, 1));
    ready(fds[0], POLLIN);
    ready(fds[1], POLLOUT);
    SHOW(write(fds[1], "abc", 3));
    int left;
    ioctl(fds[0], FIONREAD, &left);
    printf("FIONREAD %d\n", left);
    ready(fds[0], POLLIN | POLLRDNORM);
    SHOW(read(fds[0], buf, 2));
    SHOW(read(fds[0], buf, 2));
    SHOW(write(fds[0], "x", 1));
    SHOW(read(fds[1], buf, 1));
    SHOW(lseek(fds[0], 0, SEEK_SET));
    SHOW(pread(fds[0], buf, 1, 0));
    SHOW(fcntl(fds[0], F_GETPIPE_SZ));
    long total = 0, got;
    while ((got = write(fds[1], buf, sizeof buf)) > 0) total += got;
    printf("filled with %ld, then %s\n", total, strerrorname_np(errno));
    ready(fds[1], POLLOUT);
    SHOW(write(fds[1], buf, 1));
    SHOW(read(fds[0], buf, 4096));
    SHOW(write(fds[1], buf, 4096));
    SHOW(read(fds[0], buf, 100));
    SHOW(write(fds[1], buf, 4096));
    SHOW(fcntl(fds[0], F_SETPIPE_SZ, 4096));
    SHOW(fcntl(fds[0], F_SETPIPE_SZ, 100000));
    ready(fds[1], POLLOUT);
    close(fds[1]);
    ready(fds[0], POLLIN);
    while ((got = read(fds[0], buf, sizeof buf)) > 0) total -= got;
    SHOW(read(fds[0], buf, 1));
    ready(fds[0], POLLIN);
    SHOW(pipe(fds));
    close(fds[0]);
    signal(SIGPIPE, SIG_IGN);
    SHOW(write(fds[1], "x", 1));
    ready(fds[1], POLLOUT);
    SHOW(write(fds[1], "", 0));
}

static int echo_in[2], echo_out[2];

static void *echo(void *unused) {
    char buf[50000];
    ssize_t got;
    while ((got = read(echo_in[0], buf, sizeof buf)) > 0)
        if (write(echo_out[1], buf, got) != got) return "short write";
    close(echo_out[1]);
    return unused;
}

static void *feed(void *unused) {
    static char block[30001];
    for (int i = 0; i < 100; i++) {
        memset(block, i, sizeof block);
        if (write(echo_in[1], block, sizeof block) != sizeof block) return "short write";
    }
    close(echo_in[1]);
    return unused;
}

static void through_threads(void) {
    pthread_t threads[2];
    SHOW(pipe(echo_in));
    SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, echo_out));
    pthread_create(&threads[0], NULL, echo, NULL);
    pthread_create(&threads[1], NULL, feed, NULL);
    long total = 0, wrong = 0;
    char buf[7777];
    ssize_t got;
    while ((got = read(echo_out[0], buf, sizeof buf)) > 0) {
        for (ssize_t i = 0; i < got; i++) wrong += buf[i] != (char)((total + i) / 30001);
        total += got;
    }
    printf("through two threads: %ld bytes, %ld wrong\n", total, wrong);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
}

static void counters(void) {
    int fd = eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
    uint64_t value = 0;
    SHOW(read(fd, &value, 8));
    SHOW(value);
    SHOW(read(fd, &value, 8));
    SHOW(read(fd, &value, 7));
    ready(fd, POLLIN | POLLOUT);
    value = UINT64_MAX - 1;
    SHOW(write(fd, &value, 8));
    ready(fd, POLLIN | POLLOUT);
    value = 1;
    SHOW(write(fd, &value, 8));
    value = UINT64_MAX;
    SHOW(write(fd, &value, 8));
    SHOW(write(fd, &value, 3));
    int semaphore = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    SHOW(read(semaphore, &value, 8));
    SHOW(value);
    SHOW(read(semaphore, &value, 8));
    SHOW(read(semaphore, &value, 8));
    SHOW(eventfd(0, 0x10));
}

static void timers(void) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    uint64_t count = 0;
    struct itimerspec setting = {{0, 2000000}, {0, 1000000}}, old;
    SHOW(read(fd, &count, 8));
    SHOW(timerfd_settime(fd, 0, &setting, NULL));
    struct pollfd poller = {fd, POLLIN, 0};
    SHOW(poll(&poller, 1, 5000));
    SHOW(read(fd, &count, 8));
    printf("expired %s\n", count >= 1 ? "yes" : "no");
    usleep(9000);
    SHOW(read(fd, &count, 8));
    printf("several %s\n", count >= 3 ? "yes" : "no");
    memset(&setting, 0, sizeof setting);
    SHOW(timerfd_settime(fd, 0, &setting, &old));
    printf("interval %ld\n", old.it_interval.tv_nsec);
    SHOW(timerfd_gettime(fd, &old));
    printf("disarmed %ld\n", old.it_value.tv_nsec);
    setting.it_value.tv_nsec = 1000000000;
    SHOW(timerfd_settime(fd, 0, &setting, NULL));
    SHOW(timerfd_create(77, 0));
    SHOW(timerfd_settime(0, 0, &old, NULL));
}

static void sockets(void) {
    int fds[2];
    char buf[32];
    SHOW(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    SHOW(socketpair(AF_UNIX, 99, 0, fds));
    SHOW(read(fds[0], buf, 1));
    ready(fds[0], POLLIN | POLLOUT | POLLRDHUP);
    SHOW(send(fds[0], "hello", 5, 0));
    SHOW(recv(fds[1], buf, 3, 0));
    SHOW(recv(fds[1], buf, 32, MSG_DONTWAIT));
    SHOW(shutdown(fds[0], SHUT_WR));
    SHOW(send(fds[0], "x", 1, MSG_NOSIGNAL));
    ready(fds[1], POLLIN | POLLOUT | POLLRDHUP);
    SHOW(recv(fds[1], buf, 1, 0));
    SHOW(send(fds[1], "back", 4, 0));
    SHOW(recv(fds[0], buf, 32, 0));
    close(fds[1]);
    ready(fds[0], POLLIN | POLLOUT | POLLRDHUP);
    SHOW(recv(fds[0], buf, 1, 0));
    SHOW(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds));
    SHOW(send(fds[0], "one", 3, 0));
    SHOW(send(fds[0], "second", 6, 0));
    SHOW(recv(fds[1], buf, 32, 0));
    SHOW(recv(fds[1], buf, 2, MSG_TRUNC));
    SHOW(recv(fds[1], buf, 32, 0));
    int type = 0;
    socklen_t size = sizeof type;
    SHOW(getsockopt(fds[0], SOL_SOCKET, SO_TYPE, &type, &size));
    SHOW(type);
    SHOW(recv(0, buf, 1, 0));
    SHOW(lseek(fds[0], 0, SEEK_CUR));
    struct sockaddr_un addr = {AF_UNIX, "fs_wait.sock"};
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW(connect(client, (struct sockaddr *)&addr, sizeof addr));
    SHOW(listen(server, 5));
    SHOW(bind(server, (struct sockaddr *)&addr, sizeof addr));
    SHOW(bind(client, (struct sockaddr *)&addr, sizeof addr));
    SHOW(connect(client, (struct sockaddr *)&addr, sizeof addr));
    SHOW(listen(server, 5));
    SHOW(connect(client, (struct sockaddr *)&addr, sizeof addr));
    ready(server, POLLIN);
    int accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    SHOW(write(client, "named", 5));
    SHOW(read(accepted, buf, 32));
    SHOW(accept(client, NULL, NULL));
    SHOW(read(socket(AF_UNIX, SOCK_STREAM, 0), buf, 1));
    SHOW(unlink("fs_wait.sock"));
    SHOW(socket(AF_UNIX, SOCK_STREAM, 99));
    SHOW(socket(12345, SOCK_STREAM, 0));
}

static void epolls(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC), fds[2], file = open("fs_wait.file", O_RDWR | O_CREAT, 0600);
    pipe2(fds, O_NONBLOCK);
    struct epoll_event event = {EPOLLIN, {.u64 = 7}}, out[4];
    char byte;
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, epoll, &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[0], NULL));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, 99, &event));
    SHOW(epoll_ctl(file, EPOLL_CTL_ADD, fds[0], &event));
    SHOW(epoll_wait(epoll, out, 4, 0));
    SHOW(epoll_wait(epoll, out, 0, 0));
    write(fds[1], "ab", 2);
    SHOW(epoll_wait(epoll, out, 4, -1));
    printf("data %lu events %x\n", (unsigned long)out[0].data.u64, out[0].events);
    SHOW(epoll_wait(epoll, out, 4, 0));
    event.events = EPOLLIN | EPOLLET;
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
    SHOW(epoll_wait(epoll, out, 4, 0));
    SHOW(epoll_wait(epoll, out, 4, 0));
    write(fds[1], "c", 1);
    SHOW(epoll_wait(epoll, out, 4, 0));
    event.events = EPOLLIN | EPOLLONESHOT;
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
    SHOW(epoll_wait(epoll, out, 4, 0));
    write(fds[1], "d", 1);
    SHOW(epoll_wait(epoll, out, 4, 0));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
    SHOW(epoll_wait(epoll, out, 4, 0));
    while (read(fds[0], &byte, 1) == 1) continue;
    event.events = EPOLLOUT;
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[1], &event));
    SHOW(epoll_wait(epoll, out, 4, 0));
    int outer = epoll_create1(0);
    event.events = EPOLLIN;
    SHOW(epoll_ctl(outer, EPOLL_CTL_ADD, epoll, &event));
    SHOW(epoll_wait(outer, out, 4, 0));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, outer, &event));
    close(fds[1]);
    SHOW(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[0], NULL));
    SHOW(epoll_wait(epoll, out, 4, 0));
    unlink("fs_wait.file");
}

static void selects(void) {
    int fds[2];
    pipe(fds);
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fds[0], &in);
    FD_SET(fds[1], &out);
    struct timeval timeout = {0, 0};
    SHOW(select(fds[1] + 1, &in, &out, NULL, &timeout));
    printf("%d %d\n", FD_ISSET(fds[0], &in) != 0, FD_ISSET(fds[1], &out) != 0);
    write(fds[1], "x", 1);
    FD_SET(fds[0], &in);
    SHOW(select(fds[0] + 1, &in, NULL, NULL, NULL));
    FD_SET(50, &in);
    SHOW(select(51, &in, NULL, NULL, &timeout));
    SHOW(select(-1, NULL, NULL, NULL, &timeout));
    timeout.tv_usec = 3000;
    SHOW(select(0, NULL, NULL, NULL, &timeout));
    struct pollfd pollers[3] = {{-1, POLLIN, 5}, {99, POLLIN, 0}, {fds[0], 0, 0}};
    SHOW(poll(pollers, 3, 0));
    printf("%x %x %x\n", pollers[0].revents, pollers[1].revents, pollers[2].revents);
    struct timespec short_time = {0, 1000000}, bad = {0, -1};
    SHOW(ppoll(NULL, 0, &short_time, NULL));
    SHOW(ppoll(NULL, 0, &bad, NULL));
    SHOW(poll((struct pollfd *)8, 1, 0));
    SHOW(poll(pollers, 1 << 30, 0));
}

static void fifos(void) {
    SHOW(mkfifo("fs_wait.fifo", 0600));
    int both = open("fs_wait.fifo", O_RDWR), reader = open("fs_wait.fifo", O_RDONLY | O_NONBLOCK);
    SHOW(write(both, "fifo", 4));
    char buf[8];
    SHOW(read(reader, buf, 8));
    SHOW(read(reader, buf, 8));
    close(both);
    SHOW(read(reader, buf, 8));
    SHOW(unlink("fs_wait.fifo"));
}

int main(void) {
    char base[] = "/tmp/fs_wait.XXXXXX";
    if (mkdtemp(base) == NULL || chdir(base) < 0) return 1;
    pipes();
    through_threads();
    counters();
    timers();
    sockets();
    epolls();
    selects();
    fifos();
    return 0;
}
