// A disk's requests, from the ring to the answer; and what is counted of them. Private to the store; its thread.
#pragma once

#include "base/histogram.h"
#include "store/disk.h"

// Nanoseconds from pop to push of what succeeded, queueing included.
struct disk_latency {
    struct histogram read, write, flush, trim; // trim: discard and write-zeroes
};

void disk_request_pop(struct disk *disk, unsigned queue); // all there is, as far as slots go
