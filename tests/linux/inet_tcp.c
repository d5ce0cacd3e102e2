/* TCP over loopback: ports, connections, non-blocking connect, half-close, resets, IPv6. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void show(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

static void opened(const char *what, int fd) {
    printf("%s: %s\n", what, fd < 0 ? strerrorname_np(errno) : "ok");
}

static void ready(const char *what, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&p, 1, 0);
    printf("%s:%s%s%s%s%s\n", what, p.revents & POLLIN ? " IN" : "", p.revents & POLLOUT ? " OUT" : "",
           p.revents & POLLRDHUP ? " RDHUP" : "", p.revents & POLLHUP ? " HUP" : "",
           p.revents & POLLERR ? " ERR" : "");
}

static void wait_for(int fd, int events) {
    struct pollfd p = {fd, events, 0};
    poll(&p, 1, 5000);
}

static volatile sig_atomic_t signals;
static void on_pipe(int s) { (void)s; signals++; }

static struct sockaddr_in local(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static int port_of(int s) {
    struct sockaddr_in6 a;
    socklen_t size = sizeof a;
    getsockname(s, (void *)&a, &size);
    return ntohs(a.sin6_port);
}

static int listener(void) {
    struct sockaddr_in a = local(0);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    bind(s, (void *)&a, sizeof a);
    listen(s, 16);
    return s;
}

static int so_error(int s) {
    int error = -1;
    getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
    return error;
}

/* A connected pair: s[0] connected, s[1] accepted. */
static void connected(int l, int s[2]) {
    struct sockaddr_in a = local(port_of(l));
    s[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s[0], (void *)&a, sizeof a)) perror("connect");
    s[1] = accept(l, NULL, NULL);
}

