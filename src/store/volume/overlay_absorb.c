// What an overlay takes over from a base that is an overlay itself: see overlay_private.h. What that base has from further down is
// left there: afterwards the base's base will do as a base.
//
// The range is an active change, so that nobody else changes it meanwhile; whoever reads it sees the same, before and after.
#include "store/volume/overlay_private.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static struct overlay_op *op_of(struct volume_request *child)
{
    return (struct overlay_op *)((char *)child - offsetof(struct overlay_op, child));
}

static void absorb_on(struct overlay_op *op);

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// The blocks from op->first on that are alike here and in the base; both states with them.
static uint64_t run_of(const struct overlay_op *op, enum overlay_state *here, enum overlay_state *below)
{
    const struct overlay *o = op->overlay, *base = (const struct overlay *)o->base;
    const uint64_t base_blocks = (base->volume.size_bytes + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK;
    uint64_t n = overlay_map_run(&o->map, op->first, op->end, here);
    *below = OVERLAY_BASE; // beyond its end there are zeroes, here as there
    if (op->first < base_blocks)
        n = overlay_map_run(&base->map, op->first, least(op->first + n, base_blocks), below);
    return n;
}

static void on_written(struct volume_request *child, int result)
{
    struct overlay_op *op = op_of(child);
    if (result) {
        overlay_change_end(op, result);
        return;
    }
    const uint64_t end = op->first + op->iov.iov_len / OVERLAY_BLOCK;
    overlay_map_set(&op->overlay->map, op->first, end, OVERLAY_DATA);
    op->first = end;
    absorb_on(op);
}

// A base may end within a block: the rest of it is zeroes.
static void on_read(struct volume_request *child, int result)
{
    struct overlay_op *op = op_of(child);
    if (result) {
        overlay_change_end(op, result);
        return;
    }
    const uint64_t len = (child->len_bytes + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK * OVERLAY_BLOCK;
    memset(op->buffer + child->len_bytes, 0, len - child->len_bytes);
    op->iov.iov_len = len;
    overlay_op_start_child(op, op->overlay->data, VOLUME_WRITE, op->first * OVERLAY_BLOCK, len, on_written);
}

static void copy(struct overlay_op *op, uint64_t n_blocks)
{
    struct overlay *o = op->overlay;
    const uint64_t at = op->first * OVERLAY_BLOCK;
    const uint64_t len = least(least(n_blocks * OVERLAY_BLOCK, BOUNCE_BYTES), o->base->size_bytes - at);
    op->iov = (struct iovec){.iov_base = op->buffer, .iov_len = len};
    op->child.data = (struct volume_data){.iov = &op->iov, .n_iov = 1};
    overlay_op_start_child(op, o->base, VOLUME_READ, at, len, on_read);
}

static void absorb_on(struct overlay_op *op)
{
    while (op->first < op->end) {
        enum overlay_state here, below;
        const uint64_t n = run_of(op, &here, &below);
        if (here == OVERLAY_BASE && below == OVERLAY_DATA) {
            copy(op, n);
            return;
        }
        if (here == OVERLAY_BASE && below == OVERLAY_ZERO)
            overlay_map_set(&op->overlay->map, op->first, op->first + n, OVERLAY_ZERO);
        op->first += n;
    }
    overlay_change_end(op, 0);
}

static void on_buffer(struct bounce_waiter *waiter, uint8_t *buffer)
{
    struct overlay_op *op = (struct overlay_op *)((char *)waiter - offsetof(struct overlay_op, waiter));
    op->buffer = buffer;
    absorb_on(op);
}

void overlay_absorb(struct overlay_op *op)
{
    if (op->overlay->base->ops != &overlay_ops) {
        overlay_change_end(op, -EOPNOTSUPP);
        return;
    }
    op->waiter.got = on_buffer;
    uint8_t *buffer = bounce_get(&op->overlay->bounce, &op->waiter);
    if (buffer)
        on_buffer(&op->waiter, buffer);
}
