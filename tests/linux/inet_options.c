/* The options that servers and clients set and read: what setsockopt says, and what getsockopt then gives. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_INCOMING_NAPI_ID
#define SO_INCOMING_NAPI_ID 56
#endif

static void both(int s, const char *what, int level, int name, int value) {
    int got = -1;
    socklen_t size = sizeof got;
    int set = setsockopt(s, level, name, &value, sizeof value) ? errno : 0;
    int read = getsockopt(s, level, name, &got, &size) ? errno : 0;
    printf("%s: set %s, get %s", what, set ? strerrorname_np(set) : "0", read ? strerrorname_np(read) : "0");
    if (!read) printf(" %d of %d bytes", got, (int)size);
    printf("\n");
}

static void get(int s, const char *what, int level, int name) {
    int got = -1;
    socklen_t size = sizeof got;
    int read = getsockopt(s, level, name, &got, &size) ? errno : 0;
    printf("%s: %s", what, read ? strerrorname_np(read) : "0");
    if (!read) printf(" %d of %d bytes", got, (int)size);
    printf("\n");
}

static void tcp(int s, const char *who) {
    printf("-- %s\n", who);
    both(s, "REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1);
    both(s, "REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 1);
    both(s, "KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 7);
    both(s, "OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1);
    both(s, "PRIORITY", SOL_SOCKET, SO_PRIORITY, 3);
    both(s, "RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 1);
    both(s, "SNDLOWAT", SOL_SOCKET, SO_SNDLOWAT, 1);
    both(s, "SNDBUF", SOL_SOCKET, SO_SNDBUF, 50000);
    both(s, "RCVBUF", SOL_SOCKET, SO_RCVBUF, 60000);
    both(s, "BUSY_POLL", SOL_SOCKET, SO_BUSY_POLL, 0);
    both(s, "NODELAY", IPPROTO_TCP, TCP_NODELAY, 1);
    both(s, "CORK", IPPROTO_TCP, TCP_CORK, 1);
    both(s, "CORK", IPPROTO_TCP, TCP_CORK, 0);
    both(s, "KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 100);
    both(s, "KEEPIDLE 0", IPPROTO_TCP, TCP_KEEPIDLE, 0);
    both(s, "KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 10);
    both(s, "KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 4);
    both(s, "KEEPCNT 500", IPPROTO_TCP, TCP_KEEPCNT, 500);
    both(s, "SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 5);
    both(s, "USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
    both(s, "FASTOPEN", IPPROTO_TCP, TCP_FASTOPEN, 0);
    both(s, "NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384);
    both(s, "TOS", IPPROTO_IP, IP_TOS, 0x10);
    both(s, "TTL", IPPROTO_IP, IP_TTL, 33);
    both(s, "MTU_DISCOVER", IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_WANT);
    both(s, "ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN, 1);
    both(s, "DOMAIN", SOL_SOCKET, SO_DOMAIN, 1);
    both(s, "PROTOCOL", SOL_SOCKET, SO_PROTOCOL, 1);
    both(s, "TYPE", SOL_SOCKET, SO_TYPE, 1);
    both(s, "ERROR", SOL_SOCKET, SO_ERROR, 1);
    get(s, "NAPI_ID", SOL_SOCKET, SO_INCOMING_NAPI_ID);
    both(s, "no such", IPPROTO_TCP, 999, 1);
    char name[32] = "";
    socklen_t size = sizeof name;
    printf("CONGESTION: %d", getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &size));
    printf(" %d bytes, ", (int)size);
    printf("%d ", setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "no-such", 7) ? errno == ENOENT : -1);
    printf("%d\n", setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    printf("BINDTODEVICE: %d\n", setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "nosuch0", 8) ? errno : 0);
    struct linger l = {1, 5};
    size = sizeof l;
    setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    l = (struct linger){0};
    getsockopt(s, SOL_SOCKET, SO_LINGER, &l, &size);
    printf("LINGER: %d %d\n", l.l_onoff, l.l_linger);
}

static void info(int s, const char *who) {
    struct tcp_info i = {0};
    socklen_t size = sizeof i;
    int failed = getsockopt(s, IPPROTO_TCP, TCP_INFO, &i, &size);
    printf("%s: %d state %d, enough %d\n", who, failed, i.tcpi_state, size >= 104);
}

static void udp(int s) {
    printf("-- udp\n");
    both(s, "BROADCAST", SOL_SOCKET, SO_BROADCAST, 1);
    both(s, "TIMESTAMP", SOL_SOCKET, SO_TIMESTAMP, 1);
    both(s, "RXQ_OVFL", SOL_SOCKET, SO_RXQ_OVFL, 1);
    both(s, "PKTINFO", IPPROTO_IP, IP_PKTINFO, 1);
    both(s, "RECVTTL", IPPROTO_IP, IP_RECVTTL, 1);
    both(s, "RECVTOS", IPPROTO_IP, IP_RECVTOS, 1);
    both(s, "MULTICAST_ALL", IPPROTO_IP, IP_MULTICAST_ALL, 0);
    both(s, "RECVERR", IPPROTO_IP, IP_RECVERR, 1);
    unsigned char ttl = 3, loop = 0;
    printf("MULTICAST_TTL: %d\n", setsockopt(s, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, 1));
    printf("MULTICAST_LOOP: %d\n", setsockopt(s, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, 1));
    both(s, "NODELAY on UDP", IPPROTO_TCP, TCP_NODELAY, 1);
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
    tcp(l, "fresh");
    info(l, "fresh");
    bind(l, (void *)&a, sizeof a);
    both(l, "DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
    listen(l, 5);
    getsockname(l, (void *)&a, &size);
    get(l, "ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN);
    info(l, "listener");
    printf("connect: %d\n", connect(c, (void *)&a, sizeof a));
    int s = accept(l, NULL, NULL);
    tcp(c, "connected");
    info(c, "connected");
    get(s, "inherited NODELAY", IPPROTO_TCP, TCP_NODELAY);
    get(s, "inherited KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE);
    get(s, "inherited TOS", IPPROTO_IP, IP_TOS);
    both(s, "QUICKACK", IPPROTO_TCP, TCP_QUICKACK, 1);
    udp(socket(AF_INET, SOCK_DGRAM, 0));
    int six = socket(AF_INET6, SOCK_STREAM, 0);
    printf("-- v6\n");
    both(six, "V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY, 1);
    both(six, "UNICAST_HOPS", IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9);
    both(six, "TCLASS", IPPROTO_IPV6, IPV6_TCLASS, 0x20);
    both(six, "RECVPKTINFO", IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    return 0;
}
