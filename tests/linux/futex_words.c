/* futex(2) operations used directly, robust and priority-inheriting mutexes, condition variables. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static uint32_t word, other;

static long futex(uint32_t *at, int operation, uint32_t value, const void *four, uint32_t *five, uint32_t six) {
    return syscall(SYS_futex, at, operation, value, four, five, six);
}

static void errors(void) {
    struct timespec soon = {.tv_nsec = 5000000};
    CHECK(futex(&word, FUTEX_WAIT, 1, NULL, NULL, 0) == -1 && errno == EAGAIN);
    CHECK(futex(&word, FUTEX_WAIT, 0, &soon, NULL, 0) == -1 && errno == ETIMEDOUT);
    CHECK(futex((uint32_t *)((char *)&word + 1), FUTEX_WAKE, 1, NULL, NULL, 0) == -1 && errno == EINVAL);
    CHECK(futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0) == -1 && errno == EINVAL);
    CHECK(futex((uint32_t *)64, FUTEX_WAIT, 0, NULL, NULL, 0) == -1 && errno == EFAULT);
    CHECK(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0) == 0);
    CHECK(futex(&word, 99, 0, NULL, NULL, 0) == -1 && errno == ENOSYS);
    struct timespec now, bad = {.tv_nsec = 1000000000};
    CHECK(futex(&word, FUTEX_WAIT, 0, &bad, NULL, 0) == -1 && errno == EINVAL);
    clock_gettime(CLOCK_REALTIME, &now);
    CHECK(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &now, NULL, ~0u) == -1 && errno == ETIMEDOUT);
    puts("errors");
}

static void *waiter(void *arg) {
    while (__atomic_load_n(&word, __ATOMIC_SEQ_CST) == 0)
        futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, (uint32_t)(uintptr_t)arg);
    return NULL;
}

static void requeueing(void) {
    pthread_t threads[4];
    word = other = 0;
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, waiter, (void *)1);
    usleep(30000);
    CHECK(futex(&word, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, 2) == 0);
    CHECK(futex(&word, FUTEX_CMP_REQUEUE, 0, (void *)4, &other, 1) == -1 && errno == EAGAIN);
    CHECK(futex(&word, FUTEX_CMP_REQUEUE, 0, (void *)4, &other, 0) == 4);
    CHECK(futex(&word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0) == 0);
    word = 1;
    /* WAKE_OP: other += 1, and since it was 0 wake its waiters too. */
    CHECK(futex(&word, FUTEX_WAKE_OP, 1, (void *)10, &other, FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)) == 4);
    CHECK(other == 1);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    puts("requeueing");
}

static pthread_mutex_t mutex;

static void *die_holding(void *unused) {
    pthread_mutex_lock(&mutex);
    return unused;
}

static void robust(int protocol) {
    pthread_mutexattr_t attr;
    pthread_t thread;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setprotocol(&attr, protocol);
    pthread_mutex_init(&mutex, &attr);
    pthread_create(&thread, NULL, die_holding, NULL);
    pthread_join(thread, NULL);
    CHECK(pthread_mutex_lock(&mutex) == EOWNERDEAD);
    CHECK(pthread_mutex_consistent(&mutex) == 0);
    CHECK(pthread_mutex_unlock(&mutex) == 0 && pthread_mutex_lock(&mutex) == 0);
    pthread_mutex_unlock(&mutex);
}

static long total;

static void *add(void *unused) {
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&mutex);
        total++;
        pthread_mutex_unlock(&mutex);
    }
    return unused;
}

static void contention(int protocol) {
    pthread_mutexattr_t attr;
    pthread_t threads[4];
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setprotocol(&attr, protocol);
    pthread_mutex_init(&mutex, &attr);
    total = 0;
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, add, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK(total == 80000);
}

int main(void) {
    errors();
    requeueing();
    robust(PTHREAD_PRIO_NONE);
    puts("robust");
    contention(PTHREAD_PRIO_NONE);
    puts("contention");
    robust(PTHREAD_PRIO_INHERIT);
    contention(PTHREAD_PRIO_INHERIT);
    puts("priority inheritance");
    return 0;
}
