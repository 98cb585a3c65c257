// What each leg of a mirror has behind the disk's data (docs/formats/mirror.md): which regions are being written to, and who
// belongs to the mirror and has all of it. For the volume (volume/mirror.h), and for tools, which make new ones. Any thread.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define MIRROR_LEGS_MAX 8u
#define MIRROR_PAGE 4096u
#define MIRROR_META_BYTES (64u << 10) // the last bytes of a leg, at a multiple of MIRROR_PAGE
#define MIRROR_INTENT_PAGES 14u       // the map of regions comes first, then two headers
#define MIRROR_SECTOR_WORDS 63u       // of a sector of the map; the 64th is its check (map_sector.h)
#define MIRROR_SECTOR_REGIONS (MIRROR_SECTOR_WORDS * 64u)
#define MIRROR_PAGE_SECTORS (MIRROR_PAGE / 512u)
#define MIRROR_PAGE_REGIONS (MIRROR_SECTOR_REGIONS * MIRROR_PAGE_SECTORS)
#define MIRROR_REGIONS_MAX (MIRROR_PAGE_REGIONS * MIRROR_INTENT_PAGES)
#define MIRROR_REGION_LEAST (1u << 20)

struct mirror_header {
    uint8_t set[16];     // the same in all legs, and in no other mirror
    uint64_t size_bytes; // of the disk: a multiple of 512
    uint32_t region_bytes;
    uint32_t n_legs, index;         // this leg's number
    uint32_t in_sync;               // bits: the legs that have all that was written, this one among them
    uint64_t generation;            // one more whenever in_sync changes, and when it is opened for writing
    uint64_t left[MIRROR_LEGS_MAX]; // of legs that are not in sync: the last generation in which they were
};

// -EBADMSG: these are not the 512 bytes of a header, or damaged, or say what cannot be of a leg of leg_bytes.
int mirror_header_decode(const uint8_t bytes[static 512], uint64_t leg_bytes, struct mirror_header *header, struct tv_error *err);
void mirror_header_encode(const struct mirror_header *header, uint8_t bytes[static 512]);

uint64_t mirror_meta_offset(uint64_t leg_bytes);                        // where a leg's map begins
uint64_t mirror_header_offset(uint64_t leg_bytes, uint64_t generation); // two places, used in turn
uint64_t mirror_leg_bytes(uint64_t size_bytes);                         // of a new leg
uint64_t mirror_regions(const struct mirror_header *header);

// A mirror of zeroes in n empty files that are open for writing, which are in sync.
int mirror_format(const int *fds, unsigned n, uint64_t size_bytes, struct tv_error *err);
