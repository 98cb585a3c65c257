// An image: a raw file or a block device, opened by somebody else, checked and locked here.
//
// The lock is an open-file-description lock on the whole file, exclusive for a writer and shared among readers. It goes when the
// last reference to the description goes, and the kernel holds one for each I/O in flight: so a store that comes after a killed one
// gets the lock only when the old one's last write has landed. For this to hold, whoever hands a store its image opens it afresh
// for each store and keeps no copy.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct image_options {
    bool read_only;
    bool unlocked;             // whoever asks for it sees to it that nobody else writes
    uint32_t block_size_bytes; // what the guest is told; 0: what direct I/O on this image wants
};

struct image {
    int fd; // owned
    bool is_block, read_only, is_locked;
    bool direct; // O_DIRECT is on
    bool can_discard;
    uint64_t size_bytes;         // usable: a multiple of block_size_bytes
    uint32_t block_size_bytes;   // a power of 2, 512 to 4096
    uint32_t physical_bytes;     // for the topology: at least block_size_bytes
    uint32_t mem_align_bytes;    // of a buffer, for direct I/O; 1 without
    uint32_t offset_align_bytes; // of offsets and lengths, for direct I/O; 1 without
};

// Opens a path for image_init(). The descriptor or -errno.
int image_open(const char *path, bool read_only, struct tv_error *err);

// Takes the lock; image_init() does so as well, and finds it taken. For who can wait for a dead process. -EBUSY: somebody else has it;
// -EAGAIN: nobody who can be seen has, and wait_ms are over.
int image_lock(int fd, bool read_only, const char *name, unsigned wait_ms, struct tv_error *err);

// Takes fd, also on failure. `name` is for messages. Falls back to buffered I/O, with a warning in the log, where direct I/O is not
// to be had. -EBUSY: somebody else has the image; the message names the process. -EAGAIN: the holder is a dead process whose last I/O is
// still under way, or one that cannot be seen: it does not wait for it, since other disks are being served.
int image_init(struct image *image, int fd, const char *name, const struct image_options *options, struct tv_error *err);
void image_fini(struct image *image);
void image_freeze(struct image *image); // nothing writes any more: others may read it from now on

// A file is truncated or extended to size_bytes; of a block device the size is read again and size_bytes ignored. No I/O may be in
// flight. -EINVAL: not a multiple of the block size.
int image_resize(struct image *image, const char *name, uint64_t size_bytes, struct tv_error *err);
