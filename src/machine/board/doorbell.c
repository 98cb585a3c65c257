// Calls on the loop's thread by an eventfd: see doorbell.h.
#include "machine/board/doorbell.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct doorbell {
    int fd;
    struct loop_source *source;
    loop_fn *fn;
    void *arg;
};

static void rung(void *arg, int fd, uint32_t events)
{
    struct doorbell *bell = arg;
    uint64_t count;
    (void)events;
    if (read(fd, &count, sizeof(count)) == sizeof(count))
        bell->fn(bell->arg);
}

struct doorbell *doorbell_create(struct loop *loop, loop_fn *fn, void *arg, struct tv_error *err)
{
    struct doorbell *bell = calloc(1, sizeof(*bell));
    if (!bell) {
        tv_error_set(err, -ENOMEM, "no memory for an eventfd");
        return NULL;
    }
    *bell = (struct doorbell){.fn = fn, .arg = arg};
    bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell->fd < 0)
        tv_error_set(err, -errno, "cannot make an eventfd: %s", strerror(errno));
    else
        bell->source = loop_add_fd(loop, bell->fd, EPOLLIN, rung, bell, err);
    if (!bell->source) {
        doorbell_destroy(bell);
        return NULL;
    }
    return bell;
}

void doorbell_destroy(struct doorbell *bell)
{
    if (!bell)
        return;
    loop_remove(bell->source);
    if (bell->fd >= 0)
        close(bell->fd);
    free(bell);
}

void doorbell_ring(struct doorbell *bell)
{
    uint64_t one = 1;
    // The only failure is a full counter, and then the loop is awake anyway.
    ssize_t n = write(bell->fd, &one, sizeof(one));
    (void)n;
}
