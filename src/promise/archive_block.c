// A record of verdicts as a block: see archive_block.h.
//
// Where a time lies in the future, since the clock was set back, it is taken as now.
#include "promise/archive_block.h"

#include "base/clock.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <zlib.h>

#define VERSION 1u
#define SLOTS_A_SECTOR 48u
#define SLOT_SECTORS 7u                          // one more than a day has, so that a day is whole at any time
#define AGE_MOST_MS (1000ull * 365 * 86400 * 10) // in ns it is far from 64 bits
#define NUMBER_MOST (1ull << 48)

static const char file_magic[8] = "TVERDICT", record_magic[4] = {'T', 'V', 'R', 'D'};

struct file_head {
    char magic[8];
    uint32_t version, crc;
};

struct breach_image {
    uint64_t since_ms, broken_ms;
    uint32_t lack, held;
    char held_by[PROMISE_NAME_MAX];
};

// Little-endian, as is the next one; no gaps.
struct head_image {
    char magic[4];
    uint32_t crc;
    char name[PROMISE_NAME_MAX];
    uint8_t kind, metric, kept, owed;
    uint32_t per_mille;
    uint64_t value, since_ms, goal, achieved;
    uint32_t lack, held;
    char held_by[PROMISE_NAME_MAX];
    struct breach_image last;
    uint64_t number, begin_ms, judged_ms, broken_ms;
    uint8_t by_resource, last_by_resource, zero[6];
};

struct slots_image {
    uint32_t crc, zero;
    uint64_t first;
    struct {
        uint32_t judged_ms, broken_ms;
    } slots[SLOTS_A_SECTOR];
};

_Static_assert(sizeof(struct head_image) == 312 && sizeof(struct slots_image) == 400, "as the format has them");
_Static_assert(SLOTS_A_SECTOR *(SLOT_SECTORS - 1) == RECORD_SLOTS && SLOT_SECTORS + 1 == ARCHIVE_SECTORS, "a day and a sector");
_Static_assert(PROMISE_RESERVE == 0 && PROMISE_WEIGHT == 2 && PROMISE_BANDWIDTH == 0 && PROMISE_PACKETS == 6,
               "numbers of the format");

// Of a whole sector whose checksum, at crc_at, counts as zeroes.
static uint32_t check_of(const uint8_t sector[static ARCHIVE_SECTOR_BYTES], size_t crc_at, uint32_t seed)
{
    static const uint8_t zeroes[4];
    uint32_t crc = (uint32_t)crc32_z(seed, sector, crc_at);
    crc = (uint32_t)crc32_z(crc, zeroes, sizeof(zeroes));
    return (uint32_t)crc32_z(crc, sector + crc_at + 4, ARCHIVE_SECTOR_BYTES - crc_at - 4);
}

// Slots belong to one promise: those of whoever had the block before are not good.
static uint32_t seed_of(const struct archive_key *key)
{
    const uint8_t kinds[2] = {(uint8_t)key->kind, (uint8_t)key->metric};
    return (uint32_t)crc32_z(crc32_z(0, (const uint8_t *)key->name, sizeof(key->name)), kinds, sizeof(kinds));
}

// ---- the head ----

static bool load_head(const uint8_t sector[static ARCHIVE_SECTOR_BYTES], struct head_image *h)
{
    memcpy(h, sector, sizeof(*h));
    return !memcmp(h->magic, record_magic, sizeof(record_magic)) &&
           le32toh(h->crc) == check_of(sector, offsetof(struct head_image, crc), 0) && h->name[0] &&
           !h->name[PROMISE_NAME_MAX - 1] && h->kind < PROMISE_KINDS && h->metric < PROMISE_METRICS;
}

bool archive_block_is_good(const uint8_t block[static ARCHIVE_BLOCK_BYTES])
{
    struct head_image h;
    if (!load_head(block, &h))
        return false;
    const size_t len = strlen(h.name);
    static const char zeroes[PROMISE_NAME_MAX];
    return !memcmp(h.name + len, zeroes, sizeof(h.name) - len);
}

bool archive_block_key(const uint8_t block[static ARCHIVE_BLOCK_BYTES], struct archive_key *key)
{
    const struct head_image *h = (const void *)block; // in memory that is aligned, and bytes alone are looked at
    key->kind = h->kind;
    key->metric = h->metric;
    memcpy(key->name, h->name, sizeof(key->name));
    return key->name[0];
}

uint64_t archive_block_time_ms(const uint8_t block[static ARCHIVE_BLOCK_BYTES])
{
    struct head_image h;
    memcpy(&h, block, sizeof(h));
    return le64toh(h.begin_ms);
}

