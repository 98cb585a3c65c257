// A volume, or a whole tree of them, from what somebody wrote down: {"type": "file", "fd": 0}. The descriptors that "fd" counts
// come beside it. trivet-store(8) says what there is.
#pragma once

#include "store/volume/chores.h"
#include "store/volume/env.h"

struct volume_spec {
    struct volume_env *env;
    const char *label; // for messages: "disk 'db'"
    // Taken one by one, and -1 from then on: the rest is the caller's to close.
    int *fds;
    unsigned n_fds;
    struct volume_chores *chores; // how volumes get done what they have to do for themselves; NULL: they do it at once
    // Where a file does not say otherwise.
    bool read_only;
    uint32_t block_bytes; // 0: what the image's device wants
};

struct volume *volume_build(struct volume_spec *spec, const json_t *json, struct tv_error *err);
