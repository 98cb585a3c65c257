// The store: its disks, and the batches. See store.h.
#include "store/disk.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void dispatch(struct store *store)
{
    struct dispatcher *d = store->dispatcher;
    uint64_t now_ns = clock_now_ns();
    for (struct dispatch_item *item; (item = d->ops->next(d, now_ns));) {
        struct disk_request *request = (struct disk_request *)((char *)item - offsetof(struct disk_request, item));
        struct disk_usage *usage = &request->disk->promised.usage;
        item->dispatched_ns = now_ns;
        usage->requests++;
        usage->bytes += item->len_bytes;
        usage->device_ns += item->cost_ns;
        disk_begin(request);
    }
    uint64_t wake_ns = d->ops->wake_ns(d);
    if (wake_ns == store->wake_ns)
        return;
    store->wake_ns = wake_ns;
    loop_set_timer(store->timer, wake_ns == UINT64_MAX ? 0 : wake_ns > now_ns ? wake_ns - now_ns : 1, 0);
}

void store_mark_dirty(struct disk *disk)
{
    if (disk->is_dirty)
        return;
    disk->is_dirty = true;
    disk->next_dirty = disk->store->dirty;
    disk->store->dirty = disk;
}

void store_forget_dirty(struct disk *disk)
{
    struct disk **at = &disk->store->dirty;
    while (*at && *at != disk)
        at = &(*at)->next_dirty;
    if (*at)
        *at = disk->next_dirty;
    disk->is_dirty = false;
}

void store_end_batch(struct store *store)
{
    struct disk *disk = store->dirty;
    store->dirty = NULL;
    for (struct disk *next; disk; disk = next) {
        next = disk->next_dirty;
        disk_pop_starved(disk);
        disk->is_dirty = false;
        disk_call_queues(disk);
        if (disk_is_eager(disk)) { // its budget was used up: the others first
            store_mark_dirty(disk);
            io_poke(store->io);
        }
    }
    dispatch(store);
    io_submit(store->io);
}

static void on_batch_end(void *arg)
{
    store_end_batch(arg);
}

// What holds requests back here, its limits, would hold up everybody meanwhile: they do not count until the disk is drained, nor
// does what is let go in this way.
void store_drain(struct disk *disk, const unsigned *count)
{
    struct store *store = disk->store;
    struct dispatcher *d = store->dispatcher;
    const struct disk_usage before = disk->promised.usage;
    if (*count)
        d->ops->queue_set(d, disk->queue, &dispatch_no_terms, clock_now_ns(), NULL);
    while (*count) {
        store_end_batch(store);
        assert(io_in_flight(store->io));
        io_wait(store->io);
    }
    disk->promised.usage = before;
    d->ops->queue_set(d, disk->queue, &disk->terms, clock_now_ns(), NULL);
    store_end_batch(store);
}

static void on_timer(void *arg)
{
    struct store *store = arg;
    store->wake_ns = UINT64_MAX;
    store_end_batch(store);
}

struct store *store_create(struct loop *loop, const struct store_config *config, struct tv_error *err)
{
    struct store *store = calloc(1, sizeof(*store));
    if (!store) {
        tv_error_set(err, -ENOMEM, "store: out of memory");
        return NULL;
    }
    store->loop = loop;
    struct io_config io = {.depth = STORE_WINDOW, .no_uring = config->no_uring, .batch_end = on_batch_end, .arg = store};
    store->io = io_create(loop, &io, err);
    const struct dispatch_ops *scheduler = config->scheduler ? dispatch_find(config->scheduler) : &dispatch_fifo;
    struct dispatch_config dispatch = {.window = STORE_WINDOW};
    if (!scheduler)
        tv_error_set(err, -EINVAL, "no scheduler '%s'; there are %s", config->scheduler, dispatch_names);
    else if (store->io && !transfer_env_init(&store->env, store->io, err))
        store->dispatcher = scheduler->create(&dispatch, err);
    store->wake_ns = UINT64_MAX;
    if (store->dispatcher && (store->timer = loop_add_timer(loop, on_timer, store, err)) &&
        (store->promises = promises_create(store, err)))
        return store;
    store_destroy(store);
    return NULL;
}

void store_destroy(struct store *store)
{
    if (!store)
        return;
    while (store->disks) {
        struct disk *disk = store->disks;
        store->disks = disk->next;
        disk_destroy(disk);
    }
    promises_destroy(store->promises);
    if (store->dispatcher)
        store->dispatcher->ops->destroy(store->dispatcher);
    loop_remove(store->timer);
    transfer_env_fini(&store->env);
    io_destroy(store->io);
    free(store);
}

const char *store_describe(const struct store *store)
{
    return io_describe(store->io);
}

