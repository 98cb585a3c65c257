// Can the device keep what its disks are promised? Private to the store; its thread.
//
// The rule: what is known is held to. Percentages are always known. What bytes or requests take of the device's time is known once
// the scheduler has learned its costs and the disk has made ADMISSION_REQUESTS_LEAST requests at them. Until then such a reserve is
// taken on trust. It counts as if the disk reached twice what the best of those does that are known; and as nothing, if none is,
// since a new disk could be promised nothing otherwise. What asks for no more than was promised before is not refused, whatever the
// device has become.
//
// A latency takes the time that the disk's requests have had, or as much less as they may take longer: they go before all others.
// It is refused as well if it is below what the device itself takes for half of the disk's requests, or of those for which it takes
// least, as long as this disk has made too few (device_time.h). It is on trust while the device takes longer for more of them than
// may be late: others are held back for it then, and nobody knows how much that helps.
#pragma once

#include "promise/admit.h"
#include "store/disk.h"

#define ADMISSION_REQUESTS_LEAST 1000u
#define ADMISSION_SHARE_MAX PROMISE_SHARE_MAX_DEFAULT

struct admission_change {
    struct disk *disk; // of the store, or about to be
    struct promise_set set;
};

// 0, -EBUSY with the arithmetic, -ENOMEM. What was taken on trust is appended to `unproven`: {"name", "promise", "because"}.
int admission_check(const struct store *store, const struct admission_change *changes, size_t n, json_t *unproven,
                    struct tv_error *err);
// What the disk would reach alone, in bytes and requests a second, by what its requests cost of late; untouched where not known.
void admission_alone(const struct disk *disk, uint64_t alone[static PROMISE_METRICS]);
// False: the promise was taken on trust, or would be.
bool admission_is_proven(const struct disk *disk, const struct promise *p);
// What all reserves take of the device's time, in millionths, as far as it is known.
uint64_t admission_need(const struct store *store);
