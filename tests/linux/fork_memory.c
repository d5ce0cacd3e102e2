// flags: -O1
// variants: glibc static no-pie
//
// fork(2) and the calls that change mappings, in parent and child; threads; fork and exec in loops.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno);   \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

enum { PAGE = 4096 };

static int wait_for(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static int pipes[2][2];

/* Side 0 and side 1 take turns. */
static void hand_over(int side)
{
    char byte = 'x';
    CHECK(write(pipes[side][1], &byte, 1) == 1);
}

static void await_turn(int side)
{
    char byte;
    CHECK(read(pipes[!side][0], &byte, 1) == 1);
}

static char *anonymous(size_t size)
{
    char *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static int is_all(const char *at, size_t size, char byte)
{
    for (size_t i = 0; i < size; i++)
        if (at[i] != byte)
            return 0;
    return 1;
}

static void change_mappings(int side)
{
    /* Both make, fill, unmap and remake mappings, most probably at the same addresses. */
    char mark = side ? 'c' : 'p';
    for (int round = 0; round < 20; round++) {
        size_t size = (2 + round * 7 % 40) * PAGE;
        char *at = anonymous(size);
        CHECK(is_all(at, size, 0));
        memset(at, mark, size);
        char *heap = sbrk(3 * PAGE);
        CHECK(heap != (void *)-1);
        CHECK(is_all(heap, 3 * PAGE, 0));
        memset(heap, mark, 3 * PAGE);
        hand_over(side);
        await_turn(side);
        CHECK(is_all(at, size, mark) && is_all(heap, 3 * PAGE, mark));
        CHECK(munmap(at, size / 2 & -PAGE) == 0);
        hand_over(side);
        await_turn(side);
        CHECK(is_all(at + (size / 2 & -PAGE), size - (size / 2 & -PAGE), mark));
        CHECK(munmap(at, size) == 0);
        CHECK(sbrk(-3 * PAGE) != (void *)-1);
    }
}

static void mappings(void)
{
    CHECK(pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0);
    char *before = anonymous(64 * PAGE);
    memset(before, 'b', 64 * PAGE);
    char *lazy = anonymous(32 << 20);
    lazy[5 << 20] = 'l';
    pid_t pid = fork();
    CHECK(pid >= 0);
    int side = pid == 0;
    char mark = side ? 'c' : 'p';
    /* The first turn is the child's. */
    if (!side)
        await_turn(0);
    CHECK(is_all(before, 64 * PAGE, 'b'));
    CHECK(mprotect(before, 8 * PAGE, PROT_READ) == 0);
    CHECK(mprotect(before, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
    memset(before, mark, 4 * PAGE);
    CHECK(madvise(before + 16 * PAGE, 8 * PAGE, MADV_DONTNEED) == 0);
    CHECK(is_all(before + 16 * PAGE, 8 * PAGE, 0));
    CHECK(munmap(before + 32 * PAGE, 8 * PAGE) == 0);
    CHECK(mmap(before + 32 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == before + 32 * PAGE);
    CHECK(is_all(before + 32 * PAGE, 8 * PAGE, 0));
    char *moved = mremap(before + 48 * PAGE, 16 * PAGE, 200 * PAGE, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED);
    CHECK(is_all(moved, 16 * PAGE, 'b') && is_all(moved + 16 * PAGE, 184 * PAGE, 0));
    memset(moved, mark, 200 * PAGE);
    CHECK(lazy[5 << 20] == 'l' && is_all(lazy + (9 << 20), PAGE, 0));
    lazy[9 << 20] = mark;
    lazy[5 << 20] = mark;
    hand_over(side);
    await_turn(side);
    CHECK(is_all(before, 4 * PAGE, mark) && is_all(before + 4 * PAGE, 12 * PAGE, 'b'));
    CHECK(is_all(before + 16 * PAGE, 8 * PAGE, 0) && is_all(before + 24 * PAGE, 8 * PAGE, 'b'));
    CHECK(is_all(moved, 200 * PAGE, mark));
    CHECK(lazy[9 << 20] == mark && lazy[5 << 20] == mark && lazy[20 << 20] == 0);
    change_mappings(side);
    hand_over(side);
    if (side)
        _exit(7);
    CHECK(WEXITSTATUS(wait_for(pid)) == 7);
    CHECK(is_all(moved, 200 * PAGE, mark));
    puts("mappings");
}

static void advice(void)
{
    char *skipped = anonymous(4 * PAGE), *wiped = anonymous(4 * PAGE);
    memset(skipped, 's', 4 * PAGE);
    memset(wiped, 'w', 4 * PAGE);
    CHECK(madvise(skipped, 4 * PAGE, MADV_DONTFORK) == 0);
    CHECK(madvise(wiped, 4 * PAGE, MADV_WIPEONFORK) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(is_all(wiped, 4 * PAGE, 0));
        memset(wiped, 'x', 4 * PAGE);
        unsigned char present;
        CHECK(mincore(skipped, PAGE, &present) == -1 && errno == ENOMEM);
        *(volatile char *)skipped = 1;
        _exit(0);
    }
    int status = wait_for(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    CHECK(is_all(skipped, 4 * PAGE, 's') && is_all(wiped, 4 * PAGE, 'w'));
    puts("advice");
}

static volatile int is_done;
static volatile long counters[3];

static void *count(void *arg)
{
    volatile long *counter = arg;
    while (!is_done)
        ++*counter;
    return 0;
}

static void threads(void)
{
    pthread_t ids[3];
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&ids[i], 0, count, (void *)&counters[i]) == 0);
    for (int round = 0; round < 20; round++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            /* Nobody counts here. */
            long seen = counters[0] + counters[1] + counters[2];
            for (volatile int i = 0; i < 100000; i++)
                ;
            _exit(counters[0] + counters[1] + counters[2] == seen ? 0 : 1);
        }
        CHECK(wait_for(pid) == 0);
    }
    is_done = 1;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(ids[i], 0) == 0);
    puts("threads");
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int value;

static void *wait_for_value(void *arg)
{
    pthread_mutex_lock(&mutex);
    while (value == 0)
        pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
    return arg;
}

/* The same private futex in two processes is two futexes. */
static void futexes(void)
{
    pthread_t id;
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    CHECK(pthread_create(&id, 0, wait_for_value, 0) == 0);
    usleep(20000);
    if (pid == 0) {
        char byte;
        CHECK(read(ready[0], &byte, 1) == 1);
        usleep(20000);
    }
    pthread_mutex_lock(&mutex);
    value = 1;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&mutex);
    CHECK(pthread_join(id, 0) == 0);
    if (pid == 0)
        _exit(0);
    CHECK(write(ready[1], "x", 1) == 1);
    CHECK(wait_for(pid) == 0);
    puts("futexes");
}

static void at_once(void)
{
    /* Members that compute at the same time, each with its own data. */
    enum { COUNT = 4, SIZE = 100 * PAGE };
    unsigned char *data = (void *)anonymous(SIZE);
    pid_t pids[COUNT];
    for (int i = 0; i < COUNT; i++) {
        memset(data, i, SIZE);
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] != 0)
            continue;
        for (int round = 1; round <= 100; round++) {
            for (int at = 0; at < SIZE; at += 64) {
                if (data[at] != (unsigned char)(i + round - 1))
                    _exit(1);
                data[at]++;
            }
        }
        _exit(0);
    }
    for (int i = 0; i < COUNT; i++)
        CHECK(wait_for(pids[i]) == 0);
    CHECK(data[0] == COUNT - 1);
    puts("at once");
}

static void execute(void)
{
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            char number[12];
            snprintf(number, sizeof number, "%d", i);
            execl("/proc/self/exe", "self", "child", number, (char *)0);
            _exit(127);
        }
        CHECK(WEXITSTATUS(wait_for(pid)) == i);
    }
    puts("execute");
}

int main(int argc, char **argv)
{
    if (argc > 2)
        return atoi(argv[2]);
    setvbuf(stdout, 0, _IONBF, 0);
    alarm(30);
    mappings();
    advice();
    threads();
    futexes();
    at_once();
    execute();
    return 0;
}
