// What is behind a disk, opened for the store: a file or block device, made when it is missing, grown when it is too small; or what
// a volume file names.
#pragma once

#include "base/error.h"
#include "control/spec/spec.h"
#include "store/open.h"

// *volume is the caller's, and so is what is appended to `fds`, also on failure. The message names the disk and the remedy. What
// was made stays.
int disk_image_open(const struct disk_spec *disk, json_t **volume, struct store_fds *fds, struct tv_error *err);

// The same without leaving anything: is the disk one that could be opened? For `config check` and before anything is started.
int disk_image_check(const struct disk_spec *disk, struct tv_error *err);
