// The map of an overlay in memory: which blocks are where, and which pages of it are to be written. Private to the overlay.
#pragma once

#include "store/overlay_file.h"

#include <stdbool.h>
#include <stddef.h>

struct overlay_map {
    uint64_t *words;  // 32 entries of two bits each; of `reserved` pages, touched as far as they are used
    uint64_t *dirty;  // bits: pages that differ from what is stored
    uint64_t *staged; // bits: pages that are being written
    uint8_t *stage;   // these pages as they are to be stored
    uint64_t n_reserved;
    uint64_t n_dirty;
    uint64_t n_data; // blocks that are here
    bool is_lent;    // `words` are somebody else's
    bool is_kept;    // and what they say counts, not what is stored
};

// words: memory for them, that was lent, overlay_map_words() of them; NULL: its own.
int overlay_map_init(struct overlay_map *map, uint64_t pages, uint64_t *words, struct tv_error *err);
void overlay_map_fini(struct overlay_map *map); // a zeroed one is fine
uint64_t overlay_map_words(uint64_t pages);

// Takes a page as it is stored, or, where the words are kept, finds out whether it is dirty; -EBADMSG with the number of the sector
// that is damaged.
int overlay_map_load(struct overlay_map *map, uint64_t page, const uint8_t bytes[static OVERLAY_BLOCK], uint32_t *sector);
enum overlay_state overlay_map_get(const struct overlay_map *map, uint64_t block);
// The first blocks from `block` on, before `end`, that are alike.
uint64_t overlay_map_run(const struct overlay_map *map, uint64_t block, uint64_t end, enum overlay_state *state);
void overlay_map_set(struct overlay_map *map, uint64_t block, uint64_t end, enum overlay_state state);

// All dirty pages as they are now are to be stored: they are staged, and clean.
void overlay_map_stage(struct overlay_map *map);
// The next pages to be stored, from `page` on, in one piece of at most `most` pages; 0: there are none.
uint64_t overlay_map_next_staged(const struct overlay_map *map, uint64_t *page, uint64_t most);
void overlay_map_unstage(struct overlay_map *map, bool stored); // not: they are dirty again
