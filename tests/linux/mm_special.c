// variants: glibc static
/* Corners of memory calls: mremap that leaves zeros, shared memory that grows, advice, locks, keys. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)
#define FAILS(call, number) CHECK((long)(call) == -1 && errno == (number))

enum { PAGE = 4096 };
#define ANY PROT_READ | PROT_WRITE

static char *map(size_t size, int flags) {
    char *at = mmap(NULL, size, ANY, flags | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void leave_zeros(void) {
    char *old = map(4 * PAGE, MAP_PRIVATE);
    strcpy(old + PAGE, "moved");
    char *new = (char *)syscall(SYS_mremap, old, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | 4, 0);
    CHECK(new != MAP_FAILED && new != old && !strcmp(new + PAGE, "moved") && old[PAGE] == 0);
    strcpy(old, "again");
    CHECK(new[0] == 0 && munmap(old, 4 * PAGE) == 0 && munmap(new, 4 * PAGE) == 0);
    old = map(PAGE, MAP_PRIVATE);
    FAILS(syscall(SYS_mremap, old, PAGE, 2 * PAGE, MREMAP_MAYMOVE | 4, 0), EINVAL);
    FAILS(syscall(SYS_mremap, old, PAGE, PAGE, 4, 0), EINVAL);
    puts("leave_zeros");
}

static void shared_memory(void) {
    char *at = map(8 * PAGE, MAP_SHARED);
    strcpy(at, "first");
    strcpy(at + 7 * PAGE, "last");
    CHECK(mremap(at, 8 * PAGE, 4 * PAGE, 0) == at && !strcmp(at, "first"));
    FAILS(mremap(at, 4 * PAGE, 0, MREMAP_MAYMOVE), EINVAL);
    char *again = mremap(at, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
    CHECK(again != MAP_FAILED && !strcmp(again, "first") && !strcmp(again + 7 * PAGE, "last"));
    pid_t pid = fork();
    if (pid == 0) {
        strcpy(again, "child");
        _exit(0);
    }
    CHECK(waitpid(pid, NULL, 0) == pid && !strcmp(again, "child"));
    puts("shared_memory");
}

/* What madvise said holds for what a mapping grows by: it stays one mapping. */
static void grows_as_one(void) {
    char *at = map(8 * PAGE, MAP_PRIVATE);
    CHECK(madvise(at, 8 * PAGE, MADV_DONTFORK) == 0);
    at = mremap(at, 8 * PAGE, 4 * PAGE, MREMAP_MAYMOVE);
    at = mremap(at, 4 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    CHECK(at != MAP_FAILED);
    at = mremap(at, 16 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    CHECK(at != MAP_FAILED && munmap(at, 64 * PAGE) == 0);
    puts("grows_as_one");
}

static void advice(void) {
    char text[8] = {1};
    int fd = memfd_create("advice", 0);
    CHECK(ftruncate(fd, 3 * PAGE) == 0);
    char *at = mmap(NULL, 3 * PAGE, ANY, MAP_SHARED, fd, 0);
    memset(at, 'a', 3 * PAGE);
    CHECK(madvise(at + PAGE, PAGE, MADV_REMOVE) == 0 && at[PAGE] == 0 && at[0] == 'a' && at[2 * PAGE] == 'a');
    CHECK(pread(fd, text, 1, PAGE) == 1 && text[0] == 0);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == 0 && at[0] == 0 && at[2 * PAGE] == 'a');
    char *own = map(2 * PAGE, MAP_PRIVATE);
    FAILS(madvise(own, PAGE, MADV_REMOVE), EINVAL);
    CHECK(madvise(own, PAGE, 20) == 0 && madvise(own, PAGE, 21) == 0);
    CHECK(madvise(own, PAGE, 22) == 0 && madvise(own, PAGE, 23) == 0 && madvise(own, PAGE, MADV_FREE) == 0);
    CHECK(mlock(own, PAGE) == 0);
    FAILS(madvise(own, PAGE, MADV_DONTNEED), EINVAL);
    FAILS(madvise(own, PAGE, 20), EINVAL);
    CHECK(madvise(own, PAGE, 24) == 0);
    FAILS(madvise(own + 1, PAGE, MADV_NORMAL), EINVAL);
    FAILS(madvise(own, PAGE, 9999), EINVAL);
    FAILS(msync(own, PAGE, MS_INVALIDATE), EBUSY);
    CHECK(munlock(own, PAGE) == 0 && msync(own, PAGE, MS_INVALIDATE) == 0);
    puts("advice");
}

static void locked(void) {
    unsigned char present[2];
    CHECK(mlockall(MCL_FUTURE) == 0);
    char *at = mmap(NULL, 2 * PAGE, ANY, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && mincore(at, 2 * PAGE, present) == 0 && present[0] & 1 && present[1] & 1);
    CHECK(munlockall() == 0);
    FAILS(mlockall(0), EINVAL);
    FAILS(mlockall(8), EINVAL);
    FAILS(mlockall(4), EINVAL);
    puts("locked");
}

static void grows_down(void) {
    char *room = mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(munmap(room, 64 * PAGE) == 0);
    char *top = mmap(room + 48 * PAGE, 8 * PAGE, ANY, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    CHECK(top == room + 48 * PAGE);
    CHECK(mprotect(top + 7 * PAGE, PAGE, PROT_READ | PROT_GROWSDOWN) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        *top = 1;
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    char *other = map(2 * PAGE, MAP_PRIVATE);
    FAILS(mprotect(other, PAGE, PROT_READ | PROT_GROWSDOWN), EINVAL);
    puts("grows_down");
}

static void no_execution(void) {
    char *at = map(PAGE, MAP_PRIVATE);
    CHECK(prctl(65, 1, 0, 0, 0) == 0 && prctl(66, 0, 0, 0, 0) == 1);
    FAILS(mprotect(at, PAGE, PROT_READ | PROT_EXEC), EACCES);
    FAILS(mmap(NULL, PAGE, ANY | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EACCES);
    CHECK(mprotect(at, PAGE, PROT_READ) == 0);
    FAILS(prctl(65, 0, 0, 0, 0), EPERM);
    puts("no_execution");
}

int main(void) {
    leave_zeros();
    shared_memory();
    grows_as_one();
    advice();
    locked();
    grows_down();
    CHECK(syscall(329, map(PAGE, MAP_PRIVATE), PAGE, PROT_READ, -1) == 0);
    FAILS(syscall(329, NULL, PAGE, PROT_READ, 5), EINVAL);
    no_execution();
    return 0;
}
