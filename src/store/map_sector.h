// Sectors of maps on a disk, of overlays and of mirrors: 63 words of 64 bits, and a check. Any thread.
#pragma once

#include <stdint.h>

#define MAP_SECTOR_WORDS 63u

// The last word of a sector, as it is stored: its number, and a checksum of the number and the other words.
uint64_t map_sector_check(const uint64_t words[static MAP_SECTOR_WORDS], uint32_t number);
