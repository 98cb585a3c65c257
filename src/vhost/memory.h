// Guest memory: a set of regions, each a shared mapping of a descriptor.
//
// Nothing reaches guest memory but by a view, that is, a checked (address, length). Contents can change under the reader at any
// time: read each guest field once. A peer that truncates an unsealed file would make a mapping fault: regions without
// F_SEAL_SHRINK are kept alive by the SIGBUS guard (guest_memory_guard_install()), which puts zero pages there and marks the region
// as lost.
//
// A set is not changed while somebody reads it: the owner stops its queues first.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_REGIONS_MAX 64
#define GUEST_HUGE_PAGE_BYTES (2ull << 20)

struct guest_region {
    uint64_t guest_addr; // guest-physical
    uint64_t size_bytes;
    uint64_t user_addr; // in the front end's address space: vhost-user ring addresses are given in it
    uint8_t *host;      // our mapping
    int fd;             // owned
    uint64_t fd_offset;
    uint8_t *map; // what mmap() gave: pages around [host, host + size_bytes)
    uint64_t map_bytes;
    int guard_slot; // in the SIGBUS guard's table, -1 for a sealed region
};

struct guest_memory {
    unsigned n_regions;
    struct guest_region regions[GUEST_REGIONS_MAX];
};

// A memfd of size_bytes, sealed against growing and shrinking. The descriptor, or -errno.
int guest_ram_create(const char *name, uint64_t size_bytes, struct tv_error *err);
// The same of huge pages of 2 MiB, all of them taken now: -ENOMEM when the host has not as many
// (Documentation/admin-guide/mm/hugetlbpage.rst).
int guest_ram_create_huge(const char *name, uint64_t size_bytes, struct tv_error *err);

void guest_memory_init(struct guest_memory *mem);
void guest_memory_fini(struct guest_memory *mem); // unmaps, closes
// Maps fd (taken, also on failure) at guest_addr. -EINVAL when it overlaps, wraps or is empty; -ENOSPC over GUEST_REGIONS_MAX.
// user_addr 0 means "where we mapped it".
int guest_memory_add(struct guest_memory *mem, uint64_t guest_addr, uint64_t size_bytes, int fd, uint64_t fd_offset,
                     uint64_t user_addr, struct tv_error *err);
int guest_memory_remove(struct guest_memory *mem, uint64_t guest_addr, uint64_t size_bytes);

// The bytes at a guest-physical address, or NULL unless all of them lie in one region.
void *guest_memory_view(const struct guest_memory *mem, uint64_t guest_addr, uint64_t len_bytes);
// As much of it as lies in one region from guest_addr on: *got_bytes (1..len_bytes); NULL when there is nothing. A buffer may cross
// from one region to the next.
void *guest_memory_view_part(const struct guest_memory *mem, uint64_t guest_addr, uint64_t len_bytes, uint64_t *got_bytes);
// As guest_memory_view(), by the front end's user address; *guest_addr (may be NULL) gets the guest-physical one.
void *guest_memory_view_user(const struct guest_memory *mem, uint64_t user_addr, uint64_t len_bytes, uint64_t *guest_addr);
// The guest-physical address of a byte of a view. False: it is none.
bool guest_memory_find(const struct guest_memory *mem, const void *byte, uint64_t *guest_addr);

// Once in a process (again is fine); any thread. Faults that are not in a guarded region go to the handler that was there before.
int guest_memory_guard_install(struct tv_error *err);
bool guest_memory_is_lost(const struct guest_memory *mem); // a region's file was cut under us; its contents are gone
