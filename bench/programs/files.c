/* usage: files DIRECTORY [SMALL]: rates of one file of 256 MiB and of SMALL small files in the directory. Everything that is
   written ends with an fsync, whose time counts. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, CHUNKS = 256, PAGE = 4096, RANDOM = 20000 };

static char buffer[CHUNK];
static unsigned long long state = 1;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void must(int is_good, const char *what) {
    if (is_good) return;
    perror(what);
    exit(1);
}

/* New content each time, so that nothing can be left out. */
static void change(size_t size) {
    for (size_t i = 0; i < size; i += 64) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        memcpy(buffer + i, &state, sizeof state);
    }
}

static off_t random_page(void) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (off_t)((state >> 33) % ((long)CHUNK * CHUNKS / PAGE)) * PAGE;
}

static void large(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    must(fd >= 0, path);
    double start = now();
    for (int i = 0; i < CHUNKS; i++) {
        change(CHUNK);
        must(write(fd, buffer, CHUNK) == CHUNK, "write");
    }
    must(fsync(fd) == 0, "fsync");
    printf("sequential write\t%.1f\n", CHUNKS / (now() - start));
    lseek(fd, 0, SEEK_SET);
    start = now();
    for (int i = 0; i < CHUNKS; i++) must(read(fd, buffer, CHUNK) == CHUNK, "read");
    printf("sequential read\t%.1f\n", CHUNKS / (now() - start));
    start = now();
    for (int i = 0; i < RANDOM; i++) {
        change(64);
        must(pwrite(fd, buffer, PAGE, random_page()) == PAGE, "pwrite");
    }
    must(fsync(fd) == 0, "fsync");
    printf("random 4 KiB write\t%.1f\n", RANDOM / (now() - start));
    start = now();
    for (int i = 0; i < RANDOM; i++) must(pread(fd, buffer, PAGE, random_page()) == PAGE, "pread");
    printf("random 4 KiB read\t%.1f\n", RANDOM / (now() - start));
    close(fd);
    unlink(path);
}

static void small(const char *directory, int count) {
    char path[4096];
    struct stat st;
    must(mkdir(directory, 0755) == 0, directory);
    double start = now();
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/f%d", directory, i);
        int fd = open(path, O_CREAT | O_WRONLY, 0644);
        must(fd >= 0 && write(fd, buffer, 100) == 100, path);
        close(fd);
    }
    sync();
    printf("create small files\t%.1f\n", count / (now() - start));
    start = now();
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/f%d", directory, i);
        must(stat(path, &st) == 0 && st.st_size == 100, path);
    }
    printf("stat small files\t%.1f\n", count / (now() - start));
    start = now();
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/f%d", directory, i);
        must(unlink(path) == 0, path);
    }
    sync();
    printf("unlink small files\t%.1f\n", count / (now() - start));
    rmdir(directory);
}

int main(int argc, char **argv) {
    char path[4096];
    if (argc < 2) return 2;
    snprintf(path, sizeof path, "%s/large", argv[1]);
    large(path);
    snprintf(path, sizeof path, "%s/small", argv[1]);
    small(path, argc > 2 ? atoi(argv[2]) : 100000);
    return 0;
}
