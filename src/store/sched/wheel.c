// Timing wheel: see wheel.h.
#include "store/sched/wheel.h"

#include <assert.h>
#include <stddef.h>

#define WORDS (WHEEL_SLOTS / 64)

void wheel_init(struct wheel *w, unsigned slot_bits, unsigned past)
{
    *w = (struct wheel){.slot_bits = slot_bits, .past = past};
}

static void append(struct wheel *w, struct wheel_node *node, unsigned slot)
{
    struct wheel_node *first = w->slots[slot];
    node->slot = slot;
    if (!first) {
        w->slots[slot] = node->next = node->prev = node;
        w->used[slot / 64] |= 1ull << slot % 64;
        return;
    }
    node->next = first;
    node->prev = first->prev;
    first->prev->next = node;
    first->prev = node;
}

void wheel_remove(struct wheel *w, struct wheel_node *node)
{
    unsigned slot = node->slot;
    assert(node->next);
    if (node->next == node) {
        w->slots[slot] = NULL;
        w->used[slot / 64] &= ~(1ull << slot % 64);
    } else {
        node->next->prev = node->prev;
        node->prev->next = node->next;
        if (w->slots[slot] == node)
            w->slots[slot] = node->next;
    }
    node->next = NULL;
    w->n--;
}

// The first used slot, counted from the oldest; WHEEL_SLOTS: none.
static unsigned first_used(const struct wheel *w)
{
    unsigned start = (unsigned)(w->first % WHEEL_SLOTS), word = start / 64;
    uint64_t bits = w->used[word] & ~0ull << start % 64;
    for (unsigned i = 0; i <= WORDS; i++) {
        if (bits)
            return (word * 64 + (unsigned)__builtin_ctzll(bits) - start) % WHEEL_SLOTS;
        word = (word + 1) % WORDS;
        bits = w->used[word];
    }
    return WHEEL_SLOTS;
}

// Time has gone on: what would fall out at the old end goes to the front of what is the oldest slot now.
static void advance(struct wheel *w, uint64_t first)
{
    struct wheel_node *late = NULL, **tail = &late;
    while (w->n && w->first < first) {
        unsigned used = first_used(w);
        if (used == WHEEL_SLOTS || w->first + used >= first)
            break;
        struct wheel_node *node = w->slots[(w->first + used) % WHEEL_SLOTS];
        wheel_remove(w, node);
        *tail = node;
        tail = &node->next;
    }
    if (w->first < first)
        w->first = first;
    *tail = NULL;
    unsigned slot = (unsigned)(w->first % WHEEL_SLOTS);
    for (struct wheel_node *node = late, *next; node; node = next, w->n++) {
        next = node->next;
        append(w, node, slot);
    }
    if (late) // a ring: what was appended last lies before what was there first
        w->slots[slot] = late;
}

void wheel_put(struct wheel *w, struct wheel_node *node, uint64_t key_ns, uint64_t now_ns)
{
    assert(!node->next);
    uint64_t now = now_ns >> w->slot_bits, at = key_ns >> w->slot_bits;
    advance(w, now > w->past ? now - w->past : 0);
    if (at < w->first)
        at = w->first;
    if (at >= w->first + WHEEL_SLOTS)
        at = w->first + WHEEL_SLOTS - 1;
    node->key_ns = key_ns;
    w->n++;
    append(w, node, (unsigned)(at % WHEEL_SLOTS));
}

struct wheel_node *wheel_due(struct wheel *w, uint64_t now_ns)
{
    uint64_t now = now_ns >> w->slot_bits;
    while (w->n) {
        uint64_t at = w->first + first_used(w);
        struct wheel_node *node = w->slots[at % WHEEL_SLOTS];
        if (at > now)
            return NULL;
        if (node->key_ns >> w->slot_bits <= now)
            return node;
        wheel_remove(w, node); // it was too far ahead when it was put there
        wheel_put(w, node, node->key_ns, now_ns);
    }
    return NULL;
}

uint64_t wheel_next_ns(const struct wheel *w)
{
    return w->n ? (w->first + first_used(w)) << w->slot_bits : UINT64_MAX;
}
