// Aligned buffers for requests whose own memory direct I/O cannot take. A fixed number, made at start; a request that finds none
// waits for one. The store's thread.
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define BOUNCE_BYTES (256u << 10)
#define BOUNCE_BUFFERS 64u

struct bounce_pool {
    uint8_t *memory; // touched as far as it is used
    unsigned n_free;
    uint16_t free[BOUNCE_BUFFERS]; // a stack: what was used last is warm
};

int bounce_init(struct bounce_pool *pool, struct tv_error *err);
void bounce_fini(struct bounce_pool *pool);
uint8_t *bounce_get(struct bounce_pool *pool); // BOUNCE_BYTES, page-aligned; NULL: all are in use
void bounce_put(struct bounce_pool *pool, const uint8_t *buffer);
