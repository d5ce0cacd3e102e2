/* Does a bit of everything that needs the host and checks what comes back.
 *
 *   0  all was right, and "right" is on standard output
 *   3  a call failed; its name and errno are on standard error
 *   9  something was wrong that the kernel should have noticed; what, is on standard error
 *
 * Standard input must hold what `lesson` gives, the file in argv[1] too, of the same size. "ready" on
 * standard error says that it begins to wait for the input. argv[2] is an empty directory. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <immintrin.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FAILED = 3, WRONG = 9 };
enum { LESSON_SIZE = 300000, ROUNDS = 2000, CLOCK_READS = 20000 };

static void say(const char *what, const char *why) {
    dprintf(2, "witness: %s: %s\n", what, why);
}

static void failed(const char *what) {
    say(what, strerror(errno));
    _exit(FAILED);
}

static void wrong(const char *what) {
    say(what, "WRONG");
    _exit(WRONG);
}

static unsigned char lesson(size_t at) {
    uint32_t x = (uint32_t)at * 2654435761u;
    return (unsigned char)(x >> 24);
}

static void check_stream(int fd, const char *name) {
    unsigned char buffer[7001];
    size_t at = 0;
    for (;;) {
        ssize_t count = read(fd, buffer, sizeof buffer);
        if (count < 0)
            failed(name);
        if (count == 0)
            break;
        if ((size_t)count > sizeof buffer)
            wrong(name);
        for (ssize_t i = 0; i < count; i++, at++)
            if (buffer[i] != lesson(at))
                wrong(name);
    }
    if (at != LESSON_SIZE)
        wrong("size of a stream");
}

static void check_input(void) {
    struct pollfd ready = {.fd = 0, .events = POLLIN};
    if (poll(&ready, 1, 10000) < 0)
        failed("poll");
    check_stream(0, "standard input");
}

static void check_file(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) < 0)
        failed(path);
    if (stat.st_size != LESSON_SIZE)
        wrong("st_size");
    check_stream(fd, path);
    unsigned char *map = mmap(NULL, LESSON_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        failed("mmap of a file");
    for (size_t at = 0; at < LESSON_SIZE; at += 777)
        if (map[at] != lesson(at))
            wrong("mapped file");
    munmap(map, LESSON_SIZE);
    close(fd);
}

static void check_memory(void) {
    const size_t size = 8 << 20;
    for (int round = 0; round < 3; round++) {
        unsigned char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED)
            failed("mmap");
        for (size_t at = 0; at < size; at += 4096) {
            if (map[at] != 0)
                wrong("new memory");
            map[at] = lesson(at);
        }
        if (madvise(map, size / 2, MADV_DONTNEED) < 0)
            failed("madvise");
        for (size_t at = 0; at < size; at += 4096)
            if (map[at] != (at < size / 2 ? 0 : lesson(at)))
                wrong("memory");
        if (mprotect(map, size, PROT_READ) < 0)
            failed("mprotect");
        if (map[size - 4096] != lesson(size - 4096))
            wrong("protected memory");
        munmap(map, size);
    }
}

static int64_t now(int raw) {
    struct timespec t;
    long result = raw ? syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t) : clock_gettime(CLOCK_MONOTONIC, &t);
    if (result < 0)
        failed("clock_gettime");
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void check_clock(void) {
    int64_t last = 0;
    for (int i = 0; i < CLOCK_READS; i++) {
        int64_t t = now(i & 1);
        if (t < last)
            wrong("CLOCK_MONOTONIC went back");
        last = t;
        if (i % 4000 == 0) {
            struct timespec moment = {0, 1000000};
            nanosleep(&moment, NULL);
        }
    }
}

/* Patterns in vector, x87 and control registers survive whatever happens in between. */
static void check_registers(uint64_t pattern) {
    double x87 = (double)pattern * 3.0, back;
    unsigned mxcsr = 0x1f80 | (pattern & 3) << 13, got;
    uint64_t wide[4] = {pattern, ~pattern, pattern * 5, pattern ^ 0x5555}, seen[4];
    if (!__builtin_cpu_supports("avx"))
        return;
    __asm__ volatile("ldmxcsr %4\n fldl %3\n vmovdqu %5, %%ymm9\n"
                     "mov $3000, %%ecx\n 1: pause\n dec %%ecx\n jnz 1b\n"
                     "vmovdqu %%ymm9, %2\n fstpl %0\n stmxcsr %1\n vzeroupper"
                     : "=m"(back), "=m"(got), "=m"(seen)
                     : "m"(x87), "m"(mxcsr), "m"(wide)
                     : "rcx", "xmm9", "memory");
    unsigned usual = 0x1f80;
    __asm__ volatile("ldmxcsr %0" : : "m"(usual));
    if (back != x87)
        wrong("x87 register");
    if (got != mxcsr)
        wrong("MXCSR");
    if (memcmp(seen, wide, sizeof wide))
        wrong("vector register");
}

