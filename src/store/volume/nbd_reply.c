// What an NBD server answers: see nbd_private.h.
//
// Heads and small payloads go through a buffer; what a read asked for is copied from there as far as it is there already, and the
// rest of it is received into the request's memory itself.
#include "store/volume/nbd_private.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define DIRECT_LEAST 4096u // of what is left of a payload: less goes through the buffer

struct input {
    struct nbd_volume *n;
    const char **why;
};

static int wrong(const struct input *i, const char *why)
{
    *i->why = why;
    return -EPROTO;
}

static size_t buffered(const struct nbd_volume *n)
{
    return n->in_len - n->in_at;
}

static struct volume_data target(const struct nbd_volume *n)
{
    return volume_data_from(n->filling->request->data, n->filling->done_bytes + n->fill_at_bytes);
}

static void end_piece(struct nbd_volume *n, struct nbd_op *op)
{
    if (op->command == NBD_CMD_READ && !op->error && op->got_bytes != op->piece_bytes)
        op->error = -EIO; // the server has left something out
    nbd_client_piece_done(n, op);
}

static void filled(struct nbd_volume *n, uint32_t len)
{
    struct nbd_op *op = n->filling;
    op->got_bytes += len;
    n->fill_at_bytes += len;
    n->fill_bytes -= len;
    if (n->fill_bytes)
        return;
    n->filling = NULL;
    if (n->fill_ends)
        end_piece(n, op);
}

static void fill_from_buffer(struct nbd_volume *n)
{
    const uint32_t len = n->fill_bytes < buffered(n) ? n->fill_bytes : (uint32_t)buffered(n);
    if (len)
        volume_data_write(target(n), n->in + n->in_at, len);
    n->in_at += len;
    filled(n, len);
}

// A part of a read's data follows. What the request has room for, and no byte twice: that is all that can be told of it.
static int begin_fill(const struct input *i, struct nbd_op *op, uint64_t offset_bytes, uint32_t len, bool ends)
{
    const uint64_t from = op->request->offset_bytes + op->done_bytes;
    if (op->command != NBD_CMD_READ || offset_bytes < from || len > op->piece_bytes ||
        offset_bytes - from > op->piece_bytes - len || len > op->piece_bytes - op->got_bytes)
        return wrong(i, "data that were not asked for");
    i->n->filling = op;
    i->n->fill_at_bytes = (uint32_t)(offset_bytes - from);
    i->n->fill_bytes = len;
    i->n->fill_ends = ends;
    fill_from_buffer(i->n);
    return 0;
}

static int take_hole(const struct input *i, struct nbd_op *op, const uint8_t *payload)
{
    uint64_t offset;
    uint32_t len;
    nbd_get_chunk_hole(payload, &offset, &len);
    const uint64_t from = op->request->offset_bytes + op->done_bytes;
    if (op->command != NBD_CMD_READ || offset < from || len > op->piece_bytes || offset - from > op->piece_bytes - len ||
        len > op->piece_bytes - op->got_bytes)
        return wrong(i, "a hole that was not asked for");
    volume_data_zero(volume_data_from(op->request->data, op->done_bytes + (offset - from)), len);
    op->got_bytes += len;
    return 0;
}

static int take_status(const struct input *i, struct nbd_op *op, const uint8_t *payload, uint32_t len)
{
    uint32_t context;
    unsigned n_extents;
    if (op->command != NBD_CMD_BLOCK_STATUS || nbd_get_chunk_status(payload, len, &context, &n_extents) || !n_extents)
        return wrong(i, "a status that was not asked for");
    if (context != i->n->terms.context)
        return 0;
    const struct nbd_extent extent = nbd_get_extent(payload, 0);
    const uint32_t block = i->n->terms.block_bytes;
    uint64_t alike = extent.len_bytes < op->piece_bytes ? extent.len_bytes : op->piece_bytes;
    if (alike > block)
        alike -= alike % block;
    op->request->extent = (struct volume_extent){
        .len_bytes = alike < block ? block : alike, // what is smaller than a block counts as data
        .hole = alike >= block && extent.flags & NBD_STATE_HOLE,
        .zero = alike >= block && extent.flags & NBD_STATE_ZERO,
    };
    op->got_bytes = 1;
    return 0;
}

static int take_error(const struct input *i, struct nbd_op *op, const struct nbd_reply *reply, const uint8_t *payload)
{
    uint32_t error;
    struct nbd_string message;
    uint64_t offset;
    if (nbd_get_chunk_error(payload, reply->len_bytes, reply->type, &error, &message, &offset) || !error)
        return wrong(i, "an error without a number");
    op->error = nbd_errno_of(error);
    return 0;
}

static bool is_error(const struct nbd_reply *reply)
{
    return reply->type & 1u << 15;
}

