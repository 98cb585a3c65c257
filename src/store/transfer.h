// A decoded request, carried out on an image: as many I/O operations one after another as it takes. Here are short counts
// continued, buffers bounced that direct I/O cannot take, ranges walked, and zeroes written where a file system cannot make them
// otherwise.
//
// The store's thread. Nothing here allocates after transfer_env_init().
#pragma once

#include "store/bounce.h"
#include "store/image.h"
#include "store/io.h"
#include "store/request.h"

#define TRANSFER_RETRIES 16 // of EINTR and EAGAIN, one after another

struct transfer {
    struct blk_request blk; // decoded by the caller: READ, WRITE, FLUSH, DISCARD or WRITE_ZEROES, and not empty
    const struct image *image;
    int file;                                     // of the image, in the engine
    bool durable;                                 // on stable storage before it is done (the guest has no write cache to flush)
    void (*done)(struct transfer *t, int result); // 0 or -errno; -ENODATA: the image has become shorter than its disk

    // ours
    struct io_op op;
    struct transfer_env *env;
    struct transfer *link; // waiting for a bounce buffer
    struct iovec *iov;     // what is left of blk.iov
    unsigned n_iov, range;
    uint64_t done_bytes; // of the data, or of the range
    uint8_t *bounce;
    struct iovec bounce_iov;
    unsigned retries;
    bool always_bounce, syncing;
    enum io_kind range_kind;
};

// What transfers share.
struct transfer_env {
    struct io_engine *io;
    struct bounce_pool bounce;
    struct transfer *waiting, **waiting_tail; // for a bounce buffer, in order
    uint8_t *zeroes;
    struct iovec zero_iov[8];
};

int transfer_env_init(struct transfer_env *env, struct io_engine *io, struct tv_error *err);
void transfer_env_fini(struct transfer_env *env);

// `done` is called later, never from inside. The caller submits (io_submit()).
void transfer_start(struct transfer_env *env, struct transfer *t);
