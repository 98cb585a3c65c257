// Images as volumes: see file.h.
#include "store/volume/file.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 96

struct file {
    struct volume volume;
    struct image image;
    int number; // in the I/O engine; -1: none yet
    char name[NAME_MAX_BYTES];
    bool is_dirty; // something was written since the last flush began, and not durably
    bool has_lost; // a flush failed: what was written before it may be lost
};

// One request: as many I/O operations one after another as it takes.
struct transfer {
    struct file *file;
    struct volume_request *request;
    struct io_op op;
    struct bounce_waiter waiter;
    uint8_t *bounce;
    uint64_t done_bytes;
    unsigned retries;
    enum io_kind range_kind; // of a range: how it is made empty
    bool always_bounce, syncing;
    struct iovec iov[VOLUME_SEGMENTS_MAX];
};

static void step(struct transfer *t);

static bool is_data(const struct volume_request *request)
{
    return request->op == VOLUME_READ || request->op == VOLUME_WRITE;
}

static bool is_change(const struct volume_request *request)
{
    return request->op == VOLUME_WRITE || request->op == VOLUME_DISCARD || request->op == VOLUME_ZERO;
}

static void start_op(struct transfer *t)
{
    io_start(t->file->volume.env->io, &t->op);
}

// ---- data ----

static uint64_t left_bytes(const struct transfer *t)
{
    return t->request->len_bytes - t->done_bytes;
}

static struct volume_data left_data(const struct transfer *t)
{
    return volume_data_from(t->request->data, t->done_bytes);
}

static bool needs_bounce(const struct transfer *t, unsigned n_iov)
{
    const struct image *image = &t->file->image;
    if (!image->direct)
        return false;
    uintptr_t mem_mask = image->mem_align_bytes - 1u, len_mask = image->offset_align_bytes - 1u;
    for (unsigned i = 0; i < n_iov; i++)
        if (((uintptr_t)t->iov[i].iov_base & mem_mask) || (t->iov[i].iov_len & len_mask))
            return true;
    return false;
}

static void start_bounced(struct transfer *t, uint8_t *buffer)
{
    t->bounce = buffer;
    size_t len = left_bytes(t) < BOUNCE_BYTES ? left_bytes(t) : BOUNCE_BYTES;
    if (t->op.kind == IO_WRITE)
        volume_data_read(left_data(t), buffer, len);
    t->iov[0] = (struct iovec){.iov_base = buffer, .iov_len = len};
    t->op.n_iov = 1;
    t->op.len_bytes = len;
    start_op(t);
}

static void on_bounce(struct bounce_waiter *waiter, uint8_t *buffer)
{
    start_bounced((struct transfer *)((char *)waiter - offsetof(struct transfer, waiter)), buffer);
}

static void start_data(struct transfer *t)
{
    const struct volume_request *request = t->request;
    t->op.kind = request->op == VOLUME_WRITE ? IO_WRITE : IO_READ;
    t->op.durable = request->durable && request->op == VOLUME_WRITE;
    t->op.offset_bytes = request->offset_bytes + t->done_bytes;
    t->op.iov = t->iov;
    if (!t->bounce && !t->always_bounce) {
        t->op.n_iov = volume_data_vector(left_data(t), left_bytes(t), t->iov, VOLUME_SEGMENTS_MAX);
        t->op.len_bytes = left_bytes(t);
        if (!needs_bounce(t, t->op.n_iov)) {
            start_op(t);
            return;
        }
    }
    uint8_t *buffer = t->bounce ? t->bounce : bounce_get(&t->file->volume.env->bounce, &t->waiter);
    if (buffer)
        start_bounced(t, buffer);
}

// Bytes of a short count that can be kept: direct I/O goes on at an aligned offset only.
static size_t usable(const struct transfer *t, size_t count)
{
    return count == t->op.len_bytes ? count : count & ~(size_t)(t->file->image.offset_align_bytes - 1);
}

static int data_done(struct transfer *t, int result)
{
    size_t count = usable(t, (size_t)result);
    if (!count)
        return t->request->op == VOLUME_READ ? -ENODATA : -EIO;
    if (t->bounce && t->op.kind == IO_READ)
        volume_data_write(left_data(t), t->bounce, count);
    t->done_bytes += count;
    return 0;
}

