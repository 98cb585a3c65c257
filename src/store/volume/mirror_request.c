// What is read from a mirror and changed: see mirror_private.h.
//
// A change goes to all legs that are not out, and is answered when all have answered, and when those that failed are out of the
// set. It waits for copies of the same place first, and then for the map.
#include "store/volume/mirror_private.h"

#include <errno.h>
#include <stddef.h>

#define READ_ERRORS_MOST 16u // of a leg that others can stand in for

void mirror_list_add(struct mirror_list *list, struct mirror_op *op)
{
    if (!list->first)
        list->tail = &list->first;
    op->link = NULL;
    *list->tail = op;
    list->tail = &op->link;
}

struct mirror_op *mirror_list_take_all(struct mirror_list *list)
{
    struct mirror_op *first = list->first;
    list->first = NULL;
    return first;
}

static struct mirror_op *op_init(struct mirror *m, struct volume_request *request)
{
    struct mirror_op *op = request->context;
    uint8_t *contexts = (uint8_t *)op + VOLUME_CONTEXT_SIZE(sizeof(*op) + m->n * sizeof(op->lanes[0]));
    op->mirror = m;
    op->request = request;
    op->n_pending = op->tried = 0;
    op->result = 0;
    for (unsigned i = 0; i < m->n; i++) {
        op->lanes[i].op = op;
        op->lanes[i].used = false;
        op->lanes[i].child.context = contexts + i * m->child_context_bytes;
    }
    return op;
}

static void finish(struct mirror_op *op, int result)
{
    volume_finish_later(op->mirror->volume.env, op->request, result);
}

static void finish_after_commit(struct mirror_op *op, int result)
{
    finish(op, result);
}

static void start_lane(struct mirror_op *op, unsigned leg, void (*done)(struct volume_request *, int))
{
    const struct volume_request *request = op->request;
    struct volume_request *child = &op->lanes[leg].child;
    child->op = request->op;
    child->durable = request->durable;
    child->may_unmap = request->may_unmap;
    child->only_fast = request->only_fast;
    child->offset_bytes = request->offset_bytes;
    child->len_bytes = request->len_bytes;
    child->data = request->data;
    child->done = done;
    op->lanes[leg].used = true;
    volume_start(op->mirror->legs[leg].volume, child);
}

// ---- reading ----

static bool is_better(const struct mirror_leg *leg, const struct mirror_leg *other, const struct volume_request *request)
{
    if (leg->n_reading != other->n_reading)
        return leg->n_reading < other->n_reading;
    return leg->read_end_bytes == request->offset_bytes;
}

// The least busy, and of these who has just read what comes before, or else each in turn. Where legs may differ, the first.
static unsigned choose(struct mirror *m, const struct mirror_op *op)
{
    const struct volume_request *request = op->request;
    const uint64_t first = mirror_first_region(m, request), end = mirror_end_region(m, request);
    const unsigned left = mirror_in_sync(m) & ~op->tried;
    if (!left)
        return m->n;
    unsigned best = (unsigned)__builtin_ctz(left);
    if (mirror_bits_next(m->unsynced, first, end) < end)
        return best;
    while (!(left >> m->next_read & 1))
        m->next_read = (m->next_read + 1) % MIRROR_LEGS_MAX;
    best = m->next_read;
    for (unsigned i = 0; i < m->n; i++)
        if (left >> i & 1 && is_better(&m->legs[i], &m->legs[best], request))
            best = i;
    m->next_read = (best + 1) % MIRROR_LEGS_MAX;
    return best;
}

static void read_from(struct mirror_op *op, unsigned leg);

// Somebody else has it: what could not be read is written again, from a leg that could be.
static void mend(struct mirror_op *op)
{
    struct mirror *m = op->mirror;
    for (unsigned i = 0; i < m->n; i++) {
        struct mirror_leg *leg = &m->legs[i];
        if (op->tried >> i & 1 && leg->state == MIRROR_IN_SYNC && ++leg->n_read_errors > READ_ERRORS_MOST)
            mirror_leg_fail(m, i, -EIO);
    }
    mirror_mark_unsynced(m, mirror_first_region(m, op->request), mirror_end_region(m, op->request));
    if (!mirror_headers_are_stable(m))
        mirror_commit(m, NULL);
}

static void on_read(struct volume_request *child, int result)
{
    struct mirror_lane *lane = (struct mirror_lane *)child;
    struct mirror_op *op = lane->op;
    struct mirror *m = op->mirror;
    const unsigned leg = (unsigned)(lane - op->lanes);
    m->legs[leg].n_reading--;
    if (!result) {
        op->request->extent = child->extent;
        if (op->tried)
            mend(op);
        finish(op, 0);
        return;
    }
    op->tried |= 1u << leg;
    op->result = op->result ? op->result : result;
    const unsigned next = choose(m, op);
    if (next == m->n)
        finish(op, op->result);
    else
        read_from(op, next);
}

static void read_from(struct mirror_op *op, unsigned leg)
{
    struct mirror_leg *l = &op->mirror->legs[leg];
    l->n_reading++;
    l->read_end_bytes = op->request->offset_bytes + op->request->len_bytes;
    start_lane(op, leg, on_read);
}

// ---- changing ----

static bool is_active_kind(const struct mirror_op *op)
{
    return op->request->op != VOLUME_FLUSH;
}

static void link_active(struct mirror_op *op)
{
    struct mirror *m = op->mirror;
    op->prev = NULL;
    op->next = m->active;
    if (op->next)
        op->next->prev = op;
    m->active = op;
}

