// Blocks of a capture file (draft-ietf-opsawg-pcapng-01), as they are appended to a buffer. Pure logic.
//
// A file is one section: its header, a description of each interface before its first packet, packets, and at the end what was
// counted. Numbers are in the host's byte order, which the header tells. Times are in nanoseconds since 1970.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCAPNG_BLOCK_OVERHEAD 64 // no block is larger than its data and this
#define PCAPNG_NAME_MAX 32

enum pcapng_direction { PCAPNG_UNKNOWN, PCAPNG_INBOUND, PCAPNG_OUTBOUND }; // section 4.3.1, epb_flags

// All return how many bytes they wrote to `out`, which has room for the data and PCAPNG_BLOCK_OVERHEAD.
size_t pcapng_section(uint8_t *out);
size_t pcapng_interface(uint8_t *out, const char *name, uint32_t snap_bytes); // Ethernet; numbered in their order, from 0 on
size_t pcapng_packet(uint8_t *out, uint32_t interface, uint64_t at_ns, enum pcapng_direction direction, const void *data,
                     uint32_t kept_bytes, uint32_t len_bytes);
// received: packets that were to be captured; dropped: of these, for which there was no room.
size_t pcapng_statistics(uint8_t *out, uint32_t interface, uint64_t at_ns, uint64_t received, uint64_t dropped);
