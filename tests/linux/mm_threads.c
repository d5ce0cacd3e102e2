/* Threads touch the same fresh pages of files and memory at once: nobody may see a page half-made. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS = 4, PAGES = 2048, ROUNDS = 8 };
static const size_t page = 4096;
static unsigned char *file_at, *memory_at;
static pthread_barrier_t gate;

static unsigned char expected(size_t i) {
    return (unsigned char)(i * 7 + i / 256 + 1);
}

static void *run(void *arg) {
    long id = (long)arg, wrong = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&gate);
        for (size_t i = 0; i < PAGES; i++) {
            size_t at = i * page + (size_t)id;
            wrong += file_at[at] != expected(i);
            wrong += memory_at[at] != 0;
            memory_at[at] = (unsigned char)(id + 1);
        }
        pthread_barrier_wait(&gate);
        for (size_t i = 0; i < PAGES; i++) wrong += memory_at[i * page + (size_t)id] != id + 1;
        pthread_barrier_wait(&gate);
        if (id == 0) {
            madvise(file_at, PAGES * page, MADV_DONTNEED);
            madvise(memory_at, PAGES * page, MADV_DONTNEED);
        }
    }
    return (void *)wrong;
}

int main(void) {
    int fd = open("/tmp/mm_threads.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    unsigned char bytes[4096];
    for (size_t i = 0; i < PAGES; i++) {
        memset(bytes, expected(i), page);
        if (write(fd, bytes, page) != (ssize_t)page) perror("write");
    }
    file_at = mmap(NULL, PAGES * page, PROT_READ, MAP_PRIVATE, fd, 0);
    memory_at = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_barrier_init(&gate, NULL, THREADS);
    pthread_t threads[THREADS];
    long wrong = 0;
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, run, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (long)result;
    }
    printf("wrong bytes: %ld\n", wrong);
    unlink("/tmp/mm_threads.tmp");
    return wrong != 0;
}
