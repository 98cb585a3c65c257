// The client of a disk that does what its volumes have to do for themselves (volume/chores.h), as requests of the disk's.
#pragma once

#include "store/disk.h"

int chores_attach(struct disk *disk, struct tv_error *err); // destroyed with the disk
