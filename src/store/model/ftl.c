// Translation layer: see ftl.h.
#include "store/model/ftl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum ftl_state { FREE, FULL, TAKEN };

static uint32_t *filled(size_t n, uint32_t value)
{
    uint32_t *a = malloc(n * sizeof(*a));
    for (size_t i = 0; a && i < n; i++)
        a[i] = value;
    return a;
}

int ftl_init(struct ftl *f, unsigned n_dies, unsigned pages_per_block, uint32_t n_logical, unsigned spare_percent,
             struct tv_error *err)
{
    *f = (struct ftl){.n_dies = n_dies, .pages_per_superblock = n_dies * pages_per_block, .n_logical = n_logical};
    uint64_t pages = n_logical + (uint64_t)n_logical * spare_percent / 100;
    f->n_superblocks = (unsigned)(pages / f->pages_per_superblock);
    if ((uint64_t)(f->n_superblocks - 3) * f->pages_per_superblock < n_logical || f->n_superblocks < 4)
        return tv_error_set(err, -EINVAL,
                            "model of an SSD: spare of %u %% is less than 3 superblocks; give it more, or smaller blocks",
                            spare_percent);
    f->map = filled(n_logical, FTL_NONE);
    f->back = filled((size_t)f->n_superblocks * f->pages_per_superblock, FTL_NONE);
    f->valid = calloc(f->n_superblocks, sizeof(*f->valid));
    f->state = calloc(f->n_superblocks, sizeof(*f->state));
    if (!f->map || !f->back || !f->valid || !f->state)
        return tv_error_set(err, -ENOMEM, "model of an SSD: out of memory");
    f->state[0] = TAKEN;
    f->n_free = f->n_superblocks - 1;
    return 0;
}

void ftl_fini(struct ftl *f)
{
    free(f->map);
    free(f->back);
    free(f->valid);
    free(f->state);
}

uint32_t ftl_next_die(const struct ftl *f)
{
    if (f->position == f->pages_per_superblock && !f->n_free)
        return FTL_NONE;
    return f->position % f->n_dies;
}

bool ftl_is_low(const struct ftl *f, unsigned least_free)
{
    return f->n_free <= least_free;
}

static void open_next(struct ftl *f)
{
    assert(f->n_free);
    f->state[f->open] = FULL;
    do // the longest free first, near enough
        f->open = (f->open + 1) % f->n_superblocks;
    while (f->state[f->open] != FREE);
    f->state[f->open] = TAKEN;
    f->n_free--;
    f->position = 0;
}

void ftl_trim(struct ftl *f, uint32_t logical)
{
    uint32_t at = f->map[logical];
    if (at == FTL_NONE)
        return;
    f->back[at] = FTL_NONE;
    f->valid[at / f->pages_per_superblock]--;
    f->map[logical] = FTL_NONE;
}

void ftl_write(struct ftl *f, uint32_t logical)
{
    if (f->position == f->pages_per_superblock)
        open_next(f);
    ftl_trim(f, logical);
    uint32_t at = f->open * f->pages_per_superblock + f->position++;
    f->map[logical] = at;
    f->back[at] = logical;
    f->valid[f->open]++;
}

uint32_t ftl_take_victim(struct ftl *f)
{
    uint32_t best = FTL_NONE;
    for (uint32_t s = 0; s < f->n_superblocks; s++)
        if (f->state[s] == FULL && (best == FTL_NONE || f->valid[s] < f->valid[best]))
            best = s;
    if (best != FTL_NONE)
        f->state[best] = TAKEN;
    return best;
}

void ftl_free(struct ftl *f, uint32_t superblock)
{
    assert(f->state[superblock] == TAKEN && !f->valid[superblock]);
    f->state[superblock] = FREE;
    f->n_free++;
}
