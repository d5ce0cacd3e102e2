// flags: -O1
// variants: glibc no-pie
// args: 1 120
//
// Random programs of fork, write, read, mmap, munmap, mprotect, mremap, madvise, brk, pipe, exec, exit and
// wait, made from seeds. Whatever a process sees of memory, results and statuses goes into its digest,
// which goes to its parent; one line for each seed says the root's.
//
// usage: fork_model FIRST COUNT [trace]
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 96, SHARED_PAGES = 4, CHILDREN = 3, DEPTH = 3 };

static unsigned char *window;
static unsigned char *shared;
static unsigned char stack_like[6 * PAGE];
static uint64_t state, digest;
static int depth, is_alone, is_tracing;
static char path[64];

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static unsigned below(unsigned bound)
{
    state = mix(state);
    return (state >> 11) % bound;
}

static void see(const char *what, uint64_t value)
{
    digest = mix(digest ^ value);
    if (is_tracing) {
        char line[128];
        int size = snprintf(line, sizeof line, "%s %s %llx\n", path, what, (unsigned long long)value);
        if (write(2, line, size) != size)
            _exit(99);
    }
}

static void see_result(const char *what, long result)
{
    see(what, result == -1 ? 1000 + errno : 1);
}

static sigjmp_buf faulted;

static void on_fault(int number)
{
    siglongjmp(faulted, number);
}

/* One page: its bytes, or that it can't be read. */
static uint64_t look(const unsigned char *page)
{
    if (sigsetjmp(faulted, 1))
        return 77;
    uint64_t sum = 5;
    for (int at = 0; at < PAGE; at += 8)
        sum = (sum ^ *(volatile const uint64_t *)(page + at)) * 0x100000001b3u;
    return sum;
}

static void look_at(unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        see("page", look(window + (first + i) * PAGE));
}

static uint64_t scribble(unsigned char *at, unsigned size, unsigned char byte)
{
    int number = sigsetjmp(faulted, 1);
    if (number)
        return 700 + number;
    for (unsigned i = 0; i < size; i += 61)
        *(volatile unsigned char *)(at + i) ^= byte + i;
    return 1;
}

static const int PROTS[] = { PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ,
                             PROT_NONE, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC };

static void change_mappings(unsigned first, unsigned count)
{
    unsigned char *at = window + first * PAGE;
    size_t size = (size_t)count * PAGE;
    int prot = PROTS[below(6)];
    unsigned other = below(PAGES - count + 1);
    static const int ADVICE[] = { MADV_DONTNEED, MADV_DONTNEED, MADV_DONTFORK, MADV_DOFORK,
                                  MADV_WIPEONFORK, MADV_KEEPONFORK };
    int fd;
    switch (below(8)) {
    case 0:
    case 1:
        see_result("map", (long)mmap(at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
        break;
    case 2:
        see_result("unmap", munmap(at, size));
        break;
    case 3:
    case 4:
        /* Text of files does not move inside: no file becomes executable. */
        see_result("protect", mprotect(at, size, prot & ~PROT_EXEC));
        break;
    case 5:
        see_result("advise", madvise(at, size, ADVICE[below(6)]));
        break;
    case 6:
        fd = open("/proc/self/exe", O_RDONLY);
        see_result("file", (long)mmap(at, size, prot & ~PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, PAGE));
        close(fd);
        break;
    default:
        /* One page is of one mapping: newer kernels move several mappings, older ones don't. */
        if (other != first)
            see_result("move", (long)mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, window + other * PAGE));
    }
}

/* The kernel reads and writes the window. */
static void through_a_pipe(void)
{
    int ends[2];
    if (pipe(ends) != 0)
        _exit(98);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    unsigned from = below(PAGES - 3) * PAGE + below(PAGE), to = below(PAGES - 3) * PAGE + below(PAGE);
    /* No more than a page: how much of a longer copy is done before a fault is nobody's promise. */
    unsigned size = 1 + below(PAGE / 2);
    if (from % PAGE + size > PAGE)
        from -= from % PAGE;
    if (to % PAGE + size > PAGE)
        to -= to % PAGE;
    long wrote = write(ends[1], window + from, size);
    see("write", wrote < 0 ? 1000 + errno : wrote);
    long got = read(ends[0], window + to, size);
    see("read", got < 0 ? 1000 + errno : got);
    close(ends[0]);
    close(ends[1]);
}

static void change_heap(void)
{
    static int grown;
    int by = below(6) - 2;
    if (grown + by < 0)
        return;
    unsigned char *old = sbrk(by * PAGE);
    see("brk", old == (void *)-1 ? 1000 + errno : 1);
    for (int i = 0; i < by; i++) {
        see("fresh", look(old + i * PAGE));
        scribble(old + i * PAGE, PAGE, below(256));
    }
    grown += by;
    if (grown > 0) {
        unsigned char *end = sbrk(0);
        for (int i = 1; i <= grown; i++)
            see("heap", look(end - i * PAGE));
    }
}

struct child {
    pid_t pid;
    int from;
};

static struct child children[CHILDREN];
static int child_count, fork_count;

static void collect(void)
{
    struct child oldest = children[0];
    uint64_t theirs = 0;
    int status;
    ssize_t size = read(oldest.from, &theirs, sizeof theirs);
    if (waitpid(oldest.pid, &status, 0) != oldest.pid)
        _exit(97);
    close(oldest.from);
    see("child's size", size);
    see("child", theirs);
    see("status", status);
    memmove(children, children + 1, --child_count * sizeof *children);
}

static void run(unsigned steps);

static void execute(uint64_t seed, int to)
{
    char first[24], second[16], third[16];
    snprintf(first, sizeof first, "%llu", (unsigned long long)seed);
    snprintf(second, sizeof second, "%d", to);
    snprintf(third, sizeof third, "%d", depth);
    execl("/proc/self/exe", "model", "exec", first, second, third, path, is_tracing ? "trace" : "", (char *)0);
    _exit(96);
}

static void finish(int to)
{
    while (child_count > 0)
        collect();
    look_at(0, PAGES);
    for (unsigned i = 0; i < sizeof stack_like / PAGE; i++)
        see("static", look(stack_like + i * PAGE));
    unsigned way = below(12);
    if (way == 0)
        raise(SIGKILL);
    if (write(to, &digest, sizeof digest) != sizeof digest)
        _exit(95);
    if (way == 1)
        raise(SIGTERM);
    if (way == 2) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile char *)16 = 0;
    }
    _exit(below(256));
}

