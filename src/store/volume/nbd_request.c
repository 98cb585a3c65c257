// What an NBD server is asked for: see nbd_private.h.
#include "store/volume/nbd_private.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#define RANGE_BYTES_MAX (1u << 30) // of one command without data
#define VECTOR_MAX 512u            // of one call

// ---- what a request comes to ----

static bool is_change(const struct volume_request *request)
{
    return request->op == VOLUME_WRITE || request->op == VOLUME_DISCARD || request->op == VOLUME_ZERO;
}

static bool has(const struct nbd_volume *n, uint16_t flag)
{
    return n->terms.flags & flag;
}

static uint32_t least(uint64_t left, uint32_t most)
{
    return left < most ? (uint32_t)left : most;
}

static void plan_zero(const struct nbd_volume *n, struct nbd_op *op, uint64_t left)
{
    const struct volume_request *request = op->request;
    op->writes_zeroes = !has(n, NBD_FLAG_SEND_WRITE_ZEROES);
    op->command = op->writes_zeroes ? NBD_CMD_WRITE : NBD_CMD_WRITE_ZEROES;
    op->piece_bytes = least(left, op->writes_zeroes ? VOLUME_ZEROES : RANGE_BYTES_MAX);
    if (!op->writes_zeroes && !request->may_unmap)
        op->flags |= NBD_CMD_FLAG_NO_HOLE;
    if (!op->writes_zeroes && request->only_fast)
        op->flags |= NBD_CMD_FLAG_FAST_ZERO;
}

// The next command of a request that is not done.
static void plan(const struct nbd_volume *n, struct nbd_op *op)
{
    const struct volume_request *request = op->request;
    const uint64_t left = request->len_bytes - op->done_bytes;
    const uint32_t data = n->terms.payload_max_bytes < NBD_PIECE_BYTES ? n->terms.payload_max_bytes : NBD_PIECE_BYTES;
    op->flags = is_change(request) && request->durable && has(n, NBD_FLAG_SEND_FUA) ? NBD_CMD_FLAG_FUA : 0;
    op->writes_zeroes = false;
    op->got_bytes = 0;
    op->error = 0;
    switch (request->op) {
    case VOLUME_READ:
        op->command = NBD_CMD_READ;
        op->piece_bytes = least(left, data);
        break;
    case VOLUME_WRITE:
        op->command = NBD_CMD_WRITE;
        op->piece_bytes = least(left, data);
        break;
    case VOLUME_DISCARD:
        op->command = NBD_CMD_TRIM;
        op->piece_bytes = least(left, RANGE_BYTES_MAX);
        break;
    case VOLUME_ZERO:
        plan_zero(n, op, left);
        break;
    case VOLUME_STATUS:
        op->command = NBD_CMD_BLOCK_STATUS;
        op->flags = NBD_CMD_FLAG_REQ_ONE;
        op->piece_bytes = least(left, RANGE_BYTES_MAX);
        break;
    case VOLUME_FLUSH:
    case VOLUME_ABSORB:
        break;
    }
    if (request->op == VOLUME_FLUSH || op->is_flushing) {
        op->command = NBD_CMD_FLUSH;
        op->flags = 0;
        op->piece_bytes = 0;
        op->epoch = n->n_written;
    }
}

static void wait_turn(struct nbd_volume *n, struct nbd_op *op)
{
    op->link = NULL;
    *n->waiting_tail = op;
    n->waiting_tail = &op->link;
}

static void finish(struct nbd_volume *n, struct volume_request *request, int result)
{
    volume_finish_later(n->volume.env, request, result);
}

