// The neighbours of a network's ports: see neighbour.h.
#include "router/ip/neighbour.h"

#include <stdlib.h>

#define EVICT_LOOKS 64   // entries that are looked at for one to be given up
#define EVICT_AFTER_S 10 // without use

struct neighbours *neighbours_create(uint32_t most, uint64_t key)
{
    uint32_t n_heads = 16;
    while (n_heads < most)
        n_heads *= 2;
    struct neighbours *table = calloc(1, sizeof(*table));
    if (!table)
        return NULL;
    *table = (struct neighbours){.most = most, .free = NEIGHBOUR_NOWHERE, .mask = n_heads - 1, .key = key};
    // Untouched until used: most networks have few.
    table->entries = aligned_alloc(64, most * sizeof(struct neighbour));
    table->heads = malloc(n_heads * sizeof(*table->heads));
    if (!table->entries || !table->heads) {
        neighbours_destroy(table);
        return NULL;
    }
    memset(table->heads, 0xff, n_heads * sizeof(*table->heads));
    return table;
}

void neighbours_destroy(struct neighbours *table)
{
    if (!table)
        return;
    free(table->entries);
    free(table->heads);
    free(table);
}

size_t neighbours_bytes(const struct neighbours *table)
{
    return sizeof(*table) + table->most * sizeof(struct neighbour) + (table->mask + 1) * sizeof(*table->heads);
}

static uint32_t *chain_of(struct neighbours *table, uint64_t high, uint64_t low, unsigned port)
{
    uint64_t hash = (high ^ table->key) * 0x9e3779b97f4a7c15u; // 2^64 / the golden ratio
    hash = ((hash ^ hash >> 31) + low + port) * 0xbf58476d1ce4e5b9u;
    return &table->heads[(uint32_t)(hash >> 32) & table->mask];
}

struct neighbour *neighbour_find(struct neighbours *table, unsigned family, unsigned port, rib_key key)
{
    const uint64_t high = (uint64_t)(key >> 64), low = (uint64_t)key;
    for (uint32_t i = *chain_of(table, high, low, port); i != NEIGHBOUR_NOWHERE; i = table->entries[i].next)
        if (neighbour_is(&table->entries[i], family, port, high, low))
            return &table->entries[i];
    return NULL;
}

// One that nothing was sent to for a while makes room.
static void evict(struct neighbours *table, uint32_t now_s)
{
    const uint32_t n = table->n_seen < EVICT_LOOKS ? table->n_seen : EVICT_LOOKS;
    for (uint32_t k = 0; k < n; k++) {
        struct neighbour *entry = &table->entries[(now_s * EVICT_LOOKS + k) % table->n_seen];
        if (entry->state == NEIGHBOUR_STALE && now_s - entry->used_s > EVICT_AFTER_S) {
            neighbour_remove(table, entry);
            return;
        }
    }
}

static struct neighbour *take_entry(struct neighbours *table, uint32_t now_s)
{
    if (table->free == NEIGHBOUR_NOWHERE && table->n_seen == table->most)
        evict(table, now_s);
    struct neighbour *n = NULL;
    if (table->free != NEIGHBOUR_NOWHERE) {
        n = &table->entries[table->free];
        table->free = n->next;
    } else if (table->n_seen < table->most) {
        n = &table->entries[table->n_seen];
        memset(n, 0, sizeof(*n));
        atomic_thread_fence(memory_order_release); // before it is counted: neighbours_read() looks at no other
        table->n_seen++;
    }
    return n;
}

struct neighbour *neighbour_add(struct neighbours *table, unsigned family, unsigned port, rib_key key, uint32_t now_s)
{
    struct neighbour *n = take_entry(table, now_s);
    if (!n)
        return NULL;
    neighbour_begin(n);
    n->high = (uint64_t)(key >> 64);
    n->low = (uint64_t)key;
    n->family = (uint8_t)family;
    n->port = (uint16_t)port;
    n->out = NULL;
    n->is_ready = false;
    n->used_s = now_s;
    n->n_waiting = 0;
    n->state = NEIGHBOUR_FREE;
    uint32_t *head = chain_of(table, n->high, n->low, port);
    n->next = *head;
    *head = (uint32_t)(n - table->entries);
    neighbour_set_state(table, n, NEIGHBOUR_INCOMPLETE, now_s);
    neighbour_end(n);
    atomic_store_explicit(&table->n_used, atomic_load_explicit(&table->n_used, memory_order_relaxed) + 1, memory_order_relaxed);
    return n;
}

void neighbour_set_state(struct neighbours *table, struct neighbour *n, enum neighbour_state state, uint32_t now_s)
{
    table->n_incomplete -= n->state == NEIGHBOUR_INCOMPLETE;
    table->n_incomplete += state == NEIGHBOUR_INCOMPLETE;
    n->state = (uint8_t)state;
    n->since_s = now_s;
    n->tries = 0;
}

void neighbour_remove(struct neighbours *table, struct neighbour *n)
{
    const uint32_t index = (uint32_t)(n - table->entries);
    uint32_t *at = chain_of(table, n->high, n->low, n->port);
    while (*at != index)
        at = &table->entries[*at].next;
    *at = n->next;
    neighbour_begin(n);
    neighbour_set_state(table, n, NEIGHBOUR_FREE, 0);
    n->family = 0;
    n->is_ready = false;
    n->out = NULL;
    n->next = table->free;
    neighbour_end(n);
    table->free = index;
    atomic_store_explicit(&table->n_used, atomic_load_explicit(&table->n_used, memory_order_relaxed) - 1, memory_order_relaxed);
}

// ---- the control thread's look ----

void neighbour_begin(struct neighbour *n)
{
    atomic_store_explicit(&n->version, atomic_load_explicit(&n->version, memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); // what is written from here on comes behind it
}

void neighbour_end(struct neighbour *n)
{
    atomic_store_explicit(&n->version, atomic_load_explicit(&n->version, memory_order_relaxed) + 1, memory_order_release);
}

bool neighbours_read(struct neighbours *table, uint32_t i, struct neighbour *copy)
{
    if (i >= *(volatile uint32_t *)&table->n_seen)
        return false;
    atomic_thread_fence(memory_order_acquire);
    struct neighbour *n = &table->entries[i];
    for (unsigned turn = 0; turn < 1000; turn++) {
        const uint32_t before = atomic_load_explicit(&n->version, memory_order_acquire);
        memcpy(copy, n, sizeof(*copy));
        atomic_thread_fence(memory_order_acquire);
        if (!(before & 1) && before == atomic_load_explicit(&n->version, memory_order_relaxed))
            return copy->family != 0;
    }
    return false; // it changes all the time
}
