// What the volumes of a store share: the loop, the I/O engine, and a list of requests that are done already.
#pragma once

#include "base/loop.h"
#include "store/io.h"
#include "store/volume/bounce.h"
#include "store/volume/volume.h"

// What a volume does once at the end of a batch in which it was marked.
struct volume_ender {
    void (*end)(struct volume_ender *ender);
    struct volume_ender *next;
    bool is_marked;
};

struct volume_env {
    struct loop *loop;
    struct io_engine *io;
    struct bounce_pool bounce; // for files alone, which wait for nothing while they hold one; a layer has a pool of its own
    uint8_t *zeroes;           // VOLUME_ZEROES bytes, read-only
    int shadow_fd;             // the folder of what outlives the store (overlay_shadow.h), borrowed; -1: nothing does
    struct volume_request *finished, **finished_tail;
    struct volume_ender *enders;
};

#define VOLUME_ZEROES (128u << 10)

int volume_env_init(struct volume_env *env, struct loop *loop, struct io_engine *io, struct tv_error *err);
void volume_env_fini(struct volume_env *env); // no volume is left

// For volumes: the request is done, though its start has not returned yet, or whatever else must return first. `done` is called at
// the end of the batch.
void volume_finish_later(struct volume_env *env, struct volume_request *request, int result);
// `end` is called once, before anything is delivered at the end of the batch. Marked again, or not marked, is fine with both.
void volume_end_later(struct volume_env *env, struct volume_ender *ender);
void volume_end_never(struct volume_env *env, struct volume_ender *ender);
// Carries out a request and waits for it, where nothing else of the volume is in flight: for opening and resizing. context and
// `done` are its own. Others' requests go on meanwhile, and the store's batch is to be ended afterwards.
int volume_run(struct volume *volume, struct volume_request *request);
// For volumes that wait for something of their own: delivers what is done, or waits for a while until something is.
void volume_step(struct volume *volume);
// For the store: calls `done` of what was finished up to now; false: there was nothing.
bool volume_env_deliver(struct volume_env *env);
