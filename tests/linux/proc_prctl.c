/* prctl, capabilities, and what changes of user do to them. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)
#define FAILS(call, number) CHECK((call) == -1 && errno == (number))

static int in_child(void (*body)(void)) {
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static struct __user_cap_data_struct caps[2];

static void read_caps(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    CHECK(syscall(SYS_capget, &header, caps) == 0);
}

static int write_caps(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    return (int)syscall(SYS_capset, &header, caps);
}

static void simple(void) {
    char name[16];
    int value = -1;
    CHECK(prctl(PR_SET_NAME, "a name that is too long") == 0 && prctl(PR_GET_NAME, name) == 0);
    CHECK(strcmp(name, "a name that is ") == 0);
    CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0 && prctl(PR_GET_PDEATHSIG, &value) == 0 && value == SIGUSR1);
    FAILS(prctl(PR_SET_PDEATHSIG, 65), EINVAL);
    CHECK(prctl(PR_SET_PDEATHSIG, 0) == 0);
    CHECK(prctl(PR_GET_DUMPABLE) == 1 && prctl(PR_SET_DUMPABLE, 0) == 0 && prctl(PR_GET_DUMPABLE) == 0);
    FAILS(prctl(PR_SET_DUMPABLE, 2), EINVAL);
    CHECK(prctl(PR_GET_KEEPCAPS) == 0 && prctl(PR_SET_KEEPCAPS, 1) == 0 && prctl(PR_GET_KEEPCAPS) == 1);
    FAILS(prctl(PR_SET_KEEPCAPS, 2), EINVAL);
    CHECK(prctl(PR_GET_TIMING) == 0 && prctl(PR_SET_TIMING, 0) == 0);
    FAILS(prctl(PR_SET_TIMING, 1), EINVAL);
    CHECK(prctl(PR_SET_TIMERSLACK, 12345) == 0 && prctl(PR_GET_TIMERSLACK) == 12345);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && prctl(PR_GET_CHILD_SUBREAPER, &value) == 0 && value == 1);
    FAILS(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    FAILS(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), EINVAL);
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    FAILS(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0), EINVAL);
    CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 0 && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
    FAILS(prctl(PR_SET_THP_DISABLE, 1, 1, 0, 0), EINVAL);
    CHECK(prctl(PR_GET_TSC, &value) == 0 && value == PR_TSC_ENABLE && prctl(PR_SET_TSC, PR_TSC_ENABLE) == 0);
    CHECK(prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 0);
    FAILS(prctl(999999, 0, 0, 0, 0), EINVAL);
    puts("simple");
}

static void drops(void) {
    read_caps();
    CHECK(prctl(PR_CAPBSET_READ, CAP_CHOWN) == 1);
    FAILS(prctl(PR_CAPBSET_READ, 64), EINVAL);
    CHECK(prctl(PR_CAPBSET_DROP, CAP_MKNOD) == 0 && prctl(PR_CAPBSET_READ, CAP_MKNOD) == 0);
    caps[0].effective &= ~(1u << CAP_CHOWN);
    CHECK(write_caps() == 0);
    FAILS(chown("/tmp", 1, 1), EPERM);
    caps[0].permitted &= ~(1u << CAP_CHOWN);
    CHECK(write_caps() == 0);
    caps[0].permitted |= 1u << CAP_CHOWN;
    FAILS(write_caps(), EPERM);
    caps[0].permitted &= ~(1u << CAP_CHOWN);
    caps[0].effective |= 1u << CAP_CHOWN;
    FAILS(write_caps(), EPERM);
    struct __user_cap_header_struct wrong = {0, 0};
    FAILS(syscall(SYS_capget, &wrong, caps), EINVAL);
    CHECK(wrong.version == _LINUX_CAPABILITY_VERSION_3);
    puts("drops");
}

static void change_user(void) {
    read_caps();
    CHECK(caps[0].permitted & 1u << CAP_KILL);
    CHECK(setresuid(0, 12345, 0) == 0);
    read_caps();
    CHECK(caps[0].effective == 0 && caps[0].permitted & 1u << CAP_KILL);
    CHECK(seteuid(0) == 0);
    read_caps();
    CHECK(caps[0].effective == caps[0].permitted);
    CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0 && setuid(12345) == 0);
    read_caps();
    CHECK(caps[0].effective == 0 && caps[0].permitted & 1u << CAP_KILL);
    CHECK(prctl(PR_GET_DUMPABLE) == 0);
    caps[0].effective = 1u << CAP_SETUID;
    CHECK(write_caps() == 0 && setuid(0) == 0);
    puts("change_user");
}

static void lose_all(void) {
    CHECK(setgid(12345) == 0 && setuid(12345) == 0);
    read_caps();
    CHECK(caps[0].effective == 0 && caps[0].permitted == 0);
    FAILS(setuid(0), EPERM);
    FAILS(setgid(0), EPERM);
    FAILS(setresuid(-1, 0, -1), EPERM);
    FAILS(sethostname("x", 1), EPERM);
    FAILS(chroot("/"), EPERM);
    FAILS(prctl(PR_CAPBSET_DROP, CAP_CHOWN), EPERM);
    FAILS(prctl(PR_SET_SECUREBITS, 0x1f), EPERM);
    FAILS(syscall(SYS_acct, NULL), EPERM);
    FAILS(syscall(SYS_reboot, 0, 0, 0, NULL), EPERM);
    FAILS(syscall(SYS_swapoff, "/none"), EPERM);
    FAILS(syscall(SYS_unshare, 0x04000000), EPERM);
    puts("lose_all");
}

static void ambient(void) {
    read_caps();
    FAILS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0), EPERM);
    caps[0].inheritable = 1u << CAP_KILL;
    CHECK(write_caps() == 0);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 1);
    FAILS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 1, 0), EINVAL);
    FAILS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0), EINVAL);
    caps[0].inheritable = 0;
    CHECK(write_caps() == 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 0);
    CHECK(prctl(PR_GET_SECUREBITS) == 0);
    CHECK(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_KEEP_CAPS_LOCKED) == 0);
    FAILS(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS_LOCKED), EPERM);
    FAILS(prctl(PR_SET_KEEPCAPS, 0), EPERM);
    puts("ambient");
}

static void death_signal(void) {
    int pipes[2];
    char byte = 0;
    CHECK(pipe(pipes) == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    pid_t middle = fork();
    if (middle == 0) {
        pid_t child = fork();
        if (child == 0) {
            CHECK(prctl(PR_SET_PDEATHSIG, SIGTERM) == 0);
            CHECK(write(pipes[1], "x", 1) == 1);
            pause();
            _exit(0);
        }
        CHECK(read(pipes[0], &byte, 1) == 1);
        _exit(0);
    }
    int status;
    CHECK(waitpid(middle, &status, 0) == middle && status == 0);
    pid_t orphan = wait(&status);
    CHECK(orphan > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    puts("death_signal");
}

int main(void) {
    CHECK(in_child(simple) == 0 && in_child(drops) == 0 && in_child(change_user) == 0);
    CHECK(in_child(lose_all) == 0 && in_child(ambient) == 0 && in_child(death_signal) == 0);
    return 0;
}
