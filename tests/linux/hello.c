// variants: glibc static static-pie no-pie musl musl-static
// args: one "two words"
// stdin: a line\n
// The least a program does: arguments, environment, standard input and output.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    char line[64];
    for (int i = 1; i < argc; i++)
        printf("%d: %s\n", i, argv[i]);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    printf("read: %s", line);
    return getenv("PATH") ? 0 : 1;
}
