/* mount(2) and umount2(2): memory file systems, binds, remounts, moves, what is busy, and /proc/mounts.
   Needs the right to mount: exit code 77 without it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
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

static char base[64];

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) printf("put %s: %s\n", path, strerrorname_np(errno));
    close(fd);
}

static void get(const char *path) {
    char buf[64] = "";
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
    printf("%s: %s\n", path, got < 0 ? strerrorname_np(errno) : buf);
    close(fd);
}

/* The lines of /proc/mounts below the test's directory, without what depends on the system. */
static void table(void) {
    FILE *file = fopen("/proc/self/mounts", "r");
    char source[128], target[256], type[64], options[256];
    while (fscanf(file, "%127s %255s %63s %255s %*d %*d", source, target, type, options) == 4) {
        if (strncmp(target, base, strlen(base)) != 0) continue;
        printf("  %s %s %.2s%s\n", target + strlen(base), type, options, strstr(options, "noexec") ? " noexec" : "");
    }
    fclose(file);
}

static void memory(void) {
    SHOW(mkdir("a", 0755));
    SHOW(mount("some source", "a", "tmpfs", MS_NOEXEC, "size=1m,mode=700"));
    struct stat st;
    SHOW(stat("a", &st));
    printf("mode %o\n", st.st_mode);
    struct statvfs vfs;
    SHOW(statvfs("a", &vfs));
    printf("%lu bytes, noexec %d\n", vfs.f_blocks * vfs.f_frsize, (vfs.f_flag & ST_NOEXEC) != 0);
    put("a/file", "in a");
    SHOW(mount("none", "a", "tmpfs", 0, "size=nonsense"));
    SHOW(mount("none", "a", "tmpfs", 0, "nonsense=1"));
    SHOW(mount("none", "a", "nosuchfs", 0, NULL));
    SHOW(mount("none", "a/file", "tmpfs", 0, NULL));
    SHOW(mount("none", "absent", "tmpfs", 0, NULL));
    SHOW(umount("a/file"));
    SHOW(mkdir("plain", 0755));
    SHOW(umount("plain"));
    SHOW(umount2("a", 1 << 30));
    SHOW(rmdir("a"));
    SHOW(rename("a", "b"));
    table();
}

static void binds(void) {
    SHOW(mkdir("a/sub", 0755));
    put("a/sub/inner", "inner");
    SHOW(mkdir("bound", 0755));
    SHOW(mount("a/sub", "bound", NULL, MS_BIND, NULL));
    get("bound/inner");
    put("bound/new", "through the bind");
    get("a/sub/new");
    SHOW(link("bound/new", "a/sub/link"));
    SHOW(rename("bound/new", "a/sub/new2"));
    SHOW(chdir("bound"));
    SHOW(chdir(".."));
    char cwd[256];
    printf("parent of a bind: %s\n", getcwd(cwd, sizeof cwd) + strlen(base));
    SHOW(mount(NULL, "bound", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
    SHOW(open("bound/no", O_CREAT | O_WRONLY, 0644));
    SHOW(unlink("bound/new"));
    SHOW(chmod("bound/new", 0600));
    SHOW(truncate("bound/new", 0));
    SHOW(access("bound/new", W_OK));
    put("a/sub/yes", "yes");
    get("bound/yes");
    SHOW(mkdir("a/sub/deep", 0755));
    SHOW(mount("none", "a/sub/deep", "tmpfs", 0, NULL));
    put("a/sub/deep/x", "deep");
    SHOW(mkdir("one", 0755));
    SHOW(mkdir("all", 0755));
    SHOW(mount("a/sub", "one", NULL, MS_BIND, NULL));
    SHOW(mount("a/sub", "all", NULL, MS_BIND | MS_REC, NULL));
    get("one/deep/x");
    get("all/deep/x");
    put("over", "over");
    put("under", "under");
    SHOW(mount("over", "under", NULL, MS_BIND, NULL));
    get("under");
    SHOW(mount("over", "one", NULL, MS_BIND, NULL));
    SHOW(unlink("under"));
    SHOW(umount("under"));
    get("under");
    table();
}

static void busy(void) {
    int fd = open("a/file", O_RDWR);
    SHOW(umount("a"));
    SHOW(umount("a/sub/deep"));
    SHOW(umount("all"));
    SHOW(umount2("all", MNT_DETACH));
    SHOW(umount("one"));
    SHOW(umount("bound"));
    SHOW(umount("a"));
    SHOW(mount(NULL, "a", NULL, MS_REMOUNT | MS_RDONLY, NULL));
    SHOW(mkdir("moved", 0755));
    SHOW(mount("a", "moved", NULL, MS_MOVE, NULL));
    get("a/file");
    get("moved/file");
    SHOW(mount("moved", "moved/sub", NULL, MS_MOVE, NULL));
    SHOW(mount("plain", "a", NULL, MS_MOVE, NULL));
    SHOW(umount2("moved", MNT_DETACH));
    char text[8] = "";
    printf("read of what was detached: %zd %s\n", pread(fd, text, 4, 0), text);
    close(fd);
    get("moved/file");
    table();
}

static void read_only(void) {
    SHOW(mount("none", "a", "tmpfs", 0, NULL));
    put("a/file", "text");
    SHOW(mount(NULL, "a", NULL, MS_REMOUNT | MS_RDONLY, NULL));
    SHOW(open("a/file", O_RDWR));
    SHOW(mkdir("a/dir", 0755));
    SHOW(utimensat(AT_FDCWD, "a/file", NULL, 0));
    SHOW(mount(NULL, "a", NULL, MS_REMOUNT, NULL));
    put("a/file", "more");
    get("a/file");
    SHOW(mount("none", "a", "tmpfs", 0, NULL));
    get("a/file");
    SHOW(umount("a"));
    get("a/file");
    SHOW(mount(NULL, "a", NULL, MS_PRIVATE, NULL));
    SHOW(mount(NULL, "plain", NULL, MS_PRIVATE, NULL));
    SHOW(umount("a"));
    SHOW(setuid(65534));
    SHOW(mount("none", "a", "tmpfs", 0, NULL));
    SHOW(umount("a"));
}

int main(void) {
    /* So that nothing is left behind if it fails; a system without namespaces has none to protect. */
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    snprintf(base, sizeof base, "/tmp/mount-test-XXXXXX");
    if (!mkdtemp(base) || chdir(base) || mount("none", base, "tmpfs", 0, NULL) || chdir("/") || chdir(base)) return 77;
    memory();
    binds();
    busy();
    read_only();
    return 0;
}
