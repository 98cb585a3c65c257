// Archives of verdicts: which block is whose, and what of the file is to be written. See archive.h.
#include "promise/archive_block.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_MAX (PROMISE_ARCHIVE_BYTES_MAX / ARCHIVE_BLOCK_BYTES)
#define FORGET_MS (86400ull * 1000)
#define JITTER_MS 1000u // by so much two clocks are read apart, or drift between two looks

_Static_assert(ARCHIVE_SECTORS == 8, "a bit for each in a byte");

// Invariant: n_blocks is 0, or block 0 is the file's head.
struct promise_archive {
    uint8_t *blocks;  // n_blocks of ARCHIVE_BLOCK_BYTES
    uint8_t *changed; // a bit for each sector
    size_t n_blocks, room;
    uint64_t zero_ms; // unix_ms at the zero of the other clock
};

struct promise_archive *promise_archive_create(void)
{
    return calloc(1, sizeof(struct promise_archive));
}

void promise_archive_destroy(struct promise_archive *a)
{
    if (!a)
        return;
    free(a->blocks);
    free(a->changed);
    free(a);
}

static uint8_t *block_at(const struct promise_archive *a, size_t i)
{
    return a->blocks + i * ARCHIVE_BLOCK_BYTES;
}

static int reserve(struct promise_archive *a, size_t n)
{
    if (n <= a->room)
        return 0;
    const size_t room = n < a->room * 2 ? a->room * 2 : n < 8 ? 8 : n;
    void *grown = realloc(a->blocks, room * ARCHIVE_BLOCK_BYTES);
    if (!grown)
        return -ENOMEM;
    a->blocks = grown;
    grown = realloc(a->changed, room);
    if (!grown)
        return -ENOMEM;
    a->changed = grown;
    memset(a->blocks + a->room * ARCHIVE_BLOCK_BYTES, 0, (room - a->room) * ARCHIVE_BLOCK_BYTES);
    memset(a->changed + a->room, 0, room - a->room);
    a->room = room;
    return 0;
}

static bool is_zeroes(const uint8_t *bytes, size_t len_bytes)
{
    return !len_bytes || (!bytes[0] && !memcmp(bytes, bytes + 1, len_bytes - 1));
}

// A file whose writer died before any of it was written is empty, or all zeroes as far as it goes.
int promise_archive_load(struct promise_archive *a, const void *bytes, size_t len_bytes, struct tv_error *err)
{
    uint8_t head[ARCHIVE_BLOCK_BYTES] = {0};
    const size_t used = len_bytes < PROMISE_ARCHIVE_BYTES_MAX ? len_bytes : PROMISE_ARCHIVE_BYTES_MAX;
    if (!used)
        return 0;
    memcpy(head, bytes, used < sizeof(head) ? used : sizeof(head));
    if (is_zeroes(head, sizeof(head)))
        return 0;
    int r = archive_head_decode(head, err);
    if (r)
        return r;
    const size_t n = (used + ARCHIVE_BLOCK_BYTES - 1) / ARCHIVE_BLOCK_BYTES;
    if (reserve(a, n))
        return tv_error_set(err, -ENOMEM, "out of memory");
    memcpy(a->blocks, bytes, used);
    a->n_blocks = n;
    for (size_t i = 1; i < n; i++)
        if (!archive_block_is_good(block_at(a, i)))
            memset(block_at(a, i), 0, ARCHIVE_BLOCK_BYTES);
    return 0;
}

// ---- whose block ----

static void key_of(struct archive_key *key, const char *name, const struct promise *p)
{
    *key = (struct archive_key){.kind = p->kind, .metric = p->metric};
    strcpy(key->name, name); // both are as long
}

static bool has_key(const struct promise_archive *a, size_t i, const struct archive_key *key)
{
    struct archive_key its;
    return i && i < a->n_blocks && archive_block_key(block_at(a, i), &its) && its.kind == key->kind && its.metric == key->metric &&
           !strcmp(its.name, key->name);
}

// 0: it has none.
static size_t find(const struct promise_archive *a, const struct archive_key *key)
{
    for (size_t i = 1; i < a->n_blocks; i++)
        if (has_key(a, i, key))
            return i;
    return 0;
}

static bool is_free(const struct promise_archive *a, size_t i, uint64_t unix_ms)
{
    struct archive_key key;
    if (!archive_block_key(block_at(a, i), &key))
        return true;
    const uint64_t time_ms = archive_block_time_ms(block_at(a, i));
    return time_ms < unix_ms && unix_ms - time_ms > FORGET_MS;
}

// Whoever is saved makes its block young, so what is not saved any more is what is found.
static int take_free(struct promise_archive *a, uint64_t unix_ms, size_t *place)
{
    size_t i = 1;
    while (i < a->n_blocks && !is_free(a, i, unix_ms))
        i++;
    if (i == BLOCKS_MAX)
        return -ENOSPC;
    if (reserve(a, i + 1))
        return -ENOMEM;
    if (!a->n_blocks) {
        archive_head_encode(a->blocks);
        a->changed[0] = 0xff;
    }
    a->n_blocks = i < a->n_blocks ? a->n_blocks : i + 1;
    memset(block_at(a, i), 0, ARCHIVE_BLOCK_BYTES);
    a->changed[i] = 0xff;
    *place = i;
    return 0;
}

// ---- going on ----

