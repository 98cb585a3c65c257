// How the legs of a mirror become equal again: see mirror_private.h.
//
// Region by region where legs may differ, and each of them in pieces: read from one leg that is in sync, written to all the others.
// A piece keeps writes to its place out until it is done; what is written elsewhere goes to all legs anyway. Who waits for whom: a
// piece for the writes that were under way before it, and later writes for the piece.
//
// What cannot be made equal now stays in the map. While there is such a thing one region of it is tried at each tick, and all when
// that one could be.
#include "store/volume/mirror_private.h"

#include "base/log.h"

#include <errno.h>
#include <stddef.h>

#define PIECE_BYTES BOUNCE_BYTES

static bool overlaps(const struct mirror_copy *copy, const struct volume_request *request)
{
    return copy->is_locked && request->offset_bytes < copy->at_bytes + copy->len_bytes &&
           copy->at_bytes < request->offset_bytes + request->len_bytes;
}

bool mirror_copy_locks(const struct mirror *m, const struct volume_request *request)
{
    for (unsigned i = 0; i < MIRROR_COPIES; i++)
        if (overlaps(&m->copies[i], request))
            return true;
    return false;
}

bool mirror_copy_is_on(const struct mirror *m)
{
    for (unsigned i = 0; i < MIRROR_COPIES; i++)
        if (m->copies[i].is_locked)
            return true;
    return false;
}

void mirror_copy_stop(struct mirror *m)
{
    m->stops = true;
    for (unsigned i = 0; i < MIRROR_COPIES && m->chores; i++)
        volume_chores_remove(m->chores, &m->copies[i].chore);
}

// ---- regions ----

static bool is_copying(const struct mirror *m)
{
    for (unsigned i = 0; i < MIRROR_COPIES; i++)
        if (m->copies[i].is_active)
            return true;
    return false;
}

static bool is_taken(const struct mirror *m, uint64_t region)
{
    for (unsigned i = 0; i < MIRROR_COPIES; i++)
        if (m->copies[i].is_active && m->copies[i].region == region)
            return true;
    return false;
}

void mirror_mark_unsynced(struct mirror *m, uint64_t first, uint64_t end)
{
    const unsigned attached = mirror_attached(m);
    if (!(attached & (attached - 1)))
        return; // there is nothing to differ from
    m->n_unsynced += mirror_bits_set(m->unsynced, first, end);
    m->cursor = first < m->cursor ? first : m->cursor;
    m->is_probing = false;
    for (unsigned i = 0; i < MIRROR_COPIES; i++)
        m->copies[i].is_spoiled |= m->copies[i].is_active && m->copies[i].region >= first && m->copies[i].region < end;
    mirror_copy_on(m);
}

static void set_synced(struct mirror *m, uint64_t region)
{
    const uint64_t bit = 1ull << region % 64;
    m->n_unsynced -= !!(m->unsynced[region / 64] & bit);
    m->unsynced[region / 64] &= ~bit;
}

static void request_piece(struct mirror_copy *c);

static bool take_region(struct mirror_copy *c)
{
    struct mirror *m = c->mirror;
    uint64_t region = m->cursor;
    if (m->is_probing && is_copying(m))
        return false;
    do
        region = mirror_bits_next(m->unsynced, region, m->n_regions);
    while (region < m->n_regions && is_taken(m, region) && ++region);
    if (region >= m->n_regions) {
        m->cursor = m->n_regions;
        return false;
    }
    m->cursor = region + 1;
    c->is_active = true;
    c->is_spoiled = false;
    c->region = region;
    c->at_bytes = region * m->header.region_bytes;
    request_piece(c);
    return true;
}

// All that can be is equal: legs that were not in sync are now, if nothing was left out.
static void join(struct mirror *m)
{
    const unsigned syncing = mirror_attached(m) & ~mirror_in_sync(m);
    m->is_probing = false;
    if (m->n_unsynced) {
        if (!m->told_unequal)
            log_event(LOG_ERROR, "store",
                      "parts of a mirror cannot be made equal: they cannot be read, or there is no room; it is tried on",
                      LOG_U64("bytes", m->n_unsynced * m->header.region_bytes));
        m->told_unequal = true;
        mirror_tick(m);
        return;
    }
    if (m->told_unequal)
        log_event(LOG_INFO, "store", "a mirror is equal again");
    m->told_unequal = false;
    m->wants_join = syncing;
    if (syncing)
        mirror_commit(m, NULL);
    else if (m->n_wanted)
        mirror_tick(m);
}

void mirror_copy_on(struct mirror *m)
{
    bool any = false;
    if (m->stops || m->volume.read_only)
        return;
    for (unsigned i = 0; i < MIRROR_COPIES; i++)
        any |= m->copies[i].is_active || take_region(&m->copies[i]);
    if (!any)
        join(m);
}

