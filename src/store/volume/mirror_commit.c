// What the legs of a mirror are told of each other: see mirror_private.h.
//
// A commit has up to three steps, each at all legs at once: a flush, if regions are to go from the map or a leg is to be in sync
// from now on; the pages of the map that changed; the header, if it changed, until all of those that it names as in sync have it.
#include "store/map_sector.h"
#include "store/volume/mirror_private.h"

#include "base/clock.h"
#include "base/log.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define TICK_NS (2 * NS_PER_S) // a region goes from the map two of these after it was last written to, or sooner
#define ALL_PAGES ((1u << MIRROR_INTENT_PAGES) - 1)
#define PAGE_WORDS (MIRROR_SECTOR_WORDS * MIRROR_PAGE_SECTORS)

bool mirror_headers_are_stable(const struct mirror *m)
{
    return !m->header_is_dirty && !m->tells_header;
}

// ---- a step ----

static void on_told(struct volume_request *request, int result)
{
    struct mirror_leg *leg = (struct mirror_leg *)((char *)request - offsetof(struct mirror_leg, meta));
    struct mirror *m = leg->mirror;
    unsigned good = 0;
    leg->meta_result = result;
    if (--m->n_telling)
        return;
    for (unsigned i = 0; i < m->n; i++)
        if (m->told >> i & 1 && !m->legs[i].meta_result)
            good |= 1u << i;
    const bool is_good = good & mirror_in_sync(m);
    for (unsigned i = 0; i < m->n && is_good; i++)
        if ((m->told & ~good) >> i & 1)
            mirror_leg_fail(m, i, m->legs[i].meta_result);
    m->joining &= mirror_attached(m) & (good | ~m->told);
    m->after_told(m, is_good);
}

// Each of these legs is to do what meta says, and `after` comes when all have.
static void tell(struct mirror *m, unsigned legs, void (*after)(struct mirror *m, bool good))
{
    m->told = legs;
    m->n_telling = (unsigned)__builtin_popcount(legs);
    m->after_told = after;
    for (unsigned i = 0; i < m->n; i++)
        if (legs >> i & 1) {
            m->legs[i].meta.done = on_told;
            volume_start(m->legs[i].volume, &m->legs[i].meta);
        }
}

static void set_write(struct mirror_leg *leg, uint64_t offset_bytes, uint8_t *bytes, size_t len_bytes)
{
    leg->meta_iov = (struct iovec){.iov_base = bytes, .iov_len = len_bytes};
    leg->meta.op = VOLUME_WRITE;
    leg->meta.durable = true;
    leg->meta.offset_bytes = offset_bytes;
    leg->meta.len_bytes = len_bytes;
    leg->meta.data = (struct volume_data){.iov = &leg->meta_iov, .n_iov = 1};
}

static void start(struct mirror *m);

static void end(struct mirror *m, int result)
{
    struct mirror_op *op = mirror_list_take_all(&m->in_commit);
    m->committing = false;
    for (struct mirror_op *next; op; op = next) {
        next = op->link;
        op->next_step(op, result);
    }
    if (!m->committing && (m->for_commit.first || m->wants_commit || m->wants_join))
        start(m);
}

// ---- the header ----

static void tell_header(struct mirror *m);

static void log_joined(const struct mirror *m, unsigned leg)
{
    log_event(LOG_INFO, "store", "leg of a mirror is in sync", LOG_U64("leg", m->legs[leg].index),
              LOG_U64("generation", m->header.generation));
}

static void after_header(struct mirror *m, bool good)
{
    m->tells_header = false;
    if (!good) {
        m->header_is_dirty = true;
        end(m, -EIO);
        return;
    }
    for (unsigned i = 0; i < m->n; i++)
        if (m->joining >> i & 1) {
            m->legs[i].state = MIRROR_IN_SYNC;
            log_joined(m, i);
        }
    m->joining = 0;
    if (m->header_is_dirty) {
        tell_header(m);
        return;
    }
    if (mirror_is_whole(m) && m->n_wanted)
        mirror_tick(m);
    end(m, 0);
}