// Two clocks that are read one after the other are never quite as far apart as the last time, and what is written would change
// by that alone.
static struct promise_moment steady(struct promise_archive *a, const struct promise_moment *m)
{
    const uint64_t zero_ms = m->unix_ms - m->now_ns / NS_PER_MS, off_ms = zero_ms - a->zero_ms + JITTER_MS;
    if (off_ms > 2 * JITTER_MS)
        a->zero_ms = zero_ms;
    return (struct promise_moment){.now_ns = m->now_ns, .unix_ms = a->zero_ms + m->now_ns / NS_PER_MS};
}

// One that has gone on since is the same one.
static void join_breach(struct track *before, const struct track *since)
{
    const struct promise_breach first = before->last;
    if (!since->last.broken_ms)
        return;
    if (before->kept || since->kept || first.lack <= since->last.lack)
        before->last = since->last;
    if (before->kept || since->kept)
        return;
    before->last.since_ns = first.since_ns;
    before->last.broken_ms = first.broken_ms + since->last.broken_ms;
}

// What a promise has had since it was made, put behind what it had before.
static void join_record(struct track *before, const struct track *since)
{
    const struct promise_record *all = &since->record.all;
    record_add(&before->record, (all->judged_ms - all->broken_ms) * NS_PER_MS, false);
    record_add(&before->record, all->broken_ms * NS_PER_MS, true);
    join_breach(before, since);
    if (!all->judged_ms)
        return;
    const uint64_t since_ns = before->kept == since->kept ? before->since_ns : since->since_ns;
    struct record record = before->record;
    struct promise_breach last = before->last;
    *before = *since;
    before->since_ns = since_ns;
    before->record = record;
    before->last = last;
}

void promise_archive_resume(struct promise_archive *a, struct promise_watch *w, uint32_t slot, const struct promise_moment *m)
{
    struct holder *h = w->holders[slot];
    const struct promise_moment now = steady(a, m);
    for (unsigned i = 0; i < h->set.n; i++) {
        struct track *t = &h->tracks[i], before = *t;
        struct archive_key key;
        key_of(&key, h->name, &t->promise);
        const size_t place = t->place ? 0 : find(a, &key);
        if (!place)
            continue;
        before.place = (uint32_t)place;
        archive_block_decode(block_at(a, place), &key, &before, &now);
        join_record(&before, t);
        before.place = (uint32_t)place;
        *t = before;
    }
}

static void mark_changes(struct promise_archive *a, size_t place, const uint8_t before[static ARCHIVE_BLOCK_BYTES])
{
    for (unsigned i = 0; i < ARCHIVE_SECTORS; i++)
        if (memcmp(block_at(a, place) + i * ARCHIVE_SECTOR_BYTES, before + i * ARCHIVE_SECTOR_BYTES, ARCHIVE_SECTOR_BYTES))
            a->changed[place] |= (uint8_t)(1u << i);
}

static int save_track(struct promise_archive *a, const char *name, struct track *t, const struct promise_moment *m)
{
    uint8_t before[ARCHIVE_BLOCK_BYTES];
    struct archive_key key;
    key_of(&key, name, &t->promise);
    size_t place = t->place;
    if (!has_key(a, place, &key) && !(place = find(a, &key))) {
        const int r = take_free(a, m->unix_ms, &place);
        if (r)
            return r;
    }
    memcpy(before, block_at(a, place), sizeof(before));
    t->place = (uint32_t)place;
    archive_block_encode(block_at(a, place), &key, t, m);
    mark_changes(a, place, before);
    return 0;
}

int promise_archive_save(struct promise_archive *a, struct promise_watch *w, uint32_t slot, const struct promise_moment *m)
{
    struct holder *h = w->holders[slot];
    const struct promise_moment now = steady(a, m);
    int r = 0;
    for (unsigned i = 0; i < h->set.n && !r; i++) {
        record_advance(&h->tracks[i].record, m->now_ns);
        r = save_track(a, h->name, &h->tracks[i], &now);
    }
    return r;
}

// ---- what is to be written ----

static bool is_changed(const struct promise_archive *a, size_t sector)
{
    return a->changed[sector / ARCHIVE_SECTORS] >> sector % ARCHIVE_SECTORS & 1;
}

size_t promise_archive_take(struct promise_archive *a, void *bytes, size_t size, uint64_t *offset_bytes)
{
    const size_t n = a->n_blocks * ARCHIVE_SECTORS, most = size / ARCHIVE_SECTOR_BYTES;
    size_t first = 0;
    while (first < n && !a->changed[first / ARCHIVE_SECTORS])
        first += ARCHIVE_SECTORS;
    while (first < n && !is_changed(a, first))
        first++;
    size_t end = first;
    for (; end < n && end - first < most && is_changed(a, end); end++)
        a->changed[end / ARCHIVE_SECTORS] &= (uint8_t) ~(1u << end % ARCHIVE_SECTORS);
    *offset_bytes = first * ARCHIVE_SECTOR_BYTES;
    if (end > first)
        memcpy(bytes, a->blocks + *offset_bytes, (end - first) * ARCHIVE_SECTOR_BYTES);
    return (end - first) * ARCHIVE_SECTOR_BYTES;
}

void promise_archive_untake(struct promise_archive *a, uint64_t offset_bytes, size_t len_bytes)
{
    const size_t first = offset_bytes / ARCHIVE_SECTOR_BYTES;
    for (size_t i = 0; i < len_bytes / ARCHIVE_SECTOR_BYTES; i++)
        a->changed[(first + i) / ARCHIVE_SECTORS] |= (uint8_t)(1u << (first + i) % ARCHIVE_SECTORS);
}