static void begin_child(int to, unsigned steps, int number)
{
    depth++;
    child_count = fork_count = 0;
    size_t size = strlen(path);
    if (size + 2 < sizeof path)
        path[size] = '0' + number, path[size + 1] = 0;
    state = mix(state + number);
    if (below(7) == 0)
        execute(state, to);
    run(steps);
    finish(to);
}

static void split(void)
{
    if (depth >= DEPTH || fork_count >= CHILDREN)
        return;
    int ends[2];
    if (pipe(ends) != 0)
        _exit(94);
    unsigned steps = 3 + below(20);
    int is_awaited = below(2);
    pid_t pid = fork();
    if (pid < 0)
        _exit(93);
    if (pid == 0) {
        close(ends[0]);
        is_alone &= is_awaited;
        for (int i = 0; i < child_count; i++)
            close(children[i].from);
        begin_child(ends[1], steps, fork_count + 1);
    }
    close(ends[1]);
    fork_count++;
    children[child_count++] = (struct child){ pid, ends[0] };
    while (is_awaited && child_count > 0)
        collect();
}

static void step(void)
{
    unsigned first = below(PAGES - 20), count = 1 + below(20);
    switch (below(12)) {
    case 0:
    case 1:
    case 2:
        for (unsigned i = 0; i < count; i++)
            see("scribble", scribble(window + (first + i) * PAGE, PAGE, below(256)));
        break;
    case 3:
        look_at(first, count);
        break;
    case 4:
    case 5:
    case 6:
        change_mappings(first, count);
        break;
    case 7:
        through_a_pipe();
        break;
    case 8:
        change_heap();
        break;
    case 9:
        see("static", scribble(stack_like + below(6) * PAGE, PAGE, below(256)));
        if (is_alone && child_count == 0) {
            unsigned page = below(SHARED_PAGES);
            see("shared", look(shared + page * PAGE));
            scribble(shared + page * PAGE, PAGE, below(256));
        }
        break;
    case 10:
        if (child_count > 0)
            collect();
        break;
    default:
        split();
    }
}

static void run(unsigned steps)
{
    while (steps-- > 0)
        step();
}

static void prepare(uint64_t seed)
{
    struct sigaction action = { .sa_handler = on_fault };
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    window = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared = mmap(0, SHARED_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (window == MAP_FAILED || shared == MAP_FAILED)
        _exit(92);
    state = seed;
    digest = mix(seed);
    is_alone = 1;
}

static void run_seed(unsigned seed)
{
    int ends[2];
    if (pipe(ends) != 0)
        exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        close(ends[0]);
        snprintf(path, sizeof path, "%u:", seed);
        prepare(mix(seed));
        run(15 + below(25));
        finish(ends[1]);
    }
    close(ends[1]);
    uint64_t theirs = 0;
    int status = -1;
    ssize_t size = read(ends[0], &theirs, sizeof theirs);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        exit(1);
    close(ends[0]);
    printf("%u %zd %llx %x\n", seed, size, (unsigned long long)theirs, status);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, 0, _IONBF, 0);
    if (argc > 5 && strcmp(argv[1], "exec") == 0) {
        alarm(60);
        is_tracing = argc > 6 && strcmp(argv[6], "trace") == 0;
        depth = atoi(argv[4]);
        snprintf(path, sizeof path, "%s!", argv[5]);
        prepare(strtoull(argv[2], 0, 10));
        run(5 + below(10));
        finish(atoi(argv[3]));
    }
    unsigned first = argc > 1 ? atoi(argv[1]) : 1, count = argc > 2 ? atoi(argv[2]) : 10;
    is_tracing = argc > 3;
    for (unsigned i = 0; i < count; i++)
        run_seed(first + i);
    return 0;
}
