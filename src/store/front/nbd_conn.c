// A connection of the NBD server, its life and its memory: see nbd_private.h.
#include "store/front/nbd_private.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define KEEP_IDLE_S 60
#define KEEP_INTERVAL_S 15
#define KEEP_PROBES 4
#define UNIX_SOCKET_BYTES (1 << 20) // as far as the system allows
#define IOVS_BYTES ((size_t)NBD_REQUESTS_MAX * NBD_PIECES_MAX * sizeof(struct iovec))
#define SMALLS_BYTES ((size_t)NBD_REQUESTS_MAX * NBD_SMALL_BYTES)
#define PIECES_BYTES ((size_t)NBD_PIECES_MAX * NBD_PIECE_BYTES)
#define SLOTS_BYTES ((NBD_REQUESTS_MAX * sizeof(struct nbd_slot) + 4095) & ~(size_t)4095)
#define ARENA_BYTES (SLOTS_BYTES + IOVS_BYTES + SMALLS_BYTES + PIECES_BYTES)
#define TOUCHED_MAX 16u // pieces that a connection keeps though it does not use them

static void *map(size_t len)
{
    void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

// ---- the list that it is on ----

void nbd_conn_link(struct nbd_conn *c, struct nbd_conn **at)
{
    c->next = *at;
    c->at = at;
    if (c->next)
        c->next->at = &c->next;
    *at = c;
}

void nbd_conn_unlink(struct nbd_conn *c)
{
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
}

// ---- life ----

static void set_option(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof(value)); // works without as well
}

static void tune_socket(int fd)
{
    int domain = 0;
    socklen_t len = sizeof(domain);
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
    if (domain == AF_UNIX) {
        set_option(fd, SOL_SOCKET, SO_SNDBUF, UNIX_SOCKET_BYTES);
        return;
    }
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1); // "Transport": both ends should
    // A client that has lost its power shall not hold its place for ever.
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_PROBES);
}

static void on_event(void *arg, int fd, uint32_t events)
{
    struct nbd_conn *c = arg;
    (void)fd;
    if (c->is_dead)
        return;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        c->is_blocked = false;
    if (c->phase != NBD_TRANSMISSION) {
        nbd_handshake_event(c);
        return;
    }
    struct store *store = c->server->store;
    nbd_export_mark(c);
    if (events & ~(uint32_t)EPOLLOUT && nbd_receive(c))
        store_heat(&c->export->front);
    store_end_batch(store); // c may be gone behind it
}

struct nbd_conn *nbd_conn_create(struct nbd_listener *listener, int fd, struct tv_error *err)
{
    struct nbd_conn *c = calloc(1, sizeof(*c));
    uint8_t *memory = c ? map(NBD_INPUT_BYTES + NBD_OUTPUT_BYTES) : NULL;
    if (!memory) {
        free(c);
        tv_error_set(err, -ENOMEM, "nbd: out of memory for a connection");
        return NULL;
    }
    c->server = listener->server;
    c->listener = listener;
    c->stream.fd = fd;
    c->memory = memory;
    c->input = memory;
    c->output = memory + NBD_INPUT_BYTES;
    c->out_tail = &c->out;
    c->deadline_ns = clock_now_ns() + NBD_HANDSHAKE_NS;
    tune_socket(fd);
    c->source = loop_add_fd(c->server->store->loop, fd, EPOLLIN, on_event, c, err);
    if (c->source)
        return c;
    c->stream.fd = -1; // stays the caller's
    nbd_conn_free(c);
    return NULL;
}

void nbd_conn_fail(struct nbd_conn *c)
{
    if (c->is_dead)
        return;
    c->is_dead = true;
    loop_remove(c->source);
    c->source = NULL;
    nbd_stream_close(&c->stream);
    c->listener = NULL;
    while (c->out) {
        struct nbd_slot *slot = c->out;
        c->out = slot->link;
        nbd_slot_put(slot);
    }
    c->out_tail = &c->out;
    if (c->export)
        nbd_export_mark(c);
}

void nbd_conn_free(struct nbd_conn *c)
{
    assert(!c->in_flight);
    loop_remove(c->source);
    nbd_stream_close(&c->stream);
    munmap(c->memory, NBD_INPUT_BYTES + NBD_OUTPUT_BYTES);
    if (c->arena)
        munmap(c->arena, ARENA_BYTES);
    free(c);
}

