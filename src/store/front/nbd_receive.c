// Requests of an NBD client, from the socket to the disk: see nbd_private.h.
#include "store/front/nbd_private.h"

#include <errno.h>
#include <string.h>

#define SKIP_MAX (2u * NBD_PAYLOAD_DEFAULT) // a client that sends more data than that with one request is not worth listening to
#define INPUT_BEHIND_LARGE 4096u

static uint32_t there_bytes(const struct nbd_conn *c)
{
    return c->in_len - c->in_at;
}

// ---- a request that is whole ----

void nbd_submit(struct nbd_slot *slot, enum volume_op op, uint64_t offset_bytes, uint64_t len_bytes,
                void (*done)(struct disk_request *, int))
{
    struct volume_request *io = &slot->request.io;
    struct nbd_conn *c = slot->conn;
    io->op = op;
    io->offset_bytes = offset_bytes;
    io->len_bytes = len_bytes;
    slot->request.done = done;
    c->in_flight++;
    c->export->in_flight++;
    disk_submit(c->export->front.disk, &slot->request);
}

bool nbd_submit_done(struct nbd_slot *slot)
{
    struct nbd_conn *c = slot->conn;
    c->in_flight--;
    c->export->in_flight--;
    nbd_export_mark(c);
    if (c->is_dead)
        nbd_slot_put(slot);
    return !c->is_dead;
}

static void on_done(struct disk_request *request, int result)
{
    struct nbd_slot *slot = (struct nbd_slot *)request;
    if (nbd_submit_done(slot))
        nbd_reply_result(slot, result);
}

static void submit_range(struct nbd_slot *slot, enum volume_op op)
{
    struct volume_request *io = &slot->request.io;
    io->durable = slot->wire.flags & NBD_CMD_FLAG_FUA;
    io->may_unmap = !(slot->wire.flags & NBD_CMD_FLAG_NO_HOLE);
    io->only_fast = slot->wire.flags & NBD_CMD_FLAG_FAST_ZERO;
    if (op == VOLUME_WRITE)
        io->data = nbd_slot_data(slot, 0);
    nbd_submit(slot, op, slot->wire.offset_bytes, slot->wire.len_bytes, on_done);
}

static void start(struct nbd_slot *slot)
{
    const struct nbd_conn *c = slot->conn;
    const uint16_t type = slot->wire.type;
    if (type == NBD_CMD_FLUSH ? c->terms.read_only : !slot->wire.len_bytes || type == NBD_CMD_CACHE) {
        nbd_reply(slot, NBD_OK, NULL); // done by doing nothing; "it is unspecified what the server's actual caching mechanism is"
        return;
    }
    switch (type) {
    case NBD_CMD_READ:
        nbd_read_start(slot);
        break;
    case NBD_CMD_WRITE:
        submit_range(slot, VOLUME_WRITE);
        break;
    case NBD_CMD_FLUSH:
        nbd_submit(slot, VOLUME_FLUSH, 0, 0, on_done);
        break;
    case NBD_CMD_TRIM:
        submit_range(slot, VOLUME_DISCARD);
        break;
    case NBD_CMD_WRITE_ZEROES:
        submit_range(slot, VOLUME_ZERO);
        break;
    default:
        nbd_status_start(slot);
    }
}

// ---- what has come ----

// The disk may have shrunk since the request was checked.
static void start_filled(struct nbd_slot *slot)
{
    const char *why = NULL;
    const uint32_t error = nbd_request_check(&slot->wire, &slot->conn->terms, &why);
    if (error)
        nbd_reply(slot, error, why);
    else
        start(slot);
}

// False: the rest of the data is still to come.
static bool fill(struct nbd_conn *c)
{
    struct nbd_slot *slot = c->filling;
    const uint32_t left = slot->wire.len_bytes - c->filled_bytes, n = left < there_bytes(c) ? left : there_bytes(c);
    volume_data_write(nbd_slot_data(slot, c->filled_bytes), c->input + c->in_at, n);
    c->in_at += n;
    c->filled_bytes += n;
    if (n < left)
        return false;
    c->filling = NULL;
    start_filled(slot);
    return true;
}

// A client may be taken aback by the answer to a write whose data it has not sent yet, so it comes behind them.
static bool skip(struct nbd_conn *c)
{
    const uint32_t n = c->skip_bytes < there_bytes(c) ? (uint32_t)c->skip_bytes : there_bytes(c);
    c->in_at += n;
    c->skip_bytes -= n;
    if (c->skip_bytes)
        return false;
    struct nbd_slot *slot = c->refused;
    c->refused = NULL;
    nbd_reply(slot, c->refused_error, c->refused_why);
    return true;
}