// The same for a time whenever it is asked, as long as the clocks keep their distance; a time before its clock's zero is negative.
static uint64_t to_unix_ms(const struct promise_moment *m, uint64_t time_ns)
{
    const int64_t ms = (int64_t)(m->unix_ms - m->now_ns / NS_PER_MS) + (int64_t)time_ns / (int64_t)NS_PER_MS;
    return ms > 0 ? (uint64_t)ms : 0;
}

static uint64_t from_unix_ms(const struct promise_moment *m, uint64_t time_ms)
{
    const uint64_t age_ms = time_ms < m->unix_ms ? m->unix_ms - time_ms : 0;
    return m->now_ns - (age_ms < AGE_MOST_MS ? age_ms : AGE_MOST_MS) * NS_PER_MS;
}

static void encode_head(uint8_t sector[static ARCHIVE_SECTOR_BYTES], const struct archive_key *key, const struct track *t,
                        const struct promise_moment *m)
{
    struct head_image h = {.kind = (uint8_t)key->kind,
                           .metric = (uint8_t)key->metric,
                           .kept = t->kept,
                           .owed = t->owed,
                           .per_mille = htole32(t->promise.per_mille),
                           .value = htole64(t->promise.value),
                           .since_ms = htole64(to_unix_ms(m, t->since_ns)),
                           .goal = htole64(t->goal),
                           .achieved = htole64(t->achieved),
                           .lack = htole32(t->lack),
                           .held = htole32(t->held),
                           .last = {.since_ms = htole64(t->last.broken_ms ? to_unix_ms(m, t->last.since_ns) : 0),
                                    .broken_ms = htole64(t->last.broken_ms),
                                    .lack = htole32(t->last.lack),
                                    .held = htole32(t->last.held)},
                           .number = htole64(t->record.number),
                           .begin_ms = htole64(to_unix_ms(m, t->record.begin_ns)),
                           .judged_ms = htole64(t->record.all.judged_ms),
                           .broken_ms = htole64(t->record.all.broken_ms),
                           .by_resource = t->by_resource,
                           .last_by_resource = t->last.by_resource};
    memcpy(h.magic, record_magic, sizeof(h.magic));
    memcpy(h.name, key->name, sizeof(h.name));
    strcpy(h.held_by, t->held_by);
    strcpy(h.last.held_by, t->last.held_by);
    memset(sector, 0, ARCHIVE_SECTOR_BYTES);
    memcpy(sector, &h, sizeof(h));
    h.crc = htole32(check_of(sector, offsetof(struct head_image, crc), 0));
    memcpy(sector, &h, sizeof(h));
}

static void decode_head(const struct head_image *h, struct track *t, const struct promise_moment *m)
{
    *t = (struct track){.promise = t->promise,
                        .place = t->place,
                        .kept = h->kept,
                        .owed = h->owed,
                        .since_ns = from_unix_ms(m, le64toh(h->since_ms)),
                        .goal = le64toh(h->goal),
                        .achieved = le64toh(h->achieved),
                        .last = {.since_ns = from_unix_ms(m, le64toh(h->last.since_ms)),
                                 .broken_ms = le64toh(h->last.broken_ms),
                                 .lack = le32toh(h->last.lack),
                                 .held = le32toh(h->last.held),
                                 .by_resource = h->last_by_resource}};
    memcpy(t->last.held_by, h->last.held_by, sizeof(t->last.held_by) - 1);
    if (t->kept)
        return;
    t->lack = le32toh(h->lack);
    t->held = le32toh(h->held);
    t->by_resource = h->by_resource;
    memcpy(t->held_by, h->held_by, sizeof(t->held_by) - 1);
}

// ---- slots ----

static unsigned sector_of(uint64_t number)
{
    return 1 + (unsigned)(number / SLOTS_A_SECTOR % SLOT_SECTORS);
}

// Where the record has the slot of this number, which is at most a day old.
static uint32_t place_of(const struct record *r, uint64_t number)
{
    return (r->at + RECORD_SLOTS - (uint32_t)(r->number - number)) % RECORD_SLOTS;
}

static bool is_in(const struct record *r, uint64_t number)
{
    return number <= r->number && r->number - number < RECORD_SLOTS;
}