// ---- ranges ----

static void start_zero_write(struct transfer *t)
{
    uint64_t left = left_bytes(t);
    unsigned n = 0;
    t->op.len_bytes = 0;
    for (; left && n < VOLUME_SEGMENTS_MAX; n++) {
        size_t len = left < VOLUME_ZEROES ? left : VOLUME_ZEROES;
        t->iov[n] = (struct iovec){.iov_base = t->file->volume.env->zeroes, .iov_len = len};
        t->op.len_bytes += len;
        left -= len;
    }
    t->op.iov = t->iov;
    t->op.n_iov = n;
    t->op.durable = false;
    start_op(t);
}

static void start_range(struct transfer *t)
{
    t->op.kind = t->range_kind;
    t->op.offset_bytes = t->request->offset_bytes + t->done_bytes;
    t->op.len_bytes = left_bytes(t);
    if (t->range_kind == IO_WRITE)
        start_zero_write(t);
    else
        start_op(t);
}

static enum io_kind range_kind(const struct transfer *t)
{
    const struct image *image = &t->file->image;
    if (t->request->op == VOLUME_DISCARD)
        return image->is_block ? IO_DISCARD : IO_PUNCH;
    return t->request->may_unmap && image->can_discard ? IO_PUNCH : IO_ZERO;
}

static int range_done(struct transfer *t, int result)
{
    if (t->range_kind != IO_WRITE) {
        t->done_bytes = t->request->len_bytes;
        return 0;
    }
    size_t count = usable(t, (size_t)result);
    t->done_bytes += count;
    return count ? 0 : -EIO;
}

// ---- the whole ----

static bool is_complete(const struct transfer *t)
{
    if (t->request->op == VOLUME_FLUSH)
        return t->syncing; // and come back
    if (t->done_bytes < t->request->len_bytes)
        return false;
    return is_data(t->request) || !t->request->durable || t->syncing;
}

static void finish(struct transfer *t, int result)
{
    struct file *file = t->file;
    if (t->bounce)
        bounce_put(&file->volume.env->bounce, t->bounce);
    // The kernel tells of a failure to write back once, to whoever asks first.
    if (result && (t->syncing || (t->op.durable && file->is_dirty)))
        file->has_lost = true;
    if (t->syncing && file->has_lost && !result)
        result = -EIO; // it was told to another one that was under way at the same time
    file->is_dirty |= !result && is_change(t->request) && !t->request->durable;
    t->request->done(t->request, result);
}

