// The I/O engine over io_uring and threads: see io.h.
#include "store/io.h"

#include "store/blocking.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define THREADS_WITH_URING 2 // for BLKDISCARD and lseek alone
#define THREADS_ALONE 16
// What is submitted in one go the kernel holds back until the last of it is prepared. All of a deep queue in one go leaves the
// device idle for as long, and then it is all done at the same time. A system call is the smaller price.
#define SUBMIT_PIECE 4u

// Invariant: with_kernel <= depth; `waiting` is not empty only while with_kernel == depth.
struct io_engine {
    struct io_uring ring;
    bool has_uring, has_fixed_files, has_fallocate;
    unsigned depth, with_kernel, n_waiting;
    struct io_op *waiting, **waiting_tail;
    struct blocking *threads;
    unsigned n_with_threads;
    int event_fd; // of the ring and of the threads
    struct loop_source *source;
    struct io_config config;
    int files[IO_FILES_MAX]; // -1: free
    char description[96];
};

static const uint8_t needed_ops[] = {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC};

static int probe_ops(struct io_engine *io)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&io->ring);
    if (!probe)
        return -ENOSYS;
    int r = 0;
    for (size_t i = 0; i < sizeof(needed_ops); i++)
        if (!io_uring_opcode_supported(probe, needed_ops[i]))
            r = -ENOSYS;
    io->has_fallocate = io_uring_opcode_supported(probe, IORING_OP_FALLOCATE);
    io_uring_free_probe(probe);
    return r;
}

// Most wanted first; each kernel takes what it knows. Deferred task work (6.1) is not among them: now and then the eventfd does not
// tell of a request that a worker of the kernel's completed, and it would wait until another one comes.
static int setup_ring(struct io_engine *io)
{
    static const unsigned wishes[] = {
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, // 5.19: no interrupt of our own CPU
        0,
    };
    int r = -ENOSYS;
    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
        r = io_uring_queue_init(io->depth, &io->ring, wishes[i]);
        if (r != -EINVAL)
            break;
    }
    return r;
}

static int start_uring(struct io_engine *io)
{
    int r = setup_ring(io);
    if (r < 0)
        return r;
    // Without SUBMIT_STABLE the iovecs would have to outlive submission, which they do; NODROP is what we rely on.
    r = io->ring.features & IORING_FEAT_NODROP ? probe_ops(io) : -ENOSYS;
    if (!r)
        r = io_uring_register_eventfd(&io->ring, io->event_fd);
    if (r < 0) {
        io_uring_queue_exit(&io->ring);
        return r;
    }
    io->has_fixed_files = !io_uring_register_files_sparse(&io->ring, IO_FILES_MAX);
    io->has_uring = true;
    return 0;
}

static bool goes_to_threads(const struct io_engine *io, const struct io_op *op)
{
    if (!io->has_uring || op->kind == IO_DISCARD || op->kind == IO_STATUS)
        return true;
    return !io->has_fallocate && (op->kind == IO_PUNCH || op->kind == IO_ZERO);
}

static void fill_entry(const struct io_engine *io, struct io_uring_sqe *sqe, struct io_op *op)
{
    int fd = io->has_fixed_files ? op->file : op->fd;
    switch (op->kind) {
    case IO_READ:
        if (op->n_iov == 1)
            io_uring_prep_read(sqe, fd, op->iov->iov_base, (unsigned)op->iov->iov_len, op->offset_bytes);
        else
            io_uring_prep_readv(sqe, fd, op->iov, op->n_iov, op->offset_bytes);
        break;
    case IO_WRITE:
        if (op->n_iov == 1)
            io_uring_prep_write(sqe, fd, op->iov->iov_base, (unsigned)op->iov->iov_len, op->offset_bytes);
        else
            io_uring_prep_writev(sqe, fd, op->iov, op->n_iov, op->offset_bytes);
        sqe->rw_flags = op->durable ? RWF_DSYNC : 0;
        break;
    case IO_SYNC:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    case IO_PUNCH:
        io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset_bytes, (off_t)op->len_bytes);
        break;
    default:
        assert(op->kind == IO_ZERO);
        io_uring_prep_fallocate(sqe, fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset_bytes, (off_t)op->len_bytes);
        break;
    }
    if (io->has_fixed_files)
        sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, op);
}

