/* Pseudo-terminals: lines, editing, echo, raw mode, hang-up, job control. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

extern char **environ;

static int m, s;

static void show(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

static void escaped(const char *what, const char *text, long n) {
    printf("%s: ", what);
    if (n < 0) {
        printf("%s\n", strerrorname_np(errno));
        return;
    }
    putchar('[');
    for (long i = 0; i < n; i++)
        if (text[i] < 32 || text[i] == 127)
            printf("\\x%02x", (unsigned char)text[i]);
        else
            putchar(text[i]);
    printf("]\n");
}

static void from(const char *what, int fd) {
    char buf[512];
    struct pollfd p = {fd, POLLIN, 0};
    if (poll(&p, 1, 500) == 0) {
        printf("%s: nothing\n", what);
        return;
    }
    escaped(what, buf, read(fd, buf, sizeof buf));
}

static void ready(const char *what, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    printf("%s:%s%s%s%s\n", what, p.revents & POLLIN ? " IN" : "", p.revents & POLLOUT ? " OUT" : "",
           p.revents & POLLHUP ? " HUP" : "", p.revents & POLLERR ? " ERR" : "");
}

/* Types and shows what the master sees and what the program reads. */
static void type(const char *what, const char *keys) {
    printf("-- %s\n", what);
    write(m, keys, strlen(keys));
    from("echo", m);
    from("read", s);
}

static void open_pair(void) {
    m = posix_openpt(O_RDWR | O_NOCTTY);
    grantpt(m);
    char *name = ptsname(m);
    printf("name %d\n", strncmp(name, "/dev/pts/", 9) == 0);
    show("locked", open(name, O_RDWR | O_NOCTTY));
    show("unlock", unlockpt(m));
    s = open(name, O_RDWR | O_NOCTTY);
    printf("open %d\n", s >= 0);
    printf("isatty %d %d\n", isatty(m), isatty(s));
    char text[64];
    printf("ttyname %d\n", ttyname_r(s, text, sizeof text) == 0 && strcmp(text, name) == 0);
    struct stat st;
    fstat(s, &st);
    printf("device %d\n", S_ISCHR(st.st_mode));
    ready("master", m);
    ready("slave", s);
}

static void canonical(void) {
    struct termios t;
    tcgetattr(s, &t);
    printf("flags %o %o %o\n", t.c_iflag, t.c_oflag, t.c_lflag);
    type("line", "hello\r");
    type("incomplete", "abc");
    type("erase", "\x7f\x7fxy\n");
    type("kill", "wrong\x15right\n");
    type("word erase", "one two\x17three\n");
    type("control", "a\x01" "b\n");
    type("literal", "\x16\x03\n");
    type("tab", "a\tb\x7f\x7f" "c\n");
    type("end of file", "\x04");
    type("end after text", "text\x04");
    type("two lines", "1\n2\n");
    from("second", s);
    printf("-- print\n");
    show("write", write(s, "out\n\tput\r", 9));
    from("master", m);
    char buf[8];
    write(m, "long line\n", 10);
    from("echo", m);
    escaped("part", buf, read(s, buf, 4));
    from("rest", s);
    t.c_lflag &= ~ECHO;
    tcsetattr(s, TCSANOW, &t);
    type("no echo", "secret\n");
    t.c_lflag |= ECHO;
    t.c_oflag &= ~OPOST;
    tcsetattr(s, TCSANOW, &t);
    type("no output processing", "x\n");
    t.c_oflag |= OPOST;
    tcsetattr(s, TCSANOW, &t);
    fcntl(s, F_SETFL, O_NONBLOCK);
    show("nothing typed", read(s, buf, 1));
    fcntl(s, F_SETFL, 0);
}

static void raw(void) {
    struct termios t, old;
    char buf[16];
    tcgetattr(s, &old);
    t = old;
    cfmakeraw(&t);
    tcsetattr(s, TCSANOW, &t);
    type("raw", "a\r\x03");
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 0;
    tcsetattr(s, TCSANOW, &t);
    show("no waiting", read(s, buf, 1));
    t.c_cc[VTIME] = 1;
    tcsetattr(s, TCSANOW, &t);
    show("a little waiting", read(s, buf, 1));
    t.c_cc[VMIN] = 5;
    tcsetattr(s, TCSANOW, &t);
    write(m, "abc", 3);
    show("between bytes", read(s, buf, 10));
    int n = -1;
    t.c_cc[VMIN] = 4;
    t.c_cc[VTIME] = 0;
    tcsetattr(s, TCSANOW, &t);
    write(m, "wxyz", 4);
    poll(&(struct pollfd){s, POLLIN, 0}, 1, 1000);
    ioctl(s, FIONREAD, &n);
    printf("FIONREAD %d\n", n);
    tcflush(s, TCIFLUSH);
    ioctl(s, FIONREAD, &n);
    printf("flushed %d\n", n);
    tcsetattr(s, TCSANOW, &old);
}

static void window(void) {
    struct winsize w = {24, 80, 0, 0}, got;
    show("set size", ioctl(m, TIOCSWINSZ, &w));
    ioctl(s, TIOCGWINSZ, &got);
    printf("size %d %d\n", got.ws_row, got.ws_col);
    int n;
    show("not controlling", ioctl(s, TIOCGPGRP, &n));
    show("unknown request", ioctl(s, 0x1234, &n));
}

static volatile sig_atomic_t got;
static void on_signal(int n) { got = n; }

/* In a session of its own: the terminal becomes controlling, keys become signals. */
static int child(const char *name) {
    int t = open(name, O_RDWR);
    char buf[64];
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t set, none;
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGWINCH, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    int own = tcgetpgrp(t) == getpgrp() && tcgetsid(t) == getsid(0), tty = open("/dev/tty", O_RDWR);
    dprintf(t, "own %d tty %d\n", own, tty >= 0);
    for (int i = 0; i < 2; i++) {
        sigsuspend(&none);
        dprintf(t, "signal %d\n", (int)got);
    }
    sigsuspend(&none);
    return got == SIGHUP && read(t, buf, sizeof buf) == 0 ? 7 : 8;
}

/* The next line the child prints, the echo left out. */
static void line(void) {
    char buf[256];
    int n = 0;
    while (n < 255 && read(m, buf + n, 1) == 1 && buf[n] != '\n') n++;
    escaped("child", buf, n);
}

static void jobs(const char *self) {
    pid_t pid;
    posix_spawnattr_t attributes;
    m = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    grantpt(m);
    unlockpt(m);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    char *argv[] = {(char *)self, ptsname(m), NULL};
    show("spawn", posix_spawn(&pid, "/proc/self/exe", NULL, &attributes, argv, environ));
    line();
    write(m, "\x03", 1);
    line();
    struct winsize w = {50, 100, 0, 0};
    ioctl(m, TIOCSWINSZ, &w);
    line();
    close(m);
    int status;
    waitpid(pid, &status, 0);
    printf("exit %d\n", WEXITSTATUS(status));
}

static void hangup(void) {
    char buf[8];
    write(s, "last", 4);
    close(s);
    ready("slave closed", m);
    from("rest", m);
    show("read", read(m, buf, 1));
    s = open(ptsname(m), O_RDWR | O_NOCTTY);
    ready("opened again", m);
    close(m);
    ready("master closed", s);
    show("read", read(s, buf, 1));
    show("write", write(s, "x", 1));
    close(s);
}

int main(int argc, char **argv) {
    if (argc > 1) return child(argv[1]);
    setvbuf(stdout, NULL, _IONBF, 0);
    open_pair();
    canonical();
    raw();
    window();
    hangup();
    jobs(argv[0]);
    return 0;
}
