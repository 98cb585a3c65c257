// The machine's memory-mapped bus: which device answers at a guest-physical address.
//
// Lookups come from vcpu threads, several at once; changes (a BAR that moves) from whoever holds that device. The map is read under
// a read lock that is released before the device is called; a device has its own lock, named in its file.
#pragma once

#include "base/error.h"

#include <stdint.h>

struct bus;

struct bus_ops {
    const char *name;
    // offset is relative to the start of the range; size is 1, 2, 4 or 8. Whatever the guest does has some defined, harmless
    // effect.
    // What read returns is cut to size.
    uint64_t (*read)(void *device, uint64_t offset, unsigned size);
    void (*write)(void *device, uint64_t offset, unsigned size, uint64_t value);
};

struct bus *bus_create(void);
void bus_destroy(struct bus *bus);

// -EBUSY when the range overlaps another (err names it), -EINVAL when it wraps.
int bus_add(struct bus *bus, uint64_t base, uint64_t size_bytes, const struct bus_ops *ops, void *device, struct tv_error *err);
void bus_remove(struct bus *bus, uint64_t base);

// As engine_host's mmio_read and mmio_write; `arg` is the bus.
int bus_read(void *arg, uint64_t gpa, unsigned size, uint64_t *value);
int bus_write(void *arg, uint64_t gpa, unsigned size, uint64_t value);