static void give_to_kernel(struct io_engine *io, struct io_op *op)
{
    io->with_kernel++;
    if (goes_to_threads(io, op)) {
        io->n_with_threads++;
        blocking_start(io->threads, op);
        return;
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
    if (!sqe) { // as many entries as depth, but some are not submitted yet
        io_uring_submit(&io->ring);
        sqe = io_uring_get_sqe(&io->ring);
    }
    assert(sqe);
    fill_entry(io, sqe, op);
    if (io_uring_sq_ready(&io->ring) >= SUBMIT_PIECE)
        io_submit(io);
}

static void give_waiting(struct io_engine *io)
{
    while (io->waiting && io->with_kernel < io->depth) {
        struct io_op *op = io->waiting;
        io->waiting = op->link;
        if (!io->waiting)
            io->waiting_tail = &io->waiting;
        io->n_waiting--;
        give_to_kernel(io, op);
    }
}

static void deliver(struct io_engine *io, struct io_op *op, int result)
{
    io->with_kernel--;
    op->done(op, result);
}

static unsigned reap_ring(struct io_engine *io)
{
    struct io_uring_cqe *cqes[64];
    unsigned total = 0, n;
    while ((n = io_uring_peek_batch_cqe(&io->ring, cqes, 64))) {
        for (unsigned i = 0; i < n; i++) {
            struct io_op *op = io_uring_cqe_get_data(cqes[i]);
            op->result = cqes[i]->res;
            cqes[i] = (void *)op; // the entry's place is given back before callbacks start more
        }
        io_uring_cq_advance(&io->ring, n);
        for (unsigned i = 0; i < n; i++) {
            struct io_op *op = (void *)cqes[i];
            deliver(io, op, op->result);
        }
        total += n;
    }
    return total;
}

static unsigned reap_threads(struct io_engine *io)
{
    unsigned n = 0;
    for (struct io_op *op = blocking_reap(io->threads), *next; op; op = next, n++) {
        next = op->link;
        io->n_with_threads--;
        deliver(io, op, op->result);
    }
    return n;
}

static unsigned take_completed(struct io_engine *io)
{
    unsigned n = 0;
    if (io->has_uring)
        n += reap_ring(io);
    if (io->n_with_threads)
        n += reap_threads(io);
    return n;
}

static void end_batch(struct io_engine *io)
{
    give_waiting(io);
    if (io->config.batch_end)
        io->config.batch_end(io->config.arg);
    io_submit(io);
}

static unsigned reap(struct io_engine *io)
{
    const unsigned n = take_completed(io);
    end_batch(io);
    return n;
}

unsigned io_poll(struct io_engine *io)
{
    const unsigned n = io->with_kernel ? take_completed(io) : 0;
    if (n)
        end_batch(io);
    return n;
}

void io_set_polled(struct io_engine *io, bool polled)
{
    if (io->has_uring)
        io_uring_cq_eventfd_toggle(&io->ring, !polled);
}

static void on_event(void *arg, int fd, uint32_t events)
{
    (void)events;
    eventfd_t count;
    eventfd_read(fd, &count);
    reap(arg);
}

static int start_threads(struct io_engine *io, struct tv_error *err)
{
    io->threads = blocking_create(io->has_uring ? THREADS_WITH_URING : THREADS_ALONE, io->event_fd, err);
    return io->threads ? 0 : -ENOMEM;
}

struct io_engine *io_create(struct loop *loop, const struct io_config *config, struct tv_error *err)
{
    struct io_engine *io = calloc(1, sizeof(*io));
    if (!io) {
        tv_error_set(err, -ENOMEM, "I/O engine: out of memory");
        return NULL;
    }
    io->config = *config;
    io->depth = config->depth;
    io->waiting_tail = &io->waiting;
    for (unsigned i = 0; i < IO_FILES_MAX; i++)
        io->files[i] = -1;
    io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (io->event_fd < 0) {
        tv_error_set(err, -errno, "I/O engine: eventfd: %s", strerror(errno));
        goto fail;
    }
    int r = config->no_uring ? -ECANCELED : start_uring(io);
    if (io->has_uring)
        snprintf(io->description, sizeof(io->description), "io_uring%s", io->has_fixed_files ? ", registered files" : "");
    else
        snprintf(io->description, sizeof(io->description), "threads (%s)", config->no_uring ? "as asked" : strerror(-r));
    if (start_threads(io, err))
        goto fail;
    io->source = loop_add_fd(loop, io->event_fd, EPOLLIN, on_event, io, err);
    if (!io->source)
        goto fail;
    return io;
fail:
    io_destroy(io);
    return NULL;
}

void io_destroy(struct io_engine *io)
{
    if (!io)
        return;
    assert(!io->with_kernel);
    loop_remove(io->source);
    blocking_destroy(io->threads);
    if (io->has_uring)
        io_uring_queue_exit(&io->ring);
    if (io->event_fd >= 0)
        close(io->event_fd);
    free(io);
}

const char *io_describe(const struct io_engine *io)
{
    return io->description;
}

int io_add_file(struct io_engine *io, int fd, struct tv_error *err)
{
    unsigned i = 0;
    while (i < IO_FILES_MAX && io->files[i] >= 0)
        i++;
    if (i == IO_FILES_MAX)
        return tv_error_set(err, -EMFILE, "more than %d images in one store; start a second one", IO_FILES_MAX);
    if (io->has_fixed_files) {
        int r = io_uring_register_files_update(&io->ring, i, &fd, 1);
        if (r < 0)
            return tv_error_set(err, r, "io_uring cannot register an image: %s", strerror(-r));
    }
    io->files[i] = fd;
    return (int)i;
}

void io_remove_file(struct io_engine *io, int file)
{
    assert(file >= 0 && file < IO_FILES_MAX && io->files[file] >= 0);
    int none = -1;
    if (io->has_fixed_files)
        io_uring_register_files_update(&io->ring, (unsigned)file, &none, 1);
    io->files[file] = -1;
}

void io_start(struct io_engine *io, struct io_op *op)
{
    op->fd = io->files[op->file];
    if (io->with_kernel < io->depth) {
        give_to_kernel(io, op);
        return;
    }
    op->link = NULL;
    *io->waiting_tail = op;
    io->waiting_tail = &op->link;
    io->n_waiting++;
}

void io_submit(struct io_engine *io)
{
    if (!io->has_uring || !io_uring_sq_ready(&io->ring))
        return;
    // EBUSY, EAGAIN and EINTR leave the entries in the ring: come again in the loop's next round.
    if (io_uring_submit(&io->ring) < 0)
        eventfd_write(io->event_fd, 1);
}

void io_wait(struct io_engine *io)
{
    assert(io_in_flight(io));
    io_submit(io);
    while (!reap(io)) {
        struct pollfd p = {.fd = io->event_fd, .events = POLLIN};
        eventfd_t count;
        if (poll(&p, 1, -1) > 0)
            eventfd_read(io->event_fd, &count);
    }
}

void io_poke(struct io_engine *io)
{
    eventfd_write(io->event_fd, 1);
}

unsigned io_in_flight(const struct io_engine *io)
{
    return io->with_kernel + io->n_waiting;
}
