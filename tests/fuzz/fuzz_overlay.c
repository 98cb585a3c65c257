// Any bytes as an overlay's header and as a page of its map: what is taken makes sense, and what was taken is stored as it was.
// Input: a byte (1: the checksums are made good first), 512 bytes of a header, up to 4096 of a page.
#include <assert.h>
#include <string.h>
#include <zlib.h>

#include "store/map_sector.h"
#include "store/volume/overlay_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_header(uint8_t bytes[static 512], bool make_good)
{
    struct overlay_header header, again;
    uint8_t back[512];
    uint64_t capacity;
    if (make_good) {
        memcpy(bytes, "TVOVERLY\1\0\0", 12);
        memset(bytes + 12, 0, 4);
        const uint32_t check = (uint32_t)crc32_z(0, bytes, 512);
        memcpy(bytes + 12, &check, sizeof(check));
    }
    memcpy(&capacity, bytes + 32, sizeof(capacity));
    const uint64_t total = capacity + capacity / OVERLAY_PAGE_COVERS * OVERLAY_BLOCK + OVERLAY_BLOCK;
    if (overlay_header_decode(bytes, total, &header, NULL))
        return;
    assert(header.size_bytes && header.size_bytes <= header.capacity_bytes && header.capacity_bytes % OVERLAY_PAGE_COVERS == 0);
    assert(overlay_header_offset(&header) + OVERLAY_BLOCK == total);
    overlay_header_encode(&header, back);
    assert(!overlay_header_decode(back, total, &again, NULL) && again.size_bytes == header.size_bytes);
    assert(again.bound == header.bound && again.base_check == header.base_check);
}

static void make_sectors_good(uint8_t page[static OVERLAY_BLOCK])
{
    for (uint32_t i = 0; i < OVERLAY_PAGE_SECTORS; i++) {
        uint64_t words[OVERLAY_SECTOR_WORDS + 1];
        memcpy(words, page + i * sizeof(words), sizeof(words));
        for (unsigned j = 0; j < OVERLAY_SECTOR_WORDS; j++)
            words[j] &= ~(words[j] >> 1 & 0x5555555555555555ull); // no entry of 3
        words[OVERLAY_SECTOR_WORDS] = map_sector_check(words, i);
        memcpy(page + i * sizeof(words), words, sizeof(words));
    }
}

static void check_map(uint8_t page[static OVERLAY_BLOCK], bool make_good)
{
    struct overlay_map map;
    uint32_t sector = 0;
    uint64_t n_data = 0, first = 0;
    if (make_good)
        make_sectors_good(page);
    assert(!overlay_map_init(&map, 1, NULL, NULL));
    if (overlay_map_load(&map, 0, page, &sector)) {
        assert(!make_good && sector < OVERLAY_PAGE_SECTORS);
        overlay_map_fini(&map);
        return;
    }
    for (uint64_t block = 0, n; block < OVERLAY_PAGE_ENTRIES; block += n) {
        enum overlay_state state;
        n = overlay_map_run(&map, block, OVERLAY_PAGE_ENTRIES, &state);
        assert(n && block + n <= OVERLAY_PAGE_ENTRIES && state <= OVERLAY_ZERO);
        assert(block + n == OVERLAY_PAGE_ENTRIES || overlay_map_get(&map, block + n) != state);
        n_data += state == OVERLAY_DATA ? n : 0;
    }
    assert(n_data == map.n_data);
    const enum overlay_state was = overlay_map_get(&map, 77);
    overlay_map_set(&map, 77, 78, was == OVERLAY_DATA ? OVERLAY_ZERO : OVERLAY_DATA);
    overlay_map_set(&map, 77, 78, was);
    overlay_map_stage(&map);
    assert(map.n_dirty == 0 && overlay_map_next_staged(&map, &first, 8) == 1 && first == 0);
    if (make_good)
        assert(!memcmp(map.stage, page, OVERLAY_BLOCK));
    overlay_map_unstage(&map, true);
    overlay_map_fini(&map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t header[512] = {0}, page[OVERLAY_BLOCK] = {0};
    if (size < 1 + sizeof(header))
        return 0;
    memcpy(header, data + 1, sizeof(header));
    const size_t rest = size - 1 - sizeof(header);
    memcpy(page, data + 1 + sizeof(header), rest < sizeof(page) ? rest : sizeof(page));
    check_header(header, data[0] & 1);
    check_map(page, data[0] & 1);
    return 0;
}
