// One pattern at one depth and size for a time, woken by call eventfds as a guest's driver would be, or polling. JSON with rate and
// latencies.
#include "blk_driver.h"

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define SAMPLES_MAX (8u << 20)

struct bench {
    struct blk_device dev;
    struct loop *loop;
    const struct blk_options *options;
    uint64_t random, next, n_blocks, n_counted, from_ns;
    uint32_t *latency_ns;
    bool is_random, stopping;
    uint32_t type;
};

static void on_completed(struct blk_io *io)
{
    struct bench *b = io->dev->arg;
    if (io->status)
        blk_fail("status %u", io->status);
    uint64_t took_ns = clock_now_ns() - io->started_ns;
    if (b->n_counted < SAMPLES_MAX)
        b->latency_ns[b->n_counted++] = took_ns < UINT32_MAX ? (uint32_t)took_ns : UINT32_MAX;
}

static void refill(struct blk_device *dev, unsigned queue)
{
    struct bench *b = dev->arg;
    for (struct blk_io *io;
         !b->stopping && dev->queues[queue].n_in_flight < b->options->depth && (io = blk_device_get(dev, queue));) {
        b->random ^= b->random << 13;
        b->random ^= b->random >> 7;
        b->random ^= b->random << 17;
        uint64_t block = (b->is_random ? b->random : b->next++) % b->n_blocks;
        io->type = b->type;
        io->sector = block * (b->options->size_bytes / 512);
        io->len_bytes = b->options->size_bytes;
        io->shift = 0;
        blk_device_submit(io, BLK_CUT_NONE);
    }
    blk_device_kick(dev, queue);
    if (b->stopping && dev->n_completed == dev->n_submitted)
        loop_stop(b->loop);
}

static void on_end(void *arg)
{
    struct bench *b = arg;
    b->stopping = true;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void report(struct bench *b, double seconds)
{
    uint64_t n = b->n_counted;
    if (!n)
        blk_fail("nothing was done");
    qsort(b->latency_ns, n, sizeof(b->latency_ns[0]), by_value);
    printf("{\"requests\": %" PRIu64 ", \"iops\": %.1f, \"mb_per_s\": %.2f, \"p50_us\": %.2f, \"p99_us\": %.2f}\n", n,
           (double)n / seconds, (double)n * b->options->size_bytes / seconds / 1e6, b->latency_ns[n / 2] / 1e3,
           b->latency_ns[n * 99 / 100] / 1e3);
}

static void on_poll(void *arg)
{
    blk_device_poll(arg);
}

int blk_bench(const struct blk_options *options)
{
    static struct bench b;
    struct tv_error err = {0};
    b.options = options;
    b.is_random = !strncmp(options->pattern, "rand", 4);
    b.type = strstr(options->pattern, "write") ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
    b.random = options->seed | 1;
    b.latency_ns = malloc(SAMPLES_MAX * sizeof(b.latency_ns[0]));
    b.loop = loop_create(&err);
    if (!b.loop || !b.latency_ns)
        blk_fail("%s", err.text);
    b.dev = (struct blk_device){.completed = on_completed, .batch_done = refill, .arg = &b, .polls = options->polls};
    blk_device_open(&b.dev, b.loop, options->socket, options->n_queues, options->refused);
    b.n_blocks = b.dev.capacity_sectors * 512 / options->size_bytes;
    struct loop_source *end = loop_add_timer(b.loop, on_end, &b, &err);
    if (!end || !b.n_blocks)
        blk_fail("%s", b.n_blocks ? err.text : "the disk is smaller than a request");
    loop_set_timer(end, options->seconds * NS_PER_S, 0);
    if (options->polls)
        loop_set_poll(b.loop, on_poll, &b.dev);
    b.from_ns = clock_now_ns();
    for (unsigned i = 0; i < options->n_queues; i++)
        refill(&b.dev, i);
    loop_run(b.loop);
    report(&b, (double)(clock_now_ns() - b.from_ns) / 1e9);
    blk_device_close(&b.dev);
    loop_remove(end);
    loop_destroy(b.loop);
    free(b.latency_ns);
    return 0;
}