// What can be answered without the server. 1: it has to be asked.
static int answer_alone(struct nbd_volume *n, struct volume_request *request)
{
    if (n->state == NBD_LOST || (n->has_lost && (request->op == VOLUME_FLUSH || request->durable)))
        return -EIO;
    if (request->op == VOLUME_FLUSH && !has(n, NBD_FLAG_SEND_FLUSH))
        return 0;
    if ((request->op == VOLUME_DISCARD && !has(n, NBD_FLAG_SEND_TRIM)) || request->op == VOLUME_ABSORB)
        return -EOPNOTSUPP;
    if (request->op == VOLUME_ZERO && request->only_fast && !has(n, NBD_FLAG_SEND_FAST_ZERO))
        return -EOPNOTSUPP;
    if (request->op != VOLUME_STATUS || n->terms.has_context)
        return 1;
    request->extent = (struct volume_extent){.len_bytes = request->len_bytes};
    return 0;
}

void nbd_client_start(struct volume *volume, struct volume_request *request)
{
    struct nbd_volume *n = (struct nbd_volume *)volume;
    const int r = answer_alone(n, request);
    if (r <= 0) {
        finish(n, request, r);
        return;
    }
    struct nbd_op *op = request->context;
    op->request = request;
    op->done_bytes = 0;
    op->is_flushing = false;
    plan(n, op);
    wait_turn(n, op);
    nbd_client_give_waiting(n);
}

// ---- slots ----

static void on_batch_end(struct volume_ender *ender)
{
    nbd_client_send((struct nbd_volume *)((char *)ender - offsetof(struct nbd_volume, ender)));
}

void nbd_client_init_queues(struct nbd_volume *n)
{
    n->waiting_tail = &n->waiting;
    n->sending_tail = &n->sending;
    n->ender.end = on_batch_end;
    for (n->n_free = 0; n->n_free < NBD_SLOTS; n->n_free++)
        n->free_slots[n->n_free] = (uint16_t)(NBD_SLOTS - 1 - n->n_free);
}

static uint64_t cookie_of(const struct nbd_volume *n, uint16_t slot)
{
    return (uint64_t)n->slots[slot].generation << 16 | slot;
}

static void take_slot(struct nbd_volume *n, struct nbd_op *op)
{
    op->slot = n->free_slots[--n->n_free];
    n->slots[op->slot].op = op;
    op->is_sent = false;
    nbd_put_request(op->head,
                    &(struct nbd_request){.flags = op->flags,
                                          .type = op->command,
                                          .len_bytes = op->piece_bytes,
                                          .cookie = cookie_of(n, op->slot),
                                          .offset_bytes = op->piece_bytes ? op->request->offset_bytes + op->done_bytes : 0});
    op->link = NULL;
    *n->sending_tail = op;
    n->sending_tail = &op->link;
}

static void free_slot(struct nbd_volume *n, struct nbd_op *op)
{
    n->slots[op->slot].op = NULL;
    n->slots[op->slot].generation++;
    n->free_slots[n->n_free++] = op->slot;
}

struct nbd_op *nbd_client_op_of(struct nbd_volume *n, uint64_t cookie)
{
    const uint64_t slot = cookie & 0xffff;
    if (slot >= NBD_SLOTS || cookie != cookie_of(n, (uint16_t)slot))
        return NULL;
    struct nbd_op *op = n->slots[slot].op;
    return op && op->is_sent ? op : NULL; // a server can guess a cookie: what it answers too early is still in the list to be sent
}

void nbd_client_give_waiting(struct nbd_volume *n)
{
    while (n->waiting && n->n_free && n->state == NBD_CONNECTED) {
        struct nbd_op *op = n->waiting;
        n->waiting = op->link;
        if (!n->waiting)
            n->waiting_tail = &n->waiting;
        take_slot(n, op);
        volume_end_later(n->volume.env, &n->ender);
    }
}

// ---- sending ----

static size_t data_bytes(const struct nbd_op *op)
{
    return op->command == NBD_CMD_WRITE ? op->piece_bytes : 0;
}

