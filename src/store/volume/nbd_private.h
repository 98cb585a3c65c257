// The parts of the NBD client: nbd.c its life and its connections, nbd_connect.c how one is made, nbd_request.c what is asked for,
// nbd_reply.c what comes back.
#pragma once

#include "store/nbd/wire.h"
#include "store/volume/nbd.h"

#include <pthread.h>
#include <stdatomic.h>

#define NBD_SLOTS 512u             // requests with the server at once; further ones wait
#define NBD_PIECE_BYTES (2u << 20) // of data in one request; what is larger goes in pieces
#define NBD_IN_BYTES (64u << 10)

// What a server said of its export.
struct nbd_terms {
    uint64_t size_bytes;
    uint16_t flags;
    uint32_t block_bytes, payload_max_bytes;
    bool is_structured, has_context;
    uint32_t context; // of base:allocation
};

// How to get there; the caller's, and constant.
struct nbd_way {
    int dir_fd;
    char name[108], address[64], export[256];
    uint16_t port;
};

// A request on its way, in its context. It goes piece by piece: each is one command, and one reply.
struct nbd_op {
    struct volume_request *request;
    struct nbd_op *link; // of those to be sent, or that wait for a slot
    uint64_t done_bytes;
    uint32_t piece_bytes;
    uint16_t command, flags, slot;
    bool is_flushing;   // a durable write whose server knows no FUA: the flush that follows
    bool writes_zeroes; // by data
    bool is_sent;       // the command and its data, whole: until then nothing can answer it
    uint32_t got_bytes; // of the piece's data, in a reply
    int error;          // of the piece
    uint64_t epoch;     // of a flush: n_written when it was sent
    uint8_t head[NBD_REQUEST_BYTES];
};

struct nbd_slot {
    struct nbd_op *op; // NULL: free
    uint32_t generation;
};

enum nbd_state { NBD_CONNECTED, NBD_CONNECTING, NBD_LOST };

struct nbd_volume {
    struct volume volume;
    struct nbd_way way;
    struct nbd_terms terms;
    bool keeps_cache;
    unsigned reconnect_s, timeout_s;
    enum nbd_state state;
    uint64_t n_written, n_flushed; // changes that were answered and are not stable by themselves; how many of these are stable
    bool has_lost;                 // a connection broke while some were not, or a flush failed
    uint64_t n_connections;
    int fd;
    struct loop_source *source;
    struct loop_source *timer; // whether it is silent
    uint64_t n_heard, n_heard_before;
    unsigned n_silent_waits;
    struct nbd_slot slots[NBD_SLOTS];
    uint16_t free_slots[NBD_SLOTS];
    unsigned n_free;
    struct nbd_op *waiting, **waiting_tail; // for a slot or a connection
    // What is being sent: a list, the first of it in part. At the end of a batch, so that it goes in one go.
    struct nbd_op *sending, **sending_tail;
    size_t sent_bytes;
    bool wants_out;
    struct volume_ender ender;
    // What is being received.
    uint8_t *in;
    size_t in_len, in_at;
    struct nbd_op *filling; // its memory takes the next fill_bytes
    uint32_t fill_at_bytes, fill_bytes;
    bool fill_ends; // with them the piece is done
    // The thread that connects.
    pthread_t thread;
    bool has_thread;
    atomic_bool stop;
    int told_fd; // an eventfd: it has ended
    struct loop_source *told;
    int new_fd; // or -errno
    struct nbd_terms new_terms;
    struct tv_error new_error;
};

// nbd_connect.c: blocks, any thread. A connection in transmission, set not to block, or -errno. What the server says is checked.
int nbd_client_connect(const struct nbd_way *way, unsigned timeout_s, struct nbd_terms *terms, struct tv_error *err);

// nbd_request.c
void nbd_client_start(struct volume *volume, struct volume_request *request);
void nbd_client_init_queues(struct nbd_volume *n);
void nbd_client_give_waiting(struct nbd_volume *n);                     // slots to those that wait, if there is a connection
void nbd_client_send(struct nbd_volume *n);                             // all there is, as far as the socket takes it
struct nbd_op *nbd_client_op_of(struct nbd_volume *n, uint64_t cookie); // NULL: nobody waits for that, or has sent it yet
void nbd_client_piece_done(struct nbd_volume *n, struct nbd_op *op);    // by its reply: op->error
void nbd_client_take_back(struct nbd_volume *n);                        // all that was with a server that has gone waits again
void nbd_client_fail_all(struct nbd_volume *n, int result);

// nbd_reply.c
int nbd_client_receive(struct nbd_volume *n,
                       const char **why); // all there is; -EPROTO, -ECONNRESET: the connection is to be dropped

// nbd.c
void nbd_client_drop(struct nbd_volume *n, const char *why); // the connection
void nbd_client_want_out(struct nbd_volume *n, bool wanted); // to be told when the socket takes more
