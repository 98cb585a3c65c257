// What is read from an overlay and changed in it: see overlay_private.h.
//
// A request whose blocks are all in the data volume, or all in the base, is passed on as it is. A read of several kinds goes piece
// by piece. A change is first completed at its ends, where it touches a part of a block that is not here yet: such a block is read,
// merged and written whole. Changes that do so, and others of the same blocks, wait for each other; else nobody waits.
#include "store/volume/overlay_private.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static struct overlay_op *op_of(struct volume_request *child)
{
    return (struct overlay_op *)((char *)child - offsetof(struct overlay_op, child));
}

struct overlay_op *overlay_op_init(struct overlay *o, struct volume_request *request)
{
    struct overlay_op *op = request->context;
    op->overlay = o;
    op->request = request;
    op->child.context = (char *)op + VOLUME_CONTEXT_SIZE(sizeof(*op));
    op->child.only_fast = op->child.may_unmap = false;
    op->done_bytes = 0;
    op->buffer = NULL;
    return op;
}

void overlay_op_start_child(struct overlay_op *op, struct volume *child, enum volume_op kind, uint64_t offset_bytes,
                            uint64_t len_bytes, void (*done)(struct volume_request *child, int result))
{
    op->child.op = kind;
    op->child.durable = false;
    op->child.offset_bytes = offset_bytes;
    op->child.len_bytes = len_bytes;
    op->child.done = done;
    volume_start(child, &op->child);
}

void overlay_op_finish(struct overlay_op *op, int result)
{
    volume_finish_later(op->overlay->volume.env, op->request, result);
}

// ---- what is where ----

static uint64_t end_of(const struct volume_request *request)
{
    return request->offset_bytes + request->len_bytes;
}