static void check_initial_registers(void) {
    unsigned mxcsr;
    unsigned short control;
    __asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(mxcsr), "=m"(control));
    if ((mxcsr & 0xffc0) != 0x1f80)
        wrong("MXCSR of a new thread");
    if (control != 0x037f)
        wrong("x87 control word of a new thread");
    struct { uint32_t control, status, tags, rest[4]; } x87;
    __asm__ volatile("fnstenv %0\n fldenv %0" : "=m"(x87));
    if ((x87.tags & 0xffff) != 0xffff)
        wrong("x87 stack of a new thread");
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int turn;

static void *take_turns(void *argument) {
    int me = (int)(intptr_t)argument;
    check_initial_registers();
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        while (turn % 3 != me)
            pthread_cond_wait(&turned, &lock);
        turn++;
        pthread_cond_broadcast(&turned);
        pthread_mutex_unlock(&lock);
        if (i % 8 == 0)
            check_registers((uint64_t)me << 40 | (uint64_t)i << 8 | 0xA5);
    }
    return NULL;
}

/* `path` is mapped while others could look at its half-made pages, which therefore must not exist. */
static void check_threads(const char *path) {
    pthread_t threads[3];
    pthread_mutex_lock(&lock);
    for (intptr_t i = 0; i < 3; i++)
        if ((errno = pthread_create(&threads[i], NULL, take_turns, (void *)i)))
            failed("pthread_create");
    check_file(path);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    if (turn != 3 * ROUNDS)
        wrong("turns");
}

static void must(int result, const char *what) {
    if (result < 0)
        failed(what);
}

/* Every call on a directory of the host. Its content is not trusted, so only sizes are checked. */
static void check_directory(void) {
    char buffer[5000], target[64];
    struct stat stat;
    struct statfs statfs_buffer;
    must(mkdir("d", 0755), "mkdir");
    must(chdir("d"), "chdir");
    int fd = open("file", O_CREAT | O_RDWR, 0644);
    must(fd, "open");
    if (pwrite(fd, buffer, sizeof buffer, 0) != sizeof buffer)
        failed("pwrite");
    must(fsync(fd), "fsync");
    must(ftruncate(fd, 4000), "ftruncate");
    ssize_t count = pread(fd, buffer, sizeof buffer, 0);
    must(count, "pread");
    if (count > (ssize_t)sizeof buffer)
        wrong("pread");
    must(fstat(fd, &stat), "fstat");
    must(fchmod(fd, 0600), "fchmod");
    must(fstatfs(fd, &statfs_buffer), "fstatfs");
    must(close(fd), "close");
    must(chown("file", getuid(), getgid()), "chown");
    must(utimensat(AT_FDCWD, "file", NULL, 0), "utimensat");
    must(rename("file", "renamed"), "rename");
    must(link("renamed", "linked"), "link");
    must(symlink("renamed", "symlink"), "symlink");
    must(readlink("symlink", target, sizeof target), "readlink");
    DIR *directory = opendir(".");
    if (!directory)
        failed("opendir");
    errno = 0;
    for (int entries = 0; readdir(directory); entries++)
        if (entries > 100)
            wrong("entries");
    if (errno)
        failed("readdir");
    closedir(directory);
    must(unlink("symlink"), "unlink");
    must(unlink("linked"), "unlink");
    must(unlink("renamed"), "unlink");
    must(chdir(".."), "chdir");
    must(rmdir("d"), "rmdir");
}

