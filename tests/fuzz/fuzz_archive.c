// Any bytes as a file of verdicts: refused, or taken; then promises go on with what it has, are judged and saved, and what is
// written is read again as the same. Input: a byte (1: checksums are made good first), then the file.
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "promise/archive.h"

enum { HOLDERS = 3, BLOCK = 4096, SECTOR = 512, BLOCKS_MAX = 6 };
static const char *const names[HOLDERS] = {"db", "a", "hog"};
static const struct promise_moment then = {.now_ns = 1000000000000, .unix_ms = 1800000000000};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_check(uint8_t *sector, size_t at, uint32_t seed)
{
    memset(sector + at, 0, 4);
    const uint32_t check = (uint32_t)crc32_z(seed, sector, SECTOR);
    memcpy(sector + at, &check, sizeof(check));
}

// Each block is that of one of the names.
static void make_good(uint8_t *file, size_t n_blocks)
{
    memcpy(file, "TVERDICT\1\0\0", 12);
    put_check(file, 12, 0);
    for (size_t i = 1; i < n_blocks; i++) {
        uint8_t *block = file + i * BLOCK;
        memcpy(block, "TVRD", 4);
        memset(block + 8, 0, 64);
        strcpy((char *)block + 8, names[i % HOLDERS]);
        put_check(block, 4, 0);
        const uint32_t seed = (uint32_t)crc32_z(0, block + 8, 66);
        for (size_t s = 1; s < BLOCK / SECTOR; s++)
            put_check(block + s * SECTOR, 0, seed);
    }
}

static struct promise_watch *new_watch(struct promise_archive *a, uint32_t slots[static HOLDERS])
{
    static const struct promise_watch_options options = {PROMISE_WATCH_DEFAULTS, .holders_max = HOLDERS};
    struct promise_watch *w = promise_watch_create(&options, then.now_ns);
    struct promise_set set;
    assert(!promise_set_parse(&set, PROMISE_DISK, "reserve: 40MB/s, latency: p99 < 5ms, limit: 5k iops, weight: 3", NULL));
    for (unsigned i = 0; i < HOLDERS; i++) {
        assert(!promise_watch_join(w, names[i], &set, then.now_ns, &slots[i], NULL));
        promise_archive_resume(a, w, slots[i], &then);
    }
    return w;
}

static void check(const struct promise_watch *w, uint32_t slot)
{
    struct promise_verdict v[PROMISE_SET_MAX];
    const unsigned n = promise_watch_verdicts(w, slot, v);
    for (unsigned i = 0; i < n; i++) {
        assert(strlen(v[i].held_by) < PROMISE_NAME_MAX && strlen(v[i].last.held_by) < PROMISE_NAME_MAX);
        assert(!v[i].kept || (v[i].lack == 0 && v[i].held == 0 && !v[i].held_by[0]));
        assert(v[i].all.broken_ms <= v[i].all.judged_ms);
    }
}

// What is written last is what the next one finds.
static void check_written(struct promise_archive *a, uint32_t *slots, uint8_t *file, size_t *len)
{
    uint64_t offset;
    uint8_t piece[BLOCK];
    for (size_t n; (n = promise_archive_take(a, piece, sizeof(piece), &offset));) {
        assert(offset + n <= (BLOCKS_MAX + HOLDERS * PROMISE_SET_MAX) * BLOCK);
        memcpy(file + offset, piece, n);
        *len = offset + n > *len ? offset + n : *len;
    }
    struct promise_archive *next = promise_archive_create();
    assert(!promise_archive_load(next, file, *len, NULL));
    struct promise_watch *w = new_watch(next, slots);
    for (unsigned i = 0; i < HOLDERS; i++) {
        struct promise_verdict v[PROMISE_SET_MAX];
        assert(promise_watch_verdicts(w, slots[i], v) == 4);
        for (unsigned j = 0; j < 4; j++)
            assert(v[j].all.judged_ms >= 1000); // of go_on()
    }
    promise_watch_destroy(w);
    promise_archive_destroy(next);
}

static void go_on(struct promise_watch *w, struct promise_archive *a, const uint32_t slots[static HOLDERS])
{
    static const struct promise_sample sample = {.amount = {1 << 20, 100, 50, 300000000}, .waited_ns = 1000000000};
    const struct promise_moment m = {.now_ns = then.now_ns + 1000000000, .unix_ms = then.unix_ms + 1000};
    for (unsigned i = 0; i < HOLDERS; i++)
        promise_watch_add(w, slots[i], &sample);
    promise_watch_tick(w, m.now_ns);
    for (unsigned i = 0; i < HOLDERS; i++) {
        check(w, slots[i]);
        assert(!promise_archive_save(a, w, slots[i], &m));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[(BLOCKS_MAX + HOLDERS * PROMISE_SET_MAX) * BLOCK];
    uint32_t slots[HOLDERS];
    size_t len = size ? size - 1 : 0;
    len = len < BLOCKS_MAX * BLOCK ? len : BLOCKS_MAX * BLOCK;
    memset(file, 0, sizeof(file));
    if (len)
        memcpy(file, data + 1, len);
    if (size && data[0] & 1)
        make_good(file, (len + BLOCK - 1) / BLOCK);
    struct promise_archive *a = promise_archive_create();
    if (!promise_archive_load(a, file, len, NULL)) {
        struct promise_watch *w = new_watch(a, slots);
        for (unsigned i = 0; i < HOLDERS; i++)
            check(w, slots[i]);
        go_on(w, a, slots);
        promise_watch_destroy(w);
        check_written(a, slots, file, &len);
    }
    promise_archive_destroy(a);
    return 0;
}
