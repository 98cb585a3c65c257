// A mixed load for a time, as a guest's programs would make it: reads and writes, small and large, in sequence and at random. A
// line of JSON for each interval of the monotonic clock, at its multiples, so that the lines of several drivers are of the same
// time:
// {"at_ms": its end, "requests", "bytes", "latency": as of histogram_encode(), in ns}.
#include "blk_driver.h"

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/histogram.h"

struct load {
    struct blk_device dev;
    struct loop *loop;
    const struct blk_options *options;
    uint64_t random, next_sector, end_ns, requests, bytes;
    struct histogram latency;
    bool stopping;
};

static uint32_t below(struct load *l, uint64_t n)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return (uint32_t)((l->random >> 16) % n);
}

static void on_completed(struct blk_io *io)
{
    struct load *l = io->dev->arg;
    if (io->status)
        blk_fail("status %u", io->status);
    l->requests++;
    l->bytes += io->len_bytes;
    histogram_add(&l->latency, clock_now_ns() - io->started_ns);
}

// Aligned to its own size, as file systems and databases have it.
static void set_place(struct load *l, struct blk_io *io)
{
    const struct blk_options *o = l->options;
    const bool is_large = o->large_bytes && below(l, 1000) < o->large_permille;
    io->len_bytes = is_large ? o->large_bytes : o->size_bytes;
    const uint64_t sectors = io->len_bytes / 512, places = l->dev.capacity_sectors / sectors;
    io->sector = below(l, 1000) < o->sequential_permille ? l->next_sector : below(l, places) * sectors;
    if (io->sector + sectors > l->dev.capacity_sectors)
        io->sector = 0;
    l->next_sector = io->sector + sectors;
}

static void refill(struct blk_device *dev, unsigned queue)
{
    struct load *l = dev->arg;
    for (struct blk_io *io;
         !l->stopping && dev->queues[queue].n_in_flight < l->options->depth && (io = blk_device_get(dev, queue));) {
        set_place(l, io);
        io->type = below(l, 1000) < l->options->read_permille ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
        io->shift = 0;
        blk_device_submit(io, BLK_CUT_NONE);
    }
    blk_device_kick(dev, queue);
    if (l->stopping && dev->n_completed == dev->n_submitted)
        loop_stop(l->loop);
}

static void on_interval(void *arg)
{
    struct load *l = arg;
    const uint64_t now_ns = clock_now_ns(), interval_ns = l->options->interval_ms * NS_PER_MS;
    json_t *latency = histogram_encode(&l->latency);
    char *text = json_dumps(latency, JSON_COMPACT);
    printf("{\"at_ms\": %" PRIu64 ", \"requests\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"latency\": %s}\n",
           now_ns / interval_ns * l->options->interval_ms, l->requests, l->bytes, text);
    fflush(stdout);
    free(text);
    json_decref(latency);
    histogram_reset(&l->latency);
    l->requests = l->bytes = 0;
    l->stopping = now_ns >= l->end_ns;
}

int blk_load(const struct blk_options *options)
{
    static struct load l;
    struct tv_error err = {0};
    l.options = options;
    l.random = options->seed * 0x9e3779b97f4a7c15u | 1;
    l.loop = loop_create(&err);
    if (!l.loop)
        blk_fail("%s", err.text);
    l.dev = (struct blk_device){.completed = on_completed, .batch_done = refill, .arg = &l};
    blk_device_open(&l.dev, l.loop, options->socket, options->n_queues, options->refused);
    if (l.dev.capacity_sectors < options->size_bytes / 512 || l.dev.capacity_sectors < options->large_bytes / 512)
        blk_fail("the disk is smaller than a request");
    struct loop_source *timer = loop_add_timer(l.loop, on_interval, &l, &err);
    if (!timer)
        blk_fail("%s", err.text);
    const uint64_t interval_ns = options->interval_ms * NS_PER_MS, now_ns = clock_now_ns();
    l.end_ns = now_ns + options->seconds * NS_PER_S;
    loop_set_timer(timer, interval_ns - now_ns % interval_ns, interval_ns);
    for (unsigned i = 0; i < options->n_queues; i++)
        refill(&l.dev, i);
    loop_run(l.loop);
    blk_device_close(&l.dev);
    loop_remove(timer);
    loop_destroy(l.loop);
    return 0;
}
