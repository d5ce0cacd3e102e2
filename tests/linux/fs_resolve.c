/* openat2's bounds, positioned I/O with flags, and names that leave whiteouts. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)
#define FAILS(call, number) CHECK((call) == -1 && errno == (number))
#define OPENS(call)                   \
    do {                              \
        int opened = (call);          \
        CHECK(opened >= 0);           \
        CHECK(close(opened) == 0);    \
    } while (0)

static int dir;

static int opens(const char *path, uint64_t flags, uint64_t resolve) {
    struct open_how how = {.flags = flags, .resolve = resolve, .mode = flags & O_CREAT ? 0600 : 0};
    return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

static void make(void) {
    CHECK(mkdir("/tmp/resolve", 0700) == 0 && chdir("/tmp/resolve") == 0 && mkdir("inner", 0700) == 0);
    OPENS(open("inner/file", O_CREAT | O_WRONLY, 0600));
    CHECK(symlink("inner/file", "link") == 0 && symlink("/tmp/resolve/inner", "absolute") == 0);
    CHECK(symlink("../resolve/inner/file", "inner/out") == 0 && symlink("/proc/self/exe", "magic") == 0);
    CHECK(symlink("/inner/file", "rooted") == 0);
    dir = open(".", O_PATH | O_DIRECTORY);
    CHECK(dir >= 0);
}

static void bounds(void) {
    OPENS(opens("inner/file", O_RDONLY, 0));
    OPENS(opens("inner/file", O_RDONLY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS));
    OPENS(opens("link", O_RDONLY, RESOLVE_BENEATH));
    FAILS(opens("link", O_RDONLY, RESOLVE_NO_SYMLINKS), ELOOP);
    FAILS(opens("../resolve/link", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    FAILS(opens("inner/../../resolve/link", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    OPENS(opens("inner/../link", O_RDONLY, RESOLVE_BENEATH));
    FAILS(opens("absolute/file", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    FAILS(opens("/tmp", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    FAILS(opens("absolute/file", O_RDONLY, RESOLVE_IN_ROOT), ENOENT);
    OPENS(opens("rooted", O_RDONLY, RESOLVE_IN_ROOT));
    OPENS(opens("/../../inner/file", O_RDONLY, RESOLVE_IN_ROOT));
    FAILS(opens("rooted", O_RDONLY, 0), ENOENT);
    OPENS(opens("magic", O_RDONLY, 0));
    FAILS(opens("/proc/self/exe", O_RDONLY, RESOLVE_NO_MAGICLINKS), ELOOP);
    FAILS(opens("/proc/self/status", O_RDONLY, RESOLVE_NO_XDEV), EXDEV);
    OPENS(opens("inner/file", O_RDONLY, RESOLVE_NO_XDEV));
    OPENS(opens("inner/new", O_RDWR | O_CREAT | O_EXCL, RESOLVE_BENEATH));
    puts("bounds");
}

static void arguments(void) {
    struct open_how how = {.flags = O_RDONLY, .mode = 0600};
    struct {
        struct open_how how;
        uint64_t more;
    } longer = {{.flags = O_RDONLY}, 0};
    FAILS(syscall(SYS_openat2, dir, "link", &how, sizeof how), EINVAL);
    how.mode = 0;
    FAILS(syscall(SYS_openat2, dir, "link", &how, sizeof how - 1), EINVAL);
    CHECK(syscall(SYS_openat2, dir, "link", &longer, sizeof longer) >= 0);
    longer.more = 1;
    FAILS(syscall(SYS_openat2, dir, "link", &longer, sizeof longer), E2BIG);
    FAILS(opens("link", 1ull << 40, 0), EINVAL);
    FAILS(opens("link", 0x80000000, 0), EINVAL);
    FAILS(opens("link", O_PATH | O_RDWR, 0), EINVAL);
    FAILS(opens("link", O_RDONLY, 1ull << 40), EINVAL);
    FAILS(opens("link", O_RDONLY, RESOLVE_BENEATH | RESOLVE_IN_ROOT), EINVAL);
    FAILS(opens("", O_RDONLY, 0), ENOENT);
    puts("arguments");
}

static void flags(void) {
    char got[16] = {0};
    struct iovec one = {"abcd", 4}, two = {got, 15};
    int fd = open("inner/file", O_RDWR);
    CHECK(pwritev2(fd, &one, 1, 0, 0) == 4 && pwritev2(fd, &one, 1, 0, RWF_APPEND) == 4);
    CHECK(lseek(fd, 0, SEEK_CUR) == 0 && pwritev2(fd, &one, 1, -1, RWF_APPEND | RWF_DSYNC) == 4);
    CHECK(lseek(fd, 0, SEEK_CUR) == 12 && preadv2(fd, &two, 1, 2, 0) == 10 && !strcmp(got, "cdabcdabcd"));
    CHECK(lseek(fd, 1, SEEK_SET) == 1 && preadv2(fd, &two, 1, -1, RWF_HIPRI) == 11);
    FAILS(preadv2(fd, &two, 1, -2, 0), EINVAL);
    FAILS(preadv2(fd, &two, 1, 0, 1 << 30), EOPNOTSUPP);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    FAILS(preadv2(pipes[0], &two, 1, -1, RWF_NOWAIT), EAGAIN);
    FAILS(preadv2(pipes[0], &two, 1, 0, 0), ESPIPE);
    puts("flags");
}

static void whiteout(void) {
    struct stat about;
    CHECK(syscall(SYS_renameat2, dir, "inner/new", dir, "moved", 4) == 0);
    CHECK(stat("moved", &about) == 0 && S_ISREG(about.st_mode));
    CHECK(lstat("inner/new", &about) == 0 && S_ISCHR(about.st_mode) && about.st_rdev == 0);
    FAILS(syscall(SYS_renameat2, dir, "moved", dir, "link", 5), EEXIST);
    FAILS(syscall(SYS_renameat2, dir, "moved", dir, "link", 6), EINVAL);
    puts("whiteout");
}

int main(void) {
    (void)!system("rm -rf /tmp/resolve 2>/dev/null");
    make();
    bounds();
    arguments();
    flags();
    whiteout();
    const char *const names[] = {"inner/new", "inner/file", "inner/out", "link", "absolute", "magic", "rooted", "moved"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) CHECK(unlink(names[i]) == 0);
    CHECK(rmdir("inner") == 0 && rmdir("/tmp/resolve") == 0);
    return 0;
}
