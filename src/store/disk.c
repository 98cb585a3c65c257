// Disks: their life. See disk.h.
#include "store/disk.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int init_disk(struct disk *disk, const struct disk_config *config, const struct promise_set *promises, struct tv_error *err)
{
    int r = disk_make_contexts(disk, disk->volume, err);
    if (r)
        return r;
    disk->latency = calloc(1, sizeof(*disk->latency));
    if (!disk->latency)
        return tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk->name);
    struct dispatcher *d = disk->store->dispatcher;
    disk->queue = d->ops->queue_add(d, config->name, err);
    if (!disk->queue)
        return -ENOMEM;
    return promises_join(disk->store->promises, disk, promises, config->admitted, config->unproven, err);
}

struct disk *disk_create(struct store *store, const struct disk_config *config, const struct promise_set *promises,
                         struct volume *volume, struct volume_chores *chores, struct tv_error *err)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk) {
        volume_destroy(volume);
        free(chores);
        tv_error_set(err, -ENOMEM, "disk '%s': out of memory", config->name);
        return NULL;
    }
    disk->store = store;
    disk->volume = volume;
    disk->chores = chores;
    disk->status_tail = &disk->status_waiting;
    disk->terms = dispatch_no_terms;
    strcpy(disk->name, config->name); // the lengths were checked
    strcpy(disk->serial, config->serial ? config->serial : "");
    if (!config->serial)
        memcpy(disk->serial, config->name, strnlen(config->name, STORE_SERIAL_MAX));
    if (!init_disk(disk, config, promises, err))
        return disk;
    disk_destroy(disk);
    return NULL;
}

void disk_destroy(struct disk *disk)
{
    while (disk->fronts)
        disk->fronts->ops->destroy(disk->fronts);
    promises_leave(disk->store->promises, disk);
    struct dispatcher *d = disk->store->dispatcher;
    if (disk->queue)
        d->ops->queue_remove(d, disk->queue);
    volume_destroy(disk->volume);
    free(disk->chores);
    disk_free_contexts(disk);
    free(disk->latency);
    free(disk);
}

void disk_attach(struct disk *disk, struct disk_front *front)
{
    front->disk = disk;
    front->next = disk->fronts;
    disk->fronts = front;
}

void disk_detach(struct disk_front *front)
{
    struct disk_front **at = &front->disk->fronts;
    while (*at != front)
        at = &(*at)->next;
    *at = front->next;
    store_unmark(front);
    store_cool(front);
}

int disk_resize(struct disk *disk, uint64_t size_bytes, struct tv_error *err)
{
    // Nothing may be under way past a new, nearer end: a write there would extend the file again.
    store_drain(disk, &disk->n_in_flight);
    uint64_t before = disk->volume->size_bytes;
    int r = volume_resize(disk->volume, size_bytes, err);
    if (r)
        return r;
    log_event(LOG_INFO, "store", "disk resized", LOG_STR("disk", disk->name), LOG_U64("from_bytes", before),
              LOG_U64("to_bytes", disk->volume->size_bytes));
    for (struct disk_front *front = disk->fronts; front; front = front->next)
        front->ops->resized(front);
    return 0;
}
