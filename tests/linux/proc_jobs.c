/* Who may be stopped, and who hears of orphans: process groups, sessions, exit signals, waiting. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)
#define FAILS(call, number) CHECK((call) == -1 && errno == (number))

static int told[2];
static void tell(int signal) { (void)!write(told[1], signal == SIGHUP ? "H" : signal == SIGCONT ? "C" : "?", 1); }

/* A stopped job whose shell ends: SIGHUP, then SIGCONT. */
static void orphaned_job(void) {
    char byte[2];
    int status;
    CHECK(pipe(told) == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    pid_t shell = fork();
    if (shell == 0) {
        CHECK(setsid() == getpid());
        pid_t job = fork();
        if (job == 0) {
            setpgid(0, 0);
            signal(SIGHUP, tell);
            signal(SIGCONT, tell);
            raise(SIGTSTP);
            _exit(0);
        }
        setpgid(job, job);
        CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP);
        _exit(0);
    }
    CHECK(waitpid(shell, &status, 0) == shell && status == 0);
    CHECK(read(told[0], byte, 1) == 1 && read(told[0], byte + 1, 1) == 1);
    CHECK((byte[0] == 'H' && byte[1] == 'C') || (byte[0] == 'C' && byte[1] == 'H'));
    CHECK(wait(&status) > 0 && WIFEXITED(status));
    puts("orphaned_job");
}

/* The terminal's stop signals don't stop an orphaned group; SIGSTOP does. */
static void orphaned_group(void) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(setsid() == getpid());
        raise(SIGTSTP);
        raise(SIGTTIN);
        _exit(7);
    }
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    pid = fork();
    if (pid == 0) {
        setsid();
        raise(SIGSTOP);
        pause();
        _exit(8);
    }
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status) && kill(pid, SIGCONT) == 0);
    CHECK(waitpid(pid, &status, WCONTINUED) == pid && WIFCONTINUED(status));
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    puts("orphaned_group");
}

struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

/* A clone with another exit signal is waited for with __WCLONE; execve makes it an ordinary child. */
static void exit_signals(void) {
    struct clone_arguments args = {.exit_signal = SIGUSR1};
    int status;
    signal(SIGUSR1, SIG_IGN);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) _exit(3);
    FAILS(waitpid(pid, &status, 0), ECHILD);
    CHECK(waitpid(pid, &status, __WCLONE) == pid && WEXITSTATUS(status) == 3);
    pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        char *arguments[] = {"exit", NULL};
        execv("/proc/self/exe", arguments);
        _exit(4);
    }
    while (waitpid(pid, &status, 0) == -1) {
        CHECK(errno == ECHILD);
        usleep(1000);
    }
    CHECK(WEXITSTATUS(status) == 5);
    puts("exit_signals");
}

static void infos(void) {
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0) {
        if (setuid(12345)) _exit(1);
        _exit(9);
    }
    memset(&info, 0xff, sizeof info);
    CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0);
    CHECK(info.si_pid == pid && info.si_uid == 12345 && info.si_status == 9 && info.si_code == CLD_EXITED);
    CHECK(info.si_signo == SIGCHLD);
    CHECK(waitid(P_PID, pid, &info, WEXITED) == 0 && info.si_uid == 12345);
    FAILS(waitid(P_PID, pid, &info, WEXITED), ECHILD);
    FAILS(waitid(P_PID, 0, &info, WEXITED), EINVAL);
    FAILS(waitid(P_ALL, 0, &info, 0), EINVAL);
    FAILS(waitpid(-99999, NULL, 0), ECHILD);
    FAILS(waitpid(-1, NULL, 0x100), EINVAL);
    puts("infos");
}

static void groups(void) {
    FAILS(setpgid(0, -1), EINVAL);
    FAILS(setpgid(-1, 0), EINVAL);
    FAILS(setpgid(-1, 5), ESRCH);
    FAILS(setpgid(0, 3999999), EPERM);
    FAILS(getpgid(3999999), ESRCH);
    FAILS(getsid(-1), ESRCH);
    CHECK(getpgid(0) == getpgrp());
    puts("groups");
}

int main(int count, char **args) {
    if (count > 0 && !strcmp(args[0], "exit")) return 5;
    orphaned_job();
    orphaned_group();
    exit_signals();
    infos();
    groups();
    return 0;
}
