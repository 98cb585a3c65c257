// Longest prefix match by a Poptrie (Asai and Ohara, "Poptrie: a compressed trie with population count for fast and scalable
// software IP routing table lookup", SIGCOMM'15): 64-ary nodes whose children, and whose leaves without repetitions, are found by
// counting bits; the first bits of an address may point directly (section 3.4).
//
// One thread changes it and any number look things up without a lock. A change makes new nodes beside the old ones from the root's
// entry on downwards, and sets the entry: an address is looked up in the one or in the other. What is old is kept until
// poptrie_reclaim(), which is called when no reader can be in it any more.
//
// Direct pointing costs 8 bytes an entry, 2 MiB with 18 bits; without it (0 bits) a table of a hundred routes has some kilobytes.
#pragma once

#include "router/ip/rib.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define POPTRIE_STRIDE 6 // bits a node
#define POPTRIE_DIRECT_MOST 18

// Behind `block` lie the children of the slots set in `children`; before it, backwards, 16 bits each, the leaves, one for each slot
// set in `leaves`: those without a child in which another value begins.
struct poptrie_node {
    uint64_t children, leaves;
    struct poptrie_node *block;
};

// An entry is a pointer to a node, or value << 1 | 1.
struct poptrie_root {
    unsigned direct_bits;
    _Atomic(uintptr_t) entries[];
};

struct poptrie_piece {
    void *at;
    size_t len_bytes;
};

struct poptrie_pieces {
    struct poptrie_piece *at;
    size_t n, room;
};

struct poptrie {
    _Atomic(struct poptrie_root *) root;
    size_t bytes; // of what is in use and of what is retired
    size_t retired_bytes;
    struct poptrie_pieces fresh, retired; // fresh: made by a change that is not through yet
};

int poptrie_init(struct poptrie *trie, unsigned direct_bits); // 0 to POPTRIE_DIRECT_MOST; -ENOMEM
void poptrie_fini(struct poptrie *trie);                      // no reader is left

// Follows the rib, in which the route of this prefix, and no other one, has come, gone or changed. -ENOMEM: nothing is changed.
int poptrie_update(struct poptrie *trie, const struct rib *rib, rib_key key, unsigned len);
// All anew, with another number of direct bits. -ENOMEM: nothing is changed.
int poptrie_rebuild(struct poptrie *trie, const struct rib *rib, unsigned direct_bits);
// Frees what was retired.
void poptrie_reclaim(struct poptrie *trie);

// ---- readers ----

// The slots 0 to i.
static inline uint64_t poptrie_up_to(unsigned i)
{
    return (2ull << i) - 1;
}

static inline uint16_t poptrie_leaf(const struct poptrie_node *node, uint64_t up_to)
{
    return ((const uint16_t *)node->block)[-(ptrdiff_t)__builtin_popcountll(node->leaves & up_to)];
}

static inline const struct poptrie_node *poptrie_child(const struct poptrie_node *node, uint64_t up_to)
{
    return node->block + __builtin_popcountll(node->children & up_to) - 1;
}

// The root is loaded once for a burst. direct_bits may be 0: shifting in two steps is defined then too.
static inline struct poptrie_root *poptrie_root(const struct poptrie *trie)
{
    return atomic_load_explicit(&trie->root, memory_order_acquire);
}

static inline const _Atomic(uintptr_t) *poptrie_entry(const struct poptrie_root *root, uint64_t high)
{
    return &root->entries[high >> 1 >> (63 - root->direct_bits)];
}

// An IPv4 address. Entries are set with release; what lies behind one is reached by its address alone.
static inline uint16_t poptrie_find4(const struct poptrie_root *root, uint32_t address)
{
    uint64_t key = (uint64_t)address << 32;
    const uintptr_t entry = atomic_load_explicit(poptrie_entry(root, key), memory_order_acquire);
    if (entry & 1)
        return (uint16_t)(entry >> 1);
    const struct poptrie_node *node = (const struct poptrie_node *)entry;
    for (key <<= root->direct_bits;; key <<= POPTRIE_STRIDE) {
        const unsigned i = (unsigned)(key >> (64 - POPTRIE_STRIDE));
        if (!(node->children >> i & 1))
            return poptrie_leaf(node, poptrie_up_to(i));
        node = poptrie_child(node, poptrie_up_to(i));
    }
}

static inline uint16_t poptrie_find6(const struct poptrie_root *root, rib_key key)
{
    const uintptr_t entry = atomic_load_explicit(poptrie_entry(root, (uint64_t)(key >> 64)), memory_order_acquire);
    if (entry & 1)
        return (uint16_t)(entry >> 1);
    const struct poptrie_node *node = (const struct poptrie_node *)entry;
    for (key <<= root->direct_bits;; key <<= POPTRIE_STRIDE) {
        const unsigned i = (unsigned)(key >> (RIB_KEY_BITS - POPTRIE_STRIDE));
        if (!(node->children >> i & 1))
            return poptrie_leaf(node, poptrie_up_to(i));
        node = poptrie_child(node, poptrie_up_to(i));
    }
}
