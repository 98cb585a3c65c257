// Bounded lock-free rings: see ring.h.
//
// Positions count up for ever (size_t, wrapping with the type) and are reduced to slots by a mask. Producer and consumer fields lie
// in cache lines of their own. SPSC keeps a copy of the other side's position and reads the real one only when the copy says full
// or empty.
#include "base/ring.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

enum { CACHE_LINE_BYTES = 64 };
#define CAPACITY_MAX ((size_t)1 << 31)

// Invariant: 0 <= tail - head <= mask + 1; slots [head, tail) hold items.
struct spsc_ring {
    size_t mask;
    void **slots;
    alignas(CACHE_LINE_BYTES) _Atomic size_t tail; // written by the producer
    size_t head_seen;                              // the producer's
    alignas(CACHE_LINE_BYTES) _Atomic size_t head; // written by the consumer
    size_t tail_seen;                              // the consumer's
};

// Dmitry Vyukov's bounded queue. A slot's turn tells whose it is: position p may be filled when turn == p, and taken when
// turn == p + 1; taking it sets p + capacity, the position that comes to this slot next.
struct mpsc_slot {
    _Atomic size_t turn;
    void *item; // guarded by turn
};

struct mpsc_ring {
    size_t mask;
    struct mpsc_slot *slots;
    alignas(CACHE_LINE_BYTES) _Atomic size_t tail; // producers claim positions here
    alignas(CACHE_LINE_BYTES) size_t head;         // the consumer's alone
};

static bool capacity_is_valid(size_t capacity)
{
    return capacity >= 2 && capacity <= CAPACITY_MAX && (capacity & (capacity - 1)) == 0;
}

// ---- SPSC

struct spsc_ring *spsc_ring_create(size_t capacity)
{
    struct spsc_ring *ring = capacity_is_valid(capacity) ? aligned_alloc(CACHE_LINE_BYTES, sizeof(*ring)) : NULL;
    if (!ring)
        return NULL;
    *ring = (struct spsc_ring){.mask = capacity - 1, .slots = calloc(capacity, sizeof(void *))};
    if (!ring->slots) {
        free(ring);
        return NULL;
    }
    return ring;
}

void spsc_ring_destroy(struct spsc_ring *ring)
{
    if (!ring)
        return;
    free(ring->slots);
    free(ring);
}

bool spsc_ring_push(struct spsc_ring *ring, void *item)
{
    const size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed); // ours
    if (tail - ring->head_seen > ring->mask) {
        // Pairs with the release of head in take(): the consumer has read the slot before we fill it again.
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (tail - ring->head_seen > ring->mask)
            return false;
    }
    ring->slots[tail & ring->mask] = item;
    // Pairs with the acquire of tail in available(): the slot, and what it points to, is seen with the new tail.
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return true;
}

static size_t available(struct spsc_ring *ring, size_t head)
{
    if (ring->tail_seen == head) // pairs with the release of tail in spsc_ring_push()
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
    return ring->tail_seen - head;
}

size_t spsc_ring_pop_many(struct spsc_ring *ring, void **items, size_t max)
{
    const size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed); // ours
    const size_t there = available(ring, head);
    const size_t n = there < max ? there : max;
    for (size_t i = 0; i < n; i++)
        items[i] = ring->slots[(head + i) & ring->mask];
    // Pairs with the acquire of head in spsc_ring_push(): the slots are read before the producer may fill them again.
    if (n)
        atomic_store_explicit(&ring->head, head + n, memory_order_release);
    return n;
}

void *spsc_ring_pop(struct spsc_ring *ring)
{
    void *item;
    return spsc_ring_pop_many(ring, &item, 1) ? item : NULL;
}

// ---- MPSC

struct mpsc_ring *mpsc_ring_create(size_t capacity)
{
    struct mpsc_ring *ring = capacity_is_valid(capacity) ? aligned_alloc(CACHE_LINE_BYTES, sizeof(*ring)) : NULL;
    if (!ring)
        return NULL;
    *ring = (struct mpsc_ring){.mask = capacity - 1, .slots = calloc(capacity, sizeof(struct mpsc_slot))};
    if (!ring->slots) {
        free(ring);
        return NULL;
    }
    for (size_t i = 0; i < capacity; i++)
        atomic_init(&ring->slots[i].turn, i);
    return ring;
}

void mpsc_ring_destroy(struct mpsc_ring *ring)
{
    if (!ring)
        return;
    free(ring->slots);
    free(ring);
}

bool mpsc_ring_push(struct mpsc_ring *ring, void *item)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    for (;;) {
        struct mpsc_slot *slot = &ring->slots[tail & ring->mask];
        // Pairs with the release in mpsc_ring_pop(): the consumer has read the slot's item before we write a new one.
        const size_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire);
        if (turn == tail) {
            // Relaxed: the claim orders nothing, the slot's turn does. On failure tail is the newer value.
            if (atomic_compare_exchange_weak_explicit(&ring->tail, &tail, tail + 1, memory_order_relaxed, memory_order_relaxed)) {
                slot->item = item;
                // Pairs with the acquire in mpsc_ring_pop(): the item, and what it points to, is seen with the turn.
                atomic_store_explicit(&slot->turn, tail + 1, memory_order_release);
                return true;
            }
        } else if ((ptrdiff_t)(turn - tail) < 0) {
            return false; // still holds the item of one capacity ago: full
        } else {
            tail = atomic_load_explicit(&ring->tail, memory_order_relaxed); // another producer was faster
        }
    }
}

void *mpsc_ring_pop(struct mpsc_ring *ring)
{
    struct mpsc_slot *slot = &ring->slots[ring->head & ring->mask];
    // Pairs with the release in mpsc_ring_push().
    if (atomic_load_explicit(&slot->turn, memory_order_acquire) != ring->head + 1)
        return NULL;
    void *item = slot->item;
    // Pairs with the acquire in mpsc_ring_push() one capacity later.
    atomic_store_explicit(&slot->turn, ring->head + ring->mask + 1, memory_order_release);
    ring->head++;
    return item;
}
