// The store's I/O engine: operations on images, asynchronously, through io_uring; where the kernel has none (or forbids it, as many
// container runtimes do) through a few threads that block.
//
// All calls and all callbacks on the loop's thread. Nothing here allocates after creation. An operation belongs to the engine from
// io_start() until its `done` is called, and the memory it names must stay until then. Results are as of the system call: bytes, 0,
// or -errno; a short count is the caller's to continue.
#pragma once

#include "base/error.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define IO_FILES_MAX 1024

enum io_kind {
    IO_READ,
    IO_WRITE,
    IO_SYNC,    // fdatasync
    IO_PUNCH,   // the range becomes a hole and reads as zeroes
    IO_ZERO,    // the range reads as zeroes and keeps its place
    IO_DISCARD, // BLKDISCARD: a block device forgets the range
    IO_STATUS,  // result 1: the range begins in a hole; 0: with data. len_bytes is cut to what is alike
};

struct io_op {
    enum io_kind kind;
    bool durable;                     // IO_WRITE: on stable storage before it is done (RWF_DSYNC)
    int file;                         // as io_add_file() gave it
    uint64_t offset_bytes, len_bytes; // len_bytes: the sum of iov, where there is one
    const struct iovec *iov;          // of READ and WRITE
    unsigned n_iov;
    void (*done)(struct io_op *op, int result);
    // the engine's
    struct io_op *link;
    int fd, result;
};

struct io_engine;

struct io_config {
    unsigned depth;            // so many operations are with the kernel at once; further ones wait inside
    bool no_uring;             // threads even where io_uring works
    void (*batch_end)(void *); // after completions were delivered, or io_poke(); what it starts is submitted; may be NULL
    void *arg;
};

struct io_engine *io_create(struct loop *loop, const struct io_config *config, struct tv_error *err);
void io_destroy(struct io_engine *io); // nothing is in flight
const char *io_describe(const struct io_engine *io);

// A file (borrowed) to work on: its number, or -errno. Removed when nothing of it is in flight.
int io_add_file(struct io_engine *io, int fd, struct tv_error *err);
void io_remove_file(struct io_engine *io, int file);

// Starts, or at least queues, an operation. Cannot fail: an error comes as a result. `done` is never called from inside.
void io_start(struct io_engine *io, struct io_op *op);
// What was started since the last time goes to the kernel in one call.
void io_submit(struct io_engine *io);
// Blocks until at least one operation has completed, and delivers all that have; for draining. Something must be in flight.
void io_wait(struct io_engine *io);
// Without waiting: delivers what has completed, as a batch if there was anything; how many. For those that poll.
unsigned io_poll(struct io_engine *io);
// Whether whoever polls is all that will look: then nothing wakes the loop. What completed before it is set back is found by
// another io_poll().
void io_set_polled(struct io_engine *io, bool polled);
void io_poke(struct io_engine *io); // have batch_end called in the loop's next round
unsigned io_in_flight(const struct io_engine *io);
