/* Names: making, moving, linking and removing them, with the errno that Linux gives. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SHOW(call) \
    do { \
        errno = 0; \
        long result = (long)(call); \
        printf("%s = %s\n", #call, result < 0 ? strerrorname_np(errno) : "ok"); \
    } while (0)

static void touch(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    if (fd >= 0) close(fd);
}

static void kind(const char *path) {
    struct stat st;
    if (lstat(path, &st) < 0)
        printf("%s: %s\n", path, strerrorname_np(errno));
    else
        printf("%s: mode %o links %lu size %ld\n", path, st.st_mode, (unsigned long)st.st_nlink,
               S_ISDIR(st.st_mode) ? 0L : (long)st.st_size);
}

static void directories(void) {
    SHOW(mkdir("d", 0755));
    SHOW(mkdir("d", 0755));
    SHOW(mkdir("d/", 0755));
    SHOW(mkdir(".", 0755));
    SHOW(mkdir("/", 0755));
    SHOW(mkdir("no/d", 0755));
    SHOW(mkdir("d/e/", 0700));
    SHOW(mkdir("", 0700));
    touch("f");
    SHOW(mkdir("f", 0755));
    SHOW(mkdir("f/x", 0755));
    SHOW(rmdir("d"));
    SHOW(rmdir("d/."));
    SHOW(rmdir("d/e/.."));
    SHOW(rmdir("/"));
    SHOW(rmdir("f"));
    SHOW(rmdir("nothing"));
    kind("d");
    SHOW(rmdir("d/e/"));
    kind("d");
    SHOW(unlink("d"));
    SHOW(unlink("d/"));
    SHOW(unlink("f/"));
    SHOW(unlink("."));
    SHOW(unlink(""));
    SHOW(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
    SHOW(unlinkat(AT_FDCWD, "f", 0x4000));
    SHOW(unlink("f"));
    SHOW(unlink("f"));
}

static void links(void) {
    touch("a");
    SHOW(link("a", "b"));
    kind("a");
    SHOW(link("a", "b"));
    SHOW(link("nothing", "c"));
    SHOW(mkdir("d", 0755));
    SHOW(link("d", "c"));
    SHOW(link("a", "d/"));
    SHOW(link("a", "c/"));
    SHOW(symlink("a", "s"));
    SHOW(symlink("a", "s"));
    SHOW(symlink("", "t"));
    SHOW(symlink("a", "t/"));
    kind("s");
    char text[16];
    SHOW(readlink("s", text, sizeof text));
    SHOW(readlink("a", text, sizeof text));
    SHOW(readlink("s", text, 0));
    SHOW(link("s", "s2"));
    kind("s2");
    SHOW(linkat(AT_FDCWD, "s", AT_FDCWD, "s3", AT_SYMLINK_FOLLOW));
    kind("s3");
    SHOW(symlink("loop2", "loop1"));
    SHOW(symlink("loop1", "loop2"));
    SHOW(open("loop1", O_RDONLY));
    SHOW(open("loop1", O_RDONLY | O_NOFOLLOW));
    SHOW(symlink("nowhere", "dangling"));
    SHOW(open("dangling", O_RDONLY));
    SHOW(open("dangling", O_WRONLY | O_CREAT | O_EXCL, 0600));
    SHOW(open("dangling", O_WRONLY | O_CREAT, 0600));
    kind("nowhere");
    SHOW(symlink("d", "sd"));
    SHOW(open("sd/", O_RDONLY | O_NOFOLLOW));
    SHOW(open("sd", O_RDONLY | O_NOFOLLOW | O_DIRECTORY));
    SHOW(rmdir("sd"));
    SHOW(unlink("sd/"));
    SHOW(open("a/", O_RDONLY));
    SHOW(open("a/b", O_RDONLY));
    SHOW(open("d/../a", O_RDONLY));
    SHOW(open("a/../a", O_RDONLY));
    SHOW(open("newfile/", O_WRONLY | O_CREAT, 0600));
    SHOW(open("d", O_WRONLY));
    SHOW(open("d", O_RDONLY | O_CREAT, 0600));
    SHOW(open("a", O_RDONLY | O_DIRECTORY));
    SHOW(open("a", O_WRONLY | O_CREAT | O_EXCL, 0600));
    SHOW(unlink("b"));
    kind("a");
}

static void renames(void) {
    touch("r1");
    touch("r2");
    SHOW(mkdir("rd1", 0755));
    SHOW(mkdir("rd2", 0755));
    SHOW(mkdir("rd2/sub", 0755));
    SHOW(rename("r1", "r2"));
    kind("r1");
    SHOW(rename("r2", "rd1"));
    SHOW(rename("rd1", "r2"));
    SHOW(rename("rd1", "rd2"));
    SHOW(rename("rd2", "rd2/sub/x"));
    SHOW(rename("rd2/sub", "rd2"));
    SHOW(rename("nothing", "x"));
    SHOW(rename("rd2/sub", "rd1/sub"));
    kind("rd1");
    kind("rd2");
    SHOW(rename("rd2", "rd1/sub"));
    kind("rd1/sub");
    SHOW(rename("r2", "r3/"));
    SHOW(rename("r2/", "r3"));
    SHOW(rename(".", "x"));
    SHOW(rename("rd1", ".."));
    SHOW(renameat2(AT_FDCWD, "r2", AT_FDCWD, "rd1", RENAME_NOREPLACE));
    SHOW(renameat2(AT_FDCWD, "r2", AT_FDCWD, "rd1", RENAME_EXCHANGE));
    kind("r2");
    kind("rd1");
    SHOW(renameat2(AT_FDCWD, "r2", AT_FDCWD, "none", RENAME_EXCHANGE));
    SHOW(renameat2(AT_FDCWD, "r2", AT_FDCWD, "none", RENAME_EXCHANGE | RENAME_NOREPLACE));
    SHOW(link("rd1", "same"));
    SHOW(rename("rd1", "same"));
    kind("rd1");
    int fd = open("rd1", O_WRONLY);
    SHOW(unlink("rd1"));
    SHOW(unlink("same"));
    struct stat st;
    fstat(fd, &st);
    printf("links of the removed file: %lu\n", (unsigned long)st.st_nlink);
    SHOW(write(fd, "x", 1));
}

static void specials(void) {
    SHOW(mkfifo("fifo", 0640));
    kind("fifo");
    SHOW(open("fifo", O_WRONLY | O_NONBLOCK));
    SHOW(open("fifo", O_RDONLY | O_NONBLOCK));
    SHOW(mknod("reg", S_IFREG | 0604, 0));
    kind("reg");
    SHOW(mknod("sock", S_IFSOCK | 0600, 0));
    SHOW(open("sock", O_RDONLY));
    SHOW(mknod("dir", S_IFDIR | 0700, 0));
    SHOW(mknod("bad", 0050000, 0));
    umask(027);
    touch("masked");
    kind("masked");
    SHOW(mkdir("masked.d", 0777));
    kind("masked.d");
    umask(022);
}

static void long_names(void) {
    char name[300];
    memset(name, 'n', sizeof name);
    name[255] = 0;
    SHOW(mkdir(name, 0700));
    SHOW(rmdir(name));
    name[255] = 'n';
    name[256] = 0;
    SHOW(mkdir(name, 0700));
    static char path[5000];
    memset(path, '/', sizeof path - 1);
    SHOW(open(path, O_RDONLY));
    path[4095] = 0;
    SHOW(open(path, O_RDONLY));
    SHOW(open((char *)1, O_RDONLY));
    SHOW(open(NULL, O_RDONLY));
    SHOW(mkdir((char *)-1, 0700));
}

static void working_directory(void) {
    char text[100];
    SHOW(mkdir("w", 0700));
    SHOW(chdir("w"));
    printf("in %s\n", strrchr(getcwd(text, sizeof text), '/'));
    SHOW(syscall(SYS_getcwd, text, 3));
    SHOW(chdir("../masked"));
    SHOW(chdir("nothing"));
    int up = open("..", O_RDONLY | O_DIRECTORY);
    SHOW(unlinkat(up, "w", AT_REMOVEDIR));
    SHOW(syscall(SYS_getcwd, text, sizeof text));
    SHOW(open("x", O_WRONLY | O_CREAT, 0600));
    SHOW(mkdir("x", 0700));
    SHOW(open(".", O_RDONLY) >= 0 ? 0 : -1);
    SHOW(fchdir(up));
    SHOW(fchdir(99));
    int file = open("masked", O_RDONLY);
    SHOW(fchdir(file));
    SHOW(openat(file, "x", O_RDONLY));
    SHOW(openat(99, "x", O_RDONLY));
    SHOW(openat(99, "/", O_RDONLY) >= 0 ? 0 : -1);
    SHOW(openat(up, "", O_RDONLY));
}

int main(void) {
    char base[] = "/tmp/fs_names.XXXXXX";
    if (mkdtemp(base) == NULL || chdir(base) < 0) return 1;
    umask(022);
    directories();
    links();
    renames();
    specials();
    long_names();
    working_directory();
    return 0;
}
