// Random reads, writes, write-zeroes, discards and flushes at full depth, never two at once on the same sectors. Each sector that
// is written carries its number and the number of its write; each sector that is read must carry the last write that was answered.
// The back end may die at any time: what was in flight must be answered once, and what was answered must stay. SIGUSR1 ends it
// early.
//
// With --errors requests may fail: what a failed one has written is not known, and after a flush that failed none may succeed that
// was begun later. With --stalls the result says when the first answer came after each time that the back end was there again, by
// the monotonic clock.
#include "blk_driver.h"

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define SECTOR 512u
#define ANY UINT64_MAX // discarded: any content will do
#define RESUMED_MOST 4096u
#define SILENCE_NS (200 * NS_PER_S)

struct stamp {
    uint64_t magic, sector, generation;
};
#define MAGIC 0x5452495645545354ull

struct verify {
    struct blk_device dev;
    struct loop *loop;
    const struct blk_options *options;
    uint64_t n_sectors, left, number, random;
    uint64_t *generation; // of each sector: number of its last answered write; 0: zeroes; ANY
    uint8_t *busy;        // sectors with a request in flight
    struct loop_source *watch, *stop;
    uint64_t seen_completed;
    uint64_t n_errors, n_failed_flushes;
    uint64_t failed_flush; // the number that requests had when a flush had failed first; 0: none has
    uint64_t resumed_ns[RESUMED_MOST];
    unsigned n_resumed;
    uint64_t seen_attached;
};

static uint64_t next_random(struct verify *v)
{
    v->random ^= v->random << 13;
    v->random ^= v->random >> 7;
    v->random ^= v->random << 17;
    return v->random;
}

static void stamp_sector(uint8_t *bytes, uint64_t sector, uint64_t generation)
{
    struct stamp stamp = {MAGIC, sector, generation};
    for (unsigned at = 0; at + sizeof(stamp) <= SECTOR; at += (unsigned)sizeof(stamp))
        memcpy(bytes + at, &stamp, sizeof(stamp));
    memset(bytes + SECTOR - SECTOR % sizeof(stamp), (int)(generation & 0xff), SECTOR % sizeof(stamp));
}

static void check_sector(const struct verify *v, const uint8_t *bytes, uint64_t sector)
{
    uint8_t expected[SECTOR] = {0};
    uint64_t generation = v->generation[sector];
    if (generation == ANY)
        return;
    if (generation)
        stamp_sector(expected, sector, generation);
    if (!memcmp(bytes, expected, SECTOR))
        return;
    struct stamp found;
    memcpy(&found, bytes, sizeof(found));
    blk_fail("sector %" PRIu64 ": expected write %" PRIu64 ", found %s write %" PRIu64 " of sector %" PRIu64, sector, generation,
             found.magic == MAGIC ? "" : "garbage instead of", found.generation, found.sector);
}

static void note_resumption(struct verify *v)
{
    if (v->seen_attached == v->dev.n_attached)
        return;
    v->seen_attached = v->dev.n_attached;
    if (v->n_resumed < RESUMED_MOST)
        v->resumed_ns[v->n_resumed++] = clock_now_ns();
}

static void check_flush(struct verify *v, const struct blk_io *io)
{
    if (io->status) {
        v->n_failed_flushes++;
        v->failed_flush = v->failed_flush ? v->failed_flush : v->number;
    } else if (v->failed_flush && io->number > v->failed_flush) {
        blk_fail("flush %" PRIu64 " succeeded, although one had failed before", io->number);
    }
}

