/* Starts itself (static PIE), a dynamic program and one at fixed addresses many times. For each line on standard
 * input it does so COUNT times, then says how much heap the kernel has: `soak COUNT PROGRAM...`. */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void start(const char *program) {
    pid_t pid;
    int status;
    char *args[] = {(char *)program, NULL};
    errno = posix_spawn(&pid, program, NULL, NULL, args, environ);
    if (errno || waitpid(pid, &status, 0) != pid || status) {
        perror(program);
        exit(1);
    }
}

static long kernel_heap(void) {
    char line[256];
    long value = -1;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, "Slab:", 5)) value = atol(line + 5);
    if (file) fclose(file);
    return value;
}

int main(int argc, char **argv) {
    char line[16];
    if (argc < 3) return 0;
    while (fgets(line, sizeof line, stdin)) {
        for (long i = atol(argv[1]); i-- > 0;)
            for (int program = 2; program < argc; program++) start(argv[program]);
        printf("%ld\n", kernel_heap());
        fflush(stdout);
    }
    return 0;
}
