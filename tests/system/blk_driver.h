// What the blk_driver program can do; a file each.
#pragma once

#include "blk_device.h"

struct blk_options {
    const char *socket;
    unsigned n_queues, depth; // depth: requests in flight a queue
    uint64_t n_requests, seed, seconds;
    uint64_t refused; // virtio features not to acknowledge
    uint32_t size_bytes;
    bool may_fail;       // of verify: errors are counted
    bool tells_stalls;   // of verify
    bool polls;          // does not sleep: looks at the rings over and over, and wants no calls
    const char *pattern; // read, write, randread, randwrite
    // of a load: size_bytes are its small requests
    uint64_t interval_ms;
    uint32_t large_bytes; // 0: none
    uint32_t read_permille, sequential_permille, large_permille;
};

int blk_verify(const struct blk_options *options);  // random requests of all kinds; everything that is read back is checked
int blk_bench(const struct blk_options *options);   // one pattern for a time; JSON
int blk_load(const struct blk_options *options);    // a mixed load for a time; a line of JSON each interval
int blk_inspect(const struct blk_options *options); // what the device says of itself, and takes as cache mode; JSON
int blk_fill(const struct blk_options *options);    // writes all of the disk, reads back what was taken; JSON
int blk_resize(const struct blk_options *options);  // a line with the size now, and one at each change
int blk_cache(const struct blk_options *options);   // the cache mode, over the death of the back end
