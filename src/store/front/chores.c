// Volumes' own work: see chores.h.
#include "store/front/chores.h"

#include <errno.h>
#include <stdlib.h>

#define AT_ONCE 2u // a disk's clients come first

struct chore_slot {
    struct disk_request request;
    struct chores_front *front;
};

struct chores_front {
    struct disk_front front;
    struct chore_slot slots[AT_ONCE];
    unsigned in_flight;
    bool disk_goes;
};

static void on_done(struct disk_request *request, int result)
{
    (void)result; // whoever has a chore knows what came of it
    struct chores_front *f = ((struct chore_slot *)request)->front;
    request->chore = NULL;
    f->in_flight--;
    store_mark(&f->front);
}

static bool front_end_batch(struct disk_front *front)
{
    struct chores_front *f = (struct chores_front *)front;
    for (unsigned i = 0; i < AT_ONCE && !f->disk_goes; i++) {
        struct disk_request *request = &f->slots[i].request;
        if (request->chore || !(request->chore = volume_chores_take(front->disk->chores)))
            continue;
        request->io.len_bytes = request->chore->len_bytes;
        f->in_flight++;
        disk_submit(front->disk, request);
    }
    return false;
}

static void wake(void *arg)
{
    store_mark(arg);
}

static void front_resized(struct disk_front *front)
{
    (void)front;
}

static void front_describe(const struct disk_front *front, json_t *object)
{
    (void)front; // the volumes tell of it
    (void)object;
}

static void front_destroy(struct disk_front *front)
{
    struct chores_front *f = (struct chores_front *)front;
    f->disk_goes = true;
    front->disk->chores->wake = NULL;
    store_drain(front->disk, &f->in_flight);
    disk_detach(front);
    free(f);
}

static const struct disk_front_ops front_ops = {
    .end_batch = front_end_batch,
    .resized = front_resized,
    .describe = front_describe,
    .destroy = front_destroy,
};

int chores_attach(struct disk *disk, struct tv_error *err)
{
    struct chores_front *f = calloc(1, sizeof(*f));
    if (!f)
        return tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk->name);
    f->front.ops = &front_ops;
    for (unsigned i = 0; i < AT_ONCE; i++)
        f->slots[i] = (struct chore_slot){.request = {.done = on_done}, .front = f};
    disk_attach(disk, &f->front);
    disk->chores->wake = wake;
    disk->chores->arg = &f->front;
    store_mark(&f->front);
    return 0;
}
