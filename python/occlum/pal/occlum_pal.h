/* Programs in an enclave, from C: the calls of Occlum's embedded mode.
 *
 * occlum_pal_init starts the instance (as `occlum start` does) if it is not started; programs run in it and
 * share its files. All calls give 0, or -1 with errno. They may be used by several threads. Compile
 * occlum_pal.c with the program; it needs nothing but libc, and the `occlum` command in PATH (or OCCLUM).
 */
#ifndef OCCLUM_PAL_H
#define OCCLUM_PAL_H

#ifdef __cplusplus
extern "C" {
#endif

#define OCCLUM_PAL_VERSION 7

typedef struct {
    /* Directory of a built instance; NULL for "." . */
    const char *instance_dir;
    /* off, error, warn, info, debug, trace; NULL for off. */
    const char *log_level;
} occlum_pal_attr_t;

#define OCCLUM_PAL_ATTR_INITVAL {0, 0}

/* Descriptors for the program's standard input, output and error; -1 leaves one closed. */
struct occlum_stdio_fds {
    int stdin_fd;
    int stdout_fd;
    int stderr_fd;
};

struct occlum_pal_create_process_args {
    /* Absolute path in the enclave. */
    const char *path;
    /* Ends with NULL; argv[0] is not used, the program sees its base name. */
    const char **argv;
    /* Ends with NULL; NULL for none. The builder decides which the program gets. */
    const char **env;
    /* NULL for this process's own. */
    const struct occlum_stdio_fds *stdio;
    /* Out: the process id in the enclave. */
    int *pid;
};

struct occlum_pal_exec_args {
    int pid;
    /* Out: the exit code, or 128 + the signal that ended it. */
    int *exit_value;
};

/* Version of this interface. */
int occlum_pal_get_version(void);

int occlum_pal_init(const occlum_pal_attr_t *attr);

/* Creates a process; it starts to run. */
int occlum_pal_create_process(struct occlum_pal_create_process_args *args);

/* Waits for the end of a process that was created, once. */
int occlum_pal_exec(struct occlum_pal_exec_args *args);

/* Signals a process; pid -1 means all that this library created. */
int occlum_pal_kill(int pid, int sig);

/* Ends all processes and the enclave, if occlum_pal_init started it. */
int occlum_pal_destroy(void);

#ifdef __cplusplus
}
#endif
#endif
