// Calls a function on the loop's thread, soon, whenever some other thread has rung; several rings before it comes are one call.
// Unlike loop_post() it allocates nothing, so that a guest may ring as often as it likes, and no call comes after destruction.
#pragma once

#include "base/error.h"
#include "base/loop.h"

struct doorbell;

struct doorbell *doorbell_create(struct loop *loop, loop_fn *fn, void *arg, struct tv_error *err); // loop's thread
void doorbell_destroy(struct doorbell *bell);                                                      // loop's thread
void doorbell_ring(struct doorbell *bell); // any thread; what the caller wrote before is seen by fn
