// Bounce buffers: see bounce.h.
#include "store/bounce.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int bounce_init(struct bounce_pool *pool, struct tv_error *err)
{
    pool->memory = mmap(NULL, (size_t)BOUNCE_BYTES * BOUNCE_BUFFERS, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool->memory == MAP_FAILED) {
        pool->memory = NULL;
        return tv_error_set(err, -errno, "bounce buffers: %s", strerror(errno));
    }
    for (unsigned i = 0; i < BOUNCE_BUFFERS; i++)
        pool->free[i] = (uint16_t)(BOUNCE_BUFFERS - 1 - i);
    pool->n_free = BOUNCE_BUFFERS;
    return 0;
}

void bounce_fini(struct bounce_pool *pool)
{
    if (!pool->memory)
        return;
    assert(pool->n_free == BOUNCE_BUFFERS);
    munmap(pool->memory, (size_t)BOUNCE_BYTES * BOUNCE_BUFFERS);
    pool->memory = NULL;
}

uint8_t *bounce_get(struct bounce_pool *pool)
{
    return pool->n_free ? pool->memory + (size_t)pool->free[--pool->n_free] * BOUNCE_BYTES : NULL;
}

void bounce_put(struct bounce_pool *pool, const uint8_t *buffer)
{
    assert(pool->n_free < BOUNCE_BUFFERS);
    pool->free[pool->n_free++] = (uint16_t)((size_t)(buffer - pool->memory) / BOUNCE_BYTES);
}