// Of a chunk: its whole payload is in the buffer, or there is only data behind it.
static int take_payload(const struct input *i, struct nbd_op *op, const struct nbd_reply *reply, const uint8_t *payload)
{
    if (is_error(reply))
        return take_error(i, op, reply, payload);
    if (reply->type == NBD_REPLY_TYPE_OFFSET_HOLE && reply->len_bytes == NBD_CHUNK_HOLE_BYTES)
        return take_hole(i, op, payload);
    if (reply->type == NBD_REPLY_TYPE_BLOCK_STATUS)
        return take_status(i, op, payload, reply->len_bytes);
    if (reply->type == NBD_REPLY_TYPE_NONE && !reply->len_bytes)
        return 0;
    return wrong(i, "a kind of reply that is not known");
}

// 1: it was taken. 0: more has to come first.
static int take_chunk(const struct input *i, struct nbd_op *op, const struct nbd_reply *reply, size_t head)
{
    struct nbd_volume *n = i->n;
    const uint8_t *payload = n->in + n->in_at + head;
    const bool ends = reply->flags & NBD_REPLY_FLAG_DONE;
    if (reply->type == NBD_REPLY_TYPE_OFFSET_DATA) {
        if (reply->len_bytes <= NBD_CHUNK_DATA_BYTES)
            return wrong(i, "data of no bytes");
        if (buffered(n) < head + NBD_CHUNK_DATA_BYTES)
            return 0;
        n->in_at += head + NBD_CHUNK_DATA_BYTES;
        const int r = begin_fill(i, op, nbd_get_chunk_data(payload), reply->len_bytes - NBD_CHUNK_DATA_BYTES, ends);
        return r ? r : 1;
    }
    if (reply->len_bytes > NBD_IN_BYTES / 2)
        return wrong(i, "an answer that is too long");
    if (buffered(n) < head + reply->len_bytes)
        return 0;
    n->in_at += head + reply->len_bytes;
    const int r = take_payload(i, op, reply, payload);
    if (r)
        return r;
    if (ends && op->command == NBD_CMD_BLOCK_STATUS && !op->error && !op->got_bytes)
        op->error = -EIO;
    if (ends)
        end_piece(n, op);
    return 1;
}

static int take_simple(const struct input *i, struct nbd_op *op, const struct nbd_reply *reply, size_t head)
{
    struct nbd_volume *n = i->n;
    const bool is_status = op->command == NBD_CMD_BLOCK_STATUS;
    if (n->terms.is_structured ? is_status || op->command == NBD_CMD_READ : is_status && !reply->error)
        return wrong(i, "a simple reply where a structured one should be");
    n->in_at += head;
    op->error = nbd_errno_of(reply->error);
    if (op->command == NBD_CMD_READ && !op->error) {
        const int r = begin_fill(i, op, op->request->offset_bytes + op->done_bytes, op->piece_bytes, true);
        return r ? r : 1;
    }
    end_piece(n, op);
    return 1;
}

static int take_one(const struct input *i)
{
    struct nbd_volume *n = i->n;
    struct nbd_reply reply;
    if (n->filling) {
        fill_from_buffer(n);
        return !n->filling;
    }
    const int head = nbd_get_reply(n->in + n->in_at, buffered(n), &reply);
    if (head < 0)
        return wrong(i, "no reply");
    if (!head)
        return 0;
    struct nbd_op *op = nbd_client_op_of(n, reply.cookie);
    if (!op)
        return wrong(i, "a reply to what was not asked for");
    if (reply.is_structured && !n->terms.is_structured)
        return wrong(i, "a structured reply, which was not agreed on");
    return reply.is_structured ? take_chunk(i, op, &reply, (size_t)head) : take_simple(i, op, &reply, (size_t)head);
}

static ssize_t receive_some(struct nbd_volume *n)
{
    struct iovec iov[VOLUME_SEGMENTS_MAX + 1];
    struct msghdr msg = {.msg_iov = iov};
    if (n->filling && n->fill_bytes >= DIRECT_LEAST)
        msg.msg_iovlen = volume_data_vector(target(n), n->fill_bytes, iov, VOLUME_SEGMENTS_MAX);
    const uint32_t direct = msg.msg_iovlen ? n->fill_bytes : 0;
    memmove(n->in, n->in + n->in_at, buffered(n));
    n->in_len -= n->in_at;
    n->in_at = 0;
    iov[msg.msg_iovlen++] = (struct iovec){.iov_base = n->in + n->in_len, .iov_len = NBD_IN_BYTES - n->in_len};
    const ssize_t got = recvmsg(n->fd, &msg, MSG_DONTWAIT);
    if (got <= 0)
        return got == 0 ? -ECONNRESET : -errno;
    const uint32_t filled_bytes = (size_t)got < direct ? (uint32_t)got : direct;
    n->in_len += (size_t)got - filled_bytes;
    if (filled_bytes)
        filled(n, filled_bytes);
    return got;
}

int nbd_client_receive(struct nbd_volume *n, const char **why)
{
    const struct input input = {.n = n, .why = why};
    for (;;) {
        int r;
        while ((r = take_one(&input)) > 0)
            n->n_heard++;
        if (r < 0)
            return r;
        const ssize_t got = receive_some(n);
        if (got == -EAGAIN || got == -EINTR)
            return 0;
        if (got < 0) {
            *why = got == -ECONNRESET ? "the server closed it" : strerror((int)-got);
            return (int)got;
        }
        n->n_heard++;
    }
}
