// The addresses of a switch: see mac_table.h.
#include "router/ethernet/mac_table.h"

#include <stdlib.h>
#include <string.h>

#define WAYS 8
#define SEEN_PINNED UINT32_MAX

struct bucket {
    uint64_t entry[WAYS]; // address << 16 | port; 0: free, as 0 is nobody's address
} __attribute__((aligned(64)));

struct mac_table {
    struct bucket *buckets;
    uint32_t *seen_s; // one each entry: when, or SEEN_PINNED
    unsigned n_buckets, shift;
    uint64_t key;
    uint32_t age_s;
};

struct mac_table *mac_table_create(unsigned n_addresses, uint64_t key, uint32_t age_s)
{
    // Half full at n_addresses: then a bucket runs over for about one address in a thousand.
    unsigned log = 1;
    while ((WAYS / 2u << log) < n_addresses)
        log++;
    struct mac_table *table = calloc(1, sizeof(*table));
    if (!table)
        return NULL;
    *table = (struct mac_table){.n_buckets = 1u << log, .shift = 64 - log, .key = key | 1, .age_s = age_s};
    table->buckets = aligned_alloc(sizeof(struct bucket), table->n_buckets * sizeof(struct bucket));
    table->seen_s = calloc(table->n_buckets, WAYS * sizeof(*table->seen_s));
    if (!table->buckets || !table->seen_s) {
        mac_table_destroy(table);
        return NULL;
    }
    memset(table->buckets, 0, table->n_buckets * sizeof(struct bucket));
    return table;
}

void mac_table_destroy(struct mac_table *table)
{
    if (!table)
        return;
    free(table->buckets);
    free(table->seen_s);
    free(table);
}

static unsigned bucket_of(const struct mac_table *table, uint64_t mac)
{
    uint64_t hash = (mac ^ table->key) * 0x9e3779b97f4a7c15u; // 2^64 / the golden ratio
    hash = (hash ^ hash >> 29 ^ table->key >> 7) * 0xbf58476d1ce4e5b9u;
    return (unsigned)(hash >> table->shift);
}

// An entry is one word, so whole, whenever it is read.
uint16_t mac_table_peek(const struct mac_table *table, uint64_t mac)
{
    const struct bucket *bucket = &table->buckets[bucket_of(table, mac)];
    for (int way = 0; way < WAYS; way++) {
        const uint64_t entry = __atomic_load_n(&bucket->entry[way], __ATOMIC_RELAXED);
        if ((entry ^ mac << 16) <= UINT16_MAX)
            return (uint16_t)entry;
    }
    return MAC_NOWHERE;
}

static bool is_aged(const struct mac_table *table, uint32_t seen_s, uint32_t now_s)
{
    return seen_s != SEEN_PINNED && now_s - seen_s > table->age_s;
}

// The place of the address, or -1.
static int find_way(const struct bucket *bucket, uint64_t mac)
{
    for (int way = 0; way < WAYS; way++)
        if ((bucket->entry[way] ^ mac << 16) <= UINT16_MAX)
            return way;
    return -1;
}

uint16_t mac_table_find(const struct mac_table *table, uint64_t mac, uint32_t now_s)
{
    const unsigned b = bucket_of(table, mac);
    const int way = mac ? find_way(&table->buckets[b], mac) : -1;
    if (way < 0 || is_aged(table, table->seen_s[b * WAYS + (unsigned)way], now_s))
        return MAC_NOWHERE;
    return (uint16_t)table->buckets[b].entry[way];
}

// A place that is free, or whose address has aged; -1: none.
static int free_way(const struct mac_table *table, unsigned b, uint32_t now_s)
{
    for (int way = 0; way < WAYS; way++)
        if (!table->buckets[b].entry[way] || is_aged(table, table->seen_s[b * WAYS + (unsigned)way], now_s))
            return way;
    return -1;
}

static void set(struct mac_table *table, unsigned b, int way, uint64_t mac, uint16_t port, uint32_t seen_s)
{
    table->buckets[b].entry[way] = mac << 16 | port;
    table->seen_s[b * WAYS + (unsigned)way] = seen_s;
}

enum mac_learned mac_table_learn(struct mac_table *table, uint64_t mac, uint16_t port, uint32_t now_s, bool may_be_new,
                                 uint16_t *before)
{
    const unsigned b = bucket_of(table, mac);
    int way = find_way(&table->buckets[b], mac);
    *before = MAC_NOWHERE;
    if (way >= 0) {
        uint32_t *seen_s = &table->seen_s[b * WAYS + (unsigned)way];
        const uint16_t at = (uint16_t)table->buckets[b].entry[way];
        if (at != port)
            *before = at;
        if (*seen_s == SEEN_PINNED)
            return at == port ? MAC_KNOWN : MAC_PINNED;
        if (at != port && !may_be_new)
            return MAC_FULL;
        set(table, b, way, mac, port, now_s);
        return at == port ? MAC_KNOWN : MAC_MOVED;
    }
    way = may_be_new ? free_way(table, b, now_s) : -1;
    if (way < 0)
        return MAC_FULL;
    set(table, b, way, mac, port, now_s);
    return MAC_NEW;
}

bool mac_table_pin(struct mac_table *table, uint64_t mac, uint16_t port)
{
    const unsigned b = bucket_of(table, mac);
    int way = find_way(&table->buckets[b], mac);
    for (int i = 0; way < 0 && i < WAYS; i++) // one that was only learned makes room
        if (table->seen_s[b * WAYS + (unsigned)i] != SEEN_PINNED)
            way = i;
    if (way < 0)
        return false;
    set(table, b, way, mac, port, SEEN_PINNED);
    return true;
}

static void clear(struct mac_table *table, unsigned i)
{
    table->buckets[i / WAYS].entry[i % WAYS] = 0;
    table->seen_s[i] = 0;
}

void mac_table_unpin(struct mac_table *table, uint64_t mac, uint16_t port)
{
    const unsigned b = bucket_of(table, mac);
    const int way = find_way(&table->buckets[b], mac);
    const unsigned i = b * WAYS + (unsigned)way;
    if (way >= 0 && table->seen_s[i] == SEEN_PINNED && (uint16_t)table->buckets[b].entry[way] == port)
        clear(table, i);
}

void mac_table_forget(struct mac_table *table, uint16_t port)
{
    for (unsigned i = 0; i < table->n_buckets * WAYS; i++)
        if ((uint16_t)table->buckets[i / WAYS].entry[i % WAYS] == port)
            clear(table, i);
}

void mac_table_sweep(struct mac_table *table, uint32_t now_s, uint32_t *counts, unsigned n_ports)
{
    memset(counts, 0, n_ports * sizeof(*counts));
    for (unsigned i = 0; i < table->n_buckets * WAYS; i++) {
        const uint64_t entry = table->buckets[i / WAYS].entry[i % WAYS];
        if (entry && is_aged(table, table->seen_s[i], now_s))
            clear(table, i);
        else if (entry && (uint16_t)entry < n_ports)
            counts[(uint16_t)entry]++;
    }
}
