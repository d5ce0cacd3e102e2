/* See occlum_pal.h. What goes over the control socket is described in docs/format/control.md. */
#define _GNU_SOURCE
#include "occlum_pal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { START = 1, KILL = 3 };
enum { DONE = 64, STARTED = 65, REFUSED = 66, STOPPED = 67, CONTINUED = 68, ENDED = 69 };

#define FRAME_MAX (16u << 20)

/* A process that was created and not waited for. */
struct process {
    int pid;
    int stream;
    struct process *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct process *processes;
static int instance = -1; /* descriptor of the instance's directory */
static int has_started;

static int fail(int error) {
    errno = error;
    return -1;
}

/* Bytes that grow. */
struct buffer {
    unsigned char *bytes;
    size_t size, room;
    int is_broken;
};

static void put(struct buffer *to, const void *bytes, size_t size) {
    if (to->is_broken) return;
    if (to->size + size > to->room) {
        size_t room = (to->size + size) * 2;
        unsigned char *grown = realloc(to->bytes, room);
        if (grown == NULL) {
            to->is_broken = 1;
            return;
        }
        to->bytes = grown;
        to->room = room;
    }
    if (size > 0) memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

static void put_u32(struct buffer *to, uint32_t value) {
    unsigned char bytes[4] = {value, value >> 8, value >> 16, value >> 24};
    put(to, bytes, sizeof(bytes));
}

static void put_field(struct buffer *to, const void *bytes, size_t size) {
    put_u32(to, size);
    put(to, bytes, size);
}

static void put_number(struct buffer *to, long value) {
    char text[24];
    put_field(to, text, snprintf(text, sizeof(text), "%ld", value));
}

static void put_list(struct buffer *to, const char *const *list) {
    struct buffer fields = {0};
    for (; list != NULL && *list != NULL; list++) put_field(&fields, *list, strlen(*list));
    put_field(to, fields.bytes, fields.size);
    to->is_broken |= fields.is_broken;
    free(fields.bytes);
}

static uint32_t get_u32(const unsigned char *from) {
    return from[0] | from[1] << 8 | from[2] << 16 | (uint32_t)from[3] << 24;
}

static int send_all(int stream, const void *bytes, size_t size) {
    const char *rest = bytes;
    while (size > 0) {
        ssize_t sent = send(stream, rest, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return -1;
        rest += sent;
        size -= sent;
    }
    return 0;
}

static int receive_all(int stream, void *bytes, size_t size) {
    char *rest = bytes;
    while (size > 0) {
        ssize_t received = recv(stream, rest, size, 0);
        if (received < 0 && errno == EINTR) continue;
        if (received < 0) return -1;
        if (received == 0) return fail(ECONNRESET);
        rest += received;
        size -= received;
    }
    return 0;
}

/* Sends a frame; descriptors go with its first bytes. */
static int transmit(int stream, int kind, const struct buffer *fields, const int *fds, int count) {
    if (fields->is_broken) return fail(ENOMEM);
    unsigned char head[5] = {0};
    uint32_t size = fields->size + 1;
    for (int i = 0; i < 4; i++) head[i] = size >> (8 * i);
    head[4] = kind;
    union {
        char bytes[CMSG_SPACE(3 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {head, sizeof(head)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    }
    ssize_t sent;
    do sent = sendmsg(stream, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 || send_all(stream, head + sent, sizeof(head) - sent) != 0) return -1;
    return send_all(stream, fields->bytes, fields->size);
}

/* The number in the field `at` of a frame's body. */
static int number_at(const unsigned char *body, size_t size, int at, long *value) {
    size_t from = 1;
    for (;; at--) {
        if (size - from < 4) return fail(EPROTO);
        size_t length = get_u32(body + from);
        from += 4;
        if (size - from < length) return fail(EPROTO);
        if (at == 0) {
            char text[24] = {0};
            if (length >= sizeof(text)) return fail(EPROTO);
            memcpy(text, body + from, length);
            *value = strtol(text, NULL, 10);
            return 0;
        }
        from += length;
    }
}

/* What a refusal's exit status means. */
static int to_errno(long status) {
    switch (status) {
    case 127: return ENOENT;
    case 126: return EACCES;
    case 125: return EIO;
    default: return ESRCH;
    }
}

/* Waits for a frame: gives its kind, and the first number in it if there is one. */
static int receive(int stream, long *value) {
    unsigned char head[4];
    if (receive_all(stream, head, sizeof(head)) != 0) return -1;
    uint32_t size = get_u32(head);
    if (size == 0 || size > FRAME_MAX) return fail(EPROTO);
    unsigned char *body = malloc(size);
    if (body == NULL) return -1;
    int kind = -1;
    if (receive_all(stream, body, size) == 0) {
        kind = body[0];
        *value = 0;
        if (kind == REFUSED) {
            long status = 0;
            if (number_at(body, size, 2, &status) == 0) errno = to_errno(status);
            kind = -1;
        } else if ((kind == STARTED || kind == ENDED) && number_at(body, size, 0, value) != 0) {
            kind = -1;
        }
    }
    int error = errno;
    free(body);
    errno = error;
    return kind;
}

/* Connects through the directory's descriptor: a socket's path is short, an instance's may not be. */
static int dial(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (instance < 0) return fail(EINVAL);
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/run/control/socket", instance);
    int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (stream < 0) return -1;
    if (connect(stream, (struct sockaddr *)&address, sizeof(address)) == 0) return stream;
    int error = errno;
    close(stream);
    return fail(error);
}

/* Runs `occlum VERB` in the instance. */
static int run_command(const char *verb, const char *log_level) {
    const char *program = getenv("OCCLUM") ? getenv("OCCLUM") : "occlum";
    char *arguments[] = {(char *)program, (char *)verb, NULL};
    if (log_level != NULL && setenv("OCCLUM_LOG_LEVEL", log_level, 1) != 0) return -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    int error = posix_spawn_file_actions_addfchdir_np(&actions, instance);
    pid_t child = 0;
    if (error == 0) error = posix_spawnp(&child, program, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return fail(error);
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : fail(EIO);
}

int occlum_pal_get_version(void) {
    return OCCLUM_PAL_VERSION;
}

int occlum_pal_init(const occlum_pal_attr_t *attr) {
    if (attr == NULL) return fail(EINVAL);
    const char *path = attr->instance_dir ? attr->instance_dir : ".";
    pthread_mutex_lock(&lock);
    int result = -1;
    if (instance >= 0) {
        errno = EEXIST;
    } else if ((instance = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)) >= 0) {
        int stream = dial();
        if (stream >= 0) {
            close(stream);
            has_started = 0;
            result = 0;
        } else if (run_command("start", attr->log_level) == 0) {
            has_started = 1;
            result = 0;
        } else {
            int error = errno;
            close(instance);
            instance = -1;
            errno = error;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int occlum_pal_create_process(struct occlum_pal_create_process_args *args) {
    if (args == NULL || args->path == NULL || args->argv == NULL || args->pid == NULL) return fail(EINVAL);
    struct occlum_stdio_fds own = {0, 1, 2};
    const struct occlum_stdio_fds *stdio = args->stdio ? args->stdio : &own;
    const int given[3] = {stdio->stdin_fd, stdio->stdout_fd, stdio->stderr_fd};
    int fds[3], count = 0;
    unsigned char present[3];
    for (int at = 0; at < 3; at++) {
        if (given[at] < 0) continue;
        present[count] = at;
        fds[count++] = given[at];
    }
    struct process *process = malloc(sizeof(*process));
    if (process == NULL) return -1;
    int stream = dial();
    if (stream < 0) {
        free(process);
        return -1;
    }
    struct buffer fields = {0};
    put_field(&fields, args->path, strlen(args->path));
    put_list(&fields, args->argv[0] ? args->argv + 1 : args->argv);
    put_list(&fields, args->env);
    put_field(&fields, "", 0);
    put_field(&fields, present, count);
    long pid = 0;
    int sent = transmit(stream, START, &fields, fds, count);
    free(fields.bytes);
    if (sent != 0 || receive(stream, &pid) != STARTED) {
        int error = errno;
        close(stream);
        free(process);
        return fail(error);
    }
    *args->pid = pid;
    process->pid = pid;
    process->stream = stream;
    pthread_mutex_lock(&lock);
    process->next = processes;
    processes = process;
    pthread_mutex_unlock(&lock);
    return 0;
}

static struct process *take(int pid) {
    pthread_mutex_lock(&lock);
    struct process **at = &processes;
    while (*at != NULL && (*at)->pid != pid) at = &(*at)->next;
    struct process *found = *at;
    if (found != NULL) *at = found->next;
    pthread_mutex_unlock(&lock);
    return found;
}

int occlum_pal_exec(struct occlum_pal_exec_args *args) {
    if (args == NULL || args->exit_value == NULL) return fail(EINVAL);
    struct process *process = take(args->pid);
    if (process == NULL) return fail(ESRCH);
    long status = 0;
    int kind;
    do kind = receive(process->stream, &status);
    while (kind == STOPPED || kind == CONTINUED);
    int error = errno;
    close(process->stream);
    free(process);
    if (kind != ENDED) return fail(error);
    *args->exit_value = status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
    return 0;
}

static int kill_one(int pid, int sig) {
    int stream = dial();
    if (stream < 0) return -1;
    struct buffer fields = {0};
    put_number(&fields, pid);
    put_number(&fields, sig);
    long ignored;
    int result = transmit(stream, KILL, &fields, NULL, 0) == 0 && receive(stream, &ignored) == DONE ? 0 : -1;
    int error = errno;
    free(fields.bytes);
    close(stream);
    errno = error;
    return result;
}

/* Signals every process that this library has created. */
static int kill_all(int sig) {
    int pids[1024], count = 0, result = 0;
    pthread_mutex_lock(&lock);
    for (struct process *at = processes; at != NULL && count < 1024; at = at->next) pids[count++] = at->pid;
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < count; i++)
        if (kill_one(pids[i], sig) != 0 && errno != ESRCH) result = -1;
    return result;
}

int occlum_pal_kill(int pid, int sig) {
    if (pid == 0 || pid < -1 || sig < 0 || sig > 64) return fail(EINVAL);
    return pid == -1 ? kill_all(sig) : kill_one(pid, sig);
}

int occlum_pal_destroy(void) {
    pthread_mutex_lock(&lock);
    int result = instance < 0 ? fail(EINVAL) : 0;
    if (result == 0 && has_started) result = run_command("stop", NULL);
    if (instance >= 0) close(instance);
    instance = -1;
    pthread_mutex_unlock(&lock);
    while (processes != NULL) {
        struct process *process = take(processes->pid);
        if (process == NULL) continue;
        close(process->stream);
        free(process);
    }
    return result;
}
