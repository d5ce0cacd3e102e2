/* AF_UNIX messages: datagrams, sequenced packets, passed descriptors and credentials. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void show(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

static void ready(const char *what, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&p, 1, 0);
    printf("%s:%s%s%s%s%s\n", what, p.revents & POLLIN ? " IN" : "", p.revents & POLLOUT ? " OUT" : "",
           p.revents & POLLRDHUP ? " RDHUP" : "", p.revents & POLLHUP ? " HUP" : "",
           p.revents & POLLERR ? " ERR" : "");
}

static long send_fds(int s, const char *text, const int *fds, int count) {
    char control[CMSG_SPACE(8 * sizeof(int))] = {0};
    struct iovec piece = {(void *)text, strlen(text)};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count) {
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    return sendmsg(s, &m, 0);
}

/* Prints what comes; stores received descriptors. */
static int receive(int s, size_t room, size_t control_room, int flags, int *fds) {
    char buf[256] = {0}, control[256] = {0};
    struct iovec piece = {buf, room};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = control_room};
    long n = recvmsg(s, &m, flags);
    int count = 0;
    printf("  recvmsg ");
    if (n < 0) {
        printf("%s\n", strerrorname_np(errno));
        return 0;
    }
    printf("%ld [%s]%s%s%s", n, buf, m.msg_flags & MSG_TRUNC ? " TRUNC" : "",
           m.msg_flags & MSG_CTRUNC ? " CTRUNC" : "", m.msg_flags & MSG_CMSG_CLOEXEC ? " CLOEXEC" : "");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_type == SCM_RIGHTS) {
            count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), count * sizeof(int));
            printf(" %d fds", count);
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred ids;
            memcpy(&ids, CMSG_DATA(c), sizeof ids);
            printf(" ids(%s %s %s)", ids.pid == getpid() ? "me" : ids.pid ? "other" : "none",
                   ids.uid == getuid() ? "me" : "other", ids.gid == getgid() ? "me" : "other");
        }
    }
    printf(" control %zu\n", (size_t)m.msg_controllen);
    return count;
}

static void rights(int type) {
    int s[2], p[2], fds[16];
    char buf[16] = {0};
    socketpair(AF_UNIX, type, 0, s);
    pipe(p);
    printf("rights over %s\n", type == SOCK_STREAM ? "stream" : type == SOCK_DGRAM ? "datagram" : "packets");
    show("plain", send(s[0], "plain", 5, 0));
    show("one", send_fds(s[0], "one", p, 1));
    show("two", send_fds(s[0], "two", p, 2));
    show("after", send(s[0], "after", 5, 0));
    receive(s[1], 100, 200, 0, fds);
    if (receive(s[1], 100, 200, MSG_CMSG_CLOEXEC, fds) && type != SOCK_STREAM)
        printf("cloexec %d\n", fcntl(fds[0], F_GETFD));
    if (receive(s[1], 100, 200, MSG_DONTWAIT, fds) == 2) {
        write(fds[1], "through", 7);
        read(p[0], buf, sizeof buf);
        printf("pipe says %s\n", buf);
    }
    receive(s[1], 100, 200, MSG_DONTWAIT, fds);
    receive(s[1], 100, 200, MSG_DONTWAIT, fds);
    show("no room", send_fds(s[0], "ab", p, 2));
    receive(s[1], 100, 0, 0, fds);
    show("room for one", send_fds(s[0], "cd", p, 2));
    receive(s[1], 100, CMSG_LEN(sizeof(int)), 0, fds);
    show("peek", send_fds(s[0], "pk", p, 1));
    if (receive(s[1], 100, 200, MSG_PEEK, fds)) printf("peeked fd differs %d\n", fds[0] != p[0]);
    receive(s[1], 100, 200, 0, fds);
    show("bad fd", send_fds(s[0], "x", (int[]){999}, 1));
    /* A descriptor outlives its sender and the closing of the socket it travels through. */
    send_fds(s[0], "last", p, 2);
    close(p[0]);
    close(p[1]);
    close(s[0]);
    if (receive(s[1], 100, 200, 0, fds) == 2) {
        write(fds[1], "alive", 5);
        memset(buf, 0, sizeof buf);
        read(fds[0], buf, sizeof buf);
        printf("pipe says %s\n", buf);
    }
    receive(s[1], 100, 200, MSG_DONTWAIT, fds);
    close(s[1]);
    /* Undelivered descriptors are closed with the queue. */
    socketpair(AF_UNIX, type, 0, s);
    pipe(p);
    send_fds(s[0], "lost", p + 1, 1);
    close(p[1]);
    close(s[0]);
    close(s[1]);
    show("end of pipe", read(p[0], buf, 1));
    close(p[0]);
}

static void nested(void) {
    int s[2], inner = -1;
    /* Sockets in the queues of sockets, deep. */
    for (int i = 0; i < 3; i++) {
        socketpair(AF_UNIX, SOCK_STREAM, 0, s);
        if (inner >= 0) {
            send_fds(s[0], "n", &inner, 1);
            close(inner);
        }
        inner = s[1];
        close(s[0]);
    }
    show("close nested", close(inner));
}

static void credentials(void) {
    int s[2], fds[4], on = 1;
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        socketpair(AF_UNIX, type, 0, s);
        setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
        send(s[0], "asked", 5, 0);
        receive(s[1], 100, 200, 0, fds);
        send(s[0], "mine", 4, 0);
        receive(s[1], 100, 200, 0, fds);
        send_fds(s[0], "both", s, 1);
        receive(s[1], 100, 200, 0, fds);
        close(s[0]);
        close(s[1]);
    }
}

