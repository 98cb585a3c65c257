// Requests carried out: see transfer.h.
#include "store/transfer.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define ZERO_BYTES (128u << 10)
#define ZERO_PIECES (sizeof(((struct transfer_env *)0)->zero_iov) / sizeof(struct iovec))

static void step(struct transfer *t);

int transfer_env_init(struct transfer_env *env, struct io_engine *io, struct tv_error *err)
{
    *env = (struct transfer_env){.io = io};
    env->waiting_tail = &env->waiting;
    env->zeroes = mmap(NULL, ZERO_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (env->zeroes == MAP_FAILED) {
        env->zeroes = NULL;
        return tv_error_set(err, -errno, "buffer of zeroes: %s", strerror(errno));
    }
    for (unsigned i = 0; i < ZERO_PIECES; i++)
        env->zero_iov[i] = (struct iovec){.iov_base = env->zeroes, .iov_len = ZERO_BYTES};
    return bounce_init(&env->bounce, err);
}

void transfer_env_fini(struct transfer_env *env)
{
    assert(!env->waiting);
    bounce_fini(&env->bounce);
    if (env->zeroes)
        munmap(env->zeroes, ZERO_BYTES);
    env->zeroes = NULL;
}

// ---- data ----

static bool needs_bounce(const struct transfer *t)
{
    if (!t->image->direct)
        return false;
    if (t->always_bounce)
        return true;
    uintptr_t mem_mask = t->image->mem_align_bytes - 1u, len_mask = t->image->offset_align_bytes - 1u;
    for (unsigned i = 0; i < t->n_iov; i++)
        if (((uintptr_t)t->iov[i].iov_base & mem_mask) || (t->iov[i].iov_len & len_mask))
            return true;
    return false;
}

static size_t copy(uint8_t *buffer, size_t size, const struct iovec *iov, unsigned n_iov, bool to_guest)
{
    size_t at = 0;
    for (unsigned i = 0; i < n_iov && at < size; i++) {
        size_t len = iov[i].iov_len < size - at ? iov[i].iov_len : size - at;
        if (to_guest)
            memcpy(iov[i].iov_base, buffer + at, len);
        else
            memcpy(buffer + at, iov[i].iov_base, len);
        at += len;
    }
    return at;
}

static void start_bounced(struct transfer *t)
{
    struct transfer_env *env = t->env;
    if (!t->bounce)
        t->bounce = bounce_get(&env->bounce);
    if (!t->bounce) {
        t->link = NULL;
        *env->waiting_tail = t;
        env->waiting_tail = &t->link;
        return;
    }
    size_t left = t->blk.len_bytes - t->done_bytes;
    size_t len = left < BOUNCE_BYTES ? left : BOUNCE_BYTES;
    if (t->op.kind == IO_WRITE)
        copy(t->bounce, len, t->iov, t->n_iov, false);
    t->bounce_iov = (struct iovec){.iov_base = t->bounce, .iov_len = len};
    t->op.iov = &t->bounce_iov;
    t->op.n_iov = 1;
    t->op.len_bytes = len;
    io_start(env->io, &t->op);
}

static void start_data(struct transfer *t)
{
    t->op.kind = t->blk.op == BLK_WRITE ? IO_WRITE : IO_READ;
    t->op.durable = t->durable && t->blk.op == BLK_WRITE;
    t->op.offset_bytes = t->blk.offset_bytes + t->done_bytes;
    if (t->bounce || needs_bounce(t)) {
        start_bounced(t);
        return;
    }
    t->op.iov = t->iov;
    t->op.n_iov = t->n_iov;
    t->op.len_bytes = t->blk.len_bytes - t->done_bytes;
    io_start(t->env->io, &t->op);
}

// Bytes of a short count that can be kept: direct I/O goes on at an aligned offset only.
static size_t usable(const struct transfer *t, size_t count)
{
    return count == t->op.len_bytes ? count : count & ~(size_t)(t->image->offset_align_bytes - 1);
}

static int data_done(struct transfer *t, int result)
{
    size_t count = usable(t, (size_t)result);
    if (!count)
        return t->blk.op == BLK_READ ? -ENODATA : -EIO;
    if (t->bounce && t->op.kind == IO_READ)
        copy(t->bounce, count, t->iov, t->n_iov, true);
    blk_iov_consume(&t->iov, &t->n_iov, count);
    t->done_bytes += count;
    return 0;
}

// ---- ranges ----

static void start_zero_write(struct transfer *t, uint64_t left_bytes)
{
    struct transfer_env *env = t->env;
    // The vector is shared and its pieces are whole; the last part of a range, smaller than a piece, goes alone.
    if (left_bytes < ZERO_BYTES) {
        t->bounce_iov = (struct iovec){.iov_base = env->zeroes, .iov_len = (size_t)left_bytes};
        t->op.iov = &t->bounce_iov;
        t->op.n_iov = 1;
        t->op.len_bytes = left_bytes;
    } else {
        uint64_t pieces = left_bytes / ZERO_BYTES;
        t->op.iov = env->zero_iov;
        t->op.n_iov = pieces < ZERO_PIECES ? (unsigned)pieces : ZERO_PIECES;
        t->op.len_bytes = (uint64_t)t->op.n_iov * ZERO_BYTES;
    }
    t->op.durable = false;
    io_start(env->io, &t->op);
}

static void start_range(struct transfer *t)
{
    const struct blk_range *range = &t->blk.ranges[t->range];
    t->op.kind = t->range_kind;
    t->op.offset_bytes = range->offset_bytes + t->done_bytes;
    t->op.len_bytes = range->len_bytes - t->done_bytes;
    if (t->range_kind == IO_WRITE)
        start_zero_write(t, t->op.len_bytes);
    else
        io_start(t->env->io, &t->op);
}

static void choose_range_kind(struct transfer *t)
{
    if (t->blk.op == BLK_DISCARD)
        t->range_kind = t->image->is_block ? IO_DISCARD : IO_PUNCH;
    else
        t->range_kind = t->blk.ranges[t->range].unmap && t->image->can_discard ? IO_PUNCH : IO_ZERO;
}

static int range_done(struct transfer *t, int result)
{
    if (t->range_kind == IO_WRITE) {
        size_t count = usable(t, (size_t)result);
        if (!count)
            return -EIO;
        t->done_bytes += count;
    } else {
        t->done_bytes = t->blk.ranges[t->range].len_bytes;
    }
    if (t->done_bytes == t->blk.ranges[t->range].len_bytes) {
        t->range++;
        t->done_bytes = 0;
        if (t->range < t->blk.n_ranges)
            choose_range_kind(t);
    }
    return 0;
}

// ---- the whole ----

static bool is_complete(const struct transfer *t)
{
    switch (t->blk.op) {
    case BLK_READ:
    case BLK_WRITE:
        return t->done_bytes == t->blk.len_bytes;
    case BLK_FLUSH:
        return t->syncing; // and come back
    default:
        return t->range == t->blk.n_ranges && (!t->durable || t->syncing);
    }
}

static void finish(struct transfer *t, int result)
{
    struct transfer_env *env = t->env;
    if (t->bounce) {
        bounce_put(&env->bounce, t->bounce);
        t->bounce = NULL;
        struct transfer *next = env->waiting;
        if (next) {
            env->waiting = next->link;
            if (!env->waiting)
                env->waiting_tail = &env->waiting;
            start_bounced(next);
        }
    }
    t->done(t, result);
}

// What an error leaves to try: true if something else was started.
static bool try_otherwise(struct transfer *t, int result)
{
    if ((result == -EINTR || result == -EAGAIN) && t->retries++ < TRANSFER_RETRIES) {
        io_start(t->env->io, &t->op);
        return true;
    }
    bool data = t->blk.op == BLK_READ || t->blk.op == BLK_WRITE;
    // The kernel wants more of the alignment than it told (before 6.1 it tells nothing).
    if (result == -EINVAL && data && t->image->direct && !t->bounce) {
        t->always_bounce = true;
        start_data(t);
        return true;
    }
    if ((result == -EOPNOTSUPP || result == -ENOSYS) && t->blk.op == BLK_WRITE_ZEROES && !t->syncing && t->range_kind != IO_WRITE) {
        t->range_kind = t->range_kind == IO_PUNCH ? IO_ZERO : IO_WRITE;
        start_range(t);
        return true;
    }
    return false;
}

static void on_done(struct io_op *op, int result)
{
    struct transfer *t = (struct transfer *)((char *)op - offsetof(struct transfer, op));
    if (result < 0) {
        if (!try_otherwise(t, result))
            finish(t, result);
        return;
    }
    t->retries = 0;
    if (!t->syncing) {
        int r = t->blk.op == BLK_READ || t->blk.op == BLK_WRITE ? data_done(t, result) : range_done(t, result);
        if (r) {
            finish(t, r);
            return;
        }
    }
    if (is_complete(t))
        finish(t, 0);
    else
        step(t);
}

static void step(struct transfer *t)
{
    if (t->blk.op == BLK_READ || t->blk.op == BLK_WRITE) {
        start_data(t);
    } else if (t->blk.op != BLK_FLUSH && t->range < t->blk.n_ranges) {
        start_range(t);
    } else {
        t->syncing = true;
        t->op.kind = IO_SYNC;
        io_start(t->env->io, &t->op);
    }
}

void transfer_start(struct transfer_env *env, struct transfer *t)
{
    t->env = env;
    t->op.file = t->file;
    t->op.done = on_done;
    t->iov = t->blk.iov;
    t->n_iov = t->blk.n_iov;
    t->range = t->retries = 0;
    t->done_bytes = 0;
    t->bounce = NULL;
    t->always_bounce = t->syncing = false;
    if (t->blk.op == BLK_DISCARD || t->blk.op == BLK_WRITE_ZEROES)
        choose_range_kind(t);
    step(t);
}
