/* The same part of a shared file mapped more than once: each mapping works until its own munmap. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static char *map(int fd, size_t size, int prot, off_t offset)
{
    char *at = mmap(NULL, size, prot, MAP_SHARED, fd, offset);
    assert(at != MAP_FAILED);
    return at;
}

static void twice(int fd)
{
    char *first = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, 0);
    char *second = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, 0);
    strcpy(first + PAGE, "through the first");
    assert(strcmp(second + PAGE, "through the first") == 0);
    assert(munmap(first, 4 * PAGE) == 0);
    strcpy(second + PAGE, "through the second");
    char text[32];
    assert(pread(fd, text, sizeof text, PAGE) == sizeof text);
    assert(strcmp(text, "through the second") == 0);
    assert(munmap(second, 4 * PAGE) == 0);
}

static void overlapping(int fd)
{
    char *low = map(fd, 2 * PAGE, PROT_READ | PROT_WRITE, 0);
    char *high = map(fd, 3 * PAGE, PROT_READ | PROT_WRITE, PAGE);
    low[PAGE] = 'a';
    assert(high[0] == 'a');
    assert(munmap(low, 2 * PAGE) == 0);
    high[0] = 'b';
    high[2 * PAGE] = 'c';
    char *all = map(fd, 4 * PAGE, PROT_READ, 0);
    assert(all[PAGE] == 'b' && all[3 * PAGE] == 'c');
    assert(munmap(high, 3 * PAGE) == 0);
    assert(all[PAGE] == 'b');
    assert(munmap(all, 4 * PAGE) == 0);
}

static void reader_and_writer(int fd)
{
    char *view = map(fd, PAGE, PROT_READ, 0);
    char *pen = map(fd, PAGE, PROT_READ | PROT_WRITE, 0);
    pen[7] = 'x';
    assert(view[7] == 'x');
    assert(munmap(pen, PAGE) == 0);
    assert(view[7] == 'x');
    assert(munmap(view, PAGE) == 0);
}

static void again_in_a_child(int fd)
{
    char *inherited = map(fd, PAGE, PROT_READ | PROT_WRITE, 0);
    pid_t child = fork();
    if (child == 0) {
        char *own = map(fd, PAGE, PROT_READ | PROT_WRITE, 0);
        assert(munmap(inherited, PAGE) == 0);
        own[1] = 'k';
        assert(munmap(own, PAGE) == 0);
        _exit(0);
    }
    int status;
    assert(waitpid(child, &status, 0) == child && status == 0);
    assert(inherited[1] == 'k');
    assert(munmap(inherited, PAGE) == 0);
}

int main(void)
{
    char name[] = "/tmp/again.XXXXXX";
    int fd = mkstemp(name);
    assert(fd >= 0 && unlink(name) == 0 && ftruncate(fd, 4 * PAGE) == 0);
    twice(fd);
    overlapping(fd);
    reader_and_writer(fd);
    again_in_a_child(fd);
    puts("mapped again");
    return 0;
}
