/* Many messages in one call, control data, flags of send and recv, and files sent into sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void show(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, result);
}

static struct sockaddr_in local(void) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void notes(struct msghdr *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        printf("note %d %d of %d bytes", c->cmsg_level, c->cmsg_type, (int)(c->cmsg_len - CMSG_LEN(0)));
        if (c->cmsg_level == SOL_SOCKET) {
            struct timeval *t = (void *)CMSG_DATA(c);
            printf(" fresh %d", labs(time(NULL) - t->tv_sec) < 3);
        } else if (c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *info = (void *)CMSG_DATA(c);
            printf(" %d %s", info->ipi_ifindex, inet_ntoa(info->ipi_addr));
        }
        printf("\n");
    }
}

static void datagrams(void) {
    int one = socket(AF_INET, SOCK_DGRAM, 0), two = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    struct sockaddr_in a = local(), b = local();
    socklen_t size = sizeof a;
    bind(one, (void *)&a, sizeof a);
    getsockname(one, (void *)&a, &size);
    bind(two, (void *)&b, sizeof b);
    getsockname(two, (void *)&b, &size);
    char text[4][16] = {"one", "two", "three", "four"}, in[4][16] = {0};
    struct iovec out[4], place[4];
    struct mmsghdr many[4] = {0};
    for (int i = 0; i < 4; i++) {
        out[i] = (struct iovec){text[i], strlen(text[i])};
        place[i] = (struct iovec){in[i], i == 2 ? 3 : 16};
        many[i].msg_hdr = (struct msghdr){.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &out[i], .msg_iovlen = 1};
    }
    show("sendmmsg", sendmmsg(two, many, 4, 0));
    struct sockaddr_in from[4];
    for (int i = 0; i < 4; i++)
        many[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &place[i], .msg_iovlen = 1};
    struct timespec patience = {1, 0};
    show("recvmmsg", recvmmsg(one, many, 4, MSG_WAITFORONE, &patience));
    for (int i = 0; i < 4; i++)
        printf("%s %d flags %d from two %d\n", in[i], many[i].msg_len, many[i].msg_hdr.msg_flags, from[i].sin_port == b.sin_port);
    show("nothing", recvmmsg(one, many, 4, MSG_DONTWAIT, NULL));

    setsockopt(one, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on);
    setsockopt(one, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    char control[256];
    struct msghdr m = {.msg_iov = place, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    show("sendto", sendto(two, "hello", 5, 0, (void *)&a, sizeof a));
    show("recvmsg", recvmsg(one, &m, 0));
    notes(&m);
    m.msg_controllen = 20;
    show("sendto", sendto(two, "hello", 5, 0, (void *)&a, sizeof a));
    show("cut", recvmsg(one, &m, 0));
    printf("MSG_CTRUNC %d\n", !!(m.msg_flags & MSG_CTRUNC));

    char choice[CMSG_SPACE(sizeof(struct in_pktinfo))] = {0};
    struct msghdr c = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = out, .msg_iovlen = 1,
                       .msg_control = choice, .msg_controllen = sizeof choice};
    struct cmsghdr *head = CMSG_FIRSTHDR(&c);
    head->cmsg_level = IPPROTO_IP;
    head->cmsg_type = IP_PKTINFO;
    head->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
    ((struct in_pktinfo *)CMSG_DATA(head))->ipi_spec_dst.s_addr = htonl(0x7f000009);
    int three = socket(AF_INET, SOCK_DGRAM, 0);
    show("sendmsg from 127.0.0.9", sendmsg(three, &c, 0));
    size = sizeof from[0];
    show("recvfrom", recvfrom(one, in, sizeof in, 0, (void *)from, &size));
    printf("%s\n", inet_ntoa(from[0].sin_addr));
    show("trunc", sendto(two, "0123456789", 10, 0, (void *)&a, sizeof a));
    show("recv 4", recv(one, in, 4, MSG_TRUNC));
    static char huge[70000];
    show("too large", sendto(two, huge, sizeof huge, 0, (void *)&a, sizeof a));
    show("largest", sendto(two, huge, 65507, 0, (void *)&a, sizeof a));
    show("largest", recv(one, huge, sizeof huge, 0));
    show("empty", sendto(two, "", 0, 0, (void *)&a, sizeof a));
    show("empty", recv(one, huge, sizeof huge, 0));
}

static void pair(int s[2]) {
    int l = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = local();
    socklen_t size = sizeof a;
    bind(l, (void *)&a, sizeof a);
    listen(l, 1);
    getsockname(l, (void *)&a, &size);
    s[0] = socket(AF_INET, SOCK_STREAM, 0);
    connect(s[0], (void *)&a, sizeof a);
    s[1] = accept(l, NULL, NULL);
    close(l);
}

static long all(int s, char *buf, long size) {
    long got = 0, n;
    while (got < size && (n = read(s, buf + got, size - got)) > 0) got += n;
    return got;
}

static void streams(void) {
    static char data[300000], back[300000];
    for (unsigned i = 0; i < sizeof data; i++) data[i] = i * 2654435761u >> 24;
    int s[2], p[2];
    char buf[64];
    pair(s);
    show("more", send(s[0], "ab", 2, MSG_MORE));
    show("rest", send(s[0], "cd", 2, 0));
    show("waitall", recv(s[1], buf, 4, MSG_WAITALL));
    show("send", send(s[0], "wxyz", 4, 0));
    show("peek", recv(s[1], buf, 2, MSG_PEEK | MSG_WAITALL));
    show("waitall", recv(s[1], buf, 4, MSG_WAITALL));
    show("dontwait", recv(s[1], buf, 4, MSG_DONTWAIT));
    struct iovec pieces[3] = {{"a", 1}, {"", 0}, {"bc", 2}};
    struct msghdr m = {.msg_iov = pieces, .msg_iovlen = 3};
    show("sendmsg", sendmsg(s[0], &m, 0));
    show("waitall", recv(s[1], buf, 3, MSG_WAITALL));
    printf("%.3s\n", buf);

    char name[] = "/tmp/inet_messagesXXXXXX";
    int file = mkstemp(name);
    unlink(name);
    show("file", write(file, data, 100000));
    off_t at = 100;
    show("sendfile", sendfile(s[0], file, &at, 50000));
    printf("offset %ld\n", (long)at);
    show("received", all(s[1], back, 50000));
    printf("same %d\n", !memcmp(back, data + 100, 50000));
    pipe(p);
    show("pipe", write(p[1], data, 30000));
    show("splice out", splice(p[0], NULL, s[0], NULL, 30000, 0));
    show("received", all(s[1], back, 30000));
    printf("same %d\n", !memcmp(back, data, 30000));
    show("send", send(s[0], data, 5000, 0));
    recv(s[1], back, 5000, MSG_PEEK | MSG_WAITALL);
    long got = 0, n;
    while (got < 5000 && (n = splice(s[1], NULL, p[1], NULL, 5000 - got, 0)) > 0) got += n;
    show("splice in", got);
    show("received", all(p[0], back, 5000));
    printf("same %d\n", !memcmp(back, data, 5000));
    show("fault", send(s[0], (void *)8, 5, 0));
    show("send", send(s[0], "hello", 5, 0));
    recv(s[1], buf, 5, MSG_PEEK | MSG_WAITALL);
    show("fault", recv(s[1], (void *)8, 5, 0));
    struct timeval brief = {0, 20000};
    setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
    show("time-out", recv(s[0], buf, 1, 0));
    show("half close", shutdown(s[0], SHUT_WR));
    show("write", send(s[0], "x", 1, MSG_NOSIGNAL));
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    datagrams();
    streams();
    return 0;
}
