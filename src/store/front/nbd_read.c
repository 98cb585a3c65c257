// Reads of an NBD client: see nbd_private.h.
//
// With structured replies, what a large read finds to be a hole, at its start or as a whole, is said and not sent. What is known to
// be data, from the last look on, is not looked at again; that it may have become a hole since costs nothing but its transfer.
#include "store/front/nbd_private.h"

#define LOOK_BYTES_MIN (64u << 10)   // shorter reads are not worth a look
#define LOOK_AHEAD_BYTES (16u << 20) // how far a look goes

static void put_hole(struct nbd_slot *slot, uint32_t len_bytes, bool is_all)
{
    const struct nbd_reply head = {
        .flags = is_all ? NBD_REPLY_FLAG_DONE : 0,
        .type = NBD_REPLY_TYPE_OFFSET_HOLE,
        .cookie = slot->wire.cookie,
        .len_bytes = NBD_CHUNK_HOLE_BYTES,
    };
    nbd_put_chunk(slot->head, &head);
    nbd_put_chunk_hole(slot->head + NBD_CHUNK_BYTES, slot->wire.offset_bytes, len_bytes);
    slot->head_len = NBD_CHUNK_BYTES + NBD_CHUNK_HOLE_BYTES;
}

static void put_data(struct nbd_slot *slot)
{
    uint8_t *at = slot->head + slot->head_len;
    if (!slot->conn->terms.structured) {
        nbd_put_simple(at, NBD_OK, slot->wire.cookie);
        slot->head_len += NBD_SIMPLE_BYTES;
        return;
    }
    const struct nbd_reply head = {
        .flags = NBD_REPLY_FLAG_DONE,
        .type = NBD_REPLY_TYPE_OFFSET_DATA,
        .cookie = slot->wire.cookie,
        .len_bytes = NBD_CHUNK_DATA_BYTES + slot->send_bytes,
    };
    nbd_put_chunk(at, &head);
    nbd_put_chunk_data(at + NBD_CHUNK_BYTES, slot->wire.offset_bytes + slot->send_from);
    slot->head_len += NBD_CHUNK_BYTES + NBD_CHUNK_DATA_BYTES;
}
_Static_assert(2 * NBD_CHUNK_BYTES + NBD_CHUNK_HOLE_BYTES + NBD_CHUNK_DATA_BYTES <= NBD_HEAD_BYTES, "a hole and data");

static void on_read(struct disk_request *request, int result)
{
    struct nbd_slot *slot = (struct nbd_slot *)request;
    if (!nbd_submit_done(slot))
        return;
    if (result) {
        nbd_reply_result(slot, result);
        return;
    }
    put_data(slot);
    nbd_reply_queue(slot);
}

// All but what the head says already.
static void read_data(struct nbd_slot *slot, uint32_t from_bytes)
{
    slot->send_from = from_bytes;
    slot->send_bytes = slot->wire.len_bytes - from_bytes;
    slot->request.io.data = nbd_slot_data(slot, from_bytes);
    nbd_submit(slot, VOLUME_READ, slot->wire.offset_bytes + from_bytes, slot->send_bytes, on_read);
}

static void on_look(struct disk_request *request, int result)
{
    struct nbd_slot *slot = (struct nbd_slot *)request;
    struct nbd_conn *c = slot->conn;
    const struct volume_extent extent = request->io.extent;
    const uint32_t len = slot->wire.len_bytes;
    if (!nbd_submit_done(slot))
        return;
    if (result || !extent.zero) {
        c->data_from = slot->wire.offset_bytes;
        c->data_end = c->data_from + (result ? len : extent.len_bytes);
        read_data(slot, 0);
    } else if (extent.len_bytes < len) {
        put_hole(slot, (uint32_t)extent.len_bytes, false);
        read_data(slot, (uint32_t)extent.len_bytes);
    } else {
        put_hole(slot, len, true);
        slot->send_bytes = 0;
        nbd_reply_queue(slot);
    }
}

static bool is_worth_a_look(const struct nbd_slot *slot)
{
    const struct nbd_conn *c = slot->conn;
    const uint64_t from = slot->wire.offset_bytes, end = from + slot->wire.len_bytes;
    if (!c->terms.structured || slot->wire.flags & NBD_CMD_FLAG_DF || slot->wire.len_bytes < LOOK_BYTES_MIN)
        return false;
    return from < c->data_from || end > c->data_end;
}

void nbd_read_start(struct nbd_slot *slot)
{
    slot->head_len = 0;
    if (!is_worth_a_look(slot)) {
        read_data(slot, 0);
        return;
    }
    const uint64_t left = slot->conn->terms.size_bytes - slot->wire.offset_bytes;
    const uint64_t most = slot->wire.len_bytes > LOOK_AHEAD_BYTES ? slot->wire.len_bytes : LOOK_AHEAD_BYTES;
    nbd_submit(slot, VOLUME_STATUS, slot->wire.offset_bytes, left < most ? left : most, on_look);
}
