// The neighbours of a network's ports: who has which address on the link, and where a packet is on its way there. The table is the
// worker's; what it does about an entry is resolve.h. Nothing is allocated after creation.
//
// The control thread may look (neighbours_read): an entry's version is odd while the worker changes it.
#pragma once

#include "router/ip/address.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NEIGHBOUR_WAITING_MAX 4 // packets that wait for an answer; RFC 4861, 7.2.2, asks for one at least
#define NEIGHBOUR_NOWHERE UINT32_MAX

enum neighbour_state {
    NEIGHBOUR_FREE,
    NEIGHBOUR_INCOMPLETE, // asked for
    NEIGHBOUR_REACHABLE,  // it has answered not long ago
    NEIGHBOUR_STALE,      // known, but that was some time ago, or only heard
    NEIGHBOUR_PROBE,      // known, in use, and asked again
    NEIGHBOUR_STATIC,     // it was said so: never asked, never changed by what comes
};

struct neighbour {
    // What forwarding touches.
    uint64_t high, low;  // its address, a key
    void *out;           // the port, a struct vn_port
    uint8_t rewrite[12]; // the addresses of a frame to it: its own, and the port's
    uint32_t used_s;
    uint16_t port, mtu;
    uint8_t family, state;
    bool is_ready; // its own address is known
    // The rest.
    _Alignas(64) _Atomic uint32_t version;
    uint32_t next; // in its chain, or of the free ones
    uint32_t since_s;
    uint8_t tries, n_waiting;
    void *waiting[NEIGHBOUR_WAITING_MAX];
} __attribute__((aligned(64)));

struct neighbours {
    struct neighbour *entries;
    uint32_t *heads;
    uint32_t most, n_seen, free, mask; // n_seen: all above were never used
    uint32_t n_incomplete;
    uint64_t key;
    _Atomic uint32_t n_used;
};

// Room for `most` (1 to 65536) neighbours. NULL: out of memory.
struct neighbours *neighbours_create(uint32_t most, uint64_t key);
void neighbours_destroy(struct neighbours *table);
size_t neighbours_bytes(const struct neighbours *table);

static inline bool neighbour_is(const struct neighbour *n, unsigned family, unsigned port, uint64_t high, uint64_t low)
{
    return n->high == high && n->low == low && n->port == port && n->family == family; // a free one has no family
}

struct neighbour *neighbour_find(struct neighbours *table, unsigned family, unsigned port, rib_key key);
// A new one, INCOMPLETE. NULL: no room, not even by giving up one that nothing was sent to for a while.
struct neighbour *neighbour_add(struct neighbours *table, unsigned family, unsigned port, rib_key key, uint32_t now_s);
void neighbour_remove(struct neighbours *table, struct neighbour *n); // nothing waits for it any more

// Around each change but that of used_s.
void neighbour_begin(struct neighbour *n);
void neighbour_end(struct neighbour *n);
void neighbour_set_state(struct neighbours *table, struct neighbour *n, enum neighbour_state state, uint32_t now_s);

// Control thread: a copy of entry i. False: there is none.
bool neighbours_read(struct neighbours *table, uint32_t i, struct neighbour *copy);
