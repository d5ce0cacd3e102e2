/* System V shared memory, semaphores and message queues. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void show(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

static int run(const char *role, int id) {
    char number[16];
    pid_t child;
    int status;
    snprintf(number, sizeof number, "%d", id);
    char *args[] = {"self", (char *)role, number, NULL};
    fflush(stdout);
    if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, args, environ))
        return -1;
    waitpid(child, &status, 0);
    return status;
}

static void memory(void) {
    struct shmid_ds ds;
    key_t key = 0x4f63636c;
    show("shmget absent", shmget(key, 0, 0));
    int id = shmget(key, 10000, IPC_CREAT | IPC_EXCL | 0640);
    show("shmget excl again", shmget(key, 10000, IPC_CREAT | IPC_EXCL | 0640));
    show("shmget same", shmget(key, 0, 0) - id);
    show("shmget larger", shmget(key, 20000, 0));
    show("shmget empty", shmget(IPC_PRIVATE, 0, IPC_CREAT | 0600));
    show("shmat misaligned", (long)shmat(id, (void *)0x10000001, 0));
    char *at = shmat(id, NULL, 0);
    if (at == (void *)-1) {
        perror("shmat");
        exit(1);
    }
    printf("zeroed: %d %d\n", at[0], at[9999]);
    strcpy(at + 5000, "from the parent");
    shmctl(id, IPC_STAT, &ds);
    printf("size %zu attaches %lu mode %o creator %d last %d\n", ds.shm_segsz, ds.shm_nattch,
           ds.shm_perm.mode, ds.shm_cpid == getpid(), ds.shm_lpid == getpid());
    printf("child: %d\n", run("memory", id));
    printf("after child: %s\n", at + 5000);
    shmctl(id, IPC_STAT, &ds);
    printf("attaches %lu other last %d\n", ds.shm_nattch, ds.shm_lpid != getpid());
    show("shmdt", shmdt(at));
    show("shmdt again", shmdt(at));
    at = shmat(id, NULL, SHM_RDONLY);
    printf("kept while detached: %s\n", at + 5000);
    ds.shm_perm.mode = 0600;
    show("IPC_SET", shmctl(id, IPC_SET, &ds));
    show("IPC_RMID", shmctl(id, IPC_RMID, NULL));
    show("shmget removed", shmget(key, 0, 0));
    shmctl(id, IPC_STAT, &ds);
    printf("doomed: mode %o key %d\n", ds.shm_perm.mode, ds.shm_perm.__key);
    printf("still there: %s\n", at + 5000);
    show("shmdt last", shmdt(at));
    show("shmat gone", (long)shmat(id, NULL, 0));
    show("shmctl gone", shmctl(id, IPC_STAT, &ds));
}

static int memory_child(int id) {
    char *at = shmat(id, NULL, 0);
    struct shmid_ds ds;
    if (at == (void *)-1)
        return 2;
    shmctl(id, IPC_STAT, &ds);
    printf("  in child: %s, attaches %lu\n", at + 5000, ds.shm_nattch);
    strcpy(at + 5000, "from the child");
    return 0;
}

static int set;

static int change(int index, int by, int flags) {
    struct sembuf operation = {index, by, flags};
    return semop(set, &operation, 1);
}

static void *wait_for_two(void *unused) {
    (void)unused;
    struct sembuf both[2] = {{0, -2, 0}, {1, -1, 0}};
    return (void *)(long)semop(set, both, 2);
}

static void *wait_for_removal(void *unused) {
    (void)unused;
    int result = change(2, 0, 0);
    return (void *)(long)(result < 0 ? errno : 0);
}

static void semaphores(void) {
    unsigned short values[3] = {0};
    struct semid_ds ds;
    pthread_t thread;
    void *result;
    set = semget(IPC_PRIVATE, 3, IPC_CREAT | 0600);
    show("semget none", semget(IPC_PRIVATE, 0, IPC_CREAT | 0600));
    show("semop NOWAIT", change(0, -1, IPC_NOWAIT));
    show("semop no such", change(3, 1, 0));
    show("semop zero", change(0, 0, 0));
    show("SETVAL", semctl(set, 1, SETVAL, 5));
    show("SETVAL range", semctl(set, 1, SETVAL, 40000));
    show("GETVAL", semctl(set, 1, GETVAL));
    show("GETVAL no such", semctl(set, 7, GETVAL));
    struct sembuf partly[2] = {{1, -5, 0}, {0, -1, IPC_NOWAIT}};
    show("all or nothing", semop(set, partly, 2));
    show("unchanged", semctl(set, 1, GETVAL));
    semctl(set, 1, SETVAL, 0);
    pthread_create(&thread, NULL, wait_for_two, NULL);
    while (semctl(set, 0, GETNCNT) != 1)
        usleep(1000);
    show("one", change(0, 1, 0));
    show("second", change(0, 1, 0));
    while (semctl(set, 1, GETNCNT) != 1)
        usleep(1000);
    show("other", change(1, 1, 0));
    pthread_join(thread, &result);
    show("waiter", (long)result);
    struct timespec soon = {0, 10000000}, bad = {0, -1};
    struct sembuf down = {0, -1, 0};
    show("semtimedop", semtimedop(set, &down, 1, &soon));
    show("semtimedop bad", semtimedop(set, &down, 1, &bad));
    show("E2BIG", semop(set, &down, 5000));
    printf("undo child: %d\n", run("semaphores", set));
    semctl(set, 0, GETALL, values);
    printf("values %d %d %d, otherwise pid %d\n", values[0], values[1], values[2],
           semctl(set, 2, GETPID) != getpid());
    values[0] = 7, values[1] = 8, values[2] = 9;
    show("SETALL", semctl(set, 0, SETALL, values));
    show("overflow", change(0, 32767, 0));
    semctl(set, 0, IPC_STAT, &ds);
    printf("nsems %lu otime %d mode %o\n", ds.sem_nsems, ds.sem_otime != 0, ds.sem_perm.mode);
    pthread_create(&thread, NULL, wait_for_removal, NULL);
    while (semctl(set, 2, GETZCNT) != 1)
        usleep(1000);
    show("IPC_RMID", semctl(set, 0, IPC_RMID));
    pthread_join(thread, &result);
    printf("waiter: %s\n", strerrorname_np((int)(long)result));
    show("gone", change(0, 1, 0));
}

static int semaphore_child(int id) {
    set = id;
    if (change(2, 4, SEM_UNDO) || change(1, 3, 0))
        return 2;
    printf("  in child: %d\n", semctl(set, 2, GETVAL));
    return 0;
}

struct message {
    long type;
    char text[64];
};

static int queue;

static void put(long type, const char *text) {
    struct message m = {type, ""};
    strcpy(m.text, text);
    show(text, msgsnd(queue, &m, strlen(text), IPC_NOWAIT));
}

static void take(long type, size_t room, int flags) {
    struct message m = {0, ""};
    long n = msgrcv(queue, &m, room, type, flags | IPC_NOWAIT);
    if (n < 0)
        printf("receive %ld: %s\n", type, strerrorname_np(errno));
    else
        printf("receive %ld: type %ld, %ld bytes, %s\n", type, m.type, n, m.text);
}

static void *receive_later(void *unused) {
    (void)unused;
    struct message m = {0, ""};
    long n = msgrcv(queue, &m, sizeof m.text, 42, 0);
    return (void *)n;
}

static void on_signal(int number) { (void)number; }

static void messages(void) {
    struct msqid_ds ds;
    pthread_t thread;
    void *result;
    queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    put(0, "bad type");
    put(3, "three");
    put(1, "one");
    put(2, "two");
    put(1, "another one");
    msgctl(queue, IPC_STAT, &ds);
    printf("%lu messages, %lu bytes of %lu\n", ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes);
    take(2, 64, 0);
    take(2, 64, 0);
    take(-2, 2, 0);
    take(-2, 2, MSG_NOERROR);
    take(3, 64, MSG_EXCEPT);
    take(0, 64, 0);
    take(0, 64, 0);
    pthread_create(&thread, NULL, receive_later, NULL);
    put(41, "not this");
    put(42, "but this");
    pthread_join(thread, &result);
    show("receiver", (long)result);
    ds.msg_qbytes = 10;
    show("IPC_SET", msgctl(queue, IPC_SET, &ds));
    put(1, "does not fit");
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct message m = {5, "blocked"};
    sigaction(SIGALRM, &action, NULL);
    ualarm(20000, 0);
    show("interrupted", msgsnd(queue, &m, 7, 0));
    show("IPC_RMID", msgctl(queue, IPC_RMID, NULL));
    show("gone", msgctl(queue, IPC_STAT, &ds));
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "memory"))
        return memory_child(atoi(argv[2]));
    if (argc == 3)
        return semaphore_child(atoi(argv[2]));
    memory();
    semaphores();
    messages();
    return 0;
}
