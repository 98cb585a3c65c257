// Bounce buffers: see bounce.h.
#include "store/volume/bounce.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int bounce_init(struct bounce_pool *pool, unsigned n, struct tv_error *err)
{
    *pool = (struct bounce_pool){.n = n};
    pool->waiting_tail = &pool->waiting;
    void *memory = mmap(NULL, (size_t)BOUNCE_BYTES * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return tv_error_set(err, -errno, "bounce buffers: %s", strerror(errno));
    pool->memory = memory;
    pool->free = calloc(n, sizeof(*pool->free));
    if (!pool->free) {
        bounce_fini(pool);
        return tv_error_set(err, -ENOMEM, "bounce buffers: out of memory");
    }
    for (unsigned i = 0; i < n; i++)
        pool->free[i] = (uint16_t)(n - 1 - i);
    pool->n_free = n;
    return 0;
}

void bounce_fini(struct bounce_pool *pool)
{
    if (!pool->memory)
        return;
    assert(!pool->free || pool->n_free == pool->n);
    munmap(pool->memory, (size_t)BOUNCE_BYTES * pool->n);
    free(pool->free);
    pool->memory = NULL;
    pool->free = NULL;
}

uint8_t *bounce_get(struct bounce_pool *pool, struct bounce_waiter *waiter)
{
    if (pool->n_free)
        return pool->memory + (size_t)pool->free[--pool->n_free] * BOUNCE_BYTES;
    waiter->link = NULL;
    *pool->waiting_tail = waiter;
    pool->waiting_tail = &waiter->link;
    return NULL;
}

void bounce_put(struct bounce_pool *pool, uint8_t *buffer)
{
    struct bounce_waiter *waiter = pool->waiting;
    if (waiter) {
        pool->waiting = waiter->link;
        if (!pool->waiting)
            pool->waiting_tail = &pool->waiting;
        waiter->got(waiter, buffer);
        return;
    }
    assert(pool->n_free < pool->n);
    pool->free[pool->n_free++] = (uint16_t)((size_t)(buffer - pool->memory) / BOUNCE_BYTES);
}