static void datagrams(void) {
    int s[2], a, b;
    char buf[64];
    struct sockaddr_un one = {.sun_family = AF_UNIX}, other = {.sun_family = AF_UNIX}, from;
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    show("first", send(s[0], "first", 5, 0));
    show("empty", send(s[0], "", 0, 0));
    show("third", send(s[0], "third", 5, 0));
    int n;
    ioctl(s[1], FIONREAD, &n);
    printf("FIONREAD %d\n", n);
    show("cut", recv(s[1], buf, 2, 0));
    show("empty", recv(s[1], buf, 64, 0));
    show("whole size", recv(s[1], buf, 2, MSG_TRUNC));
    show("none", recv(s[1], buf, 64, MSG_DONTWAIT));
    static char large[300000];
    show("too large", send(s[0], large, sizeof large, 0));
    show("large", send(s[0], large, 100000, 0));
    show("large", recv(s[1], large, sizeof large, 0));
    n = 0;
    while (send(s[0], "x", 1, MSG_DONTWAIT) == 1) n++;
    printf("queue full after %d: %s\n", n, strerrorname_np(errno));
    ready("full", s[0]);
    close(s[1]);
    ready("peer closed", s[0]);
    show("send to closed", send(s[0], "x", 1, 0));
    show("send again", send(s[0], "x", 1, 0));
    close(s[0]);

    a = socket(AF_UNIX, SOCK_DGRAM, 0);
    b = socket(AF_UNIX, SOCK_DGRAM, 0);
    strcpy(one.sun_path, "/tmp/unix_message.a");
    strcpy(other.sun_path + 1, "unix_message.b");
    unlink(one.sun_path);
    socklen_t other_size = offsetof(struct sockaddr_un, sun_path) + 15, size;
    show("bind", bind(a, (void *)&one, sizeof one));
    show("no destination", send(b, "x", 1, 0));
    show("anonymous", sendto(b, "anon", 4, 0, (void *)&one, sizeof one));
    size = sizeof from;
    show("receive", recvfrom(a, buf, sizeof buf, 0, (void *)&from, &size));
    printf("from %d bytes\n", (int)size);
    show("bind abstract", bind(b, (void *)&other, other_size));
    show("named", sendto(b, "named", 5, 0, (void *)&one, sizeof one));
    size = sizeof from;
    show("receive", recvfrom(a, buf, sizeof buf, 0, (void *)&from, &size));
    printf("from %d [%s]\n", (int)size, from.sun_path + 1);
    show("connect", connect(a, (void *)&other, other_size));
    show("send", send(a, "x", 1, 0));
    int c = socket(AF_UNIX, SOCK_DGRAM, 0);
    show("third party", sendto(c, "x", 1, 0, (void *)&one, sizeof one));
    n = 0;
    while (sendto(c, "x", 1, MSG_DONTWAIT, (void *)&other, other_size) == 1) n++;
    printf("others: %s\n", strerrorname_np(errno));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    show("disconnect", connect(a, &none, sizeof none));
    show("send", send(a, "x", 1, 0));
    show("shutdown", shutdown(b, SHUT_RD));
    show("to shut receiver", sendto(c, "x", 1, MSG_NOSIGNAL, (void *)&other, other_size));
    show("listen", listen(a, 1));
    show("accept", accept(a, NULL, NULL));
    unlink(one.sun_path);
    struct mmsghdr many[3] = {0};
    struct iovec pieces[3] = {{"a", 1}, {"bb", 2}, {"ccc", 3}};
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    for (int i = 0; i < 3; i++) many[i].msg_hdr = (struct msghdr){.msg_iov = pieces + i, .msg_iovlen = 1};
    show("sendmmsg", sendmmsg(s[0], many, 3, 0));
    char text[3][8] = {{0}};
    for (int i = 0; i < 3; i++) pieces[i] = (struct iovec){text[i], 8};
    show("recvmmsg", recvmmsg(s[1], many, 3, MSG_WAITFORONE, NULL));
    printf("%u %u %u %s %s %s\n", many[0].msg_len, many[1].msg_len, many[2].msg_len, text[0], text[1], text[2]);
}

static void packets(void) {
    int s[2];
    char buf[64];
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s);
    ready("packets", s[0]);
    show("send", send(s[0], "one", 3, 0));
    show("send", send(s[0], "two", 3, 0));
    show("cut", recv(s[1], buf, 2, 0));
    show("next", recv(s[1], buf, 10, 0));
    show("shutdown", shutdown(s[0], SHUT_WR));
    ready("after SHUT_WR", s[1]);
    show("end", recv(s[1], buf, 10, 0));
    show("send after", send(s[0], "x", 1, 0));
    show("write after", write(s[0], "x", 1));
    close(s[1]);
    ready("closed", s[0]);
    show("end", recv(s[0], buf, 10, 0));
    close(s[0]);
    int t = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    show("recv unconnected", recv(t, buf, 1, 0));
    show("send unconnected", send(t, buf, 1, 0));
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    rights(SOCK_STREAM);
    rights(SOCK_DGRAM);
    rights(SOCK_SEQPACKET);
    nested();
    datagrams();
    packets();
    credentials();
    return 0;
}