static void on_completed(struct blk_io *io)
{
    struct verify *v = io->dev->arg;
    uint64_t n = io->len_bytes / SECTOR;
    note_resumption(v);
    v->n_errors += io->status != 0;
    if (io->status && !v->options->may_fail)
        blk_fail("request %" PRIu64 " of type %" PRIu32 " at sector %" PRIu64 ": status %u", io->number, io->type, io->sector,
                 io->status);
    if (io->type == VIRTIO_BLK_T_DISCARD || io->type == VIRTIO_BLK_T_WRITE_ZEROES) {
        struct virtio_blk_discard_write_zeroes range;
        memcpy(&range, io->data, sizeof(range));
        n = range.num_sectors;
        io->sector = range.sector;
    }
    if (io->type == VIRTIO_BLK_T_FLUSH) {
        check_flush(v, io);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t sector = io->sector + i;
        if (io->type == VIRTIO_BLK_T_IN && !io->status)
            check_sector(v, io->data + io->shift + i * SECTOR, sector);
        else if (io->type != VIRTIO_BLK_T_IN && io->status)
            v->generation[sector] = ANY;
        else if (io->type != VIRTIO_BLK_T_IN)
            v->generation[sector] = io->type == VIRTIO_BLK_T_OUT ? io->number : io->type == VIRTIO_BLK_T_WRITE_ZEROES ? 0 : ANY;
        v->busy[sector] = 0;
    }
}

// A range of 1 to 128 sectors on which nothing is in flight.
static void choose_range(struct verify *v, uint64_t *sector, uint32_t *n)
{
    uint32_t unit = v->dev.block_size_bytes / SECTOR;
    for (;;) {
        *n = (uint32_t)(next_random(v) % (64u << 10) / SECTOR + 1 + unit - 1) / unit * unit;
        *sector = next_random(v) % (v->n_sectors - *n) / unit * unit;
        if (!memchr(v->busy + *sector, 1, *n))
            return;
    }
}

static void start_one(struct verify *v, struct blk_io *io)
{
    unsigned dice = (unsigned)(next_random(v) % 100);
    uint64_t features = v->dev.features;
    uint32_t n;
    io->number = ++v->number;
    io->shift = next_random(v) % 8 ? 0 : (uint32_t)(next_random(v) % 4096); // memory that direct I/O cannot take, now and then
    choose_range(v, &io->sector, &n);
    io->len_bytes = n * SECTOR;
    io->type = VIRTIO_BLK_T_OUT;
    if (dice < 40)
        io->type = VIRTIO_BLK_T_IN;
    else if (dice < 44 && (features >> VIRTIO_BLK_F_FLUSH & 1))
        io->type = VIRTIO_BLK_T_FLUSH;
    else if (dice < 47 && (features >> VIRTIO_BLK_F_WRITE_ZEROES & 1))
        io->type = VIRTIO_BLK_T_WRITE_ZEROES;
    else if (dice < 50 && (features >> VIRTIO_BLK_F_DISCARD & 1))
        io->type = VIRTIO_BLK_T_DISCARD;
    if (io->type == VIRTIO_BLK_T_FLUSH)
        io->sector = 0, io->len_bytes = 0;
    else
        memset(v->busy + io->sector, 1, n);
    if (io->type == VIRTIO_BLK_T_OUT)
        for (uint32_t i = 0; i < n; i++)
            stamp_sector(io->data + io->shift + i * SECTOR, io->sector + i, io->number);
    if (io->type == VIRTIO_BLK_T_DISCARD || io->type == VIRTIO_BLK_T_WRITE_ZEROES) {
        struct virtio_blk_discard_write_zeroes range = {.sector = io->sector, .num_sectors = n};
        if (io->type == VIRTIO_BLK_T_WRITE_ZEROES && dice & 1)
            range.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        memcpy(io->data, &range, sizeof(range));
        io->shift = 0;
        io->sector = 0;
        io->len_bytes = sizeof(range);
    }
    blk_device_submit(io, (enum blk_cut)(next_random(v) % 3));
}

static void refill(struct blk_device *dev, unsigned queue)
{
    struct verify *v = dev->arg;
    for (struct blk_io *io; v->left && dev->queues[queue].n_in_flight < v->options->depth && (io = blk_device_get(dev, queue));) {
        v->left--;
        start_one(v, io);
    }
    blk_device_kick(dev, queue);
    if (!v->left && dev->n_completed == dev->n_submitted)
        loop_stop(v->loop);
}

