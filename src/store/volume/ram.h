// A volume in memory, gone with its process. Takes memory as it is written, in huge pages where the host gives them for shared
// memory, and gives back what is discarded. The store's thread.
#pragma once

#include "store/volume/env.h"

struct ram_options {
    uint64_t size_bytes;
    uint32_t block_bytes;
};

struct volume *ram_volume_create(struct volume_env *env, const struct ram_options *options, struct tv_error *err);
uint8_t *ram_volume_bytes(struct volume *volume); // size_bytes of memory; for tests
