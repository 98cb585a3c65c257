// The map of an overlay: see overlay_map.h.
#include "store/volume/overlay_map.h"
#include "store/map_sector.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WORD_ENTRIES 32u
#define PAGE_WORDS (OVERLAY_PAGE_ENTRIES / WORD_ENTRIES)
#define ONES 0x5555555555555555ull // the low bit of each entry

static void *reserve(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static uint64_t bitmap_words(const struct overlay_map *map)
{
    return map->n_reserved / 64 + 1;
}

uint64_t overlay_map_words(uint64_t pages)
{
    return pages * PAGE_WORDS;
}

int overlay_map_init(struct overlay_map *map, uint64_t pages, uint64_t *words, struct tv_error *err)
{
    *map = (struct overlay_map){.n_reserved = pages, .is_lent = words != NULL};
    map->words = words ? words : reserve(pages * PAGE_WORDS * sizeof(map->words[0]));
    map->stage = reserve(pages * OVERLAY_BLOCK);
    map->dirty = calloc(bitmap_words(map), sizeof(map->dirty[0]));
    map->staged = calloc(bitmap_words(map), sizeof(map->staged[0]));
    if (map->words && map->stage && map->dirty && map->staged)
        return 0;
    overlay_map_fini(map);
    return tv_error_set(err, -ENOMEM, "out of memory for a map");
}

void overlay_map_fini(struct overlay_map *map)
{
    if (map->words && !map->is_lent)
        munmap(map->words, map->n_reserved * PAGE_WORDS * sizeof(map->words[0]));
    if (map->stage)
        munmap(map->stage, map->n_reserved * OVERLAY_BLOCK);
    free(map->dirty);
    free(map->staged);
    *map = (struct overlay_map){0};
}

// ---- stored pages ----

// An entry of 3 means nothing.
static bool is_good_sector(const uint64_t *words, uint32_t number)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < OVERLAY_SECTOR_WORDS; i++) {
        const uint64_t word = le64toh(words[i]);
        if (word & word >> 1 & ONES)
            return false;
        any |= word;
    }
    return words[OVERLAY_SECTOR_WORDS] == map_sector_check(words, number) || (!any && !words[OVERLAY_SECTOR_WORDS]);
}

static void mark_dirty(struct overlay_map *map, uint64_t page)
{
    const uint64_t bit = 1ull << page % 64;
    map->n_dirty += !(map->dirty[page / 64] & bit);
    map->dirty[page / 64] |= bit;
}

static int load_word(struct overlay_map *map, uint64_t page, uint64_t *to, uint64_t stored)
{
    if (map->is_kept && *to != stored)
        mark_dirty(map, page);
    else if (stored) // a page that is never written takes no memory
        *to = stored;
    map->n_data += (unsigned)__builtin_popcountll(*to & ONES);
    return *to & *to >> 1 & ONES ? -EBADMSG : 0;
}

int overlay_map_load(struct overlay_map *map, uint64_t page, const uint8_t bytes[static OVERLAY_BLOCK], uint32_t *sector)
{
    uint64_t *to = map->words + page * PAGE_WORDS;
    for (unsigned i = 0; i < OVERLAY_PAGE_SECTORS; i++) {
        uint64_t words[OVERLAY_SECTOR_WORDS + 1];
        memcpy(words, bytes + (size_t)i * sizeof(words), sizeof(words));
        *sector = (uint32_t)(page * OVERLAY_PAGE_SECTORS + i);
        if (!is_good_sector(words, *sector))
            return -EBADMSG;
        for (unsigned j = 0; j < OVERLAY_SECTOR_WORDS; j++)
            if (load_word(map, page, &to[i * OVERLAY_SECTOR_WORDS + j], le64toh(words[j])))
                return -EBADMSG;
    }
    return 0;
}

