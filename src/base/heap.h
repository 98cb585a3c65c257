// A binary heap of nodes that are members of the caller's own structs: the least key first, and of equal keys the one that was put
// in first. A node knows its place, so that it can leave from anywhere. No allocation but in heap_reserve(). One owner thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    uint64_t key, turn; // turn: the heap's
    size_t at;          // 0: in no heap, else its place
};

// Invariant: nodes[1] to nodes[n] are in heap order, and nodes[i]->at == i.
struct heap {
    struct heap_node **nodes;
    size_t n, capacity;
    uint64_t turn;
};

int heap_reserve(struct heap *h, size_t n); // room for n nodes in all; -ENOMEM
void heap_fini(struct heap *h);             // all zeroes is an empty heap

void heap_push(struct heap *h, struct heap_node *node, uint64_t key); // node is in no heap, and there is room
void heap_remove(struct heap *h, struct heap_node *node);             // node is in this heap

static inline struct heap_node *heap_first(const struct heap *h)
{
    return h->n ? h->nodes[1] : NULL;
}

static inline uint64_t heap_first_key(const struct heap *h)
{
    return h->n ? h->nodes[1]->key : UINT64_MAX;
}
