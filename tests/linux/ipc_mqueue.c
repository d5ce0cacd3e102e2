/* POSIX message queues: names, priorities, time-outs, poll, notification. */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NAME "/occlum-test-queue"

static void show(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

static void ready(const char *what, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    printf("%s:%s%s\n", what, p.revents & POLLIN ? " IN" : "", p.revents & POLLOUT ? " OUT" : "");
}

static void receive(mqd_t queue) {
    char text[64] = "";
    unsigned priority = 99;
    long n = mq_receive(queue, text, sizeof text, &priority);
    if (n < 0)
        show("receive", n);
    else
        printf("receive: %ld bytes [%s] priority %u\n", n, text, priority);
}

static void *send_later(void *queue) {
    usleep(20000);
    mq_send(*(mqd_t *)queue, "wake up", 7, 1);
    return NULL;
}

static volatile sig_atomic_t got, code, value;

static void on_message(int number, siginfo_t *info, void *context) {
    (void)context;
    got = number, code = info->si_code, value = info->si_value.sival_int;
}

static void notifications(mqd_t queue) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 77};
    struct sigaction action = {.sa_sigaction = on_message, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    show("notify", mq_notify(queue, &event));
    show("notify again", mq_notify(queue, &event));
    mq_send(queue, "one", 3, 0);
    printf("signal %d, from a queue %d, value %d\n", got == SIGUSR1, code == SI_MESGQ, value);
    got = 0;
    mq_send(queue, "two", 3, 0);
    printf("only once: %d\n", got);
    show("notify", mq_notify(queue, &event));
    mq_send(queue, "three", 5, 0);
    printf("not while there are messages: %d\n", got);
    show("take back", mq_notify(queue, NULL));
    receive(queue), receive(queue), receive(queue);
    mq_send(queue, "four", 4, 0);
    printf("taken back: %d\n", got);
    receive(queue);
}

int main(void) {
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 64}, bad = {.mq_maxmsg = 0, .mq_msgsize = 1}, now;
    struct timespec past = {1, 0}, wrong = {1, -1}, soon;
    pthread_t thread;
    char small[10];
    mq_unlink(NAME);
    show("open absent", mq_open(NAME, O_RDWR));
    show("bad bounds", mq_open(NAME, O_RDWR | O_CREAT, 0600, &bad));
    show("slash", mq_open("/a/b", O_RDWR | O_CREAT, 0600, NULL));
    mqd_t queue = mq_open(NAME, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
    show("created", queue >= 0 ? 0 : -1);
    show("exclusive", mq_open(NAME, O_RDWR | O_CREAT | O_EXCL, 0600, &attr));
    mqd_t reader = mq_open(NAME, O_RDONLY | O_NONBLOCK);
    mq_getattr(queue, &now);
    printf("%ld messages of %ld, size %ld, flags %ld\n", now.mq_curmsgs, now.mq_maxmsg, now.mq_msgsize, now.mq_flags);
    ready("empty", queue);
    show("nothing", mq_receive(reader, (char[64]){0}, 64, NULL));
    show("small buffer", mq_receive(queue, small, sizeof small, NULL));
    show("write on reader", mq_send(reader, "x", 1, 0));
    show("not a queue", mq_send(1, "x", 1, 0));
    show("priority", mq_send(queue, "x", 1, 40000));
    show("too long", mq_send(queue, (char[100]){0}, 100, 0));
    show("send", mq_send(queue, "low", 3, 1));
    ready("one", queue);
    show("send", mq_send(queue, "high", 4, 7));
    show("send", mq_send(queue, "also low", 8, 1));
    ready("full", queue);
    show("past", mq_timedsend(queue, "x", 1, 0, &past));
    show("wrong time", mq_timedsend(queue, "x", 1, 0, &wrong));
    attr.mq_flags = O_NONBLOCK;
    show("setattr", mq_setattr(queue, &attr, &now));
    printf("were %ld\n", now.mq_flags);
    show("full", mq_send(queue, "x", 1, 0));
    attr.mq_flags = 0;
    mq_setattr(queue, &attr, NULL);
    receive(queue), receive(reader), receive(reader), receive(reader);
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_sec += soon.tv_nsec > 970000000;
    soon.tv_nsec = (soon.tv_nsec + 30000000) % 1000000000;
    show("timed", mq_timedreceive(queue, (char[64]){0}, 64, NULL, &soon));
    pthread_create(&thread, NULL, send_later, &queue);
    receive(queue);
    pthread_join(thread, NULL);
    notifications(queue);
    show("unlink", mq_unlink(NAME));
    show("unlink again", mq_unlink(NAME));
    show("still works", mq_send(queue, "x", 1, 0));
    receive(reader);
    show("close", mq_close(queue));
    return 0;
}
