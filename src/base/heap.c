// Binary heap: see heap.h.
#include "base/heap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int heap_reserve(struct heap *h, size_t n)
{
    if (n <= h->capacity)
        return 0;
    size_t capacity = h->capacity ? h->capacity * 2 : 16;
    if (capacity < n)
        capacity = n;
    struct heap_node **nodes = realloc(h->nodes, (capacity + 1) * sizeof(struct heap_node *));
    if (!nodes)
        return -ENOMEM;
    h->nodes = nodes;
    h->capacity = capacity;
    return 0;
}

void heap_fini(struct heap *h)
{
    free(h->nodes);
    *h = (struct heap){0};
}

static bool is_before(const struct heap_node *a, const struct heap_node *b)
{
    return a->key < b->key || (a->key == b->key && a->turn < b->turn);
}

static void put(struct heap *h, size_t at, struct heap_node *node)
{
    h->nodes[at] = node;
    node->at = at;
}

static void sift_up(struct heap *h, size_t at, struct heap_node *node)
{
    for (; at > 1 && is_before(node, h->nodes[at / 2]); at /= 2)
        put(h, at, h->nodes[at / 2]);
    put(h, at, node);
}

static void sift_down(struct heap *h, size_t at, struct heap_node *node)
{
    for (size_t child; (child = at * 2) <= h->n; at = child) {
        if (child < h->n && is_before(h->nodes[child + 1], h->nodes[child]))
            child++;
        if (!is_before(h->nodes[child], node))
            break;
        put(h, at, h->nodes[child]);
    }
    put(h, at, node);
}

void heap_push(struct heap *h, struct heap_node *node, uint64_t key)
{
    assert(!node->at && h->n < h->capacity);
    node->key = key;
    node->turn = h->turn++;
    sift_up(h, ++h->n, node);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    size_t at = node->at;
    assert(at && at <= h->n && h->nodes[at] == node);
    node->at = 0;
    struct heap_node *last = h->nodes[h->n--];
    if (last == node)
        return;
    if (at > 1 && is_before(last, h->nodes[at / 2]))
        sift_up(h, at, last);
    else
        sift_down(h, at, last);
}