static void tell_header(struct mirror *m)
{
    const unsigned legs = mirror_in_sync(m) | m->joining;
    struct mirror_header *header = &m->header;
    header->generation++;
    for (unsigned i = 0; i < m->n; i++)
        if (m->joining >> i & 1)
            header->in_sync |= 1u << m->legs[i].index;
    for (unsigned i = 0; i < m->n; i++) {
        struct mirror_leg *leg = &m->legs[i];
        header->index = leg->index;
        memset(leg->page, 0, MIRROR_PAGE);
        mirror_header_encode(header, leg->page);
        set_write(leg, mirror_header_offset(leg->volume->size_bytes, header->generation), leg->page, MIRROR_PAGE);
    }
    m->header_is_dirty = false;
    m->tells_header = true;
    tell(m, legs, after_header);
}

static void go_on_to_header(struct mirror *m)
{
    if (m->header_is_dirty || m->joining)
        tell_header(m);
    else
        end(m, 0);
}

// ---- the map ----

static void encode_page(const struct mirror *m, unsigned page)
{
    uint64_t *to = (uint64_t *)(void *)(m->map + (size_t)page * MIRROR_PAGE);
    const uint64_t *from = m->wanted + (size_t)page * PAGE_WORDS;
    for (unsigned s = 0; s < MIRROR_PAGE_SECTORS; s++, to += MIRROR_SECTOR_WORDS + 1, from += MIRROR_SECTOR_WORDS) {
        for (unsigned i = 0; i < MIRROR_SECTOR_WORDS; i++)
            to[i] = htole64(from[i]);
        to[MIRROR_SECTOR_WORDS] = map_sector_check(to, page * MIRROR_PAGE_SECTORS + s);
    }
}

static void take_as_stored(struct mirror *m, unsigned page)
{
    const uint64_t *from = (const uint64_t *)(const void *)(m->map + (size_t)page * MIRROR_PAGE);
    uint64_t *to = m->stored + (size_t)page * PAGE_WORDS;
    for (unsigned s = 0; s < MIRROR_PAGE_SECTORS; s++, from += MIRROR_SECTOR_WORDS + 1, to += MIRROR_SECTOR_WORDS)
        for (unsigned i = 0; i < MIRROR_SECTOR_WORDS; i++)
            to[i] = le64toh(from[i]);
}

static void after_map(struct mirror *m, bool good)
{
    if (!good) {
        m->dirty_pages |= m->told_pages;
        end(m, -EIO);
        return;
    }
    for (unsigned page = 0; page < MIRROR_INTENT_PAGES; page++)
        if (m->told_pages >> page & 1)
            take_as_stored(m, page);
    go_on_to_header(m);
}

// From the first page that changed to the last one.
static void tell_map(struct mirror *m)
{
    const unsigned pages = m->joining ? ALL_PAGES : m->dirty_pages;
    if (!pages) {
        go_on_to_header(m);
        return;
    }
    const unsigned first = (unsigned)__builtin_ctz(pages), end_page = 32u - (unsigned)__builtin_clz(pages);
    m->told_pages = ((1u << end_page) - 1) & ~((1u << first) - 1);
    m->dirty_pages = 0;
    for (unsigned page = first; page < end_page; page++)
        encode_page(m, page);
    for (unsigned i = 0; i < m->n; i++)
        set_write(&m->legs[i], mirror_meta_offset(m->legs[i].volume->size_bytes) + first * MIRROR_PAGE,
                  m->map + (size_t)first * MIRROR_PAGE, (size_t)(end_page - first) * MIRROR_PAGE);
    tell(m, mirror_in_sync(m) | m->joining, after_map);
}

