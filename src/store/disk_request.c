// A disk's requests, from a front end to the volume and back: see disk.h.
#include "store/disk.h"

#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define CONTEXTS (STORE_WINDOW + DISK_STATUS_MAX)

// ---- contexts ----

int disk_make_contexts(struct disk *disk, const struct volume *volume, struct tv_error *err)
{
    const size_t each = VOLUME_CONTEXT_SIZE(volume->context_bytes ? volume->context_bytes : 1);
    void *memory = mmap(NULL, each * CONTEXTS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return tv_error_set(err, -errno, "disk '%s': memory for requests: %s", disk->name, strerror(errno));
    disk_free_contexts(disk);
    disk->contexts = memory;
    disk->context_bytes = each;
    return 0;
}

void disk_free_contexts(struct disk *disk)
{
    if (disk->contexts)
        munmap(disk->contexts, disk->context_bytes * CONTEXTS);
    disk->contexts = NULL;
    disk->free_context = NULL;
    disk->n_contexts = 0;
}

// There is always one: the dispatcher's window and the limit of requests for status see to it.
static void *get_context(struct disk *disk)
{
    void *context = disk->free_context;
    disk->n_started++;
    if (context) {
        disk->free_context = *(void **)context;
        return context;
    }
    assert(disk->n_contexts < CONTEXTS);
    return disk->contexts + disk->context_bytes * disk->n_contexts++;
}

static void put_context(struct disk *disk, void *context)
{
    disk->n_started--;
    *(void **)context = disk->free_context;
    disk->free_context = context;
}

// ---- what came of it ----

static void log_once(const struct disk *disk, bool *logged, const char *message, int result)
{
    if (*logged)
        return;
    *logged = true;
    log_event(LOG_ERROR, "store", message, LOG_STR("disk", disk->name), LOG_STR("error", strerror(-result)));
}

static void log_failure(struct disk *disk, int result)
{
    if (result == -ENOSPC || result == -EDQUOT || result == -EFBIG)
        log_once(disk, &disk->logged_full, "no room for the image to grow: its guest gets I/O errors", result);
    else if (result == -ENODATA)
        log_once(disk, &disk->logged_short, "image has become shorter than its disk: its guest gets I/O errors", result);
    else if (result != -EOPNOTSUPP)
        log_once(disk, &disk->logged_error, "I/O failed", result);
}

static void count(struct disk *disk, const struct volume_request *io, uint64_t latency_ns)
{
    struct disk_counters *c = &disk->counters;
    struct disk_latency *l = disk->latency;
    switch (io->op) {
    case VOLUME_READ:
        c->reads++;
        c->read_bytes += io->len_bytes;
        histogram_add(&l->read, latency_ns);
        break;
    case VOLUME_WRITE:
        c->writes++;
        c->written_bytes += io->len_bytes;
        histogram_add(&l->write, latency_ns);
        break;
    case VOLUME_FLUSH:
        c->flushes++;
        histogram_add(&l->flush, latency_ns);
        break;
    case VOLUME_DISCARD:
        c->discards++;
        histogram_add(&l->trim, latency_ns);
        break;
    case VOLUME_ZERO:
        c->write_zeroes++;
        histogram_add(&l->trim, latency_ns);
        break;
    case VOLUME_STATUS:
    case VOLUME_ABSORB:
        break;
    }
}

// What the device itself took, at least: less what it had before, and no less than what it adds to the device's work. (What it has
// is done side by side, so the former alone may come to nothing.)
static uint64_t own_time_ns(const struct dispatch_item *item, uint64_t took_ns)
{
    const uint64_t least_ns = item->cost_ns < took_ns ? item->cost_ns : took_ns;
    return took_ns > item->ahead_ns + least_ns ? took_ns - item->ahead_ns : least_ns;
}

// The time for which the disk's own limit held it back does not count.
static void count_latency(struct disk *disk, const struct dispatch_item *item, uint64_t now_ns)
{
    const uint64_t since_ns = item->held_ns > item->enqueued_ns ? item->held_ns : item->enqueued_ns;
    const uint64_t took_ns = now_ns - item->dispatched_ns;
    disk->promised.usage.late += now_ns - since_ns >= disk->promised.late_ns;
    disk->promised.usage.latency_ns += now_ns - since_ns;
    if (disk->store->knows_costs) // else nobody knows what of it was others' time
        device_time_add(&disk->promised.device_time, own_time_ns(item, took_ns));
}

static void finish(struct disk_request *request, int result)
{
    struct disk *disk = request->disk;
    put_context(disk, request->io.context);
    disk->n_in_flight--;
    if (result) {
        disk->counters.errors++;
        log_failure(disk, result);
    }
    request->done(request, result);
}

static void on_done(struct volume_request *io, int result)
{
    struct disk_request *request = (struct disk_request *)((char *)io - offsetof(struct disk_request, io));
    struct disk *disk = request->disk;
    struct dispatcher *d = disk->store->dispatcher;
    const uint64_t now_ns = store_now_ns(disk->store);
    d->ops->complete(d, &request->item, now_ns);
    count_latency(disk, &request->item, now_ns);
    if (!result && !request->chore)
        count(disk, io, now_ns - request->item.enqueued_ns);
    finish(request, result);
}

static void on_chore_done(struct volume_chore *chore)
{
    struct disk_request *request = chore->arg;
    on_done(&request->io, 0);
}

// ---- in ----

void disk_begin(struct disk_request *request)
{
    request->io.done = on_done;
    request->io.context = get_context(request->disk);
    if (!request->chore) {
        volume_start(request->disk->volume, &request->io);
        return;
    }
    request->chore->done = on_chore_done;
    request->chore->arg = request;
    request->chore->start(request->chore);
}

static void begin_status(struct disk_request *request);

static void on_status(struct volume_request *io, int result)
{
    struct disk_request *request = (struct disk_request *)((char *)io - offsetof(struct disk_request, io));
    struct disk *disk = request->disk;
    disk->n_status--;
    finish(request, result);
    struct disk_request *next = disk->status_waiting;
    if (!next)
        return;
    disk->status_waiting = next->link;
    if (!disk->status_waiting)
        disk->status_tail = &disk->status_waiting;
    begin_status(next);
}

static void begin_status(struct disk_request *request)
{
    struct disk *disk = request->disk;
    if (disk->n_status == DISK_STATUS_MAX) {
        request->link = NULL;
        *disk->status_tail = request;
        disk->status_tail = &request->link;
        return;
    }
    disk->n_status++;
    request->io.done = on_status;
    request->io.context = get_context(disk);
    volume_start(disk->volume, &request->io);
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    static const enum dispatch_kind kinds[] = {
        [VOLUME_READ] = DISPATCH_READ,    [VOLUME_WRITE] = DISPATCH_WRITE, [VOLUME_FLUSH] = DISPATCH_FLUSH,
        [VOLUME_DISCARD] = DISPATCH_TRIM, [VOLUME_ZERO] = DISPATCH_TRIM,   [VOLUME_ABSORB] = DISPATCH_WRITE,
    };
    request->disk = disk;
    disk->n_in_flight++;
    if (request->io.op == VOLUME_STATUS && !request->chore) {
        begin_status(request);
        return;
    }
    struct dispatch_item *item = &request->item;
    item->kind = request->chore ? DISPATCH_WRITE : kinds[request->io.op];
    item->offset_bytes = request->io.offset_bytes;
    item->len_bytes = request->io.len_bytes;
    item->enqueued_ns = store_now_ns(disk->store);
    item->cost_ns = item->ahead_ns = 0;
    item->held_ns = 0;
    struct dispatcher *d = disk->store->dispatcher;
    d->ops->enqueue(d, disk->queue, item);
}
