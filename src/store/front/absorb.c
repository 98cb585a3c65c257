// Absorbing: see absorb.h.
#include "store/front/absorb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECES 4u // under way at once
#define PIECE_BYTES (256u << 10)

struct piece {
    struct disk_request request;
    struct absorb *absorb;
};

struct absorb {
    struct disk_front front;
    struct piece pieces[PIECES];
    unsigned in_flight;
    uint64_t from_bytes, next_bytes, end_bytes;
    int result;
    bool disk_goes;
    store_absorbed_fn *done;
    void *arg;
};

static void finish(struct absorb *a)
{
    struct tv_error err = {0};
    if (a->result)
        tv_error_set(&err, a->result, "disk '%s': what its base has cannot be taken over: %s", a->front.disk->name,
                     strerror(-a->result));
    disk_detach(&a->front);
    a->done(a->arg, a->result ? a->result : (int64_t)(a->end_bytes - a->from_bytes), &err);
    free(a);
}

static void submit_next(struct piece *piece)
{
    struct absorb *a = piece->absorb;
    const uint64_t left = a->end_bytes - a->next_bytes;
    piece->request.io.offset_bytes = a->next_bytes;
    piece->request.io.len_bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
    a->next_bytes += piece->request.io.len_bytes;
    a->in_flight++;
    disk_submit(a->front.disk, &piece->request);
}

static void on_done(struct disk_request *request, int result)
{
    struct piece *piece = (struct piece *)request;
    struct absorb *a = piece->absorb;
    a->in_flight--;
    if (result && !a->result)
        a->result = result;
    if (!a->result && a->next_bytes < a->end_bytes)
        submit_next(piece);
    else if (!a->in_flight)
        store_mark(&a->front);
}

static bool front_end_batch(struct disk_front *front)
{
    struct absorb *a = (struct absorb *)front;
    if (!a->in_flight && !a->disk_goes)
        finish(a);
    return false;
}

static void front_resized(struct disk_front *front)
{
    (void)front; // a disk with an overlay only grows, and what is new is nothing of the base's
}

static void front_describe(const struct disk_front *front, json_t *object)
{
    json_object_set_new(object, "absorbing_at_bytes", json_integer((json_int_t)((const struct absorb *)front)->next_bytes));
}

static void front_destroy(struct disk_front *front)
{
    struct absorb *a = (struct absorb *)front;
    a->disk_goes = true;
    a->result = -ECANCELED;
    store_drain(front->disk, &a->in_flight);
    finish(a);
}

static const struct disk_front_ops front_ops = {
    .end_batch = front_end_batch,
    .resized = front_resized,
    .describe = front_describe,
    .destroy = front_destroy,
};

int absorb_start(struct disk *disk, uint64_t offset_bytes, store_absorbed_fn *done, void *arg, struct tv_error *err)
{
    const struct volume *volume = disk->volume;
    if (!volume_overlay(disk->volume))
        return tv_error_set(err, -EOPNOTSUPP, "disk '%s': is no overlay that can be written to, and takes nothing over",
                            disk->name);
    if (offset_bytes >= volume->size_bytes || offset_bytes % volume->physical_bytes)
        return tv_error_set(err, -EINVAL, "disk '%s': offset_bytes %llu: must be within it, and a multiple of %u", disk->name,
                            (unsigned long long)offset_bytes, volume->physical_bytes);
    struct absorb *a = calloc(1, sizeof(*a));
    if (!a)
        return tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk->name);
    const uint64_t left = volume->size_bytes - offset_bytes;
    a->front.ops = &front_ops;
    a->from_bytes = a->next_bytes = offset_bytes;
    a->end_bytes = offset_bytes + (left < STORE_ABSORB_BYTES ? left : STORE_ABSORB_BYTES);
    a->done = done;
    a->arg = arg;
    disk_attach(disk, &a->front);
    for (unsigned i = 0; i < PIECES; i++) {
        a->pieces[i] = (struct piece){.request = {.done = on_done, .io = {.op = VOLUME_ABSORB}}, .absorb = a};
        if (a->next_bytes < a->end_bytes)
            submit_next(&a->pieces[i]);
    }
    return 0;
}
