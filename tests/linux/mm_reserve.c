/* What Go, Java and V8 do: reserve a lot, use a little of it here and there. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int main(void) {
    static const size_t gib = 1ul << 30;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *all = mmap(NULL, 256 * gib, PROT_NONE, flags, -1, 0);
    if (all == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    char *aligned = (char *)(((unsigned long)all + 4 * gib - 1) & ~(4 * gib - 1));
    munmap(all, (size_t)(aligned - all));
    munmap(aligned + 128 * gib, (size_t)(all + 256 * gib - (aligned + 128 * gib)));
    int good = 0;
    for (int i = 0; i < 32; i++) {
        char *at = aligned + (size_t)i * 4 * gib + (size_t)i * 4096;
        if (mprotect(at, 3 << 20, PROT_READ | PROT_WRITE)) perror("mprotect");
        at[2 << 20] = (char)i;
        good += at[0] == 0 && at[2 << 20] == i;
    }
    printf("touched: %d\n", good);
    char *sparse = mmap(NULL, 64 * gib, PROT_READ | PROT_WRITE, flags, -1, 0);
    for (size_t i = 0; i < 32; i++) sparse[i * 2 * gib] = 1;
    printf("sparse: %d\n", sparse != MAP_FAILED);
    printf("decommit: %d\n", madvise(sparse, 64 * gib, MADV_DONTNEED));
    printf("zero: %d\n", sparse[2 * gib]);
    char *down = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, flags | MAP_GROWSDOWN | MAP_STACK, -1, 0);
    memset(down, 1, 1 << 20);
    printf("stack-like: %d\n", down[5]);
    printf("give back: %d %d\n", munmap(sparse, 64 * gib), munmap(aligned, 128 * gib));
    return 0;
}
