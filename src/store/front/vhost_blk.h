// A disk as a virtio-blk device behind a vhost-user socket: a front end. The store's thread.
#pragma once

#include "store/disk.h"

// Attached to the disk, and destroyed with it. Takes listen_fd, also on failure.
int vhost_blk_create(struct disk *disk, unsigned n_queues, int listen_fd, struct tv_error *err);
