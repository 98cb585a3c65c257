// The routes of a network by prefix: a binary trie without single-child nodes (Morrison's PATRICIA). What the Poptrie is made from,
// what is listed, and where a route is looked up by its prefix; no packet looks into it. One thread.
//
// An address or a prefix is a key: its first bit is the uppermost, an IPv4 address has the upper 32 bits. What lies behind a
// prefix's length is zero.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned __int128 rib_key;

#define RIB_KEY_BITS 128
#define RIB_NONE 0 // the value of no route

struct rib_node {
    uint64_t high, low; // the key
    struct rib_node *child[2];
    uint16_t value; // RIB_NONE: it only joins its two children
    uint8_t len;
};

// Zero is empty.
struct rib {
    struct rib_node *root, *spare; // spare: so that what was just removed can be put back without memory
    size_t n_routes, bytes;
};

static inline rib_key rib_node_key(const struct rib_node *node)
{
    return (rib_key)node->high << 64 | node->low;
}

// The first `len` bits of a key, the others zero.
static inline rib_key rib_mask(rib_key key, unsigned len)
{
    return len < RIB_KEY_BITS ? key & ~(~(rib_key)0 >> len) : key;
}

void rib_fini(struct rib *rib);

// The value of exactly this prefix, or RIB_NONE.
uint16_t rib_get(const struct rib *rib, rib_key key, unsigned len);
// Sets it, RIB_NONE to remove it; *before is what it was. -ENOMEM: nothing has changed. To undo the last call needs no memory.
int rib_set(struct rib *rib, rib_key key, unsigned len, uint16_t value, uint16_t *before);

// Where to start for all that is longer than the node and within it: itself if both its children are, NULL if there is nothing.
static inline const struct rib_node *rib_below(const struct rib_node *node)
{
    if (node->child[0] && node->child[1])
        return node;
    return node->child[0] ? node->child[0] : node->child[1];
}

// What a table's node needs to know of a prefix: the longest route of at most `len` bits that covers it (*value RIB_NONE: there is
// none), and where to start for what is longer and within it, or NULL.
const struct rib_node *rib_locate(const struct rib *rib, rib_key key, unsigned len, uint16_t *value, unsigned *value_len);

// Routes in the order of keys, the shorter one first, from this one on, until fn says no more.
typedef bool rib_visit_fn(void *arg, rib_key key, unsigned len, uint16_t value);
void rib_walk(const struct rib *rib, rib_key from, unsigned from_len, rib_visit_fn *fn, void *arg);
