// A few threads that carry out what would block: BLKDISCARD always, and everything where there is no io_uring.
//
// blocking_start() and blocking_reap() are called by one thread, the owner; the lock of the pool guards the two lists between it
// and the workers. Completion is told by an eventfd.
#pragma once

#include "store/io.h"

struct blocking;

// done_fd (borrowed) gets a 1 for each completion.
struct blocking *blocking_create(unsigned n_threads, int done_fd, struct tv_error *err);
void blocking_destroy(struct blocking *b); // nothing is in flight
void blocking_start(struct blocking *b, struct io_op *op);
struct io_op *blocking_reap(struct blocking *b); // a list (by link) of what is done, results set; NULL: nothing

// Carries the operation out here and now; its result.
int io_perform(struct io_op *op);