static void basics(void) {
    int s[2], l = listener();
    char buf[64] = {0};
    struct sockaddr_in a, b;
    socklen_t size = sizeof a;
    ready("listener", l);
    connected(l, s);
    ready("connected", s[0]);
    getpeername(s[0], (void *)&a, &size);
    printf("peer %s %d %d\n", inet_ntoa(a.sin_addr), ntohs(a.sin_port) == port_of(l), (int)size);
    getpeername(s[1], (void *)&a, &size);
    size = sizeof b;
    getsockname(s[0], (void *)&b, &size);
    printf("same name %d\n", a.sin_port == b.sin_port && a.sin_addr.s_addr == b.sin_addr.s_addr);
    printf("ephemeral %d\n", ntohs(b.sin_port) >= 32768 && ntohs(b.sin_port) < 61000);
    show("write", write(s[0], "hello", 5));
    wait_for(s[1], POLLIN);
    show("peek", recv(s[1], buf, 2, MSG_PEEK));
    show("read", read(s[1], buf, sizeof buf));
    show("half close", shutdown(s[0], SHUT_WR));
    wait_for(s[1], POLLIN);
    ready("peer of half close", s[1]);
    show("eof", read(s[1], buf, 1));
    show("other way", write(s[1], "reply", 5));
    wait_for(s[0], POLLIN);
    show("read", read(s[0], buf, sizeof buf));
    signals = 0;
    show("write after SHUT_WR", write(s[0], "x", 1));
    printf("SIGPIPE %d\n", (int)signals);
    close(s[1]);
    wait_for(s[0], POLLRDHUP);
    ready("both closed", s[0]);
    show("read", read(s[0], buf, 1));
    close(s[0]);

    connected(l, s);
    close(s[1]);
    wait_for(s[0], POLLRDHUP);
    ready("peer closed", s[0]);
    show("first write", send(s[0], "x", 1, MSG_NOSIGNAL));
    wait_for(s[0], POLLHUP);
    ready("after first write", s[0]);
    show("second write", send(s[0], "x", 1, MSG_NOSIGNAL));
    show("read", read(s[0], buf, 1));
    close(s[0]);

    connected(l, s);
    write(s[0], "unread", 6);
    wait_for(s[1], POLLIN);
    close(s[1]);
    wait_for(s[0], POLLHUP);
    ready("closed with unread data", s[0]);
    struct sockaddr_in reset_peer;
    socklen_t reset_size = sizeof reset_peer;
    show("getpeername", getpeername(s[0], (void *)&reset_peer, &reset_size));
    show("read", read(s[0], buf, 1));
    show("read", read(s[0], buf, 1));
    show("write", send(s[0], "x", 1, MSG_NOSIGNAL));
    close(s[0]);

    connected(l, s);
    struct linger none = {1, 0};
    setsockopt(s[1], SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(s[1]);
    wait_for(s[0], POLLHUP);
    printf("after abort %s\n", strerrorname_np(so_error(s[0])));
    close(s[0]);
    close(l);
}

static void ports(void) {
    struct sockaddr_in a = local(0);
    int one = socket(AF_INET, SOCK_STREAM, 0), two = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    show("bind any", bind(one, (void *)&a, sizeof a));
    a.sin_port = htons(port_of(one));
    show("bind twice", bind(one, (void *)&a, sizeof a));
    show("same port", bind(two, (void *)&a, sizeof a));
    struct sockaddr_in any = a;
    any.sin_addr.s_addr = 0;
    show("wildcard", bind(two, (void *)&any, sizeof any));
    struct sockaddr_in other = a;
    other.sin_addr.s_addr = htonl(0x7f000002);
    show("other address", bind(two, (void *)&other, sizeof other));
    show("connect not listening", connect(two, (void *)&a, sizeof a));
    int three = socket(AF_INET, SOCK_STREAM, 0), four = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(three, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    setsockopt(four, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    a.sin_port = 0;
    bind(three, (void *)&a, sizeof a);
    a.sin_port = htons(port_of(three));
    show("reuse port", bind(four, (void *)&a, sizeof a));
    show("listen", listen(three, 1));
    show("listen", listen(four, 1));
    a.sin_addr.s_addr = htonl(0x08080808);
    a.sin_port = 0;
    int five = socket(AF_INET, SOCK_STREAM, 0);
    show("foreign address", bind(five, (void *)&a, sizeof a));
    a.sin_family = AF_UNIX;
    show("family", bind(five, (void *)&a, sizeof a));
    show("short", bind(five, (void *)&a, 8));
    show("listen unbound", listen(five, 1));
    printf("has port %d\n", port_of(five) != 0);
    show("connect on listener", connect(five, (void *)&other, sizeof other));
    close(one), close(two), close(three), close(four), close(five);
}

static void nonblocking(void) {
    int l = listener(), s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = local(port_of(l));
    char c;
    ready("fresh", s);
    show("recv", recv(s, &c, 1, 0));
    show("send", send(s, "x", 1, MSG_NOSIGNAL));
    show("connect", connect(s, (void *)&a, sizeof a));
    wait_for(s, POLLOUT);
    ready("connected", s);
    printf("SO_ERROR %d\n", so_error(s));
    show("connect again", connect(s, (void *)&a, sizeof a));
    show("and again", connect(s, (void *)&a, sizeof a));
    show("recv", recv(s, &c, 1, 0));
    fcntl(l, F_SETFL, O_NONBLOCK);
    opened("accept", accept(l, NULL, NULL));
    show("accept", accept(l, NULL, NULL));
    close(s);
    close(l);
    s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    show("connect refused", connect(s, (void *)&a, sizeof a));
    wait_for(s, POLLOUT);
    ready("refused", s);
    printf("SO_ERROR %s\n", strerrorname_np(so_error(s)));
    printf("SO_ERROR %d\n", so_error(s));
    close(s);
    s = socket(AF_INET, SOCK_STREAM, 0);
    show("blocking refused", connect(s, (void *)&a, sizeof a));
    close(s);
}

static void version6(void) {
    int l = socket(AF_INET6, SOCK_STREAM, 0), s, c;
    struct sockaddr_in6 a = {.sin6_family = AF_INET6}, b;
    socklen_t size = sizeof b;
    char text[64];
    show("bind ::", bind(l, (void *)&a, sizeof a));
    listen(l, 4);
    a.sin6_port = htons(port_of(l));
    a.sin6_addr = in6addr_loopback;
    s = socket(AF_INET6, SOCK_STREAM, 0);
    show("connect ::1", connect(s, (void *)&a, sizeof a));
    c = accept(l, (void *)&b, &size);
    printf("from %s %d\n", inet_ntop(AF_INET6, &b.sin6_addr, text, sizeof text), (int)size);
    close(s), close(c);
    struct sockaddr_in v4 = local(port_of(l));
    s = socket(AF_INET, SOCK_STREAM, 0);
    show("connect 127.0.0.1", connect(s, (void *)&v4, sizeof v4));
    size = sizeof b;
    c = accept(l, (void *)&b, &size);
    printf("from %s\n", inet_ntop(AF_INET6, &b.sin6_addr, text, sizeof text));
    int on = 1, only = socket(AF_INET6, SOCK_STREAM, 0);
    setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    a.sin6_port = 0;
    a.sin6_addr = in6addr_any;
    bind(only, (void *)&a, sizeof a);
    listen(only, 1);
    v4 = local(port_of(only));
    int t = socket(AF_INET, SOCK_STREAM, 0);
    show("v6 only", connect(t, (void *)&v4, sizeof v4));
    close(l), close(s), close(c), close(only), close(t);
}

static void options(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), value = 1;
    socklen_t size = sizeof value;
    show("NODELAY", setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value));
    value = 0;
    getsockopt(s, IPPROTO_TCP, TCP_NODELAY, &value, &size);
    printf("NODELAY %d\n", value);
    value = 42;
    setsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof value);
    getsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size);
    printf("KEEPIDLE %d\n", value);
    getsockopt(s, SOL_SOCKET, SO_PROTOCOL, &value, &size);
    printf("PROTOCOL %d\n", value);
    show("unknown", getsockopt(s, IPPROTO_TCP, 9999, &value, &size));
    show("level", getsockopt(s, 4711, 1, &value, &size));
    show("protocol", socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    show("type", socket(AF_INET, SOCK_SEQPACKET, 0));
    show("pair", socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){0}));
    show("shutdown unconnected", shutdown(s, SHUT_RDWR));
    show("getpeername", getpeername(s, (void *)&value, &size));
    struct sockaddr_in a = local(0);
    show("listen then accept", listen(s, 1));
    show("shutdown listener", shutdown(s, SHUT_RDWR));
    show("accept", accept(s, (void *)&a, &size));
    close(s);
}