static void refuse(struct nbd_slot *slot, uint32_t error, const char *why)
{
    struct nbd_conn *c = slot->conn;
    c->export->front.disk->counters.refused++;
    if (slot->wire.type != NBD_CMD_WRITE) {
        nbd_reply(slot, error, why);
    } else if (slot->wire.len_bytes > SKIP_MAX) {
        nbd_slot_put(slot);
        nbd_conn_fail(c);
    } else {
        c->skip_bytes = slot->wire.len_bytes;
        c->refused = slot;
        c->refused_error = error;
        c->refused_why = why;
    }
}

// False: nothing more can be taken now.
static bool take_request(struct nbd_conn *c, struct nbd_slot *slot)
{
    const char *why = NULL;
    const uint32_t error = nbd_request_check(&slot->wire, &c->terms, &why);
    const bool has_data = slot->wire.type == NBD_CMD_READ || slot->wire.type == NBD_CMD_WRITE;
    if (!error && has_data && !nbd_slot_make_data(slot, slot->wire.len_bytes)) {
        c->is_paused = true;
        nbd_slot_put(slot);
        return false;
    }
    c->in_at += NBD_REQUEST_BYTES;
    c->n_requests++;
    if (error) {
        refuse(slot, error, why);
        return !c->is_dead;
    }
    if (slot->wire.type != NBD_CMD_WRITE || !slot->wire.len_bytes) {
        start(slot);
        return true;
    }
    c->filling = slot;
    c->filled_bytes = 0;
    return true;
}

static bool take_one(struct nbd_conn *c)
{
    if (c->filling)
        return fill(c);
    if (c->refused)
        return skip(c);
    if (there_bytes(c) < NBD_REQUEST_BYTES)
        return false;
    struct nbd_slot *slot = nbd_slot_get(c);
    if (!slot) {
        c->is_paused = true;
        return false;
    }
    const bool is_bad = nbd_get_request(c->input + c->in_at, &slot->wire);
    if (!is_bad && slot->wire.type != NBD_CMD_DISC)
        return take_request(c, slot);
    nbd_slot_put(slot);
    if (is_bad)
        nbd_conn_fail(c);
    else
        c->is_ending = true; // when all that came before is answered
    return false;
}

static void parse(struct nbd_conn *c)
{
    c->is_paused = false;
    while (!c->is_ending && take_one(c)) {
    }
    const uint32_t left = there_bytes(c);
    if (left)
        memmove(c->input, c->input + c->in_at, left);
    c->in_at = 0;
    c->in_len = left;
}

// ---- the socket ----

// The data of a write go where they belong, and what comes behind them into the input. Behind large ones come more of them, most
// likely, which had better not be copied from there.
static ssize_t receive(struct nbd_conn *c)
{
    struct iovec iov[NBD_PIECES_MAX + 1];
    unsigned n = 0;
    uint32_t room = NBD_INPUT_BYTES - c->in_len;
    if (c->filling) {
        const uint32_t left = c->filling->wire.len_bytes - c->filled_bytes;
        n = volume_data_vector(nbd_slot_data(c->filling, c->filled_bytes), left, iov, NBD_PIECES_MAX);
        room = c->filling->n_pieces ? INPUT_BEHIND_LARGE : room;
    }
    iov[n] = (struct iovec){c->input + c->in_len, room};
    return nbd_stream_receive(&c->stream, iov, n + 1);
}

static void take_received(struct nbd_conn *c, uint32_t len_bytes)
{
    if (c->filling) {
        const uint32_t left = c->filling->wire.len_bytes - c->filled_bytes, n = left < len_bytes ? left : len_bytes;
        c->filled_bytes += n;
        len_bytes -= n;
    }
    c->in_len += len_bytes;
    parse(c);
}

static bool is_open(const struct nbd_conn *c)
{
    return !c->is_dead && !c->is_ending && !c->is_paused && !c->export->is_closing;
}

bool nbd_receive(struct nbd_conn *c)
{
    bool any = false;
    while (is_open(c)) {
        const ssize_t n = receive(c);
        if (n == -EAGAIN)
            break;
        any = true;
        c->is_ending = !n; // it may still read
        if (n < 0)
            nbd_conn_fail(c);
        if (n <= 0)
            break;
        take_received(c, (uint32_t)n);
        if (c->is_dead || !nbd_stream_has_input(&c->stream))
            break;
    }
    return any;
}

void nbd_receive_more(struct nbd_conn *c)
{
    if (c->is_dead || c->is_ending || c->export->is_closing)
        return;
    parse(c);
    if (!c->is_dead && nbd_stream_has_input(&c->stream))
        nbd_receive(c);
}