// The slots from `first` on, as many as a sector has; those that are too old or yet to come are zeroes.
static void encode_slots(uint8_t sector[static ARCHIVE_SECTOR_BYTES], const struct record *r, uint64_t first, uint32_t seed)
{
    struct slots_image image = {.first = htole64(first)};
    for (unsigned i = 0; i < SLOTS_A_SECTOR; i++) {
        if (!is_in(r, first + i))
            continue;
        const uint32_t at = place_of(r, first + i);
        image.slots[i].judged_ms = htole32(r->slots[at].judged_ms);
        image.slots[i].broken_ms = htole32(r->slots[at].broken_ms);
    }
    memset(sector, 0, ARCHIVE_SECTOR_BYTES);
    memcpy(sector, &image, sizeof(image));
    image.crc = htole32(check_of(sector, offsetof(struct slots_image, crc), seed));
    memcpy(sector, &image, sizeof(image));
}

static void decode_slots(const uint8_t sector[static ARCHIVE_SECTOR_BYTES], struct record *r, uint32_t seed)
{
    struct slots_image image;
    memcpy(&image, sector, sizeof(image));
    if (le32toh(image.crc) != check_of(sector, offsetof(struct slots_image, crc), seed))
        return;
    const uint64_t first = le64toh(image.first);
    for (unsigned i = 0; i < SLOTS_A_SECTOR && first < NUMBER_MOST; i++) {
        if (!is_in(r, first + i))
            continue;
        const uint32_t at = place_of(r, first + i);
        r->slots[at].judged_ms = le32toh(image.slots[i].judged_ms);
        r->slots[at].broken_ms = le32toh(image.slots[i].broken_ms);
    }
}

// ---- blocks ----

// Of the slots only those of the last sector change, as long as none begins.
void archive_block_encode(uint8_t block[static ARCHIVE_BLOCK_BYTES], const struct archive_key *key, const struct track *t,
                          const struct promise_moment *m)
{
    struct head_image before;
    const struct record *r = &t->record;
    const uint32_t seed = seed_of(key);
    const uint64_t newest = r->number / SLOTS_A_SECTOR * SLOTS_A_SECTOR;
    memcpy(&before, block, sizeof(before));
    const bool all = !before.name[0] || le64toh(before.number) != r->number;
    encode_head(block, key, t, m);
    for (unsigned back = 0; back < (all ? SLOT_SECTORS : 1); back++) {
        const uint64_t first = newest - back * SLOTS_A_SECTOR;
        encode_slots(block + sector_of(first) * ARCHIVE_SECTOR_BYTES, r, first, seed);
    }
}

void archive_block_decode(const uint8_t block[static ARCHIVE_BLOCK_BYTES], const struct archive_key *key, struct track *t,
                          const struct promise_moment *m)
{
    struct head_image h;
    memcpy(&h, block, sizeof(h));
    decode_head(&h, t, m);
    const uint64_t number = le64toh(h.number), least = RECORD_SLOTS;
    const uint64_t judged_ms = le64toh(h.judged_ms), broken_ms = le64toh(h.broken_ms);
    struct record *r = &t->record;
    *r = (struct record){.begin_ns = from_unix_ms(m, le64toh(h.begin_ms)),
                         .number = number < least         ? least
                                   : number > NUMBER_MOST ? NUMBER_MOST
                                                          : number,
                         .all.judged_ms = judged_ms < AGE_MOST_MS ? judged_ms : AGE_MOST_MS};
    r->all.broken_ms = broken_ms < r->all.judged_ms ? broken_ms : r->all.judged_ms;
    for (unsigned i = 1; i < ARCHIVE_SECTORS; i++)
        decode_slots(block + i * ARCHIVE_SECTOR_BYTES, r, seed_of(key));
    record_advance(r, m->now_ns);
}

// ---- the file's head ----

void archive_head_encode(uint8_t block[static ARCHIVE_BLOCK_BYTES])
{
    struct file_head head = {.version = htole32(VERSION)};
    memset(block, 0, ARCHIVE_BLOCK_BYTES);
    memcpy(head.magic, file_magic, sizeof(file_magic));
    memcpy(block, &head, sizeof(head));
    head.crc = htole32(check_of(block, offsetof(struct file_head, crc), 0));
    memcpy(block, &head, sizeof(head));
}

int archive_head_decode(const uint8_t block[static ARCHIVE_BLOCK_BYTES], struct tv_error *err)
{
    struct file_head head;
    memcpy(&head, block, sizeof(head));
    if (memcmp(head.magic, file_magic, sizeof(file_magic)) ||
        le32toh(head.crc) != check_of(block, offsetof(struct file_head, crc), 0))
        return tv_error_set(err, -EINVAL, "holds no verdicts but something else, which is left as it is; name another file");
    if (le32toh(head.version) != VERSION)
        return tv_error_set(err, -EINVAL, "holds verdicts in version %u of the format, and this program knows version %u",
                            le32toh(head.version), VERSION);
    return 0;
}
