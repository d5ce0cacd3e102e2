/* inotify: events of entries, of the object itself, order, coalescing, poll. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *names[] = {"ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN", "MOVED_FROM",
                              "MOVED_TO", "CREATE", "DELETE", "DELETE_SELF", "MOVE_SELF"};
static int instance;

static void show(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

static void events(const char *what) {
    char buf[4096] __attribute__((aligned(8)));
    struct pollfd p = {instance, POLLIN, 0};
    unsigned cookie = 0;
    printf("%s:\n", what);
    while (poll(&p, 1, 0) == 1) {
        long size = read(instance, buf, sizeof buf);
        for (char *at = buf; at < buf + size;) {
            struct inotify_event *event = (void *)at;
            printf("  %d", event->wd);
            for (int i = 0; i < 12; i++)
                if (event->mask & 1 << i)
                    printf(" %s", names[i]);
            printf("%s%s%s %s", event->mask & IN_ISDIR ? " dir" : "", event->mask & IN_IGNORED ? " ignored" : "",
                   event->cookie ? event->cookie == cookie ? " same" : " cookie" : "", event->len ? event->name : "");
            printf(" %u\n", event->len);
            cookie = event->cookie;
            at += sizeof *event + event->len;
        }
    }
}

int main(void) {
    char dir[] = "/tmp/inotify-XXXXXX", text[8];
    int waiting, fd;
    if (!mkdtemp(dir) || chdir(dir))
        return 1;
    instance = inotify_init1(IN_NONBLOCK);
    show("empty", read(instance, text, sizeof text));
    show("no event", inotify_add_watch(instance, ".", 0));
    show("absent", inotify_add_watch(instance, "absent", IN_OPEN));
    show("not inotify", inotify_add_watch(1, ".", IN_OPEN));
    show("watch", inotify_add_watch(instance, ".", IN_ALL_EVENTS));
    fd = open("file", O_CREAT | O_RDWR, 0644);
    events("create");
    if (write(fd, "hello", 5) != 5 || write(fd, "hello", 5) != 5)
        return 1;
    ioctl(instance, FIONREAD, &waiting);
    printf("coalesced: %d\n", waiting);
    show("small buffer", read(instance, text, sizeof text));
    events("write twice");
    show("pread", pread(fd, text, 3, 0));
    close(fd);
    events("read and close");
    show("watch file", inotify_add_watch(instance, "file", IN_ALL_EVENTS));
    show("again", inotify_add_watch(instance, "file", IN_MASK_CREATE | IN_OPEN));
    show("only dir", inotify_add_watch(instance, "file", IN_ONLYDIR | IN_OPEN));
    chmod("file", 0600);
    events("chmod");
    if (truncate("file", 3))
        return 1;
    events("truncate");
    close(open("file", O_RDONLY));
    events("open read-only");
    mkdir("sub", 0755);
    events("mkdir");
    rename("file", "sub/moved");
    events("move out");
    rename("sub/moved", "back");
    events("move in");
    rename("back", "name");
    events("rename");
    if (link("name", "other"))
        return 1;
    events("link");
    unlink("other");
    events("unlink one of two");
    unlink("name");
    events("unlink the last");
    rmdir("sub");
    events("rmdir");
    show("once", inotify_add_watch(instance, ".", IN_CREATE | IN_ONESHOT));
    close(creat("first", 0600));
    close(creat("second", 0600));
    events("one shot");
    show("watch anew", inotify_add_watch(instance, ".", IN_DELETE));
    unlink("first");
    events("masked");
    show("remove", inotify_rm_watch(instance, 3));
    unlink("second");
    events("removed");
    show("remove again", inotify_rm_watch(instance, 3));
    chdir("/");
    rmdir(dir);
    return 0;
}
