// What an overlay's data volume looks like (docs/formats/overlay.md): data at its own place, behind it a map of two bits for each
// block, and at the end a header. For the volume (volume/overlay.h), and for tools, which make empty ones. Any thread.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define OVERLAY_BLOCK 4096u          // what the map tells of, and the size of the header
#define OVERLAY_SECTOR_ENTRIES 2016u // blocks of which one sector of 512 bytes of the map tells
#define OVERLAY_PAGE_SECTORS 8u      // a page of the map is 4096 bytes
#define OVERLAY_PAGE_ENTRIES (OVERLAY_SECTOR_ENTRIES * OVERLAY_PAGE_SECTORS)
#define OVERLAY_PAGE_COVERS ((uint64_t)OVERLAY_PAGE_ENTRIES * OVERLAY_BLOCK) // bytes of the disk: 63 MiB
#define OVERLAY_SECTOR_WORDS 63u // of 32 entries; the 64th word of a sector is its check (map_sector.h), or all of it is 0

enum overlay_state {
    OVERLAY_BASE, // as in the base, and zeroes beyond its end
    OVERLAY_DATA, // here
    OVERLAY_ZERO, // zeroes
};

struct overlay_header {
    uint64_t size_bytes;     // of the disk: a multiple of 512
    uint64_t capacity_bytes; // up to which it can grow: a multiple of OVERLAY_PAGE_COVERS; here the map begins
    bool bound;              // it belongs to one base, of which the rest tells
    uint64_t base_size_bytes;
    uint32_t base_check;
    uint64_t session; // the last opening for writing whose map outlived its store (volume/overlay_shadow.h); 0: there was none
};

// -EBADMSG: these are not the 512 bytes of a header, or damaged, or say what cannot be; total_bytes is the size of all.
int overlay_header_decode(const uint8_t bytes[static 512], uint64_t total_bytes, struct overlay_header *header,
                          struct tv_error *err);
void overlay_header_encode(const struct overlay_header *header, uint8_t bytes[static 512]);

uint64_t overlay_capacity_for(uint64_t size_bytes); // 0: too large
uint64_t overlay_map_pages(uint64_t size_bytes);
uint64_t overlay_header_offset(const struct overlay_header *header);

// An overlay over nothing in particular yet, in an empty file that is open for writing. The map has its place on the disk then.
int overlay_format(int fd, uint64_t size_bytes, struct tv_error *err);
