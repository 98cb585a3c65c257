// The packet buffers of a network: see pool.h.
#include "router/pool.h"

#include <errno.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <stdbool.h>
#include <stdio.h>

#define CACHED_BUFFERS 64 // with each thread
#define SMALL_POOL 2048   // buffers; smaller ones have no caches

// ---- where free buffers are: a ring in plain memory ----

static int ops_alloc(struct rte_mempool *pool)
{
    const unsigned n = rte_align32pow2(pool->size + 1);
    struct rte_ring *ring = rte_malloc(NULL, (size_t)rte_ring_get_memsize(n), RTE_CACHE_LINE_SIZE);
    if (!ring || rte_ring_init(ring, pool->name, n, 0)) {
        rte_free(ring);
        return -ENOMEM;
    }
    pool->pool_data = ring;
    return 0;
}

static void ops_free(struct rte_mempool *pool)
{
    rte_free(pool->pool_data);
}

static int ops_enqueue(struct rte_mempool *pool, void *const *objects, unsigned n)
{
    return rte_ring_mp_enqueue_bulk(pool->pool_data, objects, n, NULL) ? 0 : -ENOBUFS;
}

static int ops_dequeue(struct rte_mempool *pool, void **objects, unsigned n)
{
    return rte_ring_mc_dequeue_bulk(pool->pool_data, objects, n, NULL) ? 0 : -ENOBUFS;
}

static unsigned ops_count(const struct rte_mempool *pool)
{
    return rte_ring_count(pool->pool_data);
}

static const struct rte_mempool_ops pool_ops = {
    .name = "trivet",
    .alloc = ops_alloc,
    .free = ops_free,
    .enqueue = ops_enqueue,
    .dequeue = ops_dequeue,
    .get_count = ops_count,
};
RTE_MEMPOOL_REGISTER_OPS(pool_ops)

// ---- the pool ----

static bool is_chunk_freed; // by DPDK, which does so in some failures and not in others; the control thread's

static void free_chunk(struct rte_mempool_memhdr *chunk, void *memory)
{
    (void)chunk;
    rte_free(memory);
    is_chunk_freed = true;
}

// Where devices see the same addresses as we do, which is so without hugepages, buffers may lie across pages; to DPDK's own way,
// which puts them on pages of 4 KiB one by one, that would be lost.
// Where devices see the same addresses as we do, as without hugepages, a buffer may lie across pages of 4 KiB: DPDK by itself puts
// one on each, and loses two fifths of the memory.
static bool is_flat(void)
{
    return rte_eal_iova_mode() == RTE_IOVA_VA;
}

static int populate(struct rte_mempool *pool)
{
    size_t page_bytes = 0, chunk_least, align;
    int r = rte_mempool_get_page_size(pool, &page_bytes);
    if (r)
        return r;
    const unsigned page_shift = page_bytes ? (unsigned)__builtin_ctzll(page_bytes) : 0;
    const ssize_t len = rte_mempool_op_calc_mem_size_default(pool, pool->size, page_shift, &chunk_least, &align);
    if (len < 0)
        return (int)len;
    void *memory = rte_malloc(NULL, (size_t)len, (unsigned)align);
    if (!memory)
        return -ENOMEM;
    is_chunk_freed = false;
    r = is_flat() ? rte_mempool_populate_iova(pool, memory, (rte_iova_t)memory, (size_t)len, free_chunk, memory)
                  : rte_mempool_populate_virt(pool, memory, (size_t)len, page_bytes, free_chunk, memory);
    if (r <= 0 && !is_chunk_freed)
        rte_free(memory);
    return r < 0 ? r : r < (int)pool->size ? -ENOMEM : 0;
}

int pool_create(unsigned id, unsigned n_buffers, unsigned data_bytes, struct rte_mempool **pool)
{
    char name[RTE_MEMPOOL_NAMESIZE - 8];
    const unsigned room = RTE_PKTMBUF_HEADROOM + data_bytes;
    struct rte_pktmbuf_pool_private private = {.mbuf_data_room_size = (uint16_t)room};
    snprintf(name, sizeof(name), "vn%u", id);
    *pool = rte_mempool_create_empty(name, n_buffers, (unsigned)sizeof(struct rte_mbuf) + room,
                                     n_buffers < SMALL_POOL ? 0 : CACHED_BUFFERS, sizeof(private), SOCKET_ID_ANY,
                                     is_flat() ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0);
    if (!*pool)
        return -ENOMEM;
    rte_pktmbuf_pool_init(*pool, &private);
    if (rte_mempool_set_ops_byname(*pool, pool_ops.name, NULL) || populate(*pool)) {
        rte_mempool_free(*pool);
        *pool = NULL;
        return -ENOMEM;
    }
    rte_mempool_obj_iter(*pool, rte_pktmbuf_init, NULL);
    return 0;
}
