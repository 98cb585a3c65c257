// Virtual ARP: who has which IP address in a network, known beforehand and not by asking. Questions of ARP (RFC 826) and Neighbour
// Discovery (RFC 4861) for such an address are answered where they are asked. Pure logic over foreign bytes.
//
// A table is not changed once it is made: the control thread makes another one.
#pragma once

#include "router/ip/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct varp_entry {
    rib_key address;
    uint8_t family, mac[6];
    bool is_machine; // it is that of a port which is held to it; else it was said
    uint16_t port;   // where it is
};

struct varp {
    size_t n, n_slots; // slots: a power of two, more than n
    uint32_t *slots;   // 0: free; else the number of an entry, and one more
    struct varp_entry entries[];
};

// Copies the entries; of two for one address the first counts. NULL: out of memory.
struct varp *varp_create(const struct varp_entry *entries, size_t n, uint64_t key);
void varp_destroy(struct varp *table); // NULL is fine
const struct varp_entry *varp_find(const struct varp *table, unsigned family, rib_key address, uint64_t key);

// A frame that asks for an address in the table becomes the answer, from the one who has it to the one who asked: how many bytes it
// is, of room_bytes. 0: it asks for none, or is from the one who has it, or only wants to know whether the address is free
// (RFC 5227, 2.1.1; RFC 4862, 5.4); it is as it was.
size_t varp_answer(const struct varp *table, uint64_t key, uint8_t *frame, size_t len_bytes, size_t room_bytes);