static void unlink_active(struct mirror_op *op)
{
    *(op->prev ? &op->prev->next : &op->mirror->active) = op->next;
    if (op->next)
        op->next->prev = op->prev;
    mirror_copy_passed(op->mirror, op->request);
}

// Not done by a leg, but no failure of it.
static bool is_just_refused(const struct mirror_op *op, const struct mirror_lane *lane)
{
    const enum volume_op kind = op->request->op;
    return lane->result == -EOPNOTSUPP && (kind == VOLUME_DISCARD || (kind == VOLUME_ZERO && lane->child.only_fast));
}

static void on_changed(struct volume_request *child, int result);

// Zeroes that would have to be written there, when others had a faster way.
static void do_slowly(struct mirror_op *op, unsigned refused)
{
    op->n_pending = (unsigned)__builtin_popcount(refused);
    for (unsigned i = 0; i < op->mirror->n; i++)
        if (refused >> i & 1) {
            op->lanes[i].child.only_fast = false;
            volume_start(op->mirror->legs[i].volume, &op->lanes[i].child);
        }
}

// What the legs said, as bits. Returns what the request fails with if none in sync did it.
static int sum_up(const struct mirror_op *op, unsigned *good, unsigned *bad, unsigned *refused)
{
    const struct mirror *m = op->mirror;
    int result = 0;
    for (unsigned i = 0; i < m->n; i++) {
        const struct mirror_lane *lane = &op->lanes[i];
        if (!lane->used || m->legs[i].state == MIRROR_OUT)
            continue;
        *(!lane->result ? good : is_just_refused(op, lane) ? refused : bad) |= 1u << i;
        if (lane->result && (!result || m->legs[i].state == MIRROR_IN_SYNC))
            result = lane->result;
    }
    return result ? result : -EIO;
}

// Nobody did it: legs may differ there now.
static void end_failed(struct mirror_op *op, int result, unsigned bad)
{
    struct mirror *m = op->mirror;
    const unsigned attached = mirror_attached(m);
    if (is_active_kind(op) && bad && (attached & (attached - 1)))
        mirror_mark_unsynced(m, mirror_first_region(m, op->request), mirror_end_region(m, op->request));
    finish(op, result);
}

static void end_change(struct mirror_op *op)
{
    struct mirror *m = op->mirror;
    unsigned good = 0, bad = 0, refused = 0;
    const int result = sum_up(op, &good, &bad, &refused);
    if (good && refused && op->request->op == VOLUME_ZERO) {
        do_slowly(op, refused);
        return;
    }
    if (is_active_kind(op))
        unlink_active(op);
    if (!(good & mirror_in_sync(m))) {
        end_failed(op, result, bad | good);
        return;
    }
    for (unsigned i = 0; i < m->n; i++)
        if (bad >> i & 1)
            mirror_leg_fail(m, i, op->lanes[i].result);
    if (mirror_headers_are_stable(m)) {
        finish(op, 0);
        return;
    }
    op->next_step = finish_after_commit;
    mirror_commit(m, op);
}

static void on_changed(struct volume_request *child, int result)
{
    struct mirror_lane *lane = (struct mirror_lane *)child;
    lane->result = result;
    if (--lane->op->n_pending == 0)
        end_change(lane->op);
}

static void start_all(struct mirror_op *op)
{
    const unsigned attached = mirror_attached(op->mirror);
    op->n_pending = (unsigned)__builtin_popcount(attached);
    for (unsigned i = 0; i < op->mirror->n; i++)
        if (attached >> i & 1)
            start_lane(op, i, on_changed); // nobody is done before this returns
}

static void on_marked(struct mirror_op *op, int result)
{
    if (!result) {
        start_all(op);
        return;
    }
    unlink_active(op);
    finish(op, result);
}

static void change(struct mirror_op *op)
{
    struct mirror *m = op->mirror;
    const uint64_t first = mirror_first_region(m, op->request), end = mirror_end_region(m, op->request);
    if (mirror_copy_locks(m, op->request)) {
        mirror_list_add(&m->waiting, op);
        return;
    }
    link_active(op);
    mirror_bits_set(m->touched, first, end);
    if (mirror_bits_all(m->stored, first, end)) {
        start_all(op);
        return;
    }
    const uint64_t more = mirror_bits_set(m->wanted, first, end);
    m->n_wanted += more;
    for (uint64_t page = first / MIRROR_PAGE_REGIONS; more && page <= (end - 1) / MIRROR_PAGE_REGIONS; page++)
        m->dirty_pages |= 1u << page;
    mirror_tick(m);
    op->next_step = on_marked;
    mirror_commit(m, op);
}

void mirror_go_on(struct mirror *m)
{
    for (struct mirror_op *op = mirror_list_take_all(&m->waiting), *next; op; op = next) {
        next = op->link;
        change(op);
    }
}

void mirror_start(struct volume *volume, struct volume_request *request)
{
    struct mirror *m = (struct mirror *)volume;
    if (request->op == VOLUME_ABSORB) {
        volume_finish_later(volume->env, request, -EOPNOTSUPP);
        return;
    }
    struct mirror_op *op = op_init(m, request);
    switch (request->op) {
    case VOLUME_READ:
        read_from(op, choose(m, op));
        break;
    case VOLUME_STATUS:
        m->legs[mirror_primary(m)].n_reading++;
        start_lane(op, mirror_primary(m), on_read);
        break;
    case VOLUME_FLUSH:
        start_all(op);
        break;
    default:
        change(op);
    }
}
