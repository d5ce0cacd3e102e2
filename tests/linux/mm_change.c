/* mremap, brk, madvise, mincore, msync, mlock. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const size_t page = 4096;

static char *anonymous(size_t size) {
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static const char *error(long result) {
    return result == -1 ? strerrorname_np(errno) : "ok";
}

static void fill(char *at, size_t size) {
    for (size_t i = 0; i < size; i += page) at[i] = (char)(i / page + 1);
}

static int is_filled(const char *at, size_t size) {
    for (size_t i = 0; i < size; i += page)
        if (at[i] != (char)(i / page + 1)) return 0;
    return 1;
}

static void remap(void) {
    char *at = anonymous(128 * page);
    munmap(at + 64 * page, 64 * page);
    fill(at, 64 * page);
    printf("shrink: %d\n", mremap(at, 64 * page, 32 * page, 0) == at);
    printf("grow again: %d\n", mremap(at, 32 * page, 64 * page, 0) == at);
    printf("kept %d, new is zero %d\n", is_filled(at, 32 * page), at[40 * page] == 0);
    mmap(at + 64 * page, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("no room: %s\n", error((long)mremap(at, 64 * page, 128 * page, 0)));
    fill(at, 64 * page);
    char *moved = mremap(at, 64 * page, 1024 * page, MREMAP_MAYMOVE);
    printf("moved: %d %d %d\n", moved != at, is_filled(moved, 64 * page), moved[1000 * page] == 0);
    fill(moved, 1024 * page);
    for (size_t size = 1024; size <= 16384; size *= 2) {
        moved = mremap(moved, size * page, 2 * size * page, MREMAP_MAYMOVE);
        if (!is_filled(moved, size * page) || moved[(2 * size - 1) * page]) printf("lost at %zu\n", size);
        fill(moved, 2 * size * page);
    }
    char *target = anonymous(8 * page);
    char *fixed = mremap(moved, 4 * page, 8 * page, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    printf("fixed: %d %d %d\n", fixed == target, is_filled(fixed, 4 * page), fixed[5 * page]);
    printf("not mapped: %s\n", error((long)mremap(at + 2 * page, page, 2 * page, MREMAP_MAYMOVE)));
    printf("new size 0: %s\n", error((long)mremap(target, page, 0, 0)));
    printf("unaligned: %s\n", error((long)mremap(target + 1, page, page, 0)));
    printf("bad flags: %s\n", error((long)mremap(target, page, page, 64)));
    printf("fixed only: %s\n", error((long)mremap(target, page, page, MREMAP_FIXED, at)));
    printf("overlap: %s\n",
           error((long)mremap(target, 4 * page, 4 * page, MREMAP_MAYMOVE | MREMAP_FIXED, target + page)));
}

static void heap(void) {
    char *start = (char *)syscall(SYS_brk, 0);
    char *end = start + 1000 * page + 17;
    printf("grow: %d\n", (char *)syscall(SYS_brk, end) == end);
    printf("zero: %d %d\n", start[100], end[-1]);
    fill(start, 1000 * page);
    printf("below the start: %d\n", (char *)syscall(SYS_brk, page) == end);
    printf("too far: %d\n", (char *)syscall(SYS_brk, (char *)0x7fffffffffff) == end);
    printf("shrink: %d\n", (char *)syscall(SYS_brk, start + 10) == start + 10);
    printf("and grow: %d\n", (char *)syscall(SYS_brk, end) == end);
    printf("zero again: %d %d, first byte %d\n", start[4 * page], start[900 * page], start[0]);
    syscall(SYS_brk, start);
}

static void advice(void) {
    char *at = anonymous(1024 * page);
    memset(at, 9, 1024 * page);
    printf("dontneed small: %s\n", error(madvise(at + page, page, MADV_DONTNEED)));
    printf("%d %d\n", at[page], at[2 * page]);
    printf("dontneed middle: %s\n", error(madvise(at + 100 * page, 64 * page, MADV_DONTNEED)));
    printf("%d %d\n", at[120 * page], at[164 * page]);
    printf("dontneed large: %s\n", error(madvise(at + 200 * page, 800 * page, MADV_DONTNEED)));
    printf("%d %d\n", at[900 * page], at[1000 * page]);
    at[900 * page] = 3;
    mprotect(at, 1024 * page, PROT_READ);
    printf("dontneed read-only: %s\n", error(madvise(at + 2 * page, page, MADV_DONTNEED)));
    printf("%d %d\n", at[2 * page], at[900 * page]);
    printf("others: %d %d %d\n", madvise(at, page, MADV_NORMAL), madvise(at, page, MADV_WILLNEED),
           madvise(at, page, MADV_SEQUENTIAL));
    printf("bad advice: %s\n", error(madvise(at, page, 1234)));
    printf("unaligned: %s\n", error(madvise(at + 1, page, MADV_NORMAL)));
    munmap(at + page, page);
    printf("over a hole: %s\n", error(madvise(at, 3 * page, MADV_DONTNEED)));
}

static void presence(void) {
    char *at = anonymous(64 * page);
    memset(at, 1, 64 * page);
    unsigned char present[64];
    int count = 0;
    printf("mincore: %s\n", error(mincore(at, 64 * page, present)));
    for (int i = 0; i < 64; i++) count += present[i] & 1;
    printf("present: %d\n", count);
    printf("unaligned: %s\n", error(mincore(at + 1, page, present)));
    munmap(at + page, page);
    printf("hole: %s\n", error(mincore(at, 3 * page, present)));
    printf("bad vector: %s\n", error(mincore(at, page, (void *)8)));
    printf("msync: %s\n", error(msync(at, page, MS_SYNC)));
    printf("msync over a hole: %s\n", error(msync(at, 3 * page, MS_ASYNC)));
    printf("msync bad flags: %s\n", error(msync(at, page, 8)));
    printf("msync both: %s\n", error(msync(at, page, MS_SYNC | MS_ASYNC)));
    printf("mlock: %s\n", error(mlock(at, page)));
    printf("dontneed of locked: %s\n", error(madvise(at, page, MADV_DONTNEED)));
    printf("munlock: %s\n", error(munlock(at, page)));
    printf("mlock of a hole: %s\n", error(mlock(at, 3 * page)));
    printf("mlockall: %s\n", error(mlockall(0)));
}

int main(void) {
    remap();
    heap();
    advice();
    presence();
    return 0;
}
