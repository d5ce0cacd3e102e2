/* AF_UNIX streams: pairs, names, readiness, shutdown, errors and signals as Linux has them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *name(long result) {
    return result < 0 ? strerrorname_np(errno) : "ok";
}

static void show(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

static void ready(const char *what, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0};
    poll(&p, 1, 0);
    printf("%s:%s%s%s%s%s\n", what, p.revents & POLLIN ? " IN" : "", p.revents & POLLOUT ? " OUT" : "",
           p.revents & POLLRDHUP ? " RDHUP" : "", p.revents & POLLHUP ? " HUP" : "",
           p.revents & POLLERR ? " ERR" : "");
}

static struct sockaddr_un address(const char *path, socklen_t *size) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    memcpy(a.sun_path, path, length);
    *size = offsetof(struct sockaddr_un, sun_path) + length + 1;
    if (path[0] == '@') {
        a.sun_path[0] = 0;
        *size -= 1;
    }
    return a;
}

static volatile sig_atomic_t signals;
static void on_pipe(int s) { (void)s; signals++; }

static void pairs(void) {
    int s[2];
    char buf[64];
    show("pair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
    ready("fresh pair", s[0]);
    show("write", write(s[0], "hello", 5));
    show("write", write(s[0], " world", 6));
    int n = 0;
    ioctl(s[1], FIONREAD, &n);
    printf("FIONREAD %d\n", n);
    show("peek", recv(s[1], buf, 3, MSG_PEEK));
    show("read", read(s[1], buf, sizeof buf));
    printf("%.11s\n", buf);
    show("dontwait", recv(s[1], buf, 1, MSG_DONTWAIT));
    show("read 0", read(s[1], buf, 0));
    show("write 0", write(s[0], "", 0));
    show("shutdown wr", shutdown(s[0], SHUT_WR));
    ready("after SHUT_WR, writer", s[0]);
    ready("after SHUT_WR, reader", s[1]);
    show("eof", read(s[1], buf, 1));
    signals = 0;
    show("write after SHUT_WR", write(s[0], "x", 1));
    printf("SIGPIPE %d\n", (int)signals);
    show("send NOSIGNAL", send(s[0], "x", 1, MSG_NOSIGNAL));
    printf("SIGPIPE %d\n", (int)signals);
    show("other way", write(s[1], "back", 4));
    show("other way read", read(s[0], buf, 10));
    close(s[1]);
    ready("peer closed", s[0]);
    show("read", read(s[0], buf, 1));
    close(s[0]);

    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    show("unread", write(s[0], "unread", 6));
    show("own data", write(s[1], "still", 5));
    close(s[1]);
    ready("closed with unread data", s[0]);
    show("read rest", read(s[0], buf, 10));
    show("read reset", read(s[0], buf, 10));
    show("read end", read(s[0], buf, 10));
    close(s[0]);

    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    write(s[0], "unread", 6);
    close(s[1]);
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(s[0], SOL_SOCKET, SO_ERROR, &error, &size);
    printf("SO_ERROR %s\n", strerrorname_np(error));
    getsockopt(s[0], SOL_SOCKET, SO_ERROR, &error, &size);
    printf("SO_ERROR %d\n", error);
    close(s[0]);
}

static void full(void) {
    int s[2];
    static char buf[65536];
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s);
    long total = 0, n;
    while ((n = write(s[0], buf, sizeof buf)) > 0) total += n;
    printf("full: %s, %s\n", name(n), total >= 100000 && total < 1000000 ? "sane" : "odd");
    ready("full", s[0]);
    long got = 0;
    while ((n = read(s[1], buf, sizeof buf)) > 0) got += n;
    printf("drained: %s %s\n", name(n), got == total ? "all" : "less");
    ready("drained", s[0]);
    close(s[0]);
    close(s[1]);
}

static void addresses(void) {
    socklen_t size, got;
    struct sockaddr_un a, b;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    ready("unconnected", listener);
    unlink("/tmp/unix_stream.sock");
    a = address("/tmp/unix_stream.sock", &size);
    show("connect nobody", connect(client, (void *)&a, size));
    show("listen unnamed", listen(listener, 1));
    show("bind", bind(listener, (void *)&a, size));
    show("bind again", bind(listener, (void *)&a, size));
    int other = socket(AF_UNIX, SOCK_STREAM, 0);
    show("bind other", bind(other, (void *)&a, size));
    show("connect not listening", connect(client, (void *)&a, size));
    show("accept not listening", accept(listener, NULL, NULL));
    show("listen", listen(listener, 1));
    struct stat st;
    show("stat", stat("/tmp/unix_stream.sock", &st));
    printf("socket %d\n", S_ISSOCK(st.st_mode));
    show("open", open("/tmp/unix_stream.sock", O_RDWR));
    ready("listening", listener);
    int datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
    show("connect other type", connect(datagram, (void *)&a, size));
    show("connect", connect(client, (void *)&a, size));
    show("connect again", connect(client, (void *)&a, size));
    ready("waiting", listener);
    show("write before accept", write(client, "early", 5));
    got = sizeof b;
    int server = accept4(listener, (void *)&b, &got, SOCK_CLOEXEC);
    printf("accept %s, address %d bytes\n", name(server), (int)got);
    char buf[16];
    show("read", read(server, buf, sizeof buf));
    got = sizeof b;
    getpeername(client, (void *)&b, &got);
    printf("peer %s %d\n", b.sun_path, (int)got);
    got = sizeof b;
    getsockname(server, (void *)&b, &got);
    printf("server name %s %d\n", b.sun_path, (int)got);
    got = 4;
    getsockname(server, (void *)&b, &got);
    printf("cut to 4, size %d\n", (int)got);
    struct ucred ids;
    got = sizeof ids;
    getsockopt(server, SOL_SOCKET, SO_PEERCRED, &ids, &got);
    printf("peer ids %d %d %d\n", ids.pid == getpid(), ids.uid == geteuid(), ids.gid == getegid());
    int value;
    got = sizeof value;
    getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &value, &got);
    printf("ACCEPTCONN %d\n", value);
    getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, &got);
    printf("ACCEPTCONN %d\n", value);
    getsockopt(server, SOL_SOCKET, SO_TYPE, &value, &got);
    printf("TYPE %d\n", value);
    getsockopt(server, SOL_SOCKET, SO_DOMAIN, &value, &got);
    printf("DOMAIN %d\n", value);
    close(server);
    close(client);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    show("accept nothing", accept(listener, NULL, NULL));
    /* A full backlog holds one more than asked for. */
    int waiting[3];
    for (int i = 0; i < 3; i++) {
        waiting[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        show("connect to backlog", connect(waiting[i], (void *)&a, size));
    }
    close(listener);
    ready("listener closed", waiting[0]);
    show("read from it", read(waiting[0], buf, 1));
    show("connect closed", connect(waiting[2], (void *)&a, size));
    unlink("/tmp/unix_stream.sock");
    show("connect unlinked", connect(waiting[2], (void *)&a, size));

    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    a = address("@unix_stream/abstract", &size);
    show("bind abstract", bind(listener, (void *)&a, size));
    show("bind abstract twice", bind(other, (void *)&a, size));
    listen(listener, 0);
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    show("connect abstract", connect(client, (void *)&a, size));
    got = sizeof b;
    getpeername(client, (void *)&b, &got);
    printf("abstract peer %d [%s]\n", (int)got, b.sun_path + 1);
    close(listener);
    show("bind abstract again", bind(other, (void *)&a, size));
    sa_family_t family = AF_UNIX;
    int automatic = socket(AF_UNIX, SOCK_STREAM, 0);
    show("autobind", bind(automatic, (void *)&family, sizeof family));
    got = sizeof b;
    getsockname(automatic, (void *)&b, &got);
    printf("automatic name of %d bytes\n", (int)got);
}

