// flags: -O1
// variants: glibc static no-pie
//
// fork(2): what child and parent see of each other's memory, descriptors and end.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno);   \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

static int global = 1;

static int wait_for(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void exit_status(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(42);
    int status = wait_for(pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        pause();
        _exit(0);
    }
    CHECK(kill(pid, SIGTERM) == 0);
    status = wait_for(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    puts("exit status");
}

static void divergence(void)
{
    int local = 10;
    int *heap = malloc(sizeof *heap);
    *heap = 100;
    int to_child[2], to_parent[2];
    CHECK(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    char byte = 'x';
    if (pid == 0) {
        CHECK(global == 1 && local == 10 && *heap == 100);
        global = 2, local = 20, *heap = 200;
        CHECK(write(to_parent[1], &byte, 1) == 1);
        CHECK(read(to_child[0], &byte, 1) == 1);
        CHECK(global == 2 && local == 20 && *heap == 200);
        _exit(0);
    }
    CHECK(read(to_parent[0], &byte, 1) == 1);
    CHECK(global == 1 && local == 10 && *heap == 100);
    global = 3, local = 30, *heap = 300;
    CHECK(write(to_child[1], &byte, 1) == 1);
    CHECK(wait_for(pid) == 0);
    CHECK(global == 3 && local == 30 && *heap == 300);
    global = 1;
    free(heap);
    close(to_child[0]), close(to_child[1]), close(to_parent[0]), close(to_parent[1]);
    puts("divergence");
}

static void nested(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        global = 10;
        pid_t grandchild = fork();
        CHECK(grandchild >= 0);
        if (grandchild == 0) {
            CHECK(global == 10);
            global = 100;
            pid_t third = fork();
            CHECK(third >= 0);
            if (third == 0)
                _exit(global == 100 ? 3 : 0);
            int status = wait_for(third);
            _exit(WEXITSTATUS(status) == 3 && global == 100 ? 2 : 0);
        }
        int status = wait_for(grandchild);
        _exit(WEXITSTATUS(status) == 2 && global == 10 ? 1 : 0);
    }
    int status = wait_for(pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    CHECK(global == 1);
    puts("nested");
}

static void shared_anonymous(void)
{
    volatile int *shared = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    shared[0] = 1;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(shared[0] == 1);
        shared[0] = 2;
        shared[8192] = 7;
        _exit(0);
    }
    CHECK(wait_for(pid) == 0);
    CHECK(shared[0] == 2 && shared[8192] == 7);
    CHECK(munmap((void *)shared, 1 << 16) == 0);
    puts("shared anonymous");
}

static void parent_first(void)
{
    int pipe_[2];
    CHECK(pipe(pipe_) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        pid_t started_by = getpid();
        pid_t orphan = fork();
        CHECK(orphan >= 0);
        if (orphan == 0) {
            while (getppid() == started_by && global < 100000) {
                global++;
                usleep(100);
            }
            CHECK(write(pipe_[1], "orphan", 7) == 7);
            _exit(0);
        }
        global = 55;
        _exit(5);
    }
    int status = wait_for(pid);
    CHECK(WEXITSTATUS(status) == 5);
    char text[8];
    CHECK(read(pipe_[0], text, 7) == 7 && strcmp(text, "orphan") == 0);
    close(pipe_[0]), close(pipe_[1]);
    puts("parent first");
}

static void many(void)
{
    enum { COUNT = 50 };
    pid_t pids[COUNT];
    int start[2];
    CHECK(pipe(start) == 0);
    for (int i = 0; i < COUNT; i++) {
        global = i;
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) {
            char byte;
            close(start[1]);
            CHECK(read(start[0], &byte, 1) == 0);
            CHECK(global == i);
            _exit(i);
        }
    }
    close(start[0]), close(start[1]);
    for (int i = 0; i < COUNT; i++)
        CHECK(WEXITSTATUS(wait_for(pids[i])) == i);
    global = 1;
    puts("many");
}

static void kernel_writes(void)
{
    static char buffer[20000];
    memset(buffer, 'a', sizeof buffer);
    int pipe_[2];
    CHECK(pipe(pipe_) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        size_t done = 0;
        while (done < sizeof buffer) {
            ssize_t size = read(pipe_[0], buffer + done, sizeof buffer - done);
            CHECK(size > 0);
            done += size;
        }
        for (size_t i = 0; i < sizeof buffer; i++)
            CHECK(buffer[i] == 'b');
        _exit(0);
    }
    static char other[20000];
    memset(other, 'b', sizeof other);
    CHECK(write(pipe_[1], other, sizeof other) == sizeof other);
    CHECK(wait_for(pid) == 0);
    for (size_t i = 0; i < sizeof buffer; i++)
        CHECK(buffer[i] == 'a');
    close(pipe_[0]), close(pipe_[1]);
    puts("kernel writes");
}

int main(void)
{
    setvbuf(stdout, 0, _IONBF, 0);
    alarm(30);
    exit_status();
    divergence();
    nested();
    shared_anonymous();
    parent_first();
    many();
    kernel_writes();
    return 0;
}