void nbd_conn_watch(struct nbd_conn *c)
{
    if (c->is_dead)
        return;
    const bool waits = c->phase != NBD_TRANSMISSION && c->out_len; // for its answer to be taken
    const bool reads = !c->is_paused && !c->is_ending && !waits;
    loop_set_events(c->source, (reads ? (uint32_t)EPOLLIN : 0) | (c->is_blocked ? (uint32_t)EPOLLOUT : 0));
}

// ---- memory ----

int nbd_conn_make_arena(struct nbd_conn *c)
{
    uint8_t *at = map(ARENA_BYTES);
    if (!at)
        return -ENOMEM;
    c->arena = at;
    c->slots = (struct nbd_slot *)(void *)at;
    struct iovec *iovs = (struct iovec *)(void *)(at + SLOTS_BYTES);
    uint8_t *smalls = at + SLOTS_BYTES + IOVS_BYTES;
    c->pieces = smalls + SMALLS_BYTES;
    for (unsigned i = NBD_REQUESTS_MAX; i--;) {
        struct nbd_slot *slot = &c->slots[i];
        slot->conn = c;
        slot->small = smalls + (size_t)i * NBD_SMALL_BYTES;
        slot->iov = iovs + (size_t)i * NBD_PIECES_MAX;
        slot->link = c->free;
        c->free = slot;
    }
    for (unsigned i = 0; i < NBD_PIECES_MAX; i++)
        c->free_pieces[i] = (uint16_t)(NBD_PIECES_MAX - 1 - i);
    c->n_free_pieces = NBD_PIECES_MAX;
    return 0;
}

bool nbd_conn_sweep(struct nbd_conn *c)
{
    const bool is_idle = c->n_requests == c->n_swept && c->n_free_pieces == NBD_PIECES_MAX;
    c->n_swept = c->n_requests;
    if (c->n_touched <= TOUCHED_MAX)
        return false;
    if (!is_idle)
        return true;
    madvise(c->pieces, PIECES_BYTES, MADV_DONTNEED);
    c->n_touched = 0;
    return false;
}

struct nbd_slot *nbd_slot_get(struct nbd_conn *c)
{
    struct nbd_slot *slot = c->free;
    if (slot)
        c->free = slot->link;
    return slot;
}

void nbd_slot_put(struct nbd_slot *slot)
{
    struct nbd_conn *c = slot->conn;
    for (unsigned i = slot->n_pieces; i--;)
        c->free_pieces[c->n_free_pieces++] = (uint16_t)((size_t)((uint8_t *)slot->iov[i].iov_base - c->pieces) / NBD_PIECE_BYTES);
    slot->n_pieces = slot->n_iov = 0;
    slot->link = c->free;
    c->free = slot;
}

bool nbd_slot_make_data(struct nbd_slot *slot, uint32_t len_bytes)
{
    struct nbd_conn *c = slot->conn;
    slot->n_iov = 1;
    slot->iov[0] = (struct iovec){slot->small, len_bytes};
    if (len_bytes <= NBD_SMALL_BYTES)
        return true;
    const unsigned n = (len_bytes + NBD_PIECE_BYTES - 1) / NBD_PIECE_BYTES;
    if (c->n_free_pieces < n)
        return false;
    for (unsigned i = 0; i < n; i++) {
        const uint32_t left = len_bytes - i * NBD_PIECE_BYTES;
        uint8_t *piece = c->pieces + (size_t)c->free_pieces[--c->n_free_pieces] * NBD_PIECE_BYTES;
        slot->iov[i] = (struct iovec){piece, left < NBD_PIECE_BYTES ? left : NBD_PIECE_BYTES};
    }
    slot->n_iov = slot->n_pieces = n;
    if (NBD_PIECES_MAX - c->n_free_pieces > c->n_touched)
        c->n_touched = NBD_PIECES_MAX - c->n_free_pieces;
    if (c->n_touched > TOUCHED_MAX)
        nbd_server_tick(c->server);
    return true;
}

struct volume_data nbd_slot_data(const struct nbd_slot *slot, uint32_t from_bytes)
{
    const struct volume_data all = {.iov = slot->iov, .n_iov = slot->n_iov};
    return volume_data_from(all, from_bytes);
}
