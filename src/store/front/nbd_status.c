// BLOCK_STATUS of an NBD client, base:allocation: see nbd_private.h. Extent by extent, until the range is covered, the client has
// the one that it wants, or there are as many as an answer may have here.
#include "store/front/nbd_private.h"

#include <assert.h>
#include <errno.h>

static void ask(struct nbd_slot *slot);

static void append(struct nbd_slot *slot, uint32_t len_bytes, uint32_t flags)
{
    uint8_t *extents = slot->small + NBD_CHUNK_STATUS_BYTES;
    if (slot->n_extents) {
        struct nbd_extent last = nbd_get_extent(slot->small, slot->n_extents - 1);
        if (last.flags == flags) {
            last.len_bytes += len_bytes;
            nbd_put_extent(extents + (slot->n_extents - 1) * NBD_EXTENT_BYTES, last);
            return;
        }
    }
    nbd_put_extent(extents + slot->n_extents++ * NBD_EXTENT_BYTES, (struct nbd_extent){len_bytes, flags});
}

static void answer(struct nbd_slot *slot)
{
    const uint32_t len = NBD_CHUNK_STATUS_BYTES + slot->n_extents * NBD_EXTENT_BYTES;
    const struct nbd_reply head = {
        .flags = NBD_REPLY_FLAG_DONE,
        .type = NBD_REPLY_TYPE_BLOCK_STATUS,
        .cookie = slot->wire.cookie,
        .len_bytes = len,
    };
    nbd_put_chunk(slot->head, &head);
    slot->head_len = NBD_CHUNK_BYTES;
    nbd_put_chunk_status(slot->small, 0);
    slot->iov[0] = (struct iovec){slot->small, len};
    slot->n_iov = 1;
    slot->send_from = 0;
    slot->send_bytes = len;
    nbd_reply_queue(slot);
}

static void on_status(struct disk_request *request, int result)
{
    struct nbd_slot *slot = (struct nbd_slot *)request;
    struct volume_extent extent = request->io.extent;
    if (!nbd_submit_done(slot))
        return;
    if (result == -EOPNOTSUPP)
        extent =
            (struct volume_extent){.len_bytes = request->io.len_bytes}; // "or the server could not otherwise determine its status"
    else if (result) {
        nbd_reply_result(slot, result);
        return;
    }
    assert(extent.len_bytes && extent.len_bytes <= request->io.len_bytes);
    append(slot, (uint32_t)extent.len_bytes, (extent.hole ? NBD_STATE_HOLE : 0) | (extent.zero ? NBD_STATE_ZERO : 0));
    slot->done_bytes += (uint32_t)extent.len_bytes;
    const bool is_enough = slot->wire.flags & NBD_CMD_FLAG_REQ_ONE || slot->n_extents == NBD_EXTENTS_MAX;
    if (is_enough || slot->done_bytes == slot->wire.len_bytes)
        answer(slot);
    else
        ask(slot);
}

static void ask(struct nbd_slot *slot)
{
    nbd_submit(slot, VOLUME_STATUS, slot->wire.offset_bytes + slot->done_bytes, slot->wire.len_bytes - slot->done_bytes, on_status);
}

void nbd_status_start(struct nbd_slot *slot)
{
    slot->done_bytes = slot->n_extents = 0;
    ask(slot);
}