static void on_stop_asked(void *arg, int signo)
{
    struct verify *v = arg;
    (void)signo;
    v->left = 0;
    if (v->dev.n_completed == v->dev.n_submitted)
        loop_stop(v->loop);
}

static void on_watch(void *arg)
{
    struct verify *v = arg;
    if (v->seen_completed == v->dev.n_completed)
        blk_fail("nothing was completed for 200 s; %" PRIu64 " requests are lost", v->dev.n_submitted - v->dev.n_completed);
    v->seen_completed = v->dev.n_completed;
    fprintf(stderr, "%" PRIu64 " requests done\n", v->dev.n_completed);
}

// At the end, and after a last flush: every sector once more.
static void check_all(struct verify *v)
{
    uint8_t *bytes = malloc(64u << 10);
    v->dev.completed = NULL;
    v->dev.batch_done = NULL;
    if (v->dev.features >> VIRTIO_BLK_F_FLUSH & 1) {
        const bool failed = blk_device_do(&v->dev, VIRTIO_BLK_T_FLUSH, 0, NULL, 0) != 0;
        if (failed && !v->options->may_fail)
            blk_fail("the last flush failed");
        if (!failed && v->failed_flush)
            blk_fail("the last flush succeeded, although one had failed before");
    }
    for (uint64_t sector = 0; sector < v->n_sectors; sector += 128) {
        uint32_t n = v->n_sectors - sector < 128 ? (uint32_t)(v->n_sectors - sector) : 128;
        const bool failed = blk_device_do(&v->dev, VIRTIO_BLK_T_IN, sector, bytes, n * SECTOR) != 0;
        if (failed && !v->options->may_fail)
            blk_fail("cannot read sector %" PRIu64, sector);
        for (uint32_t i = 0; i < n && !failed; i++)
            check_sector(v, bytes + i * SECTOR, sector + i);
    }
    free(bytes);
}

static void print_result(const struct verify *v)
{
    printf("{\"submitted\": %" PRIu64 ", \"completed\": %" PRIu64 ", \"connections\": %" PRIu64 ", \"errors\": %" PRIu64
           ", \"failed_flushes\": %" PRIu64,
           v->dev.n_submitted, v->dev.n_completed, v->dev.n_attached, v->n_errors, v->n_failed_flushes);
    for (unsigned i = 0; i < v->n_resumed && v->options->tells_stalls; i++)
        printf("%s%" PRIu64, i ? ", " : ", \"resumed_ns\": [", v->resumed_ns[i]);
    puts(v->n_resumed && v->options->tells_stalls ? "]}" : "}");
}

int blk_verify(const struct blk_options *options)
{
    static struct verify v;
    struct tv_error err = {0};
    v.options = options;
    v.left = options->n_requests;
    v.random = options->seed * 0x9e3779b97f4a7c15ull | 1;
    v.loop = loop_create(&err);
    if (!v.loop)
        blk_fail("%s", err.text);
    v.stop = loop_add_signal(v.loop, SIGUSR1, on_stop_asked, &v, &err);
    v.dev = (struct blk_device){.completed = on_completed, .batch_done = refill, .arg = &v};
    blk_device_open(&v.dev, v.loop, options->socket, options->n_queues, options->refused);
    v.n_sectors = v.dev.capacity_sectors;
    v.generation = calloc(v.n_sectors, sizeof(v.generation[0])); // a fresh image: zeroes
    v.busy = calloc(v.n_sectors, 1);
    v.watch = loop_add_timer(v.loop, on_watch, &v, &err);
    if (!v.generation || !v.busy || !v.watch || !v.stop)
        blk_fail("out of memory");
    loop_set_timer(v.watch, SILENCE_NS, SILENCE_NS);
    for (unsigned i = 0; i < options->n_queues; i++)
        refill(&v.dev, i);
    loop_run(v.loop);
    loop_set_timer(v.watch, 0, 0);
    check_all(&v);
    print_result(&v);
    blk_device_close(&v.dev);
    loop_remove(v.watch);
    loop_remove(v.stop);
    loop_destroy(v.loop);
    free(v.generation);
    free(v.busy);
    return 0;
}
