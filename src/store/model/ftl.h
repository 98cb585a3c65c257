// The translation layer of the modelled SSD: where each page lies, and what garbage collection does about it. No time. Private to
// the model; see ssd.h.
//
// A superblock is a block of every die; it is written row by row, one page of each die. Physical page p lies on die p % n_dies.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define FTL_NONE UINT32_MAX

// Invariant: map[l] == p exactly if back[p] == l; valid[s] is how many pages of superblock s have back != FTL_NONE. Each superblock
// is one of: open, free, the victim, being erased (the caller's), full.
struct ftl {
    unsigned n_dies, n_superblocks;
    uint32_t pages_per_superblock, n_logical;
    uint32_t *map, *back, *valid;
    uint8_t *state; // of superblocks: enum ftl_state
    uint32_t open, position;
    unsigned n_free;
};

int ftl_init(struct ftl *f, unsigned n_dies, unsigned pages_per_block, uint32_t n_logical, unsigned spare_percent,
             struct tv_error *err);
void ftl_fini(struct ftl *f);

// The next page is on this die; FTL_NONE: there is no room.
uint32_t ftl_next_die(const struct ftl *f);
bool ftl_is_low(const struct ftl *f, unsigned least_free); // so few superblocks are free, or fewer
// Writes the logical page to the next physical one; there is room.
void ftl_write(struct ftl *f, uint32_t logical);
void ftl_trim(struct ftl *f, uint32_t logical);
// The full superblock with the fewest valid pages, which is the caller's until ftl_free(); FTL_NONE: there is no full one.
uint32_t ftl_take_victim(struct ftl *f);
void ftl_free(struct ftl *f, uint32_t superblock); // it has no valid page, and is erased
