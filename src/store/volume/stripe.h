// One volume of several: stripes of the same size lie on one after the other, and around again (RAID-0), so that what is asked for
// in one go, or at the same time, is done by all of them. What one loses is lost. The store's thread.
#pragma once

#include "store/volume/env.h"

#define STRIPE_VOLUMES_MAX 16u
#define STRIPE_BYTES_LEAST 4096u
#define STRIPE_BYTES_MOST (64u << 20)

// Takes the volumes unless it fails. stripe_bytes is a power of 2; of each volume as many whole stripes are used as the smallest
// has.
struct volume *stripe_volume_create(struct volume_env *env, struct volume *const *volumes, unsigned n, uint32_t stripe_bytes,
                                    struct tv_error *err);
