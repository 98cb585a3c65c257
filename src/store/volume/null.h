// A volume that keeps nothing: what is written is forgotten, what is read is zeroes, or whatever was in the memory. For measuring
// what lies above. The store's thread.
#pragma once

#include "store/volume/env.h"

struct null_options {
    uint64_t size_bytes;
    uint32_t block_bytes;
    bool read_only;
    bool read_zeroes; // false: a read touches no memory
};

struct volume *null_volume_create(struct volume_env *env, const struct null_options *options, struct tv_error *err);