void mirror_copy_again(struct mirror *m)
{
    if (!m->told_unequal || !m->n_unsynced || m->stops || is_copying(m))
        return;
    uint64_t region = mirror_bits_next(m->unsynced, m->next_probe, m->n_regions);
    if (region >= m->n_regions)
        region = mirror_bits_next(m->unsynced, 0, m->n_regions);
    m->next_probe = region + 1;
    m->cursor = region;
    m->is_probing = true;
    mirror_copy_on(m);
}

// ---- pieces ----

static uint64_t region_end(const struct mirror_copy *c)
{
    const uint64_t end = (c->region + 1) * c->mirror->header.region_bytes;
    return end < c->mirror->header.size_bytes ? end : c->mirror->header.size_bytes;
}

static void end_piece(struct mirror_copy *c)
{
    struct mirror *m = c->mirror;
    c->is_locked = false;
    c->at_bytes += c->len_bytes;
    c->chore.done(&c->chore);
    mirror_go_on(m);
    if (c->at_bytes < region_end(c) && !m->stops) {
        request_piece(c);
        return;
    }
    c->is_active = false;
    const bool is_equal = c->at_bytes >= region_end(c) && !c->is_spoiled;
    if (is_equal)
        set_synced(m, c->region);
    if (m->is_probing)
        m->cursor = is_equal ? 0 : m->n_regions;
    m->is_probing &= !is_equal;
    mirror_copy_on(m);
}

static void on_written(struct volume_request *request, int result)
{
    struct mirror_piece *piece = (struct mirror_piece *)request;
    struct mirror_copy *c = piece->copy;
    struct mirror *m = c->mirror;
    piece->result = result;
    if (--c->n_pending)
        return;
    for (unsigned i = 0; i < m->n; i++) {
        const int r = c->pieces[i].result;
        if (m->legs[i].state != MIRROR_OUT && r) // a full file system is no failure: they differ until there is room
            c->is_spoiled |= r == -ENOSPC || r == -EDQUOT || !mirror_leg_fail(m, i, r);
    }
    if (!mirror_headers_are_stable(m))
        mirror_commit(m, NULL);
    end_piece(c);
}

static void start_one(struct mirror_copy *c, unsigned leg, enum volume_op op, void (*done)(struct volume_request *, int))
{
    struct volume_request *request = &c->pieces[leg].request;
    request->op = op;
    request->durable = false;
    request->offset_bytes = c->at_bytes;
    request->len_bytes = c->len_bytes;
    request->data = (struct volume_data){.iov = &c->iov, .n_iov = 1};
    request->done = done;
    c->n_pending++;
    volume_start(c->mirror->legs[leg].volume, request);
}

static void write_others(struct mirror_copy *c)
{
    struct mirror *m = c->mirror;
    const unsigned to = mirror_attached(m) & ~(1u << c->source);
    c->n_pending = 0;
    for (unsigned i = 0; i < m->n; i++) {
        c->pieces[i].result = 0;
        if (to >> i & 1)
            start_one(c, i, VOLUME_WRITE, on_written);
    }
    if (!to)
        end_piece(c); // the others have failed meanwhile
}

static void read_one(struct mirror_copy *c);

static void on_read(struct volume_request *request, int result)
{
    struct mirror_piece *piece = (struct mirror_piece *)request;
    struct mirror_copy *c = piece->copy;
    if (!result) {
        write_others(c);
        return;
    }
    c->tried |= 1u << (unsigned)(piece - c->pieces);
    read_one(c);
}

static void read_one(struct mirror_copy *c)
{
    const unsigned left = mirror_in_sync(c->mirror) & ~c->tried;
    if (!left) {
        c->is_spoiled = true;
        end_piece(c);
        return;
    }
    c->n_pending = 0;
    c->source = (unsigned)__builtin_ctz(left);
    start_one(c, c->source, VOLUME_READ, on_read);
}

void mirror_copy_passed(struct mirror *m, const struct volume_request *request)
{
    for (unsigned i = 0; i < MIRROR_COPIES; i++) {
        struct mirror_copy *c = &m->copies[i];
        if (overlaps(c, request) && c->n_before && --c->n_before == 0)
            read_one(c);
    }
}

// Its turn has come.
static void start_piece(struct volume_chore *chore)
{
    struct mirror_copy *c = (struct mirror_copy *)((char *)chore - offsetof(struct mirror_copy, chore));
    struct mirror *m = c->mirror;
    c->is_locked = true;
    c->tried = 0;
    c->n_before = 0;
    c->iov = (struct iovec){.iov_base = c->buffer, .iov_len = c->len_bytes};
    for (const struct mirror_op *op = m->active; op; op = op->next)
        c->n_before += overlaps(c, op->request);
    if (!c->n_before)
        read_one(c);
}

static void on_chore_done(struct volume_chore *chore)
{
    (void)chore; // there is nobody who gives turns
}

static void request_piece(struct mirror_copy *c)
{
    const uint64_t left = region_end(c) - c->at_bytes;
    c->len_bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
    c->chore = (struct volume_chore){.len_bytes = c->len_bytes, .start = start_piece, .done = on_chore_done};
    if (c->mirror->chores)
        volume_chores_add(c->mirror->chores, &c->chore);
    else
        start_piece(&c->chore);
}
