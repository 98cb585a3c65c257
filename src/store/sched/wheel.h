// A timing wheel: nodes by time, in O(1) each, in the order of time to a slot's length, and within a slot in the order of putting
// (G. Varghese, A. Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 4). What lies further back than `past` slots
// is in the oldest one, and what lies too far ahead in the last. Private to the schedulers.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WHEEL_SLOTS 1024u

struct wheel_node {
    struct wheel_node *next, *prev; // a ring; next == NULL: in no wheel
    uint64_t key_ns;
};

struct wheel_slot { // the head of a ring, with the members of a node
    struct wheel_node *next, *prev;
};

// Invariant: slot s of the ring holds time slot number n with n % WHEEL_SLOTS == s and first <= n < first + WHEEL_SLOTS. A bit of
// `used` is set if the slot holds nodes; it may be set if it held some.
struct wheel {
    unsigned slot_bits, past, n;
    uint64_t first; // number of the oldest slot
    uint64_t from;  // slots before this one are empty
    uint64_t used[WHEEL_SLOTS / 64];
    struct wheel_slot slots[WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, unsigned slot_bits, unsigned past); // a slot is 2^slot_bits ns
void wheel_put(struct wheel *w, struct wheel_node *node, uint64_t key_ns, uint64_t now_ns);
void wheel_move(struct wheel *w, struct wheel_node *node, uint64_t key_ns, uint64_t now_ns); // one that is there, to another time
struct wheel_node *wheel_due(struct wheel *w, uint64_t now_ns); // the first one, if its slot has begun; NULL: there is none
uint64_t wheel_next_ns(struct wheel *w);                        // when the first slot with a node begins; UINT64_MAX: there is none

static inline bool wheel_holds(const struct wheel_node *node)
{
    return node->next;
}

static inline void wheel_remove(struct wheel *w, struct wheel_node *node)
{
    node->next->prev = node->prev;
    node->prev->next = node->next;
    node->next = (struct wheel_node *)0;
    w->n--;
}
