// How long the device itself takes for a disk's requests: each one's time with the device, less the cost of what the device had
// before it. Private to the store; its thread. A value that is read back is at most a fifth below the truth, never above.
#pragma once

#include <stdint.h>

#define DEVICE_TIME_BUCKETS 256u // four for each power of two

// Of late: now, and before.
struct device_time {
    uint32_t count[2], n[2][DEVICE_TIME_BUCKETS];
};

void device_time_add(struct device_time *t, uint64_t ns);
// Now and then: what was before is forgotten, if enough came since.
void device_time_turn(struct device_time *t);
// For the quickest `per_mille` of 1000 requests; 0: there were too few to tell, ten at least must have taken longer.
uint64_t device_time_of(const struct device_time *t, unsigned per_mille);