static int server;

static void *serve(void *unused) {
    static char block[32768];
    (void)unused;
    int c = accept(server, NULL, NULL);
    long n;
    while ((n = read(c, block, sizeof block)) > 0) {
        long done = 0, put;
        while (done < n && (put = write(c, block + done, n - done)) > 0) done += put;
    }
    close(c);
    return NULL;
}

static void echo(void) {
    static unsigned char out[60000], in[60000];
    pthread_t thread;
    server = listener();
    pthread_create(&thread, NULL, serve, NULL);
    struct sockaddr_in a = local(port_of(server));
    int s = socket(AF_INET, SOCK_STREAM, 0), bad = 0;
    connect(s, (void *)&a, sizeof a);
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof out; i++) out[i] = (unsigned char)(i * 31 + round);
        if (write(s, out, sizeof out) != sizeof out) printf("short\n");
        if (recv(s, in, sizeof in, MSG_WAITALL) != sizeof in) printf("short\n");
        bad += memcmp(in, out, sizeof in) != 0;
    }
    shutdown(s, SHUT_WR);
    show("end", read(s, in, 1));
    pthread_join(thread, NULL);
    printf("echo: %d wrong\n", bad);
    close(s);
    close(server);
}

/* Edge-triggered: one event for each arrival. */
static void edges(void) {
    int s[2], l = listener(), e = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    connected(l, s);
    epoll_ctl(e, EPOLL_CTL_ADD, s[1], &event);
    show("nothing", epoll_wait(e, &event, 1, 0));
    write(s[0], "a", 1);
    show("first", epoll_wait(e, &event, 1, 1000));
    show("no more", epoll_wait(e, &event, 1, 0));
    write(s[0], "b", 1);
    show("second", epoll_wait(e, &event, 1, 1000));
    close(s[0]), close(s[1]), close(l), close(e);
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    signal(SIGPIPE, on_pipe);
    basics();
    ports();
    nonblocking();
    version6();
    options();
    echo();
    edges();
    return 0;
}
