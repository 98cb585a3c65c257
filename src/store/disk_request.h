// A disk's requests, from the ring to the answer; and what is counted of them. Private to the store; its thread.
#pragma once

#include "store/disk.h"

// Latency as the guest sees it, queueing included: from pop to push.
struct disk_latency {
    uint64_t placeholder;
};

void disk_request_pop(struct disk *disk, unsigned queue); // all there is, as far as slots go