static void errors(void) {
    char buf[8];
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    show("type", socket(AF_UNIX, SOCK_RDM, 0));
    show("protocol", socket(AF_UNIX, SOCK_STREAM, 99));
    show("flags", socket(AF_UNIX, SOCK_STREAM | 0x100000, 0));
    show("family", socket(77, SOCK_STREAM, 0));
    show("recv unconnected", recv(s, buf, 1, 0));
    show("send unconnected", send(s, buf, 1, MSG_NOSIGNAL));
    show("getpeername", getpeername(s, (void *)&a, &(socklen_t){sizeof a}));
    show("bind empty", bind(s, (void *)&a, 0));
    show("bind long", bind(s, (void *)&a, 111));
    show("bind NULL", bind(s, NULL, 20));
    show("bad fd", bind(-1, (void *)&a, 20));
    show("not a socket", listen(0, 1));
    show("shutdown unconnected", shutdown(s, SHUT_RDWR));
    show("shutdown how", shutdown(s, 7));
    show("level", getsockopt(s, 6, 1, buf, &(socklen_t){4}));
    show("option", getsockopt(s, SOL_SOCKET, 9999, buf, &(socklen_t){4}));
    show("option set", setsockopt(s, SOL_SOCKET, SO_TYPE, buf, 4));
    show("option short", setsockopt(s, SOL_SOCKET, SO_REUSEADDR, buf, 2));
    show("MSG_OOB", send(s, buf, 1, MSG_OOB));
    close(s);
}

