// Opening what is behind disks, on a thread: see daemon.h. To make a file, copy an image, grow a file system or derive a key takes
// seconds, in which trivetd answers, and other machines start and end.
//
// One after the other, since two that make, copy or grow the same file at once would spoil it; a machine that is stopped and
// started again leaves an opening behind that goes on to its end. The loop's thread has the queue; the other one has the first of
// it, from pthread_create() until it has written to the eventfd, and is joined then.
#include "control/daemon/daemon.h"

#include "control/spec/disk_image.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct opener {
    int done_fd;
    struct loop_source *watch;
    struct disk_opening *queue; // the thread has the first
    pthread_t thread;
    bool has_thread; // that is to be joined
};

void disk_opening_free(struct disk_opening *opening)
{
    spec_free_disk(&opening->spec);
    json_decref(opening->volume);
    store_close_fds(&opening->fds);
    free(opening);
}

static void tell_done(const struct opener *o)
{
    const uint64_t one = 1;
    if (write(o->done_fd, &one, sizeof(one)) < 0)
        abort(); // an eventfd that holds nothing takes a 1
}

static void *open_first(void *arg)
{
    struct disk_opening *opening = arg;
    opening->result = disk_image_open(&opening->spec, &opening->volume, &opening->fds, &opening->err);
    tell_done(opening->daemon->opener);
    return NULL;
}

static void start_first(struct opener *o)
{
    if (!o->queue)
        return;
    const int r = pthread_create(&o->thread, NULL, open_first, o->queue);
    o->has_thread = !r;
    if (!r)
        return;
    o->queue->result = tv_error_set(&o->queue->err, -r, "disk '%s': no thread to open it: %s", o->queue->spec.name, strerror(r));
    tell_done(o);
}

static void on_done(void *arg, int fd, uint32_t events)
{
    struct opener *o = arg;
    uint64_t count;
    (void)events;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    if (o->has_thread)
        pthread_join(o->thread, NULL);
    struct disk_opening *opening = o->queue;
    o->queue = opening->next;
    start_first(o);
    daemon_store_image_opened(opening);
}

void daemon_opener_start(struct disk_opening *opening)
{
    struct opener *o = opening->daemon->opener;
    struct disk_opening **at = &o->queue;
    const bool was_idle = !o->queue;
    while (*at)
        at = &(*at)->next;
    *at = opening;
    if (was_idle)
        start_first(o);
}

int daemon_opener_init(struct daemon *d, struct tv_error *err)
{
    struct opener *o = calloc(1, sizeof(*o));
    if (!o)
        return tv_error_set(err, -ENOMEM, "no memory");
    d->opener = o;
    o->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (o->done_fd < 0)
        return tv_error_set(err, -errno, "eventfd: %s", strerror(errno));
    o->watch = loop_add_fd(d->loop, o->done_fd, EPOLLIN, on_done, o, err);
    return o->watch ? 0 : err->code;
}

void daemon_opener_fini(struct daemon *d)
{
    struct opener *o = d->opener;
    if (!o)
        return;
    if (o->queue && o->has_thread)
        pthread_join(o->thread, NULL);
    while (o->queue) {
        struct disk_opening *next = o->queue->next;
        disk_opening_free(o->queue);
        o->queue = next;
    }
    loop_remove(o->watch);
    if (o->done_fd >= 0)
        close(o->done_fd);
    free(o);
    d->opener = NULL;
}
