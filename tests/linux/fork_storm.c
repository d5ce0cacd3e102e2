// flags: -O1
// variants: glibc no-pie
//
// fork(2) in numbers: hundreds of members alive, long chains, forks from several threads, under signals.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno);   \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

enum { PAGE = 4096 };

static int is_retried(int result)
{
    return result == -1 && errno == EINTR;
}

static int wait_for(pid_t pid)
{
    int status, result;
    do
        result = waitpid(pid, &status, 0);
    while (is_retried(result));
    CHECK(result == pid);
    return status;
}

/* All alive at once, each with pages of its own; each is asked twice. */
static void hundreds(void)
{
    enum { COUNT = 250, OWN = 8 * PAGE };
    static unsigned char own[OWN];
    int ask[COUNT][2], answer[2];
    pid_t pids[COUNT];
    CHECK(pipe(answer) == 0);
    for (int i = 0; i < COUNT; i++) {
        CHECK(pipe(ask[i]) == 0);
        memset(own, i, OWN);
        CHECK((pids[i] = fork()) >= 0);
        if (pids[i] == 0) {
            for (int j = 0; j <= i; j++)
                close(ask[j][1]);
            memset(own + PAGE, i + 1, PAGE);
            unsigned char byte;
            while (read(ask[i][0], &byte, 1) == 1) {
                int is_right = own[0] == (unsigned char)i && own[PAGE] == (unsigned char)(i + byte);
                memset(own + PAGE, i + byte + 1, PAGE);
                CHECK(write(answer[1], is_right ? "y" : "n", 1) == 1);
            }
            _exit(i % 200);
        }
        close(ask[i][0]);
    }
    for (unsigned char round = 1; round <= 2; round++) {
        for (int i = 0; i < COUNT; i++)
            CHECK(write(ask[i * 7 % COUNT][1], &round, 1) == 1);
        for (int i = 0; i < COUNT; i++) {
            char is_right;
            CHECK(read(answer[0], &is_right, 1) == 1 && is_right == 'y');
        }
    }
    for (int i = 0; i < COUNT; i++)
        close(ask[i][1]);
    for (int i = 0; i < COUNT; i++)
        CHECK(WEXITSTATUS(wait_for(pids[i])) == i % 200);
    close(answer[0]), close(answer[1]);
    puts("hundreds");
}

/* Each forks the next and ends first. */
static void chain(void)
{
    enum { LENGTH = 100 };
    static char text[LENGTH + 1];
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    pid_t first = fork();
    CHECK(first >= 0);
    if (first == 0) {
        for (int i = 0; i < LENGTH; i++) {
            text[i] = 'a' + i % 26;
            pid_t next = fork();
            CHECK(next >= 0);
            if (next > 0)
                _exit(0);
        }
        CHECK(write(ends[1], text, LENGTH) == LENGTH);
        _exit(0);
    }
    char got[LENGTH];
    int done = 0, count = 0;
    while (done < LENGTH) {
        int size = read(ends[0], got + done, LENGTH - done);
        CHECK(size > 0);
        done += size;
    }
    for (int i = 0; i < LENGTH; i++)
        CHECK(got[i] == 'a' + i % 26);
    while (wait(0) > 0)
        count++;
    CHECK(count == LENGTH + 1);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
    close(ends[0]), close(ends[1]);
    puts("chain");
}

static volatile int is_done;
static volatile unsigned long pair[2][PAGE];

/* Two words on two pages that nobody may ever see differ by more than one. */
static void *write_pairs(void *arg)
{
    for (unsigned long i = 1; !is_done; i++) {
        pair[0][0] = i;
        __sync_synchronize();
        pair[1][0] = i;
        __sync_synchronize();
    }
    return arg;
}

static void *fork_often(void *arg)
{
    for (int i = 0; i < 25; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            unsigned long a = pair[0][0], b = pair[1][0];
            pair[0][0] = pair[1][0] = 0;
            _exit(a - b <= 1 ? 5 : 6);
        }
        CHECK(WEXITSTATUS(wait_for(pid)) == 5);
    }
    return arg;
}

static void from_threads(void)
{
    pthread_t writer, forkers[4];
    CHECK(pthread_create(&writer, 0, write_pairs, 0) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&forkers[i], 0, fork_often, 0) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(forkers[i], 0) == 0);
    is_done = 1;
    CHECK(pthread_join(writer, 0) == 0);
    puts("from threads");
}

static volatile sig_atomic_t alarms, ended;

static void on_alarm(int number)
{
    alarms += number == SIGALRM;
}

static void on_child(int number)
{
    int saved = errno;
    while (waitpid(-1, 0, WNOHANG) > 0)
        ended++;
    (void)number;
    errno = saved;
}

static void under_signals(void)
{
    enum { COUNT = 300 };
    struct sigaction action = { .sa_handler = on_alarm }, old_alarm, old_child;
    CHECK(sigaction(SIGALRM, &action, &old_alarm) == 0);
    action.sa_handler = on_child;
    CHECK(sigaction(SIGCHLD, &action, &old_child) == 0);
    struct itimerval often = { { 0, 700 }, { 0, 700 } }, never = { { 0, 0 }, { 0, 0 } };
    CHECK(setitimer(ITIMER_REAL, &often, 0) == 0);
    for (int i = 0; i < COUNT; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            /* Timers are not inherited, handlers are. */
            alarms = 0;
            raise(SIGALRM);
            if (i % 3 == 0)
                kill(getppid(), SIGALRM);
            _exit(alarms == 1 ? 0 : 1);
        }
    }
    while (ended < COUNT)
        usleep(1000);
    CHECK(setitimer(ITIMER_REAL, &never, 0) == 0);
    CHECK(sigaction(SIGALRM, &old_alarm, 0) == 0 && sigaction(SIGCHLD, &old_child, 0) == 0);
    CHECK(waitpid(-1, 0, WNOHANG) == -1 && errno == ECHILD);
    puts("under signals");
}

/* More than fits at once: memory of members that ended is there again. */
static void again_and_again(void)
{
    enum { SIZE = 8 << 20 };
    unsigned char *memory = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    for (int i = 0; i < 600; i++) {
        memory[i % 2000 * PAGE] = i;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            for (int page = 0; page < 20; page++)
                memory[(i * 13 + page) % 2000 * PAGE] = 255;
            int sum = 0;
            for (int page = 0; page < 2000; page++)
                sum += memory[page * PAGE] == 255;
            _exit(sum >= 20 && sum <= 23 ? 0 : 1);
        }
        CHECK(wait_for(pid) == 0);
        CHECK(memory[i % 2000 * PAGE] == (unsigned char)i);
    }
    CHECK(munmap(memory, SIZE) == 0);
    puts("again and again");
}

int main(void)
{
    setvbuf(stdout, 0, _IONBF, 0);
    alarm(60);
    hundreds();
    chain();
    from_threads();
    again_and_again();
    alarm(0);
    under_signals();
    return 0;
}