static struct disk **find(struct store *store, const char *name)
{
    struct disk **at = &store->disks;
    while (*at && strcmp((*at)->name, name))
        at = &(*at)->next;
    return at;
}

static int no_such_disk(const char *name, struct tv_error *err)
{
    return tv_error_set(err, -ENOENT, "no disk '%s' in this store; disk.list tells which there are", name);
}

static int check_config(struct store *store, const struct disk_config *config, struct tv_error *err)
{
    size_t len = strlen(config->name);
    if (!len || len >= STORE_NAME_MAX)
        return tv_error_set(err, -EINVAL, "disk name '%s': must have 1 to %d bytes", config->name, STORE_NAME_MAX - 1);
    if (*find(store, config->name))
        return tv_error_set(err, -EEXIST, "disk '%s': there is one of this name already; remove it or take another name",
                            config->name);
    if (!config->n_queues || config->n_queues > STORE_QUEUES_MAX)
        return tv_error_set(err, -EINVAL, "disk '%s': %u queues: must be 1 to %d", config->name, config->n_queues,
                            STORE_QUEUES_MAX);
    if (config->serial && strlen(config->serial) > BLK_ID_BYTES)
        return tv_error_set(err, -EINVAL, "disk '%s': serial '%s': must have at most %u bytes", config->name, config->serial,
                            BLK_ID_BYTES);
    return 0;
}

int store_add_disk(struct store *store, const struct disk_config *config, int image_fd, int listen_fd, struct tv_error *err)
{
    struct promise_set promises = {.resource = PROMISE_DISK};
    int r = check_config(store, config, err);
    if (!r && config->promises && (r = promise_set_parse(&promises, PROMISE_DISK, config->promises, err)) && err)
        tv_error_prefix(err, "disk '%s'", config->name);
    if (r) {
        close(image_fd);
        close(listen_fd);
        return r;
    }
    struct tv_error own = {0};
    struct disk *disk = disk_create(store, config, &promises, image_fd, listen_fd, &own);
    if (!disk) {
        if (err)
            *err = own;
        return own.code;
    }
    *find(store, config->name) = disk;
    log_event(LOG_INFO, "store", "disk added", LOG_STR("disk", disk->name), LOG_U64("size_bytes", disk->image.size_bytes),
              LOG_U64("block_size", disk->image.block_size_bytes),
              LOG_STR("mode", disk->image.read_only ? "read-only" : "read-write"),
              LOG_STR("io", disk->image.direct ? "direct" : "cached"));
    return 0;
}

int store_remove_disk(struct store *store, const char *name, struct tv_error *err)
{
    struct disk **at = find(store, name), *disk = *at;
    if (!disk)
        return no_such_disk(name, err);
    *at = disk->next;
    log_event(LOG_INFO, "store", "disk removed", LOG_STR("disk", disk->name));
    disk_destroy(disk);
    return 0;
}

int store_resize_disk(struct store *store, const char *name, uint64_t size_bytes, struct tv_error *err)
{
    struct disk *disk = *find(store, name);
    return disk ? disk_resize(disk, size_bytes, err) : no_such_disk(name, err);
}

struct disk *store_find_disk(struct store *store, const char *name, struct tv_error *err)
{
    struct disk *disk = *find(store, name);
    if (!disk)
        no_such_disk(name, err);
    return disk;
}

int store_promise(struct store *store, const json_t *promises, bool admitted, json_t *unproven, struct tv_error *err)
{
    int r = promises_change(store->promises, promises, admitted, unproven, err);
    if (!r)
        store_end_batch(store); // what an old limit held back
    return r;
}

json_t *store_list_promises(const struct store *store)
{
    json_t *list = json_array();
    for (const struct disk *disk = store->disks; disk; disk = disk->next) {
        if (!disk->promised.set.n)
            continue;
        json_t *object = json_pack("{s:s}", "name", disk->name);
        promises_describe(store->promises, disk, object);
        json_array_append_new(list, object);
    }
    return list;
}

json_t *store_list(const struct store *store)
{
    json_t *list = json_array();
    for (const struct disk *disk = store->disks; disk; disk = disk->next)
        json_array_append_new(list, json_pack("{s:s, s:I, s:i, s:b, s:b, s:b, s:i}", "name", disk->name, "size_bytes",
                                              (json_int_t)disk->image.size_bytes, "block_size", (int)disk->image.block_size_bytes,
                                              "read_only", disk->image.read_only, "direct", disk->image.direct, "connected",
                                              vhost_backend_is_connected(disk->backend), "queues", (int)disk->n_queues));
    return list;
}

json_t *store_stat(const struct store *store, const char *name, struct tv_error *err)
{
    struct disk *disk = *find((struct store *)store, name);
    if (disk)
        return disk_stat(disk);
    no_such_disk(name, err);
    return NULL;
}