int mirror_load_map(struct mirror *m, unsigned leg, uint8_t *buffer)
{
    const uint64_t at = mirror_meta_offset(m->legs[leg].volume->size_bytes);
    struct iovec iov = {.iov_base = buffer, .iov_len = (size_t)MIRROR_INTENT_PAGES * MIRROR_PAGE};
    struct volume_request request = {
        .op = VOLUME_READ, .offset_bytes = at, .len_bytes = iov.iov_len, .data = {.iov = &iov, .n_iov = 1}};
    int r = volume_run(m->legs[leg].volume, &request);
    const uint64_t *from = (const uint64_t *)(void *)buffer;
    for (uint32_t s = 0; s < MIRROR_INTENT_PAGES * MIRROR_PAGE_SECTORS && !r; s++, from += MIRROR_SECTOR_WORDS + 1) {
        const bool is_good = from[MIRROR_SECTOR_WORDS] == map_sector_check(from, s);
        for (unsigned i = 0; i < MIRROR_SECTOR_WORDS; i++) // of one that is damaged any region may have been written to
            m->wanted[s * MIRROR_SECTOR_WORDS + i] |= is_good ? le64toh(from[i]) : ~0ull;
    }
    return r;
}

// ---- the flush ----

static void mark_page_of_word(struct mirror *m, size_t word)
{
    m->dirty_pages |= 1u << word / PAGE_WORDS;
}

// All legs have on stable storage what was written to these regions, and nothing was since.
static void clear_regions(struct mirror *m)
{
    for (size_t w = 0; w * 64 < m->n_regions; w++) {
        const uint64_t bits = m->clearing[w] & ~m->touched[w] & m->wanted[w];
        if (!bits)
            continue;
        m->wanted[w] &= ~bits;
        m->stored[w] &= ~bits;
        m->n_wanted -= (unsigned)__builtin_popcountll(bits);
        mark_page_of_word(m, w);
    }
}

static void after_flush(struct mirror *m, bool good)
{
    if (good && m->cleans && mirror_is_whole(m))
        clear_regions(m);
    m->cleans = false;
    tell_map(m);
}

static void start(struct mirror *m)
{
    m->committing = true;
    m->wants_commit = false;
    m->in_commit.first = mirror_list_take_all(&m->for_commit);
    m->joining = m->wants_join && !m->n_unsynced ? mirror_attached(m) & ~mirror_in_sync(m) : 0;
    m->wants_join = false;
    if (!m->cleans && !m->joining) {
        tell_map(m);
        return;
    }
    for (unsigned i = 0; i < m->n; i++) {
        m->legs[i].meta.op = VOLUME_FLUSH;
        m->legs[i].meta.durable = false;
        m->legs[i].meta.offset_bytes = m->legs[i].meta.len_bytes = 0;
    }
    tell(m, mirror_in_sync(m) | m->joining, after_flush);
}

void mirror_commit(struct mirror *m, struct mirror_op *op)
{
    if (op)
        mirror_list_add(&m->for_commit, op);
    else
        m->wants_commit = true;
    if (!m->committing)
        start(m);
}

// ---- what is not written to any more ----

static void touch_active(struct mirror *m)
{
    for (const struct mirror_op *op = m->active; op; op = op->next)
        mirror_bits_set(m->touched, mirror_first_region(m, op->request), mirror_end_region(m, op->request));
}

void mirror_clean(struct mirror *m)
{
    uint64_t any = 0;
    if (!mirror_is_whole(m) || m->committing || m->volume.read_only)
        return;
    touch_active(m);
    for (size_t w = 0; w * 64 < m->n_regions; w++) {
        m->clearing[w] = m->wanted[w] & m->stored[w] & ~m->touched[w] & ~m->unsynced[w];
        any |= m->clearing[w];
        m->touched[w] = 0;
    }
    touch_active(m);
    m->cleans = any;
    if (any)
        mirror_commit(m, NULL);
}

void mirror_tick(struct mirror *m)
{
    const bool wanted = mirror_is_whole(m) || m->told_unequal;
    if (!m->is_ticking && wanted && !m->stops)
        loop_set_timer(m->timer, TICK_NS, 0);
    m->is_ticking |= wanted;
}
