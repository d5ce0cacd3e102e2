// variants: glibc musl static-pie
/* posix_spawn, vfork, execve, wait4, waitid, exit statuses, process groups, orphans. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

extern char **environ;
/* Stops; goes on until SIGUSR1, so that the parent can see it continued before it ends. */
static int stop_then_wait(void) {
    sigset_t set;
    int signal;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGSTOP);
    sigwait(&set, &signal);
    return 7;
}

static char self[4096];

static pid_t spawn(const char *role, const char *more) {
    pid_t pid;
    char *args[] = {"child", (char *)role, (char *)more, NULL};
    CHECK(posix_spawn(&pid, self, NULL, NULL, args, environ) == 0);
    return pid;
}

static int role(char **args) {
    const char *name = args[1];
    if (!strcmp(name, "exit")) return atoi(args[2]);
    if (!strcmp(name, "kill")) return raise(atoi(args[2])), 99;
    if (!strcmp(name, "stop")) return stop_then_wait();
    if (!strcmp(name, "cloexec")) return fcntl(atoi(args[2]), F_GETFD) == -1 && errno == EBADF ? 0 : 1;
    if (!strcmp(name, "keep")) return fcntl(atoi(args[2]), F_GETFD) == -1;
    if (!strcmp(name, "sleep")) return pause(), 0;
    if (!strcmp(name, "orphan")) {
        spawn("sleep", NULL);
        return 0;
    }
    return 98;
}

static void statuses(void) {
    int status;
    siginfo_t info;
    struct rusage usage;
    pid_t pid = spawn("exit", "42");
    CHECK(wait4(pid, &status, 0, &usage) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 42);
    pid = spawn("kill", "15");
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    pid = spawn("exit", "5");
    CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0 && info.si_code == CLD_EXITED && info.si_status == 5);
    CHECK(waitid(P_PID, pid, &info, WEXITED) == 0 && info.si_pid == pid && info.si_signo == SIGCHLD);
    CHECK(waitpid(pid, &status, 0) == -1 && errno == ECHILD);
    CHECK(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD);
    CHECK(waitpid(pid, &status, 0x10) == -1 && errno == EINVAL);
    puts("statuses");
}

static void stopping(void) {
    int status;
    pid_t pid = spawn("stop", NULL);
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    CHECK(waitpid(pid, &status, WNOHANG | WUNTRACED) == 0);
    CHECK(kill(pid, SIGCONT) == 0);
    CHECK(waitpid(pid, &status, WCONTINUED) == pid && WIFCONTINUED(status));
    CHECK(kill(pid, SIGUSR1) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
    pid = spawn("sleep", NULL);
    CHECK(kill(pid, SIGSTOP) == 0 && waitpid(pid, &status, WUNTRACED) == pid);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGKILL);
    puts("stopping");
}

static void descriptors(void) {
    int status, kept = open("/", O_RDONLY), closed = open("/", O_RDONLY | O_CLOEXEC);
    char number[16];
    sprintf(number, "%d", closed);
    CHECK(waitpid(spawn("cloexec", number), &status, 0) > 0 && WEXITSTATUS(status) == 0);
    sprintf(number, "%d", kept);
    CHECK(waitpid(spawn("keep", number), &status, 0) > 0 && WEXITSTATUS(status) == 0);
    puts("descriptors");
}

static void failures(void) {
    pid_t pid;
    char *args[] = {"x", NULL};
    CHECK(posix_spawn(&pid, "/nowhere", NULL, NULL, args, environ) == ENOENT);
    CHECK(posix_spawn(&pid, "/", NULL, NULL, args, environ) == EACCES);
    CHECK(execve("/nowhere/x", args, environ) == -1 && errno == ENOENT);
    char **volatile wild = (char **)8;
    CHECK(execve(self, wild, environ) == -1 && errno == EFAULT);
    char name[] = "/tmp/proc_spawn.XXXXXX";
    int fd = mkstemp(name);
    CHECK(write(fd, "junk, no program", 16) == 16 && fchmod(fd, 0755) == 0 && close(fd) == 0);
    CHECK(execve(name, args, environ) == -1 && errno == ENOEXEC);
    CHECK(unlink(name) == 0);
    puts("failures");
}

static volatile int children;

static void on_child(int signal) {
    (void)signal;
    children++;
}

static void signals(void) {
    int status;
    signal(SIGCHLD, on_child);
    pid_t pid = spawn("exit", "0");
    while (waitpid(pid, &status, 0) == -1) CHECK(errno == EINTR);
    CHECK(children == 1);
    signal(SIGCHLD, SIG_IGN);
    pid = spawn("exit", "0");
    CHECK(waitpid(pid, &status, 0) == -1 && errno == ECHILD);
    signal(SIGCHLD, SIG_DFL);
    puts("signals");
}

static void groups(void) {
    int status;
    pid_t pid;
    posix_spawnattr_t attr;
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
    char *args[] = {"child", "sleep", NULL, NULL};
    CHECK(posix_spawn(&pid, self, NULL, &attr, args, environ) == 0);
    CHECK(getpgid(pid) == pid && getpgid(0) == getpgrp() && getsid(pid) == getsid(0));
    CHECK(setpgid(pid, 0) == -1 && errno == EACCES);
    CHECK(kill(-pid, SIGTERM) == 0 && waitpid(-pid, &status, 0) == pid && WTERMSIG(status) == SIGTERM);
    puts("groups");
}

static void orphans(void) {
    int status;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    pid_t pid = spawn("orphan", NULL);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    siginfo_t info;
    CHECK(waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == 0);
    /* The grandchild is ours now, and in our group. */
    signal(SIGTERM, SIG_IGN);
    CHECK(kill(0, SIGTERM) == 0);
    signal(SIGTERM, SIG_DFL);
    CHECK(wait(&status) > 0 && WTERMSIG(status) == SIGTERM);
    puts("orphans");
}

static void with_vfork(void) {
    int status;
    volatile int shared = 1;
    pid_t pid = vfork();
    if (pid == 0) {
        shared = 2;
        _exit(3);
    }
    CHECK(shared == 2 && waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 3);
    puts("vfork");
}

int main(int count, char **args) {
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(size > 0);
    if (count > 1 && !strcmp(args[0], "child")) return role(args);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (getpgrp() != getpid()) setpgid(0, 0);
    statuses();
    stopping();
    descriptors();
    failures();
    signals();
    groups();
    orphans();
    with_vfork();
    return 0;
}