static void options(void) {
    int s = socket(AF_UNIX, SOCK_STREAM, 0), value = 10000;
    socklen_t size = sizeof value;
    setsockopt(s, SOL_SOCKET, SO_SNDBUF, &value, sizeof value);
    getsockopt(s, SOL_SOCKET, SO_SNDBUF, &value, &size);
    printf("SNDBUF %d\n", value);
    value = 1;
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &value, sizeof value);
    getsockopt(s, SOL_SOCKET, SO_RCVBUF, &value, &size);
    printf("RCVBUF %d\n", value);
    struct timeval t = {2, 500000};
    show("RCVTIMEO", setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    size = sizeof t;
    getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, &size);
    printf("RCVTIMEO %ld.%06ld %d\n", (long)t.tv_sec, (long)t.tv_usec, (int)size);
    t.tv_usec = 1000000;
    show("RCVTIMEO bad", setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    struct linger l = {1, 3};
    setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    l.l_onoff = 0;
    size = sizeof l;
    getsockopt(s, SOL_SOCKET, SO_LINGER, &l, &size);
    printf("LINGER %d %d\n", l.l_onoff, l.l_linger);
    close(s);
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    t = (struct timeval){0, 20000};
    setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    char c;
    show("read with time-out", read(p[0], &c, 1));
    close(p[0]);
    close(p[1]);
}

static int stream[2];

static void *feed(void *unused) {
    static char block[65536];
    (void)unused;
    unsigned n = 0;
    for (int i = 0; i < 64; i++) {
        for (size_t j = 0; j < sizeof block; j++) block[j] = (char)(n++ * 7);
        if (write(stream[0], block, sizeof block) != (ssize_t)sizeof block) printf("short write\n");
    }
    close(stream[0]);
    return NULL;
}

static void bulk(void) {
    pthread_t thread;
    static unsigned char block[50001];
    unsigned n = 0, bad = 0;
    long got, total = 0;
    socketpair(AF_UNIX, SOCK_STREAM, 0, stream);
    pthread_create(&thread, NULL, feed, NULL);
    while ((got = recv(stream[1], block, sizeof block, total & 1 ? MSG_WAITALL : 0)) > 0) {
        for (long i = 0; i < got; i++) bad += block[i] != (unsigned char)(n++ * 7);
        total += got;
    }
    pthread_join(thread, NULL);
    printf("bulk %ld bytes, %u wrong\n", total, bad);
    close(stream[1]);
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    signal(SIGPIPE, on_pipe);
    pairs();
    full();
    addresses();
    errors();
    options();
    bulk();
    return 0;
}
