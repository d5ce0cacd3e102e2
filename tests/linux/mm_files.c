/* Mappings of files: private ones are copies, shared ones are the file, ends of files are where Linux has them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t page = 4096;
static sigjmp_buf back;
static volatile int code;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    code = signal * 100 + info->si_code;
    siglongjmp(back, 1);
}

static int touch(volatile char *at) {
    code = 0;
    if (sigsetjmp(back, 1) == 0) (void)*at;
    return code;
}

static const char *name(void *result) {
    return result == MAP_FAILED ? strerrorname_np(errno) : "mapped";
}

static int make(const char *path, size_t size) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++) bytes[i] = (char)(i / page + 1 + i % 251);
    if (write(fd, bytes, size) != (ssize_t)size) perror("write");
    free(bytes);
    return fd;
}

static int same(int fd, const char *at, off_t offset, size_t size) {
    char *bytes = malloc(size);
    int result = pread(fd, bytes, size, offset) == (ssize_t)size && memcmp(bytes, at, size) == 0;
    free(bytes);
    return result;
}

static void private_mapping(void) {
    int fd = make("mm_private.tmp", 300 * page + 100);
    char *at = mmap(NULL, 301 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    printf("same bytes: %d\n", same(fd, at, 0, 300 * page + 100));
    printf("rest of the last page: %d %d\n", at[300 * page + 100], at[301 * page - 1]);
    at[5 * page] ^= 0x55;
    printf("a write stays private: %d\n", !same(fd, at + 5 * page, 5 * page, 1));
    printf("dontneed: %d\n", madvise(at + 5 * page, page, MADV_DONTNEED));
    printf("the file's byte is back: %d\n", same(fd, at + 5 * page, 5 * page, page));
    char *part = mmap(NULL, 3 * page, PROT_READ, MAP_PRIVATE, fd, 200 * page);
    printf("from an offset: %d\n", same(fd, part, 200 * page, 3 * page));
    char *over = mmap(at + page, page, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 7 * page);
    printf("over another: %d %d\n", over == at + page, same(fd, over, 7 * page, page));
    munmap(at, 301 * page);
    close(fd);
}

static void beyond_the_end(void) {
    int fd = make("mm_end.tmp", page + 1);
    char *at = mmap(NULL, 4 * page, PROT_READ, MAP_PRIVATE, fd, 0);
    printf("last page %d, beyond %d\n", touch(at + page), touch(at + 2 * page));
    close(fd);
    printf("after close: %d\n", at[page] != 0);
    munmap(at, 4 * page);
}

static void shared_mapping(void) {
    int fd = make("mm_shared.tmp", 10 * page);
    char *at = mmap(NULL, 10 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        printf("shared: %s\n", name(at));
        return;
    }
    printf("same bytes: %d\n", same(fd, at, 0, 10 * page));
    strcpy(at + page, "by memory");
    char bytes[32] = "";
    printf("read sees it: %zd %s\n", pread(fd, bytes, 10, page), bytes);
    printf("write: %zd, memory sees it: %s\n", pwrite(fd, "by write", 9, 2 * page), at + 2 * page);
    printf("msync: %d\n", msync(at, 10 * page, MS_SYNC));
    munmap(at, 10 * page);
    printf("after munmap: %zd %s\n", pread(fd, bytes, 10, page), bytes);
    close(fd);
    fd = open("mm_shared.tmp", O_RDONLY);
    printf("after reopening: %zd %s\n", pread(fd, bytes, 10, page), bytes);
    close(fd);
}

static void rights(void) {
    int fd = make("mm_rights.tmp", page);
    close(fd);
    int reads = open("mm_rights.tmp", O_RDONLY), writes = open("mm_rights.tmp", O_WRONLY);
    printf("shared writable, read-only fd: %s\n", name(mmap(NULL, page, PROT_WRITE, MAP_SHARED, reads, 0)));
    printf("private writable, read-only fd: %s\n", name(mmap(NULL, page, PROT_WRITE, MAP_PRIVATE, reads, 0)));
    printf("write-only fd: %s\n", name(mmap(NULL, page, PROT_READ, MAP_PRIVATE, writes, 0)));
    char *at = mmap(NULL, page, PROT_READ, MAP_SHARED, reads, 0);
    int result = mprotect(at, page, PROT_READ | PROT_WRITE);
    printf("made writable later: %d %s\n", result, strerrorname_np(errno));
    printf("offset overflow: %s\n",
           name(mmap(NULL, 2 * page, PROT_READ, MAP_PRIVATE, reads, 0x7ffffffffffff000)));
    printf("a directory: %s\n", name(mmap(NULL, page, PROT_READ, MAP_PRIVATE, open(".", O_RDONLY), 0)));
    int pipes[2];
    if (pipe(pipes)) perror("pipe");
    printf("a pipe: %s\n", name(mmap(NULL, page, PROT_READ, MAP_PRIVATE, pipes[0], 0)));
    close(reads);
    close(writes);
}

static void zero_device(void) {
    int fd = open("/dev/zero", O_RDWR);
    char *at = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) {
        printf("/dev/zero: %s\n", name(at));
        return;
    }
    at[page] = 1;
    printf("/dev/zero: %d %d\n", at[0], at[page]);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    if (chdir("/tmp")) perror("/tmp");
    private_mapping();
    beyond_the_end();
    shared_mapping();
    rights();
    zero_device();
    unlink("mm_private.tmp"), unlink("mm_end.tmp"), unlink("mm_shared.tmp"), unlink("mm_rights.tmp");
    return 0;
}
