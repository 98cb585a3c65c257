// The store: its disks, and the batches. See store.h.
#include "store/control_add.h"
#include "store/disk.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/front/absorb.h"
#include "store/front/chores.h"
#include "store/front/nbd.h"
#include "store/front/vhost_blk.h"
#include "store/volume/spec.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRAIN_WAIT_MS 1000 // for what does not go by the I/O engine, another service

static void dispatch(struct store *store)
{
    struct dispatcher *d = store->dispatcher;
    store->now_ns = 0;
    const uint64_t now_ns = store_now_ns(store);
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

uint64_t store_now_ns(struct store *store)
{
    if (!store->now_ns)
        store->now_ns = clock_now_ns();
    return store->now_ns;
}

void store_mark(struct disk_front *front)
{
    struct store *store = front->disk->store;
    if (front->is_marked)
        return;
    front->is_marked = true;
    front->next_marked = store->marked;
    store->marked = front;
}

void store_unmark(struct disk_front *front)
{
    struct disk_front **at = &front->disk->store->marked;
    while (*at && *at != front)
        at = &(*at)->next_marked;
    if (*at)
        *at = front->next_marked;
    front->is_marked = false;
}

static void end_fronts(struct store *store)
{
    struct disk_front *front = store->marked;
    store->marked = NULL;
    for (struct disk_front *next; front; front = next) {
        next = front->next_marked;
        front->is_marked = false;
        if (front->ops->end_batch(front)) {
            store_mark(front);
            io_poke(store->io);
        }
    }
}

void store_end_batch(struct store *store)
{
    do {
        end_fronts(store);
        dispatch(store);
    } while (volume_env_deliver(&store->env));
    io_submit(store->io);
    store->now_ns = 0;
}

static void on_batch_end(void *arg)
{
    store_end_batch(arg);
}

static void wait_for_one(struct disk *disk)
{
    struct io_engine *io = disk->store->io;
    if (disk->volume->ops->wait)
        disk->volume->ops->wait(disk->volume, io_in_flight(io) ? 0 : DRAIN_WAIT_MS);
    else
        assert(io_in_flight(io));
    if (io_in_flight(io))
        io_wait(io);
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
        if (*count)
            wait_for_one(disk);
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
    store->poll_ns = config->poll_us * NS_PER_US;
    struct io_config io = {.depth = STORE_WINDOW, .no_uring = config->no_uring, .batch_end = on_batch_end, .arg = store};
    store->io = io_create(loop, &io, err);
    struct dispatch_config dispatch = {.window = STORE_WINDOW};
    const struct dispatch_ops *scheduler = config->scheduler ? dispatch_parse(config->scheduler, &dispatch.window) : &dispatch_fifo;
    if (!scheduler)
        tv_error_set(err, -EINVAL, "no scheduler '%s'; there are %s", config->scheduler, dispatch_names);
    else if (store->io && !volume_env_init(&store->env, loop, store->io, err))
        store->dispatcher = scheduler->create(&dispatch, err);
    store->env.shadow_fd = config->shadow_fd;
    store->wake_ns = UINT64_MAX;
    if (store->dispatcher && (store->timer = loop_add_timer(loop, on_timer, store, err)) &&
        (store->promises = promises_create(store, config->verdicts_fd, err)))
        return store;
    store_destroy(store);
    return NULL;
}

void store_destroy(struct store *store)
{
    if (!store)
        return;
    control_add_cancel_all(store);
    while (store->disks) {
        struct disk *disk = store->disks;
        store->disks = disk->next;
        disk_destroy(disk);
    }
    nbd_server_destroy(store->nbd);
    promises_destroy(store->promises);
    if (store->dispatcher)
        store->dispatcher->ops->destroy(store->dispatcher);
    loop_remove(store->timer);
    volume_env_fini(&store->env);
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

static int check_config(struct store *store, const struct disk_config *config, unsigned n_fds, struct tv_error *err)
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
    if (config->serial && strlen(config->serial) > STORE_SERIAL_MAX)
        return tv_error_set(err, -EINVAL, "disk '%s': serial '%s': must have at most %d bytes", config->name, config->serial,
                            STORE_SERIAL_MAX);
    if (config->vhost >= (int)n_fds)
        return tv_error_set(err, -EINVAL, "disk '%s': its vhost-user socket should be descriptor %d, and there are %u",
                            config->name, config->vhost, n_fds);
    return 0;
}

static struct volume *build_volume(struct store *store, const struct disk_config *config, struct volume_chores *chores, int *fds,
                                   unsigned n_fds, struct tv_error *err)
{
    char label[STORE_NAME_MAX + 8];
    snprintf(label, sizeof(label), "disk '%s'", config->name);
    struct volume_spec spec = {
        .env = &store->env,
        .label = label,
        .fds = fds,
        .n_fds = n_fds,
        .read_only = config->read_only,
        .block_bytes = config->block_size_bytes,
        .chores = chores,
    };
    json_t *file = config->volume ? NULL : json_pack("{s:s, s:i}", "type", "file", "fd", 0);
    struct volume *volume = volume_build(&spec, config->volume ? config->volume : file, err);
    json_decref(file);
    return volume;
}

// Takes vhost_fd, if there is one.
static int make_fronts(struct disk *disk, const struct disk_config *config, int vhost_fd, struct tv_error *err)
{
    int r = vhost_fd < 0 ? 0 : vhost_blk_create(disk, config->n_queues, vhost_fd, err);
    if (!r && config->nbd)
        r = nbd_export_create(disk, err);
    if (!r && disk->chores->has_users)
        r = chores_attach(disk, err);
    return r;
}

static struct disk *make_disk(struct store *store, const struct disk_config *config, int *fds, unsigned n_fds, struct tv_error *err)
{
    struct promise_set promises = {.resource = PROMISE_DISK};
    if (check_config(store, config, n_fds, err))
        return NULL;
    if (config->promises && promise_set_parse(&promises, PROMISE_DISK, config->promises, err)) {
        tv_error_prefix(err, "disk '%s'", config->name);
        return NULL;
    }
    int vhost_fd = -1;
    if (config->vhost >= 0) {
        vhost_fd = fds[config->vhost];
        fds[config->vhost] = -1;
    }
    struct volume_chores *chores = calloc(1, sizeof(*chores));
    struct volume *volume = chores ? build_volume(store, config, chores, fds, n_fds, err) : NULL;
    struct disk *disk = volume ? disk_create(store, config, &promises, volume, chores, err) : NULL;
    if (!chores)
        tv_error_set(err, -ENOMEM, "disk '%s': out of memory", config->name);
    else if (!volume)
        free(chores);
    if (!disk && vhost_fd >= 0)
        close(vhost_fd);
    if (!disk || !make_fronts(disk, config, vhost_fd, err))
        return disk;
    disk_destroy(disk);
    return NULL;
}

int store_add_disk(struct store *store, const struct disk_config *config, int *fds, unsigned n_fds, struct tv_error *err)
{
    struct tv_error own = {0};
    struct disk *disk = make_disk(store, config, fds, n_fds, &own);
    for (unsigned i = 0; i < n_fds; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
    if (!disk) {
        if (err)
            *err = own;
        return own.code;
    }
    *find(store, config->name) = disk;
    store_end_batch(store); // others' requests went on while its volume was opened
    log_event(LOG_INFO, "store", "disk added", LOG_STR("disk", disk->name), LOG_STR("volume", disk->volume->ops->kind),
              LOG_U64("size_bytes", disk->volume->size_bytes), LOG_U64("block_size", disk->volume->block_bytes),
              LOG_STR("mode", disk->volume->read_only ? "read-only" : "read-write"));
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

int store_snapshot_disk(struct store *store, const char *name, int overlay_fd, struct tv_error *err)
{
    struct disk *disk = *find(store, name);
    if (disk)
        return disk_snapshot(disk, overlay_fd, err);
    close(overlay_fd);
    return no_such_disk(name, err);
}

int store_absorb(struct store *store, const char *name, uint64_t offset_bytes, store_absorbed_fn *done, void *arg,
                 struct tv_error *err)
{
    struct disk *disk = *find(store, name);
    int r = disk ? absorb_start(disk, offset_bytes, done, arg, err) : no_such_disk(name, err);
    if (!r)
        store_end_batch(store);
    return r;
}

int store_settle_absorbed(struct store *store, const char *name, struct tv_error *err)
{
    struct disk *disk = *find(store, name);
    return disk ? disk_settle_absorbed(disk, err) : no_such_disk(name, err);
}

int store_blank_disk(struct store *store, const char *name, struct tv_error *err)
{
    struct disk *disk = *find(store, name);
    return disk ? disk_blank(disk, err) : no_such_disk(name, err);
}

int store_set_faults(struct store *store, const char *name, const json_t *rules, struct tv_error *err)
{
    struct disk *disk = *find(store, name);
    int r = disk ? volume_set_rules(disk->volume, rules, err) : no_such_disk(name, err);
    if (disk && r)
        tv_error_prefix(err, "disk '%s'", name);
    store_end_batch(store);
    return r;
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
    for (const struct disk *disk = store->disks; disk; disk = disk->next) {
        json_t *object = json_object();
        disk_describe(disk, object);
        json_array_append_new(list, object);
    }
    return list;
}

json_t *store_stat(const struct store *store, const char *name, bool histograms, struct tv_error *err)
{
    struct disk *disk = *find((struct store *)store, name);
    if (disk)
        return disk_stat(disk, histograms);
    no_such_disk(name, err);
    return NULL;
}

int store_nbd_listen(struct store *store, const struct store_nbd_config *config, int listen_fd, struct tv_error *err)
{
    if (!store->nbd)
        store->nbd = nbd_server_create(store, err);
    if (store->nbd)
        return nbd_server_listen(store->nbd, config, listen_fd, err);
    close(listen_fd);
    return -ENOMEM;
}

int store_nbd_close(struct store *store, const char *name, struct tv_error *err)
{
    if (store->nbd)
        return nbd_server_close(store->nbd, name, err);
    return tv_error_set(err, -ENOENT, "nbd: no listener '%s'; there is none at all", name);
}

json_t *store_nbd_list(const struct store *store)
{
    return store->nbd ? nbd_server_list(store->nbd) : json_array();
}
