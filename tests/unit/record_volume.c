// A volume that can be cut off: see record_volume.h.
#include "record_volume.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BLOCK 4096u
#define SECTOR 512u

struct record_entry {
    uint64_t offset_bytes, len_bytes;
    uint8_t *bytes; // NULL: zeroes
    bool is_stable, goes_along;
};

uint64_t record_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void apply(uint8_t *to, const struct record_entry *e)
{
    if (e->bytes)
        memcpy(to + e->offset_bytes, e->bytes, e->len_bytes);
    else
        memset(to + e->offset_bytes, 0, e->len_bytes);
}

static void touch(struct record_volume *r, const struct record_entry *e)
{
    for (uint64_t b = e->offset_bytes / BLOCK; b * BLOCK < e->offset_bytes + e->len_bytes; b++)
        r->touched[b / 64] |= 1ull << b % 64;
}

static struct record_entry entry_of(const struct volume_request *q)
{
    struct record_entry e = {.offset_bytes = q->offset_bytes, .len_bytes = q->len_bytes};
    if (q->op == VOLUME_WRITE) {
        e.bytes = malloc(q->len_bytes);
        volume_data_read(q->data, e.bytes, q->len_bytes);
    } else if (q->op == VOLUME_DISCARD) { // it reads as anything
        e.bytes = malloc(q->len_bytes);
        memset(e.bytes, 0xa5, q->len_bytes);
    }
    return e;
}

static void make_stable(struct record_volume *r, unsigned from, unsigned end)
{
    for (unsigned i = from; i < end; i++) {
        if (!r->entries[i].is_stable)
            apply(r->stable, &r->entries[i]);
        r->entries[i].is_stable = true;
    }
}

static bool overlap(const struct record_entry *a, const struct record_entry *b)
{
    return a->offset_bytes < b->offset_bytes + b->len_bytes && b->offset_bytes < a->offset_bytes + a->len_bytes;
}

// A later write is never undone by an earlier one: what lies below it becomes stable as well, and what lies below that.
static void make_durable(struct record_volume *r, unsigned index)
{
    for (unsigned i = index; i-- > 0;) {
        r->entries[i].goes_along = false;
        for (unsigned j = i + 1; j <= index && !r->entries[i].is_stable && !r->entries[i].goes_along; j++)
            r->entries[i].goes_along = (j == index || r->entries[j].goes_along) && overlap(&r->entries[i], &r->entries[j]);
    }
    for (unsigned i = 0; i < index; i++)
        if (r->entries[i].goes_along)
            make_stable(r, i, i + 1);
    make_stable(r, index, index + 1);
}

static int carry_out(struct record_volume *r, struct volume_request *q, unsigned from)
{
    switch (q->op) {
    case VOLUME_READ:
        r->n_reads++;
        if (q->offset_bytes < r->unreadable_end && r->unreadable_from < q->offset_bytes + q->len_bytes)
            return -EIO;
        volume_data_write(q->data, r->now + q->offset_bytes, q->len_bytes);
        return 0;
    case VOLUME_FLUSH:
        if (!r->flush_error)
            make_stable(r, 0, from);
        return r->flush_error;
    case VOLUME_STATUS:
        q->extent = (struct volume_extent){.len_bytes = q->len_bytes};
        return 0;
    default:
        break;
    }
    if (r->write_error)
        return r->write_error;
    if (q->op == VOLUME_ZERO && q->only_fast && r->refuses_fast)
        return -EOPNOTSUPP;
    if (q->offset_bytes <= r->unreadable_from && q->offset_bytes + q->len_bytes >= r->unreadable_end)
        r->unreadable_end = 0;
    r->entries = realloc(r->entries, (r->n_entries + 1) * sizeof(*r->entries));
    r->entries[r->n_entries] = entry_of(q);
    apply(r->now, &r->entries[r->n_entries]);
    touch(r, &r->entries[r->n_entries++]);
    if (q->durable)
        make_durable(r, r->n_entries - 1);
    return 0;
}

