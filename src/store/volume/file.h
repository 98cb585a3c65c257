// The volume over an image: a raw file or a block device, by the I/O engine. Here are short counts continued, memory bounced that
// direct I/O cannot take, and zeroes written where a file system cannot make them otherwise. The store's thread.
#pragma once

#include "store/volume/env.h"
#include "store/volume/image.h"

#define FILE_RETRIES 16 // of EINTR and EAGAIN, one after another

// Takes fd, also on failure. `name` is for messages; see image_init() for what can be wrong with an image.
struct volume *file_volume_create(struct volume_env *env, int fd, const char *name, const struct image_options *options,
                                  struct tv_error *err);
const struct image *file_volume_image(const struct volume *volume);
