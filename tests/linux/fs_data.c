/* File data: offsets, holes, appending, truncation, vectors, and descriptors that share an offset. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
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

static uint64_t sum(const unsigned char *bytes, size_t size) {
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

static void show_content(int fd) {
    struct stat st;
    fstat(fd, &st);
    unsigned char *bytes = malloc(st.st_size + 1);
    ssize_t got = pread(fd, bytes, st.st_size + 1, 0);
    printf("content: %ld bytes, hash %016lx\n", (long)got, (unsigned long)sum(bytes, got));
    free(bytes);
}

static void offsets(void) {
    int fd = open("a", O_RDWR | O_CREAT | O_TRUNC, 0644);
    char text[16] = {0};
    SHOW(write(fd, "hello world", 11));
    SHOW(lseek(fd, 0, SEEK_CUR));
    SHOW(lseek(fd, -5, SEEK_END));
    SHOW(read(fd, text, 16));
    puts(text);
    SHOW(read(fd, text, 16));
    SHOW(lseek(fd, -1, SEEK_SET));
    SHOW(lseek(fd, 0, 77));
    SHOW(lseek(fd, 100, SEEK_SET));
    SHOW(read(fd, text, 4));
    SHOW(write(fd, "end", 3));
    show_content(fd);
    SHOW(pwrite(fd, "HELLO", 5, 0));
    SHOW(lseek(fd, 0, SEEK_CUR));
    SHOW(pread(fd, text, 5, -1));
    SHOW(pread(fd, text, 5, 1000));
    SHOW(ftruncate(fd, 4));
    show_content(fd);
    SHOW(ftruncate(fd, 10));
    show_content(fd);
    SHOW(ftruncate(fd, -1));
    int copy = dup(fd);
    SHOW(lseek(copy, 2, SEEK_SET));
    SHOW(read(fd, text, 2));
    SHOW(lseek(copy, 0, SEEK_CUR));
    int read_only = open("a", O_RDONLY);
    SHOW(write(read_only, "x", 1));
    SHOW(ftruncate(read_only, 0));
    int write_only = open("a", O_WRONLY);
    SHOW(read(write_only, text, 1));
    SHOW(read(99, text, 1));
    SHOW(read(fd, (char *)1, 4));
    SHOW(write(fd, (char *)1, 4));
    SHOW(read(fd, NULL, 0));
    SHOW(write(fd, text, (size_t)-1));
}

static void appending(void) {
    int one = open("log", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
    int other = open("log", O_RDWR | O_APPEND);
    SHOW(write(one, "one ", 4));
    SHOW(write(other, "other ", 6));
    SHOW(write(one, "again", 5));
    SHOW(pwrite(other, "!", 1, 0));
    SHOW(lseek(one, 0, SEEK_CUR));
    show_content(other);
    SHOW(fcntl(one, F_SETFL, 0));
    SHOW(fcntl(one, F_GETFL) & (O_APPEND | O_ACCMODE));
    SHOW(lseek(one, 0, SEEK_SET));
    SHOW(write(one, "ONE", 3));
    show_content(other);
}

static void large(void) {
    size_t size = 5u << 20;
    unsigned char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(i * 31 + (i >> 13));
    int fd = open("large", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW(write(fd, bytes, size));
    show_content(fd);
    SHOW(pwrite(fd, bytes, 100000, 65530));
    memmove(bytes + 65530, bytes, 100000);
    unsigned char *back = malloc(size);
    SHOW(pread(fd, back, size, 0));
    printf("same: %d\n", memcmp(bytes, back, size) == 0);
    SHOW(ftruncate(fd, 70001));
    SHOW(ftruncate(fd, 300000));
    show_content(fd);
    struct iovec pieces[4] = {{back, 3}, {NULL, 0}, {back + 100, 70000}, {back + 90000, 5}};
    SHOW(lseek(fd, 65530, SEEK_SET));
    SHOW(readv(fd, pieces, 4));
    printf("pieces: %d %d\n", memcmp(back, bytes + 65530, 3) == 0,
           memcmp(back + 100, bytes + 65533, 4468) == 0);
    SHOW(readv(fd, pieces, -1));
    SHOW(readv(fd, pieces, 0));
    SHOW(readv(fd, (struct iovec *)8, 1));
    SHOW(writev(fd, pieces, 2000));
    pieces[1].iov_len = (size_t)-1;
    SHOW(writev(fd, pieces, 3));
    free(bytes);
    free(back);
}

static void holes(void) {
    int fd = open("sparse", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW(pwrite(fd, "x", 1, 1 << 20));
    SHOW(lseek(fd, 0, SEEK_HOLE));
    SHOW(lseek(fd, 2 << 20, SEEK_DATA));
    SHOW(lseek(fd, (1 << 20) + 1, SEEK_HOLE));
    struct stat st;
    fstat(fd, &st);
    printf("sparse: %d\n", st.st_blocks * 512 < st.st_size);
    SHOW(fallocate(fd, 0, 0, 3 << 20));
    SHOW(lseek(fd, 0, SEEK_END));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096));
    SHOW(fallocate(fd, 0, 0, 0));
    SHOW(fallocate(fd, 0, -1, 5));
    char byte = 1;
    SHOW(pread(fd, &byte, 1, 1 << 20));
    printf("punched: %d\n", byte);
    SHOW(pwrite(fd, "y", 1, INT64_MAX));
}

static void copies(void) {
    int in = open("log", O_RDONLY);
    int out = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW(sendfile(out, in, NULL, 100));
    SHOW(sendfile(out, in, NULL, 100));
    off_t offset = 3;
    SHOW(sendfile(out, in, &offset, 4));
    SHOW(offset);
    show_content(out);
    loff_t from = 1, to = 50;
    SHOW(copy_file_range(in, &from, out, &to, 5, 0));
    SHOW(to);
    SHOW(copy_file_range(in, &from, out, &to, 5, 1));
    show_content(out);
    int append = open("copy", O_WRONLY | O_APPEND);
    SHOW(sendfile(append, in, &offset, 4));
    SHOW(copy_file_range(in, &from, append, &to, 5, 0));
    int left = -1;
    SHOW(lseek(out, 10, SEEK_SET));
    SHOW(ioctl(out, FIONREAD, &left));
    SHOW(left);
    SHOW(ioctl(out, 0x1234, &left));
}

static void unnamed(void) {
    int fd = open(".", O_RDWR | O_TMPFILE, 0600);
    SHOW(write(fd, "tmp", 3));
    show_content(fd);
    int memory = memfd_create("memory", MFD_ALLOW_SEALING);
    SHOW(write(memory, "memory", 6));
    show_content(memory);
    SHOW(fcntl(memory, F_GET_SEALS));
    SHOW(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK));
    SHOW(ftruncate(memory, 3));
    SHOW(ftruncate(memory, 9));
    SHOW(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
    SHOW(write(memory, "x", 1));
    SHOW(fcntl(memory, F_ADD_SEALS, F_SEAL_GROW));
    SHOW(fcntl(fd, F_GET_SEALS));
}

static void descriptors(void) {
    int low = open("a", O_RDONLY);
    SHOW(dup2(low, 200));
    SHOW(fcntl(200, F_GETFD));
    SHOW(dup3(low, 201, O_CLOEXEC));
    SHOW(fcntl(201, F_GETFD));
    SHOW(dup3(low, low, 0));
    SHOW(dup2(low, low) == low);
    SHOW(dup2(99, 100));
    SHOW(dup2(low, -1));
    SHOW(dup2(low, 1 << 22));
    SHOW(fcntl(low, F_DUPFD, 300));
    SHOW(fcntl(low, F_DUPFD_CLOEXEC, 300));
    SHOW(fcntl(low, F_DUPFD, -1));
    SHOW(fcntl(low, 9999));
    SHOW(close_range(200, 201, 0));
    SHOW(fcntl(200, F_GETFD));
    SHOW(close_range(301, 300, 0));
    SHOW(close_range(300, 400, CLOSE_RANGE_CLOEXEC));
    SHOW(fcntl(300, F_GETFD));
    SHOW(close(300));
    SHOW(close(300));
    int path = open("a", O_PATH);
    char byte;
    SHOW(read(path, &byte, 1));
    SHOW(fchmod(path, 0600));
    SHOW(lseek(path, 0, SEEK_SET));
    SHOW(fcntl(path, F_GETFL) == O_PATH);
    struct stat st;
    SHOW(fstat(path, &st));
    SHOW(S_ISREG(st.st_mode));
}

int main(void) {
    char base[] = "/tmp/fs_data.XXXXXX";
    if (mkdtemp(base) == NULL || chdir(base) < 0) return 1;
    offsets();
    appending();
    large();
    holes();
    copies();
    unnamed();
    descriptors();
    return 0;
}
