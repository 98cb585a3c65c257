// One volume kept several times (RAID-1): what is written goes to all legs, what is read comes from one, and a leg that fails is
// left out. The store's thread.
//
// Each leg has a header and a map (store/mirror_file.h). Before a region is written to, the map says so, durably; so that after a
// crash the few regions where legs may differ are known, and made equal again in the background, from the first leg that is in
// sync, which alone is read there meanwhile. A leg that fails a write is out of the set, durably in all others, before the write is
// answered: it is never taken for one that has everything. A leg that comes back, or is new, is made equal in the background.
#pragma once

#include "store/mirror_file.h"
#include "store/volume/chores.h"
#include "store/volume/env.h"

struct mirror_options {
    bool degraded;    // legs may be missing
    bool has_rebuild; // volumes[rebuild] is to become a leg, whatever it has now
    unsigned rebuild;
    struct volume_chores *chores; // how work in the background gets its turn, borrowed; NULL: at once
};

// Takes the volumes unless it fails. -EBADMSG, -ESTALE, -EINVAL with err: they do not make a mirror.
struct volume *mirror_volume_create(struct volume_env *env, struct volume *const *volumes, unsigned n,
                                    const struct mirror_options *options, struct tv_error *err);
