// Blocking I/O in threads: see blocking.h.
#include "store/blocking.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define STACK_BYTES (128u << 10)

struct blocking {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct io_op *todo, **todo_tail; // under lock
    struct io_op *done, **done_tail; // under lock
    bool stopping;                   // under lock
    int done_fd;
    unsigned n_threads;
    pthread_t threads[];
};

// lseek(2): a file system that knows no holes says that all is data.
static int find_extent(struct io_op *op)
{
    const off_t at = (off_t)op->offset_bytes, end = at + (off_t)op->len_bytes;
    off_t data = lseek(op->fd, at, SEEK_DATA);
    if (data < 0 && errno != ENXIO) // there is none up to the end of the file
        return -errno;
    const bool hole = data != at;
    off_t next = hole ? data : lseek(op->fd, at, SEEK_HOLE);
    if (next > at && next < end)
        op->len_bytes = (uint64_t)(next - at);
    return hole;
}

int io_perform(struct io_op *op)
{
    ssize_t r = -1;
    uint64_t range[2] = {op->offset_bytes, op->len_bytes};
    off_t offset = (off_t)op->offset_bytes, len = (off_t)op->len_bytes;
    switch (op->kind) {
    case IO_READ:
        r = preadv2(op->fd, op->iov, (int)op->n_iov, offset, 0);
        break;
    case IO_WRITE:
        r = pwritev2(op->fd, op->iov, (int)op->n_iov, offset, op->durable ? RWF_DSYNC : 0);
        break;
    case IO_SYNC:
        r = fdatasync(op->fd);
        break;
    case IO_PUNCH:
        r = fallocate(op->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
        break;
    case IO_ZERO:
        r = fallocate(op->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, len);
        break;
    case IO_DISCARD:
        r = ioctl(op->fd, BLKDISCARD, range);
        break;
    case IO_STATUS:
        return find_extent(op);
    }
    return r < 0 ? -errno : (int)r;
}

static void append(struct io_op ***tail, struct io_op *op)
{
    op->link = NULL;
    **tail = op;
    *tail = &op->link;
}

static void *worker(void *arg)
{
    struct blocking *b = arg;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->todo && !b->stopping)
            pthread_cond_wait(&b->work, &b->lock);
        struct io_op *op = b->todo;
        if (!op)
            break;
        b->todo = op->link;
        if (!b->todo)
            b->todo_tail = &b->todo;
        pthread_mutex_unlock(&b->lock);
        op->result = io_perform(op);
        pthread_mutex_lock(&b->lock);
        append(&b->done_tail, op);
        // Under the lock, so that blocking_destroy() cannot close the descriptor's other end before this.
        eventfd_write(b->done_fd, 1);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

struct blocking *blocking_create(unsigned n_threads, int done_fd, struct tv_error *err)
{
    struct blocking *b = calloc(1, sizeof(*b) + n_threads * sizeof(b->threads[0]));
    if (!b) {
        tv_error_set(err, -ENOMEM, "I/O threads: out of memory");
        return NULL;
    }
    b->todo_tail = &b->todo;
    b->done_tail = &b->done;
    b->done_fd = done_fd;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->work, NULL);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    // Signals are the loop's: the workers inherit a full mask.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = 0;
    while (b->n_threads < n_threads && !r) {
        r = pthread_create(&b->threads[b->n_threads], &attr, worker, b);
        if (!r)
            b->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (b->n_threads)
        return b; // fewer than asked for will do
    tv_error_set(err, -r, "I/O threads: %s", strerror(r));
    blocking_destroy(b);
    return NULL;
}

void blocking_destroy(struct blocking *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_cond_broadcast(&b->work);
    pthread_mutex_unlock(&b->lock);
    for (unsigned i = 0; i < b->n_threads; i++)
        pthread_join(b->threads[i], NULL);
    pthread_cond_destroy(&b->work);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

void blocking_start(struct blocking *b, struct io_op *op)
{
    pthread_mutex_lock(&b->lock);
    append(&b->todo_tail, op);
    pthread_cond_signal(&b->work);
    pthread_mutex_unlock(&b->lock);
}

struct io_op *blocking_reap(struct blocking *b)
{
    pthread_mutex_lock(&b->lock);
    struct io_op *done = b->done;
    b->done = NULL;
    b->done_tail = &b->done;
    pthread_mutex_unlock(&b->lock);
    return done;
}
