/* Embedded mode: a C program that runs programs in an enclave.
 *
 *     pal=$(python3 -c 'import occlum.pal; print(occlum.pal.DIRECTORY)')
 *     gcc -I "$pal" -o embedded demos/embedded.c "$pal/occlum_pal.c" -pthread
 *     ./embedded INSTANCE /bin/echo hello
 */
#include <occlum_pal.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s INSTANCE PROGRAM [ARGUMENT...]\n", argv[0]);
        return 2;
    }
    occlum_pal_attr_t attr = OCCLUM_PAL_ATTR_INITVAL;
    attr.instance_dir = argv[1];
    if (occlum_pal_init(&attr) != 0) {
        perror("occlum_pal_init");
        return 1;
    }
    int pid, status = 1;
    struct occlum_pal_create_process_args create = {
        .path = argv[2], .argv = (const char **)argv + 2, .pid = &pid};
    struct occlum_pal_exec_args exec = {.exit_value = &status};
    if (occlum_pal_create_process(&create) != 0) {
        perror(argv[2]);
    } else {
        exec.pid = pid;
        if (occlum_pal_exec(&exec) != 0) perror("occlum_pal_exec");
    }
    if (occlum_pal_destroy() != 0) perror("occlum_pal_destroy");
    return status;
}
