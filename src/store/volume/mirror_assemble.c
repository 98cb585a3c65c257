// Which volumes make up a mirror, and what each of them has: see mirror_private.h.
//
// The header of the highest generation counts. Legs that it names have all that was answered, if they are of its generation or of
// the one before, since a crash may have come between the writing of two headers. Others have missed something: what the map of
// those in sync tells of, if it was kept from the time on when they left. A leg that believes itself in sync later than that was
// used without the others, and neither is right.
#include "store/volume/mirror_private.h"

#include <errno.h>
#include <string.h>

static const struct mirror_found *find_newest(const struct mirror_found *found, unsigned n, const struct mirror_options *options)
{
    const struct mirror_found *newest = NULL;
    for (unsigned i = 0; i < n; i++)
        if (found[i].has_header && !(options->has_rebuild && i == options->rebuild) &&
            (!newest || found[i].header.generation > newest->header.generation))
            newest = &found[i];
    return newest;
}

static bool is_of(const struct mirror_header *h, const struct mirror_header *set)
{
    return memcmp(h->set, set->set, sizeof(h->set)) == 0 && h->size_bytes == set->size_bytes &&
           h->region_bytes == set->region_bytes && h->n_legs == set->n_legs;
}

static bool has_all(const struct mirror_header *h, const struct mirror_header *newest)
{
    return newest->in_sync >> h->index & 1 && h->generation + 1 >= newest->generation;
}

// One that is in the set by its header.
static int take_member(const struct mirror_found *found, unsigned i, struct mirror_plan *plan, struct tv_error *err)
{
    const struct mirror_header *h = &found[i].header, *newest = &plan->header;
    const uint64_t left = newest->left[h->index];
    if (!is_of(h, newest))
        return tv_error_set(err, -EINVAL,
                            "volume %u is a leg of another mirror; give it its own legs, or \"rebuild\": %u to make it "
                            "one of this, which loses what it has",
                            i, i);
    for (unsigned j = 0; j < i; j++)
        if (plan->legs[j].index == h->index)
            return tv_error_set(err, -EINVAL, "volumes %u and %u are the same leg; one must be a copy of the other", j, i);
    plan->legs[i].index = h->index;
    plan->legs[i].state = has_all(h, newest) ? MIRROR_IN_SYNC : MIRROR_SYNCING;
    if (plan->legs[i].state == MIRROR_IN_SYNC)
        return 0;
    const bool is_named = newest->in_sync >> h->index & 1; // and too old: it was restored from a copy
    if (!is_named && h->in_sync >> h->index & 1 && h->generation > left)
        return tv_error_set(err, -ESTALE,
                            "volume %u was written to without the others, and they without it; \"rebuild\": %u goes on "
                            "without what it has",
                            i, i);
    plan->syncs_all |= is_named || h->generation + 1 < left;
    return 0;
}

// One that is to become a leg: the one it was, or one that is missing.
static int take_rebuilt(const struct mirror_found *found, unsigned n, unsigned i, struct mirror_plan *plan, struct tv_error *err)
{
    const struct mirror_header *h = &found[i].header;
    unsigned taken = 0, index = 0;
    for (unsigned j = 0; j < n; j++)
        if (j != i)
            taken |= 1u << plan->legs[j].index;
    if (mirror_meta_offset(found[i].leg_bytes) < plan->header.size_bytes)
        return tv_error_set(err, -EINVAL, "volume %u has %llu bytes, and a leg of this mirror must have %llu", i,
                            (unsigned long long)found[i].leg_bytes, (unsigned long long)mirror_leg_bytes(plan->header.size_bytes));
    while (taken >> index & 1)
        index++;
    const bool was_leg = found[i].has_header && is_of(h, &plan->header) && !(taken >> h->index & 1);
    plan->legs[i].index = was_leg ? h->index : index;
    plan->legs[i].state = was_leg && has_all(h, &plan->header) ? MIRROR_IN_SYNC : MIRROR_SYNCING;
    plan->syncs_all |= plan->legs[i].state == MIRROR_SYNCING;
    return 0;
}

int mirror_assemble(const struct mirror_found *found, unsigned n, const struct mirror_options *options, struct mirror_plan *plan,
                    struct tv_error *err)
{
    const struct mirror_found *newest = find_newest(found, n, options);
    *plan = (struct mirror_plan){0};
    for (unsigned i = 0; i < n; i++)
        if (!found[i].has_header && !(options->has_rebuild && i == options->rebuild))
            return tv_error_set(err, -EBADMSG, "volume %u %s; \"rebuild\": %u makes it a leg of this mirror, and loses what it has",
                                i, found[i].problem, i);
    if (!newest)
        return tv_error_set(err, -EINVAL, "there is nothing to rebuild it from: give the legs that are left");
    plan->header = newest->header;
    if (n > newest->header.n_legs)
        return tv_error_set(err, -EINVAL, "%u volumes, and it has %u legs", n, newest->header.n_legs);
    int r = 0;
    for (unsigned i = 0; i < n && !r; i++) {
        plan->legs[i].index = MIRROR_LEGS_MAX;
        if (!options->has_rebuild || i != options->rebuild)
            r = take_member(found, i, plan, err);
    }
    if (!r && options->has_rebuild)
        r = take_rebuilt(found, n, options->rebuild, plan, err);
    if (!r && n < newest->header.n_legs && !options->degraded)
        r = tv_error_set(err, -EINVAL, "%u volumes, and it has %u legs; \"degraded\": true goes on without the others", n,
                         newest->header.n_legs);
    return r;
}
