// Buffers of one size, a fixed number, made when the pool is. Who finds none gets one when it is its turn. The store's thread.
//
// Who holds a buffer may wait for what lies below it, and never for another of the same pool: so layers have pools of their own.
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define BOUNCE_BYTES (256u << 10)

struct bounce_waiter {
    struct bounce_waiter *link;
    void (*got)(struct bounce_waiter *waiter, uint8_t *buffer);
};

struct bounce_pool {
    uint8_t *memory; // touched as far as it is used
    unsigned n, n_free;
    uint16_t *free; // a stack: what was used last is warm
    struct bounce_waiter *waiting, **waiting_tail;
};

int bounce_init(struct bounce_pool *pool, unsigned n, struct tv_error *err);
void bounce_fini(struct bounce_pool *pool); // all are back
// BOUNCE_BYTES, page-aligned; NULL: waiter->got will be called with one.
uint8_t *bounce_get(struct bounce_pool *pool, struct bounce_waiter *waiter);
void bounce_put(struct bounce_pool *pool, uint8_t *buffer);
