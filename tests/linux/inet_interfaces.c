/* The loopback interface, by netlink, ioctl and the functions built on them. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void addresses(void) {
    struct ifaddrs *all;
    char text[64];
    if (getifaddrs(&all)) {
        printf("getifaddrs: %s\n", strerrorname_np(errno));
        return;
    }
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (strcmp(i->ifa_name, "lo") || !i->ifa_addr) continue;
        if (i->ifa_addr->sa_family == AF_INET) {
            inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, text, sizeof text);
            printf("lo %s", text);
            inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_netmask)->sin_addr, text, sizeof text);
            printf(" %s", text);
        } else if (i->ifa_addr->sa_family == AF_PACKET) {
            printf("lo packet");
        } else {
            continue;
        }
        printf(" flags %#x\n", i->ifa_flags & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING));
    }
    freeifaddrs(all);
}

static void requests(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq r = {0};
    strcpy(r.ifr_name, "lo");
    printf("flags %d", ioctl(s, SIOCGIFFLAGS, &r));
    printf(" %#x\n", r.ifr_flags & (IFF_UP | IFF_LOOPBACK));
    printf("address %d", ioctl(s, SIOCGIFADDR, &r));
    printf(" %s\n", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
    printf("mask %d", ioctl(s, SIOCGIFNETMASK, &r));
    printf(" %s\n", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
    printf("mtu %d", ioctl(s, SIOCGIFMTU, &r));
    printf(" %d\n", r.ifr_mtu);
    printf("hardware %d", ioctl(s, SIOCGIFHWADDR, &r));
    printf(" %d\n", r.ifr_hwaddr.sa_family);
    strcpy(r.ifr_name, "none0");
    int none = ioctl(s, SIOCGIFFLAGS, &r);
    printf("none %d %s\n", none, strerrorname_np(errno));
    printf("index %u\n", if_nametoindex("lo"));
    char name[IF_NAMESIZE];
    printf("name %s\n", if_indextoname(1, name));
    close(s);
}

static void netlink(void) {
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    socklen_t size = sizeof a;
    printf("bind %d\n", bind(s, (void *)&a, sizeof a));
    getsockname(s, (void *)&a, &size);
    printf("port id %d, %d bytes\n", a.nl_pid != 0, (int)size);
    struct {
        struct nlmsghdr h;
        struct rtgenmsg g;
    } bad = {{sizeof bad, 4000, NLM_F_REQUEST, 7, 0}, {0}};
    printf("unknown %d\n", (int)send(s, &bad, sizeof bad, 0) == (int)sizeof bad);
    char buf[4096];
    long n = recv(s, buf, sizeof buf, 0);
    struct nlmsghdr *h = (void *)buf;
    struct nlmsgerr *e = NLMSG_DATA(h);
    printf("answer %d type %d seq %u %s\n", n > 0, h->nlmsg_type, h->nlmsg_seq, strerrorname_np(-e->error));
    int bad_protocol = socket(AF_NETLINK, SOCK_RAW, 31);
    printf("bad protocol %d %s\n", bad_protocol, strerrorname_np(errno));
    close(s);
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    addresses();
    requests();
    netlink();
    return 0;
}
