// The packet buffers of a network: see pool.h.
#include "router/pool.h"

#include <errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CACHED_MOST 512 // buffers with each thread, and no more than an eighth of all
#define SMALL_POOL 2048 // buffers; smaller ones have no caches of DPDK's
#define STACK_MOST 64   // and this of their own

// ---- where free buffers are ----

// A ring in plain memory; and a stack that is the worker's alone. A network belongs to one worker, so whichever lcore but the first
// comes is that one. Where DPDK's caches are, what comes here are whole caches, and the stack is not used.
struct store {
    struct rte_ring *ring;
    unsigned stack_most;
    _Atomic unsigned n_stacked; // the worker's; others look
    void *stack[STACK_MOST];
};

static bool is_worker(void)
{
    const unsigned lcore = rte_lcore_id();
    return lcore && lcore < RTE_MAX_LCORE;
}

static int ops_alloc(struct rte_mempool *pool)
{
    const unsigned n = rte_align32pow2(pool->size + 1);
    struct store *store = rte_zmalloc(NULL, sizeof(*store), RTE_CACHE_LINE_SIZE);
    struct rte_ring *ring = rte_malloc(NULL, (size_t)rte_ring_get_memsize(n), RTE_CACHE_LINE_SIZE);
    if (!store || !ring || rte_ring_init(ring, pool->name, n, 0)) {
        rte_free(ring);
        rte_free(store);
        return -ENOMEM;
    }
    store->ring = ring;
    store->stack_most = pool->cache_size ? 0 : pool->size / 4 < STACK_MOST ? pool->size / 4 : STACK_MOST;
    pool->pool_data = store;
    return 0;
}

static void ops_free(struct rte_mempool *pool)
{
    struct store *store = pool->pool_data;
    if (store) // else there was no memory for it
        rte_free(store->ring);
    rte_free(store);
}

static int ops_enqueue(struct rte_mempool *pool, void *const *objects, unsigned n)
{
    struct store *store = pool->pool_data;
    const unsigned at = atomic_load_explicit(&store->n_stacked, memory_order_relaxed);
    if (n == 1 && at < store->stack_most && is_worker()) { // most come so
        store->stack[at] = *objects;
        atomic_store_explicit(&store->n_stacked, at + 1, memory_order_relaxed);
        return 0;
    }
    if (n > store->stack_most || !is_worker())
        return rte_ring_mp_enqueue_bulk(store->ring, objects, n, NULL) ? 0 : -ENOBUFS;
    unsigned kept = at;
    if (at + n > store->stack_most) { // half of it goes back
        kept = at / 2;
        rte_ring_mp_enqueue_bulk(store->ring, store->stack + kept, at - kept, NULL);
    }
    if (kept + n > store->stack_most)
        kept -= rte_ring_mp_enqueue_bulk(store->ring, store->stack, kept, NULL); // all of it
    memcpy(store->stack + kept, objects, n * sizeof(*objects));
    atomic_store_explicit(&store->n_stacked, kept + n, memory_order_relaxed);
    return 0;
}

static int ops_dequeue(struct rte_mempool *pool, void **objects, unsigned n)
{
    struct store *store = pool->pool_data;
    const unsigned has = is_worker() ? atomic_load_explicit(&store->n_stacked, memory_order_relaxed) : 0;
    const unsigned taken = n < has ? n : has;
    if (n > taken && !rte_ring_mc_dequeue_bulk(store->ring, objects + taken, n - taken, NULL))
        return -ENOBUFS;
    memcpy(objects, store->stack + has - taken, taken * sizeof(*objects));
    if (taken)
        atomic_store_explicit(&store->n_stacked, has - taken, memory_order_relaxed);
    return 0;
}

static unsigned ops_count(const struct rte_mempool *pool)
{
    const struct store *store = pool->pool_data;
    return rte_ring_count(store->ring) + atomic_load_explicit(&store->n_stacked, memory_order_relaxed);
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

// The same buffers come again while they are in the CPU's cache; but what one thread keeps the other cannot have.
static unsigned cache_of(unsigned n_buffers)
{
    const unsigned share = n_buffers / 8 < CACHED_MOST ? n_buffers / 8 : CACHED_MOST;
    return n_buffers < SMALL_POOL ? 0 : share;
}

int pool_create(unsigned id, unsigned n_buffers, unsigned data_bytes, struct rte_mempool **pool)
{
    char name[RTE_MEMPOOL_NAMESIZE - 8];
    const unsigned room = RTE_PKTMBUF_HEADROOM + data_bytes;
    struct rte_pktmbuf_pool_private private = {.mbuf_data_room_size = (uint16_t)room};
    snprintf(name, sizeof(name), "vn%u", id);
    *pool = rte_mempool_create_empty(name, n_buffers, (unsigned)sizeof(struct rte_mbuf) + room, cache_of(n_buffers),
                                     sizeof(private), SOCKET_ID_ANY, is_flat() ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0);
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
