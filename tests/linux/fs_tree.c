/* Directories as streams, a tree made and removed, and the files everybody has: /dev and /proc. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHOW(call) \
    do { \
        errno = 0; \
        long result = (long)(call); \
        if (result < 0) \
            printf("%s = %s\n", #call, strerrorname_np(errno)); \
        else \
            printf("%s = %ld\n", #call, result); \
    } while (0)

static int is_seen(const char *names, int count, const char *name) {
    int number = atoi(name + 1);
    return name[0] == 'n' && number < count && names[number];
}

static void streams(void) {
    char name[32];
    enum { COUNT = 500 };
    static char seen[COUNT];
    SHOW(mkdir("many", 0755));
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "many/n%03d", i);
        close(open(name, O_WRONLY | O_CREAT, 0644));
    }
    DIR *dir = opendir("many");
    struct dirent *entry;
    int total = 0, dots = 0, twice = 0, kinds = 0;
    long middle = 0;
    while ((entry = readdir(dir)) != NULL) {
        total++;
        if (entry->d_name[0] == '.') {
            dots++;
            continue;
        }
        twice += is_seen(seen, COUNT, entry->d_name);
        seen[atoi(entry->d_name + 1)] = 1;
        kinds += entry->d_type == DT_REG;
        if (total == COUNT / 2) middle = telldir(dir);
    }
    printf("%d entries, %d dots, %d twice, %d regular\n", total, dots, twice, kinds);
    seekdir(dir, middle);
    int rest = 0;
    while (readdir(dir) != NULL) rest++;
    printf("from the middle: %d\n", rest + COUNT / 2 == total);
    rewinddir(dir);
    int removed = 0;
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.' && unlinkat(dirfd(dir), entry->d_name, 0) == 0) removed++;
    printf("removed while reading: %d\n", removed);
    closedir(dir);
    char buf[8];
    int fd = open("many", O_RDONLY | O_DIRECTORY);
    SHOW(syscall(SYS_getdents64, fd, buf, 8));
    SHOW(read(fd, buf, 8));
    SHOW(rmdir("many"));
    SHOW(syscall(SYS_getdents64, fd, (char[512]){0}, 512));
    int file = open("/dev/null", O_RDONLY);
    SHOW(syscall(SYS_getdents64, file, (char[512]){0}, 512));
}

static int show_node(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st;
    printf("%s %d %d\n", path, kind, ftw->level);
    return 0;
}

static int remove_node(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static void trees(void) {
    char path[64] = "t";
    for (int i = 0; i < 10; i++) {
        mkdir(path, 0755);
        strcat(path, "/d");
    }
    SHOW(nftw("t", show_node, 5, FTW_PHYS));
    SHOW(nftw("t", remove_node, 5, FTW_PHYS | FTW_DEPTH));
    SHOW(access("t", F_OK));
}

static void deep(void) {
    int depth = 0;
    while (depth < 300 && mkdir("deep", 0755) == 0 && chdir("deep") == 0) depth++;
    char text[4096];
    printf("depth %d, name %zu\n", depth, strlen(getcwd(text, sizeof text)) > 1500 ? (size_t)1 : 0);
    while (depth-- > 0 && chdir("..") == 0) rmdir("deep");
    SHOW(access("deep", F_OK));
}

static void devices(void) {
    char buf[64];
    int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDWR), full = open("/dev/full", O_RDWR);
    SHOW(read(null, buf, sizeof buf));
    SHOW(write(null, buf, sizeof buf));
    memset(buf, 1, sizeof buf);
    SHOW(read(zero, buf, sizeof buf));
    int set = 0;
    for (size_t i = 0; i < sizeof buf; i++) set += buf[i] != 0;
    printf("zeros: %d\n", set == 0);
    SHOW(write(full, buf, 1));
    SHOW(read(full, buf, 1));
    int random = open("/dev/urandom", O_RDONLY);
    SHOW(read(random, buf, sizeof buf));
    SHOW(getrandom(buf, sizeof buf, 0));
    SHOW(getrandom(buf, sizeof buf, 99));
    SHOW(getrandom((void *)8, 8, 0));
    struct stat st;
    SHOW(stat("/dev/null", &st));
    printf("null: %o %lx\n", st.st_mode & S_IFMT, (unsigned long)st.st_rdev);
    SHOW(ftruncate(null, 0));
    SHOW(open("/dev/null", O_WRONLY | O_TRUNC | O_CREAT, 0600) >= 0 ? 0 : -1);
}

static void self(void) {
    char text[4096], path[64];
    int fd = open("/proc/self/comm", O_RDONLY);
    ssize_t got = read(fd, text, sizeof text);
    printf("comm: %d\n", got > 1 && text[got - 1] == '\n');
    int file = open("named", O_RDWR | O_CREAT, 0600);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    got = readlink(path, text, sizeof text - 1);
    text[got] = 0;
    printf("fd link: %s\n", strrchr(text, '/'));
    write(file, "again", 5);
    int reopened = open(path, O_RDONLY);
    SHOW(read(reopened, text, 10));
    unlink("named");
    got = readlink(path, text, sizeof text - 1);
    text[got] = 0;
    printf("fd link: %s\n", strrchr(text, '/'));
    SHOW(open(path, O_RDONLY) >= 0 ? 0 : -1);
    int pipes[2];
    pipe(pipes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", pipes[1]);
    got = readlink(path, text, sizeof text - 1);
    printf("pipe: %.6s\n", text);
    int writer = open(path, O_WRONLY);
    SHOW(write(writer, "through", 7));
    SHOW(read(pipes[0], text, 10));
    SHOW(readlink("/proc/self/fd/999", text, 10));
    SHOW(open("/proc/self/nothing", O_RDONLY));
    SHOW(open("/proc/999999/stat", O_RDONLY));
    SHOW(mkdir("/proc/new", 0700));
    got = readlink("/proc/self/exe", text, sizeof text - 1);
    printf("exe: %d\n", got > 1 && text[0] == '/');
    FILE *maps = fopen("/proc/self/maps", "r");
    int lines = 0, has_stack = 0;
    while (fgets(text, sizeof text, maps)) {
        lines++;
        has_stack |= strstr(text, "[stack]") != NULL;
    }
    printf("maps: %d %d\n", lines > 3, has_stack);
    FILE *status = fopen("/proc/self/status", "r");
    int pid = 0, number;
    while (fgets(text, sizeof text, status))
        if (sscanf(text, "Pid: %d", &number) == 1) pid = number;
    printf("status: %d\n", pid == getpid());
}

int main(void) {
    char base[] = "/tmp/fs_tree.XXXXXX";
    if (mkdtemp(base) == NULL || chdir(base) < 0) return 1;
    streams();
    trees();
    deep();
    devices();
    self();
    return 0;
}