/* Every call on sockets of the host. Who is at the other end is not known, but it's us. */
static void check_streams(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    unsigned char out[5000], in[5000];
    int one = 1, count;
    char info[300];
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    must(listener, "socket");
    must(client, "socket");
    must(bind(listener, (void *)&address, size), "bind");
    must(listen(listener, 5), "listen");
    must(getsockname(listener, (void *)&address, &size), "getsockname");
    must(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), "setsockopt");
    must(connect(client, (void *)&address, size), "connect");
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    must(poll(&ready, 1, 10000), "poll");
    int server = accept(listener, (void *)&address, &size);
    must(server, "accept");
    if (address.sin_family != AF_INET || size != sizeof address)
        wrong("address of the peer");
    must(setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), "setsockopt");
    size = sizeof info;
    must(getsockopt(server, IPPROTO_TCP, TCP_INFO, info, &size), "getsockopt");
    if (size > sizeof info)
        wrong("getsockopt");
    for (size_t at = 0; at < sizeof out; at++)
        out[at] = lesson(at);
    if (send(client, out, sizeof out, 0) != sizeof out)
        failed("send");
    must(shutdown(client, SHUT_WR), "shutdown");
    ready.fd = server;
    must(poll(&ready, 1, 10000), "poll");
    must(ioctl(server, FIONREAD, &count), "FIONREAD");
    if (recv(server, in, 100, 0) != 100)
        failed("recv");
    if (memcmp(in, out, 100))
        wrong("received bytes");
    /* All that was asked for has come: only the host knows whether there is more. */
    must(poll(&ready, 1, 10000), "poll");
    for (size_t at = 100; at < sizeof out;) {
        ssize_t got = recv(server, in, sizeof in - at, 0);
        must(got, "recv");
        if (got == 0 || (size_t)got > sizeof in - at || memcmp(in, out + at, got))
            wrong("received bytes");
        at += got;
    }
    if (recv(server, in, sizeof in, 0) != 0)
        wrong("end of a stream");
    close(listener);
    close(client);
    close(server);
}

static void check_datagrams(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, from;
    socklen_t size = sizeof address;
    char in[100];
    int receiver = socket(AF_INET, SOCK_DGRAM, 0), sender = socket(AF_INET, SOCK_DGRAM, 0);
    must(receiver, "socket");
    must(sender, "socket");
    must(bind(receiver, (void *)&address, size), "bind");
    must(getsockname(receiver, (void *)&address, &size), "getsockname");
    must(sendto(sender, "question", 8, 0, (void *)&address, size), "sendto");
    ssize_t got = recvfrom(receiver, in, sizeof in, 0, (void *)&from, &size);
    must(got, "recvfrom");
    if (got != 8 || size != sizeof from || from.sin_family != AF_INET)
        wrong("datagram");
    close(receiver);
    close(sender);
}

static void check_interfaces(void) {
    struct ifaddrs *all;
    must(getifaddrs(&all), "getifaddrs");
    for (struct ifaddrs *each = all; each; each = each->ifa_next)
        if (strlen(each->ifa_name) > 15)
            wrong("name of an interface");
    freeifaddrs(all);
}

int main(int argc, char **argv) {
    struct winsize size;
    if (argc != 3)
        return 2;
    check_initial_registers();
    /* Asks the host if standard input is a terminal, and is content with either answer. */
    ioctl(0, TIOCGWINSZ, &size);
    check_file(argv[1]);
    dprintf(2, "ready\n");
    check_input();
    must(chdir(argv[2]), "chdir");
    check_directory();
    check_streams();
    check_datagrams();
    check_interfaces();
    check_memory();
    check_clock();
    check_threads(argv[1]);
    if (write(1, "right\n", 6) != 6)
        failed("write");
    return 0;
}
