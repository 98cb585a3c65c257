// Answers of the NBD server: see nbd_private.h.
#include "store/front/nbd_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SEND_SEGMENTS (2u * (NBD_PIECES_MAX + 1)) // at once: at least one answer of any size

// ---- making them ----

static void put_error(struct nbd_slot *slot, uint32_t error, const char *why)
{
    const size_t len = why ? strlen(why) : 0;
    const int payload = nbd_put_chunk_error(slot->head + NBD_CHUNK_BYTES, NBD_HEAD_BYTES - NBD_CHUNK_BYTES, error,
                                            (struct nbd_string){why, (uint32_t)len});
    assert(payload > 0); // our own words are short
    const struct nbd_reply head = {
        .flags = NBD_REPLY_FLAG_DONE,
        .type = NBD_REPLY_TYPE_ERROR,
        .cookie = slot->wire.cookie,
        .len_bytes = (uint32_t)payload,
    };
    nbd_put_chunk(slot->head, &head);
    slot->head_len = NBD_CHUNK_BYTES + (uint32_t)payload;
}

// "Simple reply message": with structured ones negotiated, fine for whatever is not a read, and shorter.
void nbd_reply(struct nbd_slot *slot, uint32_t error, const char *why)
{
    const bool is_structured = slot->conn->terms.structured;
    slot->send_bytes = 0;
    if (is_structured && error) {
        put_error(slot, error, why);
    } else if (is_structured && slot->wire.type == NBD_CMD_READ) {
        const struct nbd_reply head = {.flags = NBD_REPLY_FLAG_DONE, .type = NBD_REPLY_TYPE_NONE, .cookie = slot->wire.cookie};
        nbd_put_chunk(slot->head, &head);
        slot->head_len = NBD_CHUNK_BYTES;
    } else {
        nbd_put_simple(slot->head, error, slot->wire.cookie);
        slot->head_len = NBD_SIMPLE_BYTES;
    }
    nbd_reply_queue(slot);
}

// "NBD_ENOTSUP": to be said of a fast zeroing alone.
void nbd_reply_result(struct nbd_slot *slot, int result)
{
    const bool may_be_unsupported = slot->wire.type == NBD_CMD_WRITE_ZEROES && slot->wire.flags & NBD_CMD_FLAG_FAST_ZERO;
    uint32_t error = nbd_error_of(result);
    if (error == NBD_ENOTSUP && !may_be_unsupported)
        error = NBD_EINVAL;
    nbd_reply(slot, error, NULL);
}

void nbd_reply_queue(struct nbd_slot *slot)
{
    struct nbd_conn *c = slot->conn;
    if (c->is_dead) {
        nbd_slot_put(slot);
        return;
    }
    slot->link = NULL;
    *c->out_tail = slot;
    c->out_tail = &slot->link;
    nbd_export_mark(c);
}

// ---- sending ----

// How much of it went, or less than 0: nothing does now, or ever again.
static ssize_t send_some(struct nbd_conn *c, const struct iovec *iov, unsigned n_iov)
{
    const ssize_t n = nbd_stream_send(&c->stream, iov, n_iov);
    if (n == -EAGAIN)
        c->is_blocked = true;
    else if (n < 0)
        nbd_conn_fail(c);
    return n;
}

static bool send_output(struct nbd_conn *c)
{
    while (c->out_at < c->out_len) {
        const struct iovec iov = {c->output + c->out_at, c->out_len - c->out_at};
        const ssize_t n = send_some(c, &iov, 1);
        if (n < 0)
            return false;
        c->out_at += (uint32_t)n;
    }
    c->out_at = c->out_len = 0;
    return true;
}

static size_t answer_bytes(const struct nbd_slot *slot)
{
    return (size_t)slot->head_len + slot->send_bytes;
}

// What of the first answer is sent already is left out.
static unsigned gather_one(const struct nbd_slot *slot, size_t skip, struct iovec *iov)
{
    unsigned n = 0;
    if (skip < slot->head_len) {
        iov[n++] = (struct iovec){(uint8_t *)slot->head + skip, slot->head_len - skip};
        skip = slot->head_len;
    }
    const uint32_t sent = (uint32_t)(skip - slot->head_len);
    if (sent < slot->send_bytes)
        n += volume_data_vector(nbd_slot_data(slot, slot->send_from + sent), slot->send_bytes - sent, iov + n, NBD_PIECES_MAX);
    return n;
}

static unsigned gather(const struct nbd_conn *c, struct iovec *iov)
{
    unsigned n = 0;
    size_t skip = c->out_skip;
    for (const struct nbd_slot *slot = c->out; slot && n + slot->n_iov + 1 <= SEND_SEGMENTS; slot = slot->link) {
        n += gather_one(slot, skip, iov + n);
        skip = 0;
    }
    return n;
}

static void take_sent(struct nbd_conn *c, size_t len)
{
    len += c->out_skip;
    while (c->out && len >= answer_bytes(c->out)) {
        struct nbd_slot *slot = c->out;
        len -= answer_bytes(slot);
        c->out = slot->link;
        nbd_slot_put(slot);
    }
    c->out_skip = len;
    if (!c->out)
        c->out_tail = &c->out;
}

static bool send_answers(struct nbd_conn *c)
{
    struct iovec iov[SEND_SEGMENTS];
    while (c->out || nbd_stream_has_output(&c->stream)) {
        const ssize_t n = send_some(c, iov, gather(c, iov));
        if (n < 0)
            return false;
        take_sent(c, (size_t)n);
    }
    return true;
}

void nbd_send(struct nbd_conn *c)
{
    if (c->is_dead || c->is_blocked || !send_output(c) || !send_answers(c))
        return;
    if (c->is_ending && !c->in_flight)
        nbd_conn_fail(c);
}
