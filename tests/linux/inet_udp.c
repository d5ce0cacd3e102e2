/* UDP over loopback: datagrams, connected sockets, refusals, sharing of ports. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
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

static struct sockaddr_in local(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static struct sockaddr_in name_of(int s) {
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    getsockname(s, (void *)&a, &size);
    return a;
}

/* What comes with a datagram besides its bytes. */
static void notes(int s) {
    char buf[16], control[256], text[64];
    struct iovec piece = {buf, sizeof buf};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    show("recvmsg", recvmsg(s, &m, 0));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        printf("note %d %d of %d bytes", c->cmsg_level, c->cmsg_type, (int)(c->cmsg_len - CMSG_LEN(0)));
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *info = (void *)CMSG_DATA(c);
            printf(" %d %s", info->ipi_ifindex, inet_ntoa(info->ipi_addr));
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo *info = (void *)CMSG_DATA(c);
            printf(" %d %s", info->ipi6_ifindex, inet_ntop(AF_INET6, &info->ipi6_addr, text, sizeof text));
        } else {
            printf(" %d", *(int *)CMSG_DATA(c));
        }
        printf("\n");
    }
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    static char large[70000];
    char buf[64];
    int one = socket(AF_INET, SOCK_DGRAM, 0), two = socket(AF_INET, SOCK_DGRAM, 0), n;
    struct sockaddr_in a = local(0), from, b;
    socklen_t size = sizeof from;
    ready("fresh", one);
    show("no destination", send(one, "x", 1, 0));
    show("recv", recv(one, buf, 1, MSG_DONTWAIT));
    show("bind", bind(one, (void *)&a, sizeof a));
    a = name_of(one);
    show("send", sendto(two, "hello", 5, 0, (void *)&a, sizeof a));
    show("empty", sendto(two, "", 0, 0, (void *)&a, sizeof a));
    ioctl(one, FIONREAD, &n);
    printf("FIONREAD %d\n", n);
    ready("has mail", one);
    show("cut", recvfrom(one, buf, 2, MSG_TRUNC, (void *)&from, &size));
    b = name_of(two);
    printf("from %s, its port %d, wildcard %d\n", inet_ntoa(from.sin_addr), from.sin_port == b.sin_port,
           b.sin_addr.s_addr == 0);
    show("empty", recv(one, buf, sizeof buf, 0));
    show("none", recv(one, buf, sizeof buf, MSG_DONTWAIT));
    show("too large", sendto(two, large, 65508, 0, (void *)&a, sizeof a));
    show("large", sendto(two, large, 65507, 0, (void *)&a, sizeof a));
    show("large", recv(one, large, sizeof large, 0));
    show("connect", connect(two, (void *)&a, sizeof a));
    b = name_of(two);
    printf("now from %s\n", inet_ntoa(b.sin_addr));
    show("send", send(two, "connected", 9, 0));
    show("recv", recv(one, buf, sizeof buf, 0));
    int three = socket(AF_INET, SOCK_DGRAM, 0);
    sendto(three, "stranger", 8, 0, (void *)&b, sizeof b);
    show("from a stranger", recv(two, buf, sizeof buf, MSG_DONTWAIT));
    sendto(one, "friend", 6, 0, (void *)&b, sizeof b);
    show("from the peer", recv(two, buf, sizeof buf, 0));
    close(one);
    show("to nobody", send(two, "x", 1, 0));
    ready("refused", two);
    show("recv", recv(two, buf, 1, MSG_DONTWAIT));
    show("recv", recv(two, buf, 1, MSG_DONTWAIT));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    show("disconnect", connect(two, &none, sizeof none));
    show("getpeername", getpeername(two, (void *)&from, &size));
    show("unconnected to nobody", sendto(two, "x", 1, 0, (void *)&a, sizeof a));
    show("shutdown", shutdown(two, SHUT_RD));
    a.sin_port = 0;
    show("port 0", sendto(two, "x", 1, 0, (void *)&a, sizeof a));
    show("listen", listen(two, 1));
    show("write unconnected", write(two, "x", 1));

    int six = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6}, who;
    bind(six, (void *)&any, sizeof any);
    size = sizeof who;
    getsockname(six, (void *)&who, &size);
    a = local(ntohs(who.sin6_port));
    show("4 to 6", sendto(two, "x", 1, 0, (void *)&a, sizeof a));
    size = sizeof who;
    show("received", recvfrom(six, buf, 1, 0, (void *)&who, &size));
    char text[64];
    printf("from %s\n", inet_ntop(AF_INET6, &who.sin6_addr, text, sizeof text));
    struct mmsghdr many[2] = {0};
    struct iovec pieces[2] = {{"aa", 2}, {"bbb", 3}};
    for (int i = 0; i < 2; i++)
        many[i].msg_hdr = (struct msghdr){.msg_iov = pieces + i, .msg_iovlen = 1, .msg_name = &a, .msg_namelen = sizeof a};
    show("sendmmsg", sendmmsg(two, many, 2, 0));
    show("received", recv(six, buf, sizeof buf, 0));
    show("received", recv(six, buf, sizeof buf, 0));
    int on = 1;
    setsockopt(six, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    setsockopt(six, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof on);
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = a.sin_port, .sin6_addr = in6addr_loopback};
    int four = socket(AF_INET6, SOCK_DGRAM, 0);
    show("v6", sendto(four, "note", 4, 0, (void *)&to, sizeof to));
    notes(six);
    one = socket(AF_INET, SOCK_DGRAM, 0);
    a = local(0);
    bind(one, (void *)&a, sizeof a);
    a = name_of(one);
    setsockopt(one, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    setsockopt(one, IPPROTO_IP, IP_RECVTTL, &on, sizeof on);
    show("v4", sendto(two, "note", 4, 0, (void *)&a, sizeof a));
    notes(one);
    return 0;
}
