/* Attributes: modes, owners, times, permissions of another user, extended attributes, record locks. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
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

static void show(const char *path) {
    struct stat st;
    if (lstat(path, &st) < 0)
        printf("%s: %s\n", path, strerrorname_np(errno));
    else
        printf("%s: %o %u:%u\n", path, st.st_mode, st.st_uid, st.st_gid);
}

static void touch(const char *path, mode_t mode) {
    close(open(path, O_WRONLY | O_CREAT, mode));
}

static void modes(void) {
    touch("f", 0666);
    show("f");
    SHOW(chmod("f", 07777));
    show("f");
    SHOW(chmod("nothing", 0));
    SHOW(fchmodat(AT_FDCWD, "f", 0640, 0));
    show("f");
    SHOW(chown("f", 5, 6));
    show("f");
    SHOW(chmod("f", 06755));
    SHOW(chown("f", -1, 7));
    show("f");
    SHOW(symlink("f", "s"));
    SHOW(lchown("s", 8, 9));
    show("s");
    SHOW(chown("s", 1, 2));
    show("f");
    SHOW(mkdir("g", 0755));
    SHOW(chown("g", 0, 50));
    SHOW(chmod("g", 02755));
    SHOW(mkdir("g/d", 0755));
    touch("g/f", 0644);
    show("g/d");
    show("g/f");
    int fd = open("f", O_WRONLY);
    SHOW(fchmod(fd, 06777));
    SHOW(write(fd, "x", 1));
    show("f");
    SHOW(fchmod(99, 0));
    SHOW(fchown(fd, 0, 0));
}

static void times(void) {
    struct timespec set[2] = {{100, 5}, {200, 6}};
    struct stat st;
    SHOW(utimensat(AT_FDCWD, "f", set, 0));
    stat("f", &st);
    printf("%ld.%ld %ld.%ld\n", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    set[0].tv_nsec = UTIME_OMIT;
    set[1].tv_nsec = UTIME_NOW;
    SHOW(utimensat(AT_FDCWD, "f", set, 0));
    stat("f", &st);
    printf("%ld %d\n", st.st_atim.tv_sec, st.st_mtim.tv_sec > 1000);
    set[0].tv_nsec = 1000000000;
    SHOW(utimensat(AT_FDCWD, "f", set, 0));
    SHOW(utimensat(AT_FDCWD, "nothing", NULL, 0));
    SHOW(utimensat(AT_FDCWD, "f", NULL, 1));
    SHOW(syscall(SYS_utimensat, AT_FDCWD, NULL, NULL, 0));
    set[0].tv_nsec = 0;
    SHOW(utimensat(AT_FDCWD, "s", set, AT_SYMLINK_NOFOLLOW));
    SHOW(futimens(99, NULL));
}

static void queries(void) {
    struct stat st;
    SHOW(stat("f", (struct stat *)8));
    SHOW(stat((char *)8, &st));
    SHOW(stat("", &st));
    SHOW(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
    printf("directory %d\n", S_ISDIR(st.st_mode));
    SHOW(fstatat(99, "", &st, AT_EMPTY_PATH));
    SHOW(fstatat(AT_FDCWD, "f", &st, 0x40000));
    struct statx stx;
    SHOW(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &stx));
    printf("statx %o %u\n", stx.stx_mode, stx.stx_nlink);
    SHOW(statx(AT_FDCWD, "f", 0x40000, STATX_BASIC_STATS, &stx));
    SHOW(statx(AT_FDCWD, "f", 0, 0x80000000, &stx));
    struct statfs fs;
    SHOW(statfs(".", &fs));
    SHOW(fs.f_namelen);
    SHOW(fstatfs(99, &fs));
    SHOW(access("f", F_OK));
    SHOW(access("f", 8));
    SHOW(chmod("f", 0644));
    SHOW(access("f", X_OK));
    SHOW(access("f", R_OK | W_OK));
    SHOW(access("nothing", F_OK));
    SHOW(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
}

static void attributes(void) {
    char value[16];
    SHOW(setxattr("f", "user.one", "value", 5, 0));
    SHOW(setxattr("f", "user.one", "again", 5, XATTR_CREATE));
    SHOW(setxattr("f", "user.two", "2", 1, XATTR_REPLACE));
    SHOW(setxattr("f", "user.two", "22", 2, 0));
    SHOW(getxattr("f", "user.one", value, sizeof value));
    SHOW(getxattr("f", "user.one", value, 3));
    SHOW(getxattr("f", "user.one", NULL, 0));
    SHOW(getxattr("f", "user.none", value, sizeof value));
    SHOW(getxattr("f", "other.none", value, sizeof value));
    SHOW(setxattr("f", "", "x", 1, 0));
    SHOW(setxattr("f", "user.big", value, 1 << 20, 0));
    SHOW(setxattr("f", "user.x", "x", 1, 7));
    SHOW(lsetxattr("s", "user.x", "x", 1, 0));
    SHOW(removexattr("f", "user.one"));
    SHOW(removexattr("f", "user.one"));
    SHOW(listxattr("f", value, sizeof value));
    SHOW(listxattr("f", value, 3));
}

static struct flock range(short type, off_t start, off_t size) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = size};
    return lock;
}

static void locks(void) {
    int one = open("f", O_RDWR), other = open("f", O_RDWR), reader = open("f", O_RDONLY);
    struct flock lock = range(F_WRLCK, 10, 10);
    SHOW(fcntl(one, F_SETLK, &lock));
    SHOW(fcntl(other, F_SETLK, &lock));
    SHOW(fcntl(reader, F_SETLK, &lock));
    lock = range(F_RDLCK, 15, 1);
    SHOW(fcntl(one, F_OFD_SETLK, &lock));
    lock = range(F_WRLCK, 0, 10);
    SHOW(fcntl(one, F_OFD_SETLK, &lock));
    SHOW(fcntl(other, F_OFD_SETLK, &lock));
    lock = range(F_WRLCK, 5, 0);
    SHOW(fcntl(other, F_OFD_GETLK, &lock));
    printf("held: %d %ld %ld\n", lock.l_type, (long)lock.l_start, (long)lock.l_len);
    lock = range(F_UNLCK, 3, 4);
    SHOW(fcntl(one, F_OFD_SETLK, &lock));
    lock = range(F_WRLCK, 3, 4);
    SHOW(fcntl(other, F_OFD_SETLK, &lock));
    lock = range(F_WRLCK, 2, 1);
    SHOW(fcntl(other, F_OFD_SETLK, &lock));
    lock = range(F_UNLCK, 0, 0);
    SHOW(fcntl(one, F_OFD_SETLK, &lock));
    SHOW(fcntl(other, F_OFD_SETLK, &lock));
    lock = range(F_WRLCK, 0, 0);
    SHOW(fcntl(one, F_SETLK, &lock));
    SHOW(fcntl(other, F_OFD_SETLK, &lock));
    close(open("f", O_RDONLY));
    SHOW(fcntl(other, F_OFD_SETLK, &lock));
    lock = range(9, 0, 0);
    SHOW(fcntl(one, F_SETLK, &lock));
    lock = range(F_WRLCK, -5, 2);
    SHOW(fcntl(one, F_SETLK, &lock));
    SHOW(flock(one, LOCK_EX));
    SHOW(flock(other, LOCK_SH | LOCK_NB));
    SHOW(flock(one, LOCK_SH));
    SHOW(flock(other, LOCK_SH | LOCK_NB));
    SHOW(flock(one, 77));
    SHOW(flock(one, LOCK_UN));
    SHOW(flock(other, LOCK_EX | LOCK_NB));
    close(other);
    SHOW(flock(one, LOCK_EX | LOCK_NB));
}

static void another_user(void) {
    touch("private", 0600);
    touch("shared", 0644);
    mkdir("closed", 0700);
    touch("closed/f", 0666);
    mkdir("sticky", 01777);
    chmod("sticky", 01777);
    touch("sticky/root", 0666);
    chmod(".", 0755);
    SHOW(chown("shared", 1000, 1000));
    SHOW(syscall(SYS_setresgid, 1000, 1000, 1000));
    SHOW(syscall(SYS_setresuid, 1000, 1000, 1000));
    SHOW(open("private", O_RDONLY));
    SHOW(access("private", R_OK));
    SHOW(open("shared", O_RDWR) >= 0 ? 0 : -1);
    SHOW(open("closed/f", O_RDONLY));
    SHOW(stat("closed/f", &(struct stat){0}));
    SHOW(open("new", O_WRONLY | O_CREAT, 0600));
    SHOW(mkdir("new", 0700));
    SHOW(unlink("private"));
    SHOW(rename("private", "mine"));
    SHOW(chmod("private", 0666));
    SHOW(chmod("shared", 0600));
    SHOW(chown("shared", 0, 0));
    SHOW(chown("shared", -1, 1000));
    SHOW(utimensat(AT_FDCWD, "private", NULL, 0));
    SHOW(truncate("private", 0));
    SHOW(unlink("sticky/root"));
    touch("sticky/own", 0644);
    SHOW(rename("sticky/own", "sticky/root"));
    SHOW(unlink("sticky/own"));
    SHOW(chdir("closed"));
    SHOW(chroot("."));
    SHOW(mknod("sticky/dev", S_IFCHR | 0600, 0x103));
    SHOW(link("shared", "sticky/link"));
}

int main(void) {
    char base[] = "/tmp/fs_attributes.XXXXXX";
    if (geteuid() != 0) {
        puts("needs root");
        return 1;
    }
    if (mkdtemp(base) == NULL || chdir(base) < 0) return 1;
    umask(022);
    modes();
    times();
    queries();
    attributes();
    locks();
    another_user();
    return 0;
}