bool record_volume_pump(struct record_volume *r)
{
    if (!r->n_held)
        return false;
    const unsigned i = (unsigned)(record_random(&r->random) % r->n_held);
    struct volume_request *q = r->held[i];
    const unsigned from = r->held_from[i];
    r->held[i] = r->held[--r->n_held];
    r->held_from[i] = r->held_from[r->n_held];
    q->done(q, carry_out(r, q, from));
    return true;
}

static void start(struct volume *volume, struct volume_request *q)
{
    struct record_volume *r = (struct record_volume *)volume;
    assert(r->n_held < 512 && q->offset_bytes + q->len_bytes <= volume->size_bytes);
    r->held[r->n_held] = q;
    r->held_from[r->n_held++] = r->n_entries;
}

static void wait_for_one(struct volume *volume, unsigned timeout_ms)
{
    (void)timeout_ms;
    record_volume_pump((struct record_volume *)volume);
}

static void destroy(struct volume *volume)
{
    struct record_volume *r = (struct record_volume *)volume;
    assert(!r->n_held);
    for (unsigned i = 0; i < r->n_entries; i++)
        free(r->entries[i].bytes);
    munmap(r->now, volume->size_bytes);
    munmap(r->stable, volume->size_bytes);
    free(r->entries);
    free(r->touched);
    free(r);
}

static const struct volume_ops ops = {.kind = "record", .start = start, .wait = wait_for_one, .destroy = destroy};

static uint8_t *memory(uint64_t bytes)
{
    void *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(m != MAP_FAILED);
    return m;
}

struct record_volume *record_volume_create(struct volume_env *env, uint64_t size_bytes, uint64_t seed)
{
    struct record_volume *r = calloc(1, sizeof(*r));
    r->volume = (struct volume){
        .ops = &ops,
        .env = env,
        .size_bytes = size_bytes,
        .block_bytes = SECTOR,
        .physical_bytes = BLOCK,
        .can_discard = true,
    };
    r->now = memory(size_bytes);
    r->stable = memory(size_bytes);
    r->touched = calloc(size_bytes / BLOCK / 64 + 1, sizeof(*r->touched));
    r->random = seed | 1;
    return r;
}

// What was started or done and not flushed may be there or not, sector by sector.
static void leave_some(struct record_volume *r, const struct record_entry *e, uint64_t *random)
{
    const unsigned luck = (unsigned)(record_random(random) % 4); // none, all, any sectors
    for (uint64_t at = 0; at < e->len_bytes; at += SECTOR) {
        if (luck == 0 || (luck > 1 && record_random(random) & 1))
            continue;
        struct record_entry part = {
            .offset_bytes = e->offset_bytes + at, .len_bytes = SECTOR, .bytes = e->bytes ? e->bytes + at : NULL};
        apply(r->now, &part);
        touch(r, &part);
    }
}

struct record_volume *record_volume_cut(struct record_volume *r)
{
    struct record_volume *cut = record_volume_create(r->volume.env, r->volume.size_bytes, record_random(&r->random));
    uint64_t random = record_random(&r->random);
    for (uint64_t b = 0; b < r->volume.size_bytes / BLOCK; b++)
        if (r->touched[b / 64] >> b % 64 & 1) {
            memcpy(cut->now + b * BLOCK, r->stable + b * BLOCK, BLOCK);
            cut->touched[b / 64] |= 1ull << b % 64;
        } else if (!(r->touched[b / 64])) {
            b |= 63;
        }
    for (unsigned i = 0; i < r->n_entries; i++)
        if (!r->entries[i].is_stable)
            leave_some(cut, &r->entries[i], &random);
    for (unsigned i = 0; i < r->n_held; i++) {
        const struct volume_request *q = r->held[i];
        if (q->op == VOLUME_READ || q->op == VOLUME_FLUSH || q->op == VOLUME_STATUS)
            continue;
        struct record_entry e = entry_of(q);
        leave_some(cut, &e, &random);
        free(e.bytes);
    }
    for (uint64_t b = 0; b < r->volume.size_bytes / BLOCK; b++) // what is there now is what there is
        if (cut->touched[b / 64] >> b % 64 & 1)
            memcpy(cut->stable + b * BLOCK, cut->now + b * BLOCK, BLOCK);
    return cut;
}
