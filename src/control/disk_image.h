// The file or block device behind a disk: made when it is missing, grown when it is too small, opened for the store.
#pragma once

#include "base/error.h"
#include "control/spec.h"

// A descriptor, close-on-exec, or -errno with a message that names the disk and the remedy. What was made stays.
int disk_image_open(const struct disk_spec *disk, struct tv_error *err);

// The same without leaving anything: is the disk one that could be opened? For `config check` and before anything is started.
int disk_image_check(const struct disk_spec *disk, struct tv_error *err);
