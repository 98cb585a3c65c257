// The parts of the NBD server: nbd_server.c has listeners and half-open connections, nbd_handshake.c and nbd_option.c what they
// say, nbd_export.c the front end of a disk, nbd_conn.c a connection's life and its buffers, nbd_receive.c its requests, nbd_read.c
// and nbd_status.c those that take more than one step, nbd_reply.c the answers.
//
// A request's way: received, many at once, into the connection's input; taken from there into a slot, with memory for all its data;
// checked whole; answered at once if it is refused or needs no volume, else submitted to the disk. Its answer is queued, and goes
// out with all others at the end of the batch. When slots or memory are short the connection is not read from, until answers have
// gone out: a client that does not read its answers stops itself.
#pragma once

#include "store/front/nbd.h"
#include "store/front/nbd_request.h"
#include "store/front/nbd_stream.h"
#include "store/nbd/wire.h"

#define NBD_HALF_OPEN_MAX 128         // the oldest goes when one more comes
#define NBD_HANDSHAKE_NS 10000000000u // after that a half-open connection goes
#define NBD_CONNECTIONS_MAX 64        // of an export
#define NBD_REQUESTS_MAX 128          // of a connection: taken and not answered
#define NBD_SMALL_BYTES (16u << 10)   // data of each slot's own
#define NBD_PIECE_BYTES (128u << 10)  // larger data is made of pieces
#define NBD_PIECES_MAX (NBD_PAYLOAD_DEFAULT / NBD_PIECE_BYTES)
#define NBD_INPUT_BYTES (64u << 10)
#define NBD_OUTPUT_BYTES (128u << 10) // of the handshake's replies
#define NBD_HEAD_BYTES 96u
#define NBD_EXTENTS_MAX 1024u // in one answer
#define NBD_NAME_MAX 256u     // of a listener

_Static_assert(NBD_PIECES_MAX <= VOLUME_SEGMENTS_MAX, "the largest request is one of the volume's");
_Static_assert(NBD_CHUNK_STATUS_BYTES + NBD_EXTENTS_MAX * NBD_EXTENT_BYTES <= NBD_SMALL_BYTES,
               "extents lie in a slot's own memory");

struct nbd_listener {
    struct nbd_listener *next;
    struct nbd_server *server;
    char name[NBD_NAME_MAX];
    int fd;
    struct loop_source *source;
    json_t *exports;                     // NULL: all
    struct nbd_credentials *credentials; // NULL: no TLS
    bool tls_required;
    bool is_deaf; // there were no descriptors left
};

struct nbd_server {
    struct store *store;
    struct nbd_listener *listeners;
    struct nbd_conn *half_open; // the newest first
    unsigned n_half_open;
    struct loop_source *timer;
    bool is_ticking;
    uint64_t logged_ns, n_unlogged; // failed handshakes: one line a second tells of them
};

// The front end of one disk.
struct nbd_export {
    struct disk_front front;
    uint64_t id; // no other had it
    struct nbd_conn *conns;
    struct nbd_conn *marked; // to be seen to at the end of the batch
    unsigned n_conns, in_flight;
    bool is_closing;
};

struct nbd_slot {
    struct disk_request request;
    struct nbd_conn *conn;
    struct nbd_slot *link; // free, or queued to be sent
    struct nbd_request wire;
    uint8_t *small;                 // NBD_SMALL_BYTES
    struct iovec *iov;              // room for NBD_PIECES_MAX
    unsigned n_iov;                 // of data
    unsigned n_pieces;              // of them, from the connection's
    uint32_t done_bytes, n_extents; // of a request in steps
    // The answer: the head, then send_bytes of the data from send_from on.
    uint8_t head[NBD_HEAD_BYTES];
    uint32_t head_len, send_from, send_bytes;
};

