// The check of a map's sector: see map_sector.h.
#include "store/map_sector.h"

#include <endian.h>
#include <zlib.h>

uint64_t map_sector_check(const uint64_t words[static MAP_SECTOR_WORDS], uint32_t number)
{
    const uint32_t little = htole32(number);
    uint32_t check = (uint32_t)crc32_z(0, (const uint8_t *)&little, sizeof(little));
    check = (uint32_t)crc32_z(check, (const uint8_t *)words, MAP_SECTOR_WORDS * sizeof(words[0]));
    return htole64((uint64_t)check << 32 | number);
}
