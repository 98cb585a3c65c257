// The memory-mapped bus: see bus.h. A sorted array under a reader-writer lock, which is a leaf: nothing is called while it is held.
#include "machine/board/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct bus_range {
    uint64_t base, size_bytes;
    const struct bus_ops *ops;
    void *device;
};

struct bus {
    pthread_rwlock_t lock; // guards all below
    size_t n, room;
    struct bus_range *ranges; // by base, never overlapping
};

struct bus *bus_create(void)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (bus)
        pthread_rwlock_init(&bus->lock, NULL);
    return bus;
}

void bus_destroy(struct bus *bus)
{
    if (!bus)
        return;
    pthread_rwlock_destroy(&bus->lock);
    free(bus->ranges);
    free(bus);
}

// The index of the first range that ends above addr.
static size_t find_above(const struct bus *bus, uint64_t addr)
{
    size_t low = 0, high = bus->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct bus_range *r = &bus->ranges[mid];
        if (r->base + (r->size_bytes - 1) < addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static int grow(struct bus *bus)
{
    if (bus->n < bus->room)
        return 0;
    size_t room = bus->room ? bus->room * 2 : 16;
    struct bus_range *ranges = reallocarray(bus->ranges, room, sizeof(*ranges));
    if (!ranges)
        return -ENOMEM;
    bus->ranges = ranges;
    bus->room = room;
    return 0;
}

static int add_locked(struct bus *bus, const struct bus_range *range, struct tv_error *err)
{
    size_t at = find_above(bus, range->base);
    if (at < bus->n && bus->ranges[at].base <= range->base + (range->size_bytes - 1))
        return tv_error_set(err, -EBUSY, "'%s' at 0x%" PRIx64 " overlaps '%s' at 0x%" PRIx64, range->ops->name, range->base,
                            bus->ranges[at].ops->name, bus->ranges[at].base);
    if (grow(bus) != 0)
        return tv_error_set(err, -ENOMEM, "no memory for a range of the bus");
    memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->n - at) * sizeof(*bus->ranges));
    bus->ranges[at] = *range;
    bus->n++;
    return 0;
}

int bus_add(struct bus *bus, uint64_t base, uint64_t size_bytes, const struct bus_ops *ops, void *device, struct tv_error *err)
{
    if (size_bytes == 0 || base + (size_bytes - 1) < base)
        return tv_error_set(err, -EINVAL, "'%s' at 0x%" PRIx64 " is empty or reaches over the end of the address space", ops->name,
                            base);
    const struct bus_range range = {.base = base, .size_bytes = size_bytes, .ops = ops, .device = device};
    pthread_rwlock_wrlock(&bus->lock);
    int rc = add_locked(bus, &range, err);
    pthread_rwlock_unlock(&bus->lock);
    return rc;
}

void bus_remove(struct bus *bus, uint64_t base)
{
    pthread_rwlock_wrlock(&bus->lock);
    size_t at = find_above(bus, base);
    if (at < bus->n && bus->ranges[at].base == base) {
        bus->n--;
        memmove(&bus->ranges[at], &bus->ranges[at + 1], (bus->n - at) * sizeof(*bus->ranges));
    }
    pthread_rwlock_unlock(&bus->lock);
}

// The range that holds all of the access.
static bool lookup(struct bus *bus, uint64_t gpa, unsigned size, struct bus_range *out)
{
    pthread_rwlock_rdlock(&bus->lock);
    size_t at = find_above(bus, gpa);
    bool found = at < bus->n && bus->ranges[at].base <= gpa && bus->ranges[at].size_bytes - (gpa - bus->ranges[at].base) >= size;
    if (found)
        *out = bus->ranges[at];
    pthread_rwlock_unlock(&bus->lock);
    return found;
}

int bus_read(void *arg, uint64_t gpa, unsigned size, uint64_t *value)
{
    struct bus_range r;
    if (!lookup(arg, gpa, size, &r))
        return -ENXIO;
    *value = r.ops->read(r.device, gpa - r.base, size);
    if (size < 8)
        *value &= (1ull << (8 * size)) - 1;
    return 0;
}

int bus_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
    struct bus_range r;
    if (!lookup(arg, gpa, size, &r))
        return -ENXIO;
    r.ops->write(r.device, gpa - r.base, size, value);
    return 0;
}
