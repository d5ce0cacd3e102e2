/* Random operations on one file, compared with a copy in memory after each: reads, writes, truncation, holes,
   shared mappings, reopening. The same seed gives the same operations everywhere. */
// args: 1000 42
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX = 600 * 1024 };

static unsigned char model[MAX], buf[MAX];
static long size;
static int fd;
static unsigned long long state;
static int step;
static char path[256];

static unsigned rnd(unsigned below) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(state >> 33) % below;
}

static void fail(const char *what, long at) {
    printf("step %d: %s at %ld (%s)\n", step, what, at, strerror(errno));
    exit(1);
}

static void check_range(long from, long count) {
    long want = from >= size ? 0 : count < size - from ? count : size - from;
    long got = pread(fd, buf, count, from);
    if (got != want) fail("count of pread", from);
    for (long i = 0; i < got; i++)
        if (buf[i] != model[from + i]) fail("content", from + i);
}

static void grow(long to) {
    if (to > size) size = to;
}

static void do_write(long from, long count) {
    for (long i = 0; i < count; i++) buf[i] = (unsigned char)(rnd(255) + 1);
    if (pwrite(fd, buf, count, from) != count) fail("pwrite", from);
    memcpy(model + from, buf, count);
    grow(from + count);
}

static void do_map_write(long from, long count) {
    if (from + count > size) {
        if (ftruncate(fd, from + count)) fail("ftruncate", from + count);
        grow(from + count);
    }
    long base = from & ~4095L;
    unsigned char *map = mmap(NULL, from + count - base, PROT_READ | PROT_WRITE, MAP_SHARED, fd, base);
    if (map == MAP_FAILED) fail("mmap", from);
    for (long i = 0; i < count; i++) {
        if (map[from - base + i] != model[from + i]) fail("mapped content", from + i);
        model[from + i] = map[from - base + i] = (unsigned char)(rnd(255) + 1);
    }
    /* What is mapped and what is read are the same, also before msync. */
    check_range(from, count);
    if (rnd(2) && msync(map, from + count - base, rnd(2) ? MS_SYNC : MS_ASYNC)) fail("msync", from);
    if (rnd(4) == 0) do_write(from, count < 5000 ? count : 5000);
    for (long i = 0; i < count; i++)
        if (map[from - base + i] != model[from + i]) fail("mapped content after write", from + i);
    munmap(map, from + count - base);
}

static void do_truncate(long to) {
    if (ftruncate(fd, to)) fail("ftruncate", to);
    if (to < size) memset(model + to, 0, size - to);
    size = to;
}

static void do_punch(long from, long count) {
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, count)) fail("punch", from);
    if (from < size) memset(model + from, 0, count < size - from ? count : size - from);
}

static void do_allocate(long from, long count) {
    int keeps = rnd(2);
    if (fallocate(fd, keeps ? FALLOC_FL_KEEP_SIZE : 0, from, count)) fail("fallocate", from);
    if (!keeps) grow(from + count);
}

static void do_reopen(void) {
    if (rnd(2) && (rnd(2) ? fsync(fd) : fdatasync(fd))) fail("fsync", 0);
    close(fd);
    fd = open(path, O_RDWR | (rnd(8) == 0 ? O_SYNC : 0));
    if (fd < 0) fail("open", 0);
    struct stat st;
    if (fstat(fd, &st) || st.st_size != size) fail("size", st.st_size);
}

int main(int argc, char **argv) {
    int steps = argc > 1 ? atoi(argv[1]) : 1000;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    snprintf(path, sizeof path, "%s/fs-model-XXXXXX", argc > 3 ? argv[3] : "/tmp");
    fd = mkstemp(path);
    if (fd < 0) fail("mkstemp", 0);
    for (step = 0; step < steps; step++) {
        long from = rnd(8) == 0 ? rnd(MAX - 1) : rnd((unsigned)size + 8192 < MAX ? size + 8192 : MAX - 1);
        long count = 1 + rnd(rnd(4) == 0 ? 120000 : 9000);
        if (from + count > MAX) count = MAX - from;
        switch (rnd(12)) {
        case 0: case 1: case 2: do_write(from, count); break;
        case 3: case 4: case 5: check_range(from, count); break;
        case 6: case 7: do_map_write(from, count < 40000 ? count : 40000); break;
        case 8: do_truncate(from); break;
        case 9: do_punch(from, count); break;
        case 10: do_allocate(from, count); break;
        default: do_reopen();
        }
    }
    check_range(0, MAX);
    unlink(path);
    printf("%d steps, %ld bytes at the end\n", steps, size);
    return 0;
}