static void stage_page(struct overlay_map *map, uint64_t page)
{
    const uint64_t *from = map->words + page * PAGE_WORDS;
    uint64_t *to = (uint64_t *)(void *)(map->stage + page * OVERLAY_BLOCK);
    for (unsigned i = 0; i < OVERLAY_PAGE_SECTORS; i++, to += OVERLAY_SECTOR_WORDS + 1) {
        for (unsigned j = 0; j < OVERLAY_SECTOR_WORDS; j++)
            to[j] = htole64(from[i * OVERLAY_SECTOR_WORDS + j]);
        to[OVERLAY_SECTOR_WORDS] = map_sector_check(to, (uint32_t)(page * OVERLAY_PAGE_SECTORS + i));
    }
}

void overlay_map_stage(struct overlay_map *map)
{
    for (uint64_t w = 0; w < bitmap_words(map) && map->n_dirty; w++) {
        map->staged[w] = map->dirty[w];
        map->dirty[w] = 0;
        for (uint64_t bits = map->staged[w]; bits; bits &= bits - 1) {
            stage_page(map, w * 64 + (unsigned)__builtin_ctzll(bits));
            map->n_dirty--;
        }
    }
}

static bool is_staged(const struct overlay_map *map, uint64_t page)
{
    return page < map->n_reserved && map->staged[page / 64] >> page % 64 & 1;
}

uint64_t overlay_map_next_staged(const struct overlay_map *map, uint64_t *page, uint64_t most)
{
    uint64_t first = *page;
    while (first < map->n_reserved && !is_staged(map, first))
        first = map->staged[first / 64] >> first % 64 ? first + 1 : (first / 64 + 1) * 64;
    uint64_t n = 0;
    while (n < most && is_staged(map, first + n))
        n++;
    *page = first;
    return n;
}

void overlay_map_unstage(struct overlay_map *map, bool stored)
{
    for (uint64_t w = 0; w < bitmap_words(map); w++) {
        if (!stored) {
            map->n_dirty += (unsigned)__builtin_popcountll(map->staged[w] & ~map->dirty[w]);
            map->dirty[w] |= map->staged[w];
        }
        map->staged[w] = 0;
    }
}

// ---- entries ----

enum overlay_state overlay_map_get(const struct overlay_map *map, uint64_t block)
{
    return (enum overlay_state)(map->words[block / WORD_ENTRIES] >> 2 * (block % WORD_ENTRIES) & 3);
}

uint64_t overlay_map_run(const struct overlay_map *map, uint64_t block, uint64_t end, enum overlay_state *state)
{
    *state = overlay_map_get(map, block);
    const uint64_t alike = ONES * (uint64_t)*state;
    uint64_t at = block;
    while (at < end) {
        const unsigned first = at % WORD_ENTRIES;
        const uint64_t differs = (map->words[at / WORD_ENTRIES] ^ alike) >> 2 * first;
        if (differs) {
            at += (unsigned)__builtin_ctzll(differs) / 2;
            break;
        }
        at += WORD_ENTRIES - first;
    }
    return (at < end ? at : end) - block;
}

void overlay_map_set(struct overlay_map *map, uint64_t block, uint64_t end, enum overlay_state state)
{
    while (block < end) {
        const unsigned first = block % WORD_ENTRIES;
        const uint64_t n = end - block < WORD_ENTRIES - first ? end - block : WORD_ENTRIES - first;
        const uint64_t mask = (n == WORD_ENTRIES ? ~0ull : (1ull << 2 * n) - 1) << 2 * first;
        uint64_t *word = &map->words[block / WORD_ENTRIES];
        const uint64_t changed = (*word & ~mask) | (ONES * (uint64_t)state & mask);
        if (changed != *word) {
            map->n_data += (unsigned)__builtin_popcountll(changed & ONES);
            map->n_data -= (unsigned)__builtin_popcountll(*word & ONES);
            *word = changed;
            mark_dirty(map, block / OVERLAY_PAGE_ENTRIES); // a word is of one page: 504 words each
        }
        block += n;
    }
}