// What an error leaves to try: true if something else was started.
static bool try_otherwise(struct transfer *t, int result)
{
    const struct volume_request *request = t->request;
    if ((result == -EINTR || result == -EAGAIN) && t->retries++ < FILE_RETRIES) {
        start_op(t);
        return true;
    }
    // The kernel wants more of the alignment than it told (before 6.1 it tells nothing).
    if (result == -EINVAL && is_data(request) && t->file->image.direct && !t->bounce) {
        t->always_bounce = true;
        start_data(t);
        return true;
    }
    if ((result == -EOPNOTSUPP || result == -ENOSYS) && request->op == VOLUME_ZERO && !t->syncing && t->range_kind != IO_WRITE &&
        !request->only_fast) {
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
        int r = is_data(t->request) ? data_done(t, result) : range_done(t, result);
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

static void start_sync(struct transfer *t)
{
    t->syncing = true;
    t->file->is_dirty = false;
    t->op.kind = IO_SYNC;
    start_op(t);
}

static void step(struct transfer *t)
{
    if (is_data(t->request))
        start_data(t);
    else if (t->done_bytes < t->request->len_bytes)
        start_range(t);
    else
        start_sync(t);
}

static void on_status(struct io_op *op, int result)
{
    struct transfer *t = (struct transfer *)((char *)op - offsetof(struct transfer, op));
    t->request->extent = (struct volume_extent){.len_bytes = op->len_bytes, .hole = result == 1, .zero = result == 1};
    t->request->done(t->request, result < 0 ? result : 0);
}

static void start_status(struct transfer *t)
{
    struct volume_request *request = t->request;
    if (t->file->image.is_block) {
        request->extent = (struct volume_extent){.len_bytes = request->len_bytes};
        volume_finish_later(t->file->volume.env, request, 0);
        return;
    }
    t->op.kind = IO_STATUS;
    t->op.offset_bytes = request->offset_bytes;
    t->op.len_bytes = request->len_bytes;
    t->op.done = on_status;
    start_op(t);
}

static void file_start(struct volume *volume, struct volume_request *request)
{
    struct file *file = (struct file *)volume;
    struct transfer *t = request->context;
    t->file = file;
    t->request = request;
    t->op.file = file->number;
    t->op.done = on_done;
    t->op.durable = false;
    t->waiter.got = on_bounce;
    t->bounce = NULL;
    t->done_bytes = 0;
    t->retries = 0;
    t->always_bounce = t->syncing = false;
    if (request->op == VOLUME_STATUS) {
        start_status(t);
        return;
    }
    if (file->has_lost && (request->op == VOLUME_FLUSH || request->durable)) {
        volume_finish_later(volume->env, request, -EIO);
        return;
    }
    if (request->op == VOLUME_DISCARD || request->op == VOLUME_ZERO)
        t->range_kind = range_kind(t);
    step(t);
}

// ---- life ----

static void take_geometry(struct file *file)
{
    const struct image *image = &file->image;
    file->volume.size_bytes = image->size_bytes;
    file->volume.block_bytes = image->block_size_bytes;
    file->volume.physical_bytes = image->physical_bytes;
    file->volume.read_only = image->read_only;
    file->volume.can_discard = image->can_discard;
}

static int file_resize(struct volume *volume, uint64_t size_bytes, struct tv_error *err)
{
    struct file *file = (struct file *)volume;
    int r = image_resize(&file->image, file->name, size_bytes, err);
    take_geometry(file);
    return r;
}

static void file_freeze(struct volume *volume)
{
    struct file *file = (struct file *)volume;
    image_freeze(&file->image);
}

static bool file_identify(const struct volume *volume, char name[VOLUME_IDENTITY])
{
    const struct file *file = (const struct file *)volume;
    struct stat st;
    if (fstat(file->image.fd, &st))
        return false;
    snprintf(name, VOLUME_IDENTITY, "%llx-%llx", (unsigned long long)(file->image.is_block ? st.st_rdev : st.st_dev),
             (unsigned long long)(file->image.is_block ? 0 : st.st_ino));
    return true;
}

static void file_describe(const struct volume *volume, json_t *object)
{
    const struct file *file = (const struct file *)volume;
    json_object_set_new(object, "direct", json_boolean(file->image.direct));
    if (file->has_lost)
        json_object_set_new(object, "flush_failed", json_true());
}

static void file_destroy(struct volume *volume)
{
    struct file *file = (struct file *)volume;
    if (file->number >= 0)
        io_remove_file(volume->env->io, file->number);
    image_fini(&file->image);
    free(file);
}

static const struct volume_ops file_ops = {
    .kind = "file",
    .start = file_start,
    .resize = file_resize,
    .freeze = file_freeze,
    .identify = file_identify,
    .describe = file_describe,
    .destroy = file_destroy,
};

struct volume *file_volume_create(struct volume_env *env, int fd, const char *name, const struct image_options *options,
                                  struct tv_error *err)
{
    struct file *file = calloc(1, sizeof(*file));
    if (!file) {
        close(fd);
        tv_error_set(err, -ENOMEM, "%s: out of memory", name);
        return NULL;
    }
    file->volume.ops = &file_ops;
    file->volume.env = env;
    file->volume.context_bytes = VOLUME_CONTEXT_SIZE(sizeof(struct transfer));
    file->number = -1;
    snprintf(file->name, sizeof(file->name), "%s", name);
    int r = image_init(&file->image, fd, name, options, err);
    if (!r)
        file->number = io_add_file(env->io, file->image.fd, err);
    if (r || file->number < 0) {
        file_destroy(&file->volume);
        return NULL;
    }
    take_geometry(file);
    return &file->volume;
}

const struct image *file_volume_image(const struct volume *volume)
{
    assert(volume->ops == &file_ops);
    return &((const struct file *)volume)->image;
}
