/* 500 threads at once, each with thread-local data, all joined; then again with a mutex and condition. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 500 };

static __thread long mine;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_here = PTHREAD_COND_INITIALIZER;
static int here;
static long sum;

static void *run(void *arg) {
    mine = (long)arg;
    pthread_mutex_lock(&lock);
    if (++here == COUNT) pthread_cond_broadcast(&all_here);
    while (here < COUNT) pthread_cond_wait(&all_here, &lock);
    sum += mine;
    pthread_mutex_unlock(&lock);
    return (void *)(mine * 2);
}

int main(void) {
    static pthread_t threads[COUNT];
    for (int round = 0; round < 2; round++) {
        here = 0;
        sum = 0;
        for (long i = 0; i < COUNT; i++)
            if (pthread_create(&threads[i], NULL, run, (void *)i)) {
                perror("pthread_create");
                return 1;
            }
        long doubled = 0;
        for (int i = 0; i < COUNT; i++) {
            void *result;
            pthread_join(threads[i], &result);
            doubled += (long)result;
        }
        printf("round %d: sum %ld, doubled %ld\n", round, sum, doubled);
    }
    return 0;
}
