// Timing wheel: see wheel.h.
#include "store/sched/wheel.h"

#include <assert.h>
#include <stddef.h>

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

// The number of the first slot with nodes; UINT64_MAX: there is none.
static uint64_t first_used(struct wheel *w)
{
    uint64_t at = w->from > w->first ? w->from : w->first;
    while (at < w->first + WHEEL_SLOTS) {
        unsigned slot = (unsigned)(at % WHEEL_SLOTS);
        uint64_t bits = w->used[slot / 64] >> slot % 64;
        if (!bits) {
            at = (at / 64 + 1) * 64;
            continue;
        }
        unsigned ahead = (unsigned)__builtin_ctzll(bits);
        at += ahead;
        slot += ahead;
        if (!is_empty(w, slot) && at < w->first + WHEEL_SLOTS) {
            w->from = at;
            return at;
        }
        w->used[slot / 64] &= ~((uint64_t)is_empty(w, slot) << slot % 64);
    }
    return UINT64_MAX;
}

// Time has gone on: what would fall out at the old end goes, as it is, before what is in the oldest slot then.
static void advance(struct wheel *w, uint64_t first)
{
    struct wheel_slot late;
    late.next = late.prev = (struct wheel_node *)&late;
    for (uint64_t at; (at = first_used(w)) < first;) {
        unsigned slot = (unsigned)(at % WHEEL_SLOTS);
        struct wheel_slot *s = &w->slots[slot];
        s->next->prev = late.prev;
        s->prev->next = (struct wheel_node *)&late;
        late.prev->next = s->next;
        late.prev = s->prev;
        s->next = s->prev = head_of(w, slot);
    }
    w->first = w->from = first;
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
    if (at < w->from)
        w->from = at;
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

void wheel_move(struct wheel *w, struct wheel_node *node, uint64_t key_ns, uint64_t now_ns)
{
    uint64_t at = key_ns >> w->slot_bits;
    bool is_alone = node->next == node->prev;
    if (is_alone && at == node->key_ns >> w->slot_bits && at >= w->first && at < w->first + WHEEL_SLOTS) {
        node->key_ns = key_ns;
        return;
    }
    wheel_remove(w, node);
    wheel_put(w, node, key_ns, now_ns);
}

struct wheel_node *wheel_due(struct wheel *w, uint64_t now_ns)
{
    uint64_t now = now_ns >> w->slot_bits;
    while (w->n) {
        uint64_t at = first_used(w);
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
    return w->n ? first_used(w) << w->slot_bits : UINT64_MAX;
}
