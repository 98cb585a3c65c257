// The client of a disk that has its overlay take over what its base has: see store_absorb(). One range at a time.
#pragma once

#include "store/disk.h"

int absorb_start(struct disk *disk, uint64_t offset_bytes, store_absorbed_fn *done, void *arg, struct tv_error *err);
