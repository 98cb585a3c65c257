// Timing wheel: see wheel.h.
#include "store/sched/wheel.h"

#include <assert.h>
#include <stddef.h>

#define WORDS (WHEEL_SLOTS / 64)

static struct wheel_node *head_of(struct wheel *w, unsigned slot)
{
    _Static_assert(offsetof(struct wheel_node, next) == offsetof(struct wheel_slot, next) &&
                       offsetof(struct wheel_node, prev) == offsetof(struct wheel_slot, prev),
                   "a slot is the head of a ring of nodes");
    return (struct wheel_node *)&w->slots[slot]; // its key is never looked at
}

void wheel_init(struct wheel *w, unsigned slot_bits, unsigned past)
{
    *w = (struct wheel){.slot_bits = slot_bits, .past = past};
    for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++)
        w->slots[slot].next = w->slots[slot].prev = head_of(w, slot);
}

static bool is_empty(struct wheel *w, unsigned slot)
{
    return w->slots[slot].next == head_of(w, slot);
}

// The first slot with nodes, counted from the oldest; WHEEL_SLOTS: there is none.
static unsigned first_used(struct wheel *w)
{
    unsigned start = (unsigned)(w->first % WHEEL_SLOTS), word = start / 64;
    uint64_t mask = ~0ull << start % 64;
    for (unsigned i = 0; i <= WORDS; i++) {
        for (uint64_t bits = w->used[word] & mask; bits; bits &= bits - 1) {
            unsigned slot = word * 64 + (unsigned)__builtin_ctzll(bits);
            if (!is_empty(w, slot))
                return (slot - start) % WHEEL_SLOTS;
            w->used[word] &= ~(1ull << slot % 64);
        }
        mask = ~0ull;
        word = (word + 1) % WORDS;
    }
    return WHEEL_SLOTS;
}

// Time has gone on: what would fall out at the old end goes, as it is, before what is in the oldest slot then.
static void advance(struct wheel *w, uint64_t first)
{
    struct wheel_slot late;
    late.next = late.prev = (struct wheel_node *)&late;
    for (unsigned used; w->n && (used = first_used(w)) < WHEEL_SLOTS && w->first + used < first;) {
        unsigned slot = (unsigned)((w->first + used) % WHEEL_SLOTS);
        struct wheel_slot *s = &w->slots[slot];
        s->next->prev = late.prev;
        s->prev->next = (struct wheel_node *)&late;
        late.prev->next = s->next;
        late.prev = s->prev;
        s->next = s->prev = head_of(w, slot);
    }
    w->first = first;
    if (late.next == (struct wheel_node *)&late)
        return;
    unsigned slot = (unsigned)(w->first % WHEEL_SLOTS);
    struct wheel_slot *s = &w->slots[slot];
    late.prev->next = s->next;
    s->next->prev = late.prev;
    s->next = late.next;
    late.next->prev = head_of(w, slot);
    w->used[slot / 64] |= 1ull << slot % 64;
}

void wheel_put(struct wheel *w, struct wheel_node *node, uint64_t key_ns, uint64_t now_ns)
{
    assert(!node->next);
    uint64_t now = now_ns >> w->slot_bits, at = key_ns >> w->slot_bits;
    if (now > w->first + w->past)
        advance(w, now - w->past);
    if (at < w->first)
        at = w->first;
    if (at >= w->first + WHEEL_SLOTS)
        at = w->first + WHEEL_SLOTS - 1;
    unsigned slot = (unsigned)(at % WHEEL_SLOTS);
    struct wheel_node *head = head_of(w, slot);
    node->key_ns = key_ns;
    node->next = head;
    node->prev = head->prev;
    head->prev->next = node;
    head->prev = node;
    w->used[slot / 64] |= 1ull << slot % 64;
    w->n++;
}

struct wheel_node *wheel_due(struct wheel *w, uint64_t now_ns)
{
    uint64_t now = now_ns >> w->slot_bits;
    while (w->n) {
        uint64_t at = w->first + first_used(w);
        struct wheel_node *node = w->slots[at % WHEEL_SLOTS].next;
        if (at > now)
            return NULL;
        if (node->key_ns >> w->slot_bits <= now)
            return node;
        wheel_remove(w, node); // it was too far ahead when it was put there
        wheel_put(w, node, node->key_ns, now_ns);
    }
    return NULL;
}

uint64_t wheel_next_ns(struct wheel *w)
{
    return w->n ? (w->first + first_used(w)) << w->slot_bits : UINT64_MAX;
}
