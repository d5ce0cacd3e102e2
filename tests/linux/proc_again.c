// variants: glibc static-pie no-pie
/* Programs that run again and again, also two that are linked at the same addresses: each run starts with its data
 * as in the file and zeros elsewhere, whatever the last one left. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

enum { WORDS = 40000, ROUNDS = 6 };

extern char **environ;
static long data[WORDS] = {[0 ... WORDS - 1] = 0x1234567};
static long bss[WORDS];
static const long constants[WORDS] = {[0 ... WORDS - 1] = 0x7654321};

static void check_all(const long *words, size_t count, long value) {
    for (size_t i = 0; i < count; i++) CHECK(words[i] == value);
}

/* A wild access where this run has nothing must not go unnoticed; the last run had something there. */
static void on_fault(int number) { _exit(number == SIGSEGV ? 0 : 9); }

static int run(void) {
    size_t size = WORDS * sizeof(long);
    check_all(data, WORDS, 0x1234567);
    check_all(bss, WORDS, 0);
    check_all(constants, WORDS, 0x7654321);
    long *heap = sbrk((intptr_t)size), *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(heap != (void *)-1 && map != MAP_FAILED);
    check_all((long *)(((size_t)heap + 7) & ~7ul), WORDS - 1, 0);
    check_all(map, WORDS, 0);
    /* A reservation over what the last run wrote. */
    long *guard = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(guard != MAP_FAILED);
    memset(data, 0xee, sizeof data);
    memset(bss, 0xee, sizeof bss);
    memset(heap, 0xee, size);
    memset(map, 0xee, size);
    signal(SIGSEGV, on_fault);
    CHECK(munmap(map, size) == 0);
    size_t odd = (size_t)getpid() % 2;
    return (int)*(volatile long *)(odd ? map : guard);
}

static pid_t start(const char *program) {
    pid_t pid;
    char *args[] = {"run", "child", NULL};
    errno = posix_spawn(&pid, program, NULL, NULL, args, environ);
    CHECK(errno == 0);
    return pid;
}

static void finish(pid_t pid) {
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void copy(const char *from, const char *to) {
    static char buffer[1 << 16];
    ssize_t got;
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    CHECK(in >= 0 && out >= 0);
    while ((got = read(in, buffer, sizeof buffer)) > 0) CHECK(write(out, buffer, (size_t)got) == got);
    CHECK(got == 0 && close(in) == 0 && close(out) == 0);
}

int main(int argc, char **argv) {
    if (argc > 1 && argv) return run();
    char self[4096] = "", fixed[4200], other[64];
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    char place[4096];
    strcpy(place, self);
    snprintf(fixed, sizeof fixed, "%s/proc_again-no-pie", dirname(place));
    snprintf(other, sizeof other, "/tmp/proc_again-%d", getpid());
    copy(fixed, other);
    const char *programs[] = {self, fixed, other, fixed, fixed, self};
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) finish(start(programs[i]));
        pid_t one = start(fixed), two = start(other), three = start(fixed);
        finish(one);
        finish(two);
        finish(three);
    }
    CHECK(unlink(other) == 0);
    puts("each run began afresh");
    return 0;
}