// One list or the other: the server's half-open ones, or the export's.
struct nbd_conn {
    struct nbd_conn *next, **at;
    struct nbd_server *server;
    struct nbd_listener *listener; // NULL from the connection's end on
    struct nbd_export *export;     // NULL: half open
    struct nbd_conn *next_marked;
    bool is_marked;
    enum nbd_phase { NBD_FLAGS, NBD_OPTIONS, NBD_TLS, NBD_TRANSMISSION } phase;
    bool is_dead;    // closed; goes when nothing is in flight
    bool is_ending;  // no more is read; closes when the last answer is out
    bool is_paused;  // not read from, for want of slots or memory, or since TLS has to write first
    bool is_blocked; // the socket takes no more
    struct nbd_stream stream;
    struct loop_source *source;
    uint64_t deadline_ns;
    uint8_t *memory; // of input and output
    uint8_t *input, *output;
    uint32_t in_at, in_len;   // of input: what is not taken yet
    uint32_t out_at, out_len; // of output
    uint64_t skip_bytes;      // of what comes next
    // negotiated
    bool is_fixed, no_zeroes;
    struct nbd_terms terms;  // of the export
    uint64_t context_export; // the export's id for which the context was set
    // transmission
    uint8_t *arena;
    struct nbd_slot *slots, *free;
    uint8_t *pieces;
    uint16_t free_pieces[NBD_PIECES_MAX]; // a stack
    unsigned n_free_pieces, n_touched;    // the lowest of the stack ever reached
    unsigned in_flight;                   // at the disk
    struct nbd_slot *filling;             // a write whose data is coming
    uint32_t filled_bytes;
    struct nbd_slot *refused; // a write whose data are passed over
    uint32_t refused_error;
    const char *refused_why;
    struct nbd_slot *out, **out_tail; // answers, in the order in which they are sent
    size_t out_skip;                  // bytes of the first one that are sent
    uint64_t data_from, data_end;     // known not to begin with zeroes
    uint64_t n_requests, n_swept;
};

// nbd_server.c
void nbd_server_adopt(struct nbd_listener *listener, int fd); // takes a client's connected socket, nonblocking or not
void nbd_server_forget(struct nbd_conn *c);                   // a half-open one is dead, or not half open any more
void nbd_server_tick(struct nbd_server *server);              // have time looked at once a second
void nbd_server_log_refusal(struct nbd_server *server, const char *why);
bool nbd_listener_shows(const struct nbd_listener *listener, const struct disk *disk);

// nbd_handshake.c
void nbd_handshake_begin(struct nbd_conn *c); // greets; c may be gone behind it, as with the next one
void nbd_handshake_event(struct nbd_conn *c); // its descriptor is ready

// nbd_option.c
// The answer to an option whose data is here, into the output. -ECONNABORTED: the connection is to end at once.
int nbd_option_answer(struct nbd_conn *c, struct nbd_option option, const uint8_t *data);
void nbd_option_refuse(struct nbd_conn *c, uint32_t option, uint32_t error, const char *why);

// nbd_export.c
struct nbd_export *nbd_export_find(const struct nbd_listener *listener, struct nbd_string name); // "": the only one
struct nbd_export *nbd_export_of(const struct disk *disk);                                       // NULL: it has none
int nbd_export_join(struct nbd_export *export, struct nbd_conn *c); // -EBUSY: too many connections; -ENOMEM
void nbd_export_mark(struct nbd_conn *c);

// nbd_conn.c
struct nbd_conn *nbd_conn_create(struct nbd_listener *listener, int fd, struct tv_error *err);
void nbd_conn_link(struct nbd_conn *c, struct nbd_conn **at);
void nbd_conn_unlink(struct nbd_conn *c);
int nbd_conn_make_arena(struct nbd_conn *c);
bool nbd_conn_sweep(struct nbd_conn *c); // gives back memory that was not used for a while; true: there is more to give later
void nbd_conn_fail(struct nbd_conn *c);  // ends it at once; it is freed later
void nbd_conn_free(struct nbd_conn *c);  // dead, and nothing in flight
void nbd_conn_watch(struct nbd_conn *c); // the events that its state wants
struct nbd_slot *nbd_slot_get(struct nbd_conn *c);
void nbd_slot_put(struct nbd_slot *slot);                           // with its data
bool nbd_slot_make_data(struct nbd_slot *slot, uint32_t len_bytes); // false: not now
struct volume_data nbd_slot_data(const struct nbd_slot *slot, uint32_t from_bytes);

// nbd_receive.c
bool nbd_receive(struct nbd_conn *c);      // whether there was anything
void nbd_receive_more(struct nbd_conn *c); // there may be slots and memory again
void nbd_submit(struct nbd_slot *slot, enum volume_op op, uint64_t offset_bytes, uint64_t len_bytes,
                void (*done)(struct disk_request *, int));
bool nbd_submit_done(struct nbd_slot *slot); // to be called first by `done`; false: the client is gone, and so is the slot

// nbd_read.c, nbd_status.c
void nbd_read_start(struct nbd_slot *slot);
void nbd_status_start(struct nbd_slot *slot);

// nbd_reply.c
void nbd_reply(struct nbd_slot *slot, uint32_t error, const char *why); // without data; `why` may be NULL
void nbd_reply_result(struct nbd_slot *slot, int result);
// Head and data are there.
void nbd_reply_queue(struct nbd_slot *slot);
void nbd_send(struct nbd_conn *c); // as much as goes
