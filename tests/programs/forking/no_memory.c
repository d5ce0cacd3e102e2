/* fork(2) when user_space_size does not hold the parent twice, and when it does again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    size_t size = 40 << 20;
    int status;
    char *big = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (big == MAP_FAILED) return 1;
    memset(big, 1, size);
    for (int i = 0; i < 20; i++) {
        errno = 0;
        pid_t pid = fork();
        if (pid == 0) _exit(0);
        if (pid > 0 || errno != ENOMEM) return 2;
    }
    munmap(big + (8 << 20), size - (8 << 20));
    pid_t pid = fork();
    if (pid == 0) {
        memset(big, 2, 8 << 20);
        _exit(big[5000] + big[7 << 20]);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 4) return 3;
    if (big[5000] != 1) return 4;
    puts("no memory, then enough");
    return 0;
}
