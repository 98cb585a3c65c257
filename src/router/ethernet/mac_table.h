// The addresses of a switch: from a MAC address to the port it was last seen at. One thread, the network's worker, reads and
// writes; others may peek.
//
// Buckets of eight, each a cache line, chosen by a hash with a random key: a look is one line, whatever addresses were sent. A
// bucket that is full takes no more; nothing is moved, and nothing allocated after creation.
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MAC_NOWHERE UINT16_MAX

struct mac_table;

// Room for at least n_addresses (1 to 2^20) that are spread evenly. NULL: out of memory.
struct mac_table *mac_table_create(unsigned n_addresses, uint64_t key, uint32_t age_s);
void mac_table_destroy(struct mac_table *table);

// An address as a number, its first byte the most significant one.
static inline uint64_t mac_number(const uint8_t bytes[static 6])
{
    uint32_t high;
    uint16_t low;
    memcpy(&high, bytes, sizeof(high));
    memcpy(&low, bytes + sizeof(high), sizeof(low));
    return (uint64_t)be32toh(high) << 16 | be16toh(low);
}

uint16_t mac_table_find(const struct mac_table *table, uint64_t mac, uint32_t now_s);

// The same for another thread: what it finds was there, or is coming, and may be aged.
uint16_t mac_table_peek(const struct mac_table *table, uint64_t mac);

enum mac_learned {
    MAC_KNOWN,  // it is there now, at this port
    MAC_MOVED,  // the same; it was at another one, *before
    MAC_NEW,    // the same; it was at none
    MAC_PINNED, // it belongs to another port, *before, and stays there
    MAC_FULL,   // no room, or may_be_new was false
};
enum mac_learned mac_table_learn(struct mac_table *table, uint64_t mac, uint16_t port, uint32_t now_s, bool may_be_new,
                                 uint16_t *before);
// The address belongs to this port, and neither ages nor moves. False: no room.
bool mac_table_pin(struct mac_table *table, uint64_t mac, uint16_t port);

void mac_table_unpin(struct mac_table *table, uint64_t mac, uint16_t port); // it is forgotten, if it was that port's

// All of a port's go.
void mac_table_forget(struct mac_table *table, uint16_t port);
// Aged ones go; counts[port] becomes how many are left at each of n_ports.
void mac_table_sweep(struct mac_table *table, uint32_t now_s, uint32_t *counts, unsigned n_ports);
