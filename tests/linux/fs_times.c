/* When reading changes the access time (relatime), and which times each change of a file or directory sets. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static char buf[64];

/* Times set before each step, in seconds: far in the past, so that any update shows. */
enum { OLD = 1000, OLDER = 500 };

static void set(const char *name, long atime, long mtime) {
    struct timespec times[2] = {{.tv_sec = atime}, {.tv_sec = mtime}};
    if (utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW)) perror(name);
}

static void show(const char *step, const char *name) {
    struct stat st;
    if (lstat(name, &st)) {
        perror(name);
        return;
    }
    printf("%s: %s atime %s, mtime %s\n", step, name, st.st_atime > OLD ? "new" : "old",
           st.st_mtime > OLD ? "new" : "old");
}

static void read_file(const char *name, int flags) {
    int fd = open(name, O_RDONLY | flags);
    if (read(fd, buf, sizeof buf) < 0) perror("read");
    close(fd);
}

static void reading(void) {
    set("file", OLD, OLDER);
    read_file("file", O_NOATIME);
    show("O_NOATIME", "file");
    read_file("file", 0);
    show("read of what is a day old", "file");
    struct timespec times[2] = {{.tv_sec = OLD}, {.tv_sec = time(NULL) - 10}};
    utimensat(AT_FDCWD, "file", times, 0);
    read_file("file", 0);
    show("read after a change", "file");
    set("dir", OLD, OLD);
    DIR *dir = opendir("dir");
    readdir(dir);
    closedir(dir);
    show("readdir", "dir");
    set("link", OLD, OLD);
    if (readlink("link", buf, sizeof buf) < 0) perror("readlink");
    show("readlink", "link");
}

static void changing(void) {
    int fd = open("file", O_RDWR);
    set("file", OLD, OLD);
    if (write(fd, "x", 1) != 1) perror("write");
    show("write", "file");
    set("file", OLD, OLD);
    if (write(fd, "x", 0) != 0) perror("write");
    show("write of nothing", "file");
    if (ftruncate(fd, 1)) perror("ftruncate");
    show("ftruncate to the same size", "file");
    set("file", OLD, OLD);
    fchmod(fd, 0600);
    show("chmod", "file");
    fsetxattr(fd, "user.a", "1", 1, 0);
    show("setxattr", "file");
    set("dir", OLD, OLD);
    link("file", "dir/name");
    show("link", "dir");
    show("link", "file");
    set("dir", OLD, OLD);
    rename("dir/name", "dir/other");
    show("rename within", "dir");
    set("dir", OLD, OLD);
    unlink("dir/other");
    show("unlink", "dir");
    set("dir", OLD, OLD);
    chmod("dir", 0700);
    show("chmod", "dir");
    mkdir("dir/sub", 0755);
    show("mkdir", "dir");
    set("dir", OLD, OLD);
    rmdir("dir/sub");
    show("rmdir", "dir");
    close(fd);
}

int main(void) {
    char base[] = "/tmp/times-XXXXXX";
    if (!mkdtemp(base) || chdir(base)) return 1;
    int fd = open("file", O_CREAT | O_WRONLY, 0644);
    if (write(fd, "text", 4) != 4) return 1;
    close(fd);
    mkdir("dir", 0755);
    if (symlink("file", "link")) return 1;
    reading();
    changing();
    unlink("file");
    unlink("link");
    rmdir("dir");
    return rmdir(base);
}