// The rest of an op, from skip bytes of it on; how many segments.
static unsigned add_op(const struct nbd_volume *n, struct nbd_op *op, size_t skip, struct iovec *iov)
{
    unsigned n_iov = 0;
    if (skip < sizeof(op->head))
        iov[n_iov++] = (struct iovec){.iov_base = op->head + skip, .iov_len = sizeof(op->head) - skip};
    const size_t from = skip < sizeof(op->head) ? 0 : skip - sizeof(op->head), left = data_bytes(op) - from;
    if (!left)
        return n_iov;
    if (op->writes_zeroes) {
        iov[n_iov++] = (struct iovec){.iov_base = n->volume.env->zeroes, .iov_len = left};
        return n_iov;
    }
    return n_iov +
           volume_data_vector(volume_data_from(op->request->data, op->done_bytes + from), left, iov + n_iov, VOLUME_SEGMENTS_MAX);
}

static void was_sent(struct nbd_volume *n, size_t bytes)
{
    n->sent_bytes += bytes;
    while (n->sending && n->sent_bytes >= sizeof(n->sending->head) + data_bytes(n->sending)) {
        n->sent_bytes -= sizeof(n->sending->head) + data_bytes(n->sending);
        n->sending->is_sent = true;
        n->sending = n->sending->link;
    }
    if (!n->sending)
        n->sending_tail = &n->sending;
}

static ssize_t send_some(struct nbd_volume *n)
{
    struct iovec iov[VECTOR_MAX];
    struct msghdr msg = {.msg_iov = iov};
    size_t skip = n->sent_bytes;
    for (struct nbd_op *op = n->sending; op && msg.msg_iovlen + 1 + VOLUME_SEGMENTS_MAX <= VECTOR_MAX; op = op->link, skip = 0)
        msg.msg_iovlen += add_op(n, op, skip, iov + msg.msg_iovlen);
    const ssize_t sent = sendmsg(n->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

void nbd_client_send(struct nbd_volume *n)
{
    while (n->sending && n->state == NBD_CONNECTED) {
        const ssize_t sent = send_some(n);
        if (sent == -EINTR)
            continue;
        if (sent < 0 && sent != -EAGAIN) // what is wrong with it is found by receiving
            break;
        if (sent < 0) {
            nbd_client_want_out(n, true);
            return;
        }
        was_sent(n, (size_t)sent);
    }
    nbd_client_want_out(n, false);
}

// ---- answered ----

static void went_well(struct nbd_volume *n, struct nbd_op *op)
{
    struct volume_request *request = op->request;
    if (op->command == NBD_CMD_FLUSH || request->op == VOLUME_STATUS) {
        if (op->command == NBD_CMD_FLUSH && op->epoch > n->n_flushed)
            n->n_flushed = op->epoch;
        finish(n, request, 0);
        return;
    }
    op->done_bytes += op->piece_bytes;
    const bool is_whole = op->done_bytes == request->len_bytes, is_stable = op->flags & NBD_CMD_FLAG_FUA;
    n->n_written += is_change(request) && !is_stable;
    op->is_flushing = is_whole && is_change(request) && request->durable && !is_stable && has(n, NBD_FLAG_SEND_FLUSH);
    if (is_whole && !op->is_flushing) {
        finish(n, request, 0);
        return;
    }
    plan(n, op);
    wait_turn(n, op);
}

void nbd_client_piece_done(struct nbd_volume *n, struct nbd_op *op)
{
    free_slot(n, op);
    if (!op->error) {
        went_well(n, op);
    } else {
        n->has_lost |= op->command == NBD_CMD_FLUSH;
        finish(n, op->request, op->error);
    }
}

void nbd_client_take_back(struct nbd_volume *n)
{
    n->sending = NULL;
    n->sending_tail = &n->sending;
    n->sent_bytes = 0;
    for (unsigned i = 0; i < NBD_SLOTS; i++) {
        struct nbd_op *op = n->slots[i].op;
        if (!op)
            continue;
        free_slot(n, op);
        plan(n, op);
        wait_turn(n, op);
    }
}

void nbd_client_fail_all(struct nbd_volume *n, int result)
{
    for (struct nbd_op *op = n->waiting, *next; op; op = next) {
        next = op->link;
        finish(n, op->request, result);
    }
    n->waiting = NULL;
    n->waiting_tail = &n->waiting;
}