static uint64_t block_after(uint64_t offset_bytes)
{
    return (offset_bytes + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// How many bytes from `from` on, up to `end`, are alike. What the base does not have is zeroes.
static uint64_t run_at(const struct overlay *o, uint64_t from, uint64_t end, enum overlay_state *state)
{
    const uint64_t block = from / OVERLAY_BLOCK;
    const uint64_t n = overlay_map_run(&o->map, block, block_after(end), state);
    const uint64_t to = least((block + n) * OVERLAY_BLOCK, end);
    if (*state != OVERLAY_BASE)
        return to - from;
    if (from >= o->base->size_bytes) {
        *state = OVERLAY_ZERO;
        return to - from;
    }
    return least(to, o->base->size_bytes) - from;
}

// ---- reads ----

static void read_on(struct overlay_op *op);

static void on_read(struct volume_request *child, int result)
{
    struct overlay_op *op = op_of(child);
    op->done_bytes += child->len_bytes;
    if (result)
        overlay_op_finish(op, result);
    else
        read_on(op);
}

static void read_on(struct overlay_op *op)
{
    struct overlay *o = op->overlay;
    const struct volume_request *request = op->request;
    while (op->done_bytes < request->len_bytes) {
        enum overlay_state state;
        const uint64_t from = request->offset_bytes + op->done_bytes;
        const uint64_t len = run_at(o, from, end_of(request), &state);
        op->child.data = volume_data_from(request->data, op->done_bytes);
        if (state != OVERLAY_ZERO) {
            overlay_op_start_child(op, state == OVERLAY_DATA ? o->data : o->base, VOLUME_READ, from, len, on_read);
            return;
        }
        volume_data_zero(op->child.data, len);
        op->done_bytes += len;
    }
    overlay_op_finish(op, 0);
}

static void start_read(struct overlay *o, struct volume_request *request)
{
    enum overlay_state state;
    const uint64_t len = run_at(o, request->offset_bytes, end_of(request), &state);
    if (len == request->len_bytes && state != OVERLAY_ZERO)
        volume_start(state == OVERLAY_DATA ? o->data : o->base, request);
    else
        read_on(overlay_op_init(o, request));
}

static void on_status(struct volume_request *child, int result)
{
    struct overlay_op *op = op_of(child);
    op->request->extent = child->extent;
    overlay_op_finish(op, result);
}

static void start_status(struct overlay *o, struct volume_request *request)
{
    enum overlay_state state;
    const uint64_t len = run_at(o, request->offset_bytes, end_of(request), &state);
    if (state == OVERLAY_ZERO) {
        request->extent = (struct volume_extent){.len_bytes = len, .hole = true, .zero = true};
        volume_finish_later(o->volume.env, request, 0);
        return;
    }
    overlay_op_start_child(overlay_op_init(o, request), state == OVERLAY_DATA ? o->data : o->base, VOLUME_STATUS,
                           request->offset_bytes, len, on_status);
}

// ---- changes: who goes, who waits ----

static void begin(struct overlay_op *op);

static void activate(struct overlay_op *op)
{
    struct overlay *o = op->overlay;
    op->prev = NULL;
    op->link = o->active;
    if (o->active)
        o->active->prev = op;
    o->active = op;
}

static void deactivate(struct overlay_op *op)
{
    struct overlay *o = op->overlay;
    if (op->prev)
        op->prev->link = op->link;
    else
        o->active = op->link;
    if (op->link)
        op->link->prev = op->prev;
    struct overlay_op *waiting = overlay_list_take_all(&o->waiting);
    for (struct overlay_op *next; waiting; waiting = next) {
        next = waiting->link;
        begin(waiting);
    }
}

static bool collides(const struct overlay_op *op)
{
    for (const struct overlay_op *a = op->overlay->active; a; a = a->link)
        if (a->first < op->end && op->first < a->end && (a->copies_up || op->copies_up))
            return true;
    return false;
}

// ---- changes: the ends ----

static bool is_zeroing(const struct overlay_op *op)
{
    return op->request->op == VOLUME_ZERO;
}

// Of a block that the request covers in part: does it have to be completed?
static bool needs_copy(const struct overlay_op *op, uint64_t block)
{
    const enum overlay_state state = overlay_map_get(&op->overlay->map, block);
    return state == OVERLAY_BASE || (state == OVERLAY_ZERO && !is_zeroing(op));
}

// The ends of a write where they need no completion go with the rest; those of zeroes never do, and of a discard are left alone.
static void find_edges(struct overlay_op *op)
{
    const uint64_t last = op->end - 1;
    const bool head = op->first < op->inner, tail = op->inner_end < op->end && last >= op->inner;
    const bool head_lacks = head && needs_copy(op, op->first), tail_lacks = tail && needs_copy(op, last);
    op->copies_up = op->request->op != VOLUME_DISCARD && (head_lacks || tail_lacks);
    op->head = is_zeroing(op) ? head : op->copies_up && head_lacks;
    op->tail = is_zeroing(op) ? tail : op->copies_up && tail_lacks;
}

void overlay_change_end(struct overlay_op *op, int result)
{
    if (op->buffer)
        bounce_put(&op->overlay->bounce, op->buffer);
    op->buffer = NULL;
    deactivate(op);
    overlay_op_finish(op, result);
}

static void on_edge_written(struct volume_request *child, int result)
{
    struct overlay_op *op = op_of(child);
    if (result) {
        overlay_change_end(op, result);
        return;
    }
    if (op->buffer)
        bounce_put(&op->overlay->bounce, op->buffer);
    op->buffer = NULL;
    overlay_map_set(&op->overlay->map, op->edge, op->edge + 1, OVERLAY_DATA);
    op->next_step(op);
}

static void merge_and_write(struct overlay_op *op)
{
    const struct volume_request *request = op->request;
    const uint64_t at = op->edge * OVERLAY_BLOCK;
    const uint64_t from = at > request->offset_bytes ? at : request->offset_bytes;
    const uint64_t to = least(at + OVERLAY_BLOCK, end_of(request));
    if (is_zeroing(op))
        memset(op->buffer + (from - at), 0, to - from);
    else
        volume_data_read(volume_data_from(request->data, from - request->offset_bytes), op->buffer + (from - at), to - from);
    op->iov = (struct iovec){.iov_base = op->buffer, .iov_len = OVERLAY_BLOCK};
    op->child.data = (struct volume_data){.iov = &op->iov, .n_iov = 1};
    overlay_op_start_child(op, op->overlay->data, VOLUME_WRITE, at, OVERLAY_BLOCK, on_edge_written);
}

static void on_edge_read(struct volume_request *child, int result)
{
    struct overlay_op *op = op_of(child);
    if (result)
        overlay_change_end(op, result);
    else
        merge_and_write(op);
}

static void fill_edge(struct overlay_op *op, uint8_t *buffer)
{
    struct overlay *o = op->overlay;
    const uint64_t at = op->edge * OVERLAY_BLOCK;
    op->buffer = buffer;
    memset(buffer, 0, OVERLAY_BLOCK);
    if (overlay_map_get(&o->map, op->edge) == OVERLAY_ZERO || at >= o->base->size_bytes) {
        merge_and_write(op);
        return;
    }
    const uint64_t len = least(OVERLAY_BLOCK, o->base->size_bytes - at);
    op->iov = (struct iovec){.iov_base = buffer, .iov_len = len};
    op->child.data = (struct volume_data){.iov = &op->iov, .n_iov = 1};
    overlay_op_start_child(op, o->base, VOLUME_READ, at, len, on_edge_read);
}

static void on_buffer(struct bounce_waiter *waiter, uint8_t *buffer)
{
    fill_edge((struct overlay_op *)((char *)waiter - offsetof(struct overlay_op, waiter)), buffer);
}

// One end; `next` follows. Zeroes in a block that is here already are written in place.
static void do_edge(struct overlay_op *op, uint64_t block, void (*next)(struct overlay_op *op))
{
    const struct volume_request *request = op->request;
    op->edge = block;
    op->next_step = next;
    if (needs_copy(op, block)) {
        op->waiter.got = on_buffer;
        uint8_t *buffer = bounce_get(&op->overlay->bounce, &op->waiter);
        if (buffer)
            fill_edge(op, buffer);
        return;
    }
    const uint64_t at = block * OVERLAY_BLOCK, from = at > request->offset_bytes ? at : request->offset_bytes;
    if (is_zeroing(op) && overlay_map_get(&op->overlay->map, block) == OVERLAY_DATA)
        overlay_op_start_child(op, op->overlay->data, VOLUME_ZERO, from, least(at + OVERLAY_BLOCK, end_of(request)) - from,
                               on_edge_written);
    else
        next(op);
}

// ---- changes: what is between them ----

static void end_change(struct overlay_op *op)
{
    deactivate(op);
    if (op->request->durable)
        overlay_commit(op);
    else
        overlay_op_finish(op, 0);
}

static void on_inner_done(struct volume_request *child, int result)
{
    struct overlay_op *op = op_of(child);
    const bool zeroes = child->op == VOLUME_DISCARD || child->may_unmap;
    if (result && !(zeroes && (result == -EOPNOTSUPP || result == -ENOSYS))) { // it only was to give room back
        overlay_change_end(op, result);
        return;
    }
    overlay_map_set(&op->overlay->map, op->inner, op->inner_end, zeroes ? OVERLAY_ZERO : OVERLAY_DATA);
    end_change(op);
}

static void write_inner(struct overlay_op *op)
{
    const struct volume_request *request = op->request;
    const uint64_t from = op->head ? (op->first + 1) * OVERLAY_BLOCK : request->offset_bytes;
    const uint64_t to = op->tail ? (op->end - 1) * OVERLAY_BLOCK : end_of(request);
    if (from >= to) {
        end_change(op);
        return;
    }
    op->child.data = volume_data_from(request->data, from - request->offset_bytes);
    overlay_op_start_child(op, op->overlay->data, VOLUME_WRITE, from, to - from, on_inner_done);
}

static void do_inner(struct overlay_op *op)
{
    struct overlay *o = op->overlay;
    const struct volume_request *request = op->request;
    const uint64_t from = op->inner * OVERLAY_BLOCK, len = (op->inner_end - op->inner) * OVERLAY_BLOCK;
    if (request->op == VOLUME_WRITE) {
        write_inner(op);
    } else if (op->inner >= op->inner_end) {
        end_change(op);
    } else if (is_zeroing(op) && !request->may_unmap) {
        op->child.only_fast = request->only_fast;
        overlay_op_start_child(op, o->data, VOLUME_ZERO, from, len, on_inner_done);
    } else if (o->data->can_discard) {
        // Until the map is stored that says so the block is read from the data. After zeroing it must be zeroes even then.
        op->child.may_unmap = op->child.only_fast = is_zeroing(op);
        overlay_op_start_child(op, o->data, is_zeroing(op) ? VOLUME_ZERO : VOLUME_DISCARD, from, len, on_inner_done);
    } else {
        overlay_map_set(&o->map, op->inner, op->inner_end, OVERLAY_ZERO);
        end_change(op);
    }
}

static void do_tail(struct overlay_op *op)
{
    if (op->tail)
        do_edge(op, op->end - 1, do_inner);
    else
        do_inner(op);
}

static void begin(struct overlay_op *op)
{
    const bool absorbs = op->request->op == VOLUME_ABSORB;
    if (absorbs)
        op->copies_up = true;
    else
        find_edges(op);
    if (collides(op)) {
        overlay_list_add(&op->overlay->waiting, op);
        return;
    }
    activate(op);
    if (absorbs)
        overlay_absorb(op);
    else if (op->head)
        do_edge(op, op->first, do_tail);
    else
        do_tail(op);
}

static void start_change(struct overlay *o, struct volume_request *request)
{
    struct overlay_op *op = overlay_op_init(o, request);
    const uint64_t end = end_of(request);
    op->first = request->offset_bytes / OVERLAY_BLOCK;
    op->end = block_after(end);
    op->inner = block_after(request->offset_bytes);
    // The disk's last block is whole, however short it is.
    op->inner_end = end == o->volume.size_bytes ? op->end : end / OVERLAY_BLOCK;
    begin(op);
}

static void on_written_in_place(struct volume_request *child, int result)
{
    struct overlay_op *op = op_of(child);
    if (result)
        overlay_op_finish(op, result);
    else
        overlay_commit(op);
}

// What is here already is written in place. It is durable only when the map is that says so.
static void start_write(struct overlay *o, struct volume_request *request)
{
    enum overlay_state state;
    const uint64_t len = run_at(o, request->offset_bytes, end_of(request), &state);
    if (len < request->len_bytes || state != OVERLAY_DATA) {
        start_change(o, request);
    } else if (!request->durable || overlay_is_settled(o)) {
        volume_start(o->data, request);
    } else {
        struct overlay_op *op = overlay_op_init(o, request);
        op->child.data = request->data;
        overlay_op_start_child(op, o->data, VOLUME_WRITE, request->offset_bytes, request->len_bytes, on_written_in_place);
    }
}

void overlay_start(struct volume *volume, struct volume_request *request)
{
    struct overlay *o = (struct overlay *)volume;
    switch (request->op) {
    case VOLUME_READ:
        start_read(o, request);
        break;
    case VOLUME_WRITE:
        start_write(o, request);
        break;
    case VOLUME_FLUSH:
        if (!o->has_lost && overlay_is_settled(o))
            volume_start(o->data, request);
        else
            overlay_commit(overlay_op_init(o, request));
        break;
    case VOLUME_DISCARD:
    case VOLUME_ZERO:
    case VOLUME_ABSORB:
        start_change(o, request);
        break;
    case VOLUME_STATUS:
        start_status(o, request);
        break;
    }
}
