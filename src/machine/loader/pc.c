// Placing an x86-64 kernel and its initial RAM disk, and telling the kernel what it wants to know: see loader.h.
#include "machine/loader/pc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define GIB4 0x100000000ull

// Linux's boot_params ("zero page", Documentation/arch/x86/zero-page.rst): offsets.
enum {
    LINUX_BYTES = 4096,
    LINUX_RSDP = 0x070,
    LINUX_E820_ENTRIES = 0x1e8,
    LINUX_LOADER = 0x210,
    LINUX_INITRD = 0x218,
    LINUX_INITRD_BYTES = 0x21c,
    LINUX_APPEND = 0x228,
    LINUX_E820 = 0x2d0,
    LINUX_E820_BYTES = 20,
    LINUX_LOADER_UNKNOWN = 0xff,
};

// struct hvm_start_info and what it points to.
#define PVH_MAGIC 0x336ec578u
enum { PVH_BYTES = 56, PVH_MODULE_BYTES = 32, PVH_RANGE_BYTES = 24 };

// "Multiboot Specification" 0.6.96, 3.3.
#define MULTIBOOT_LOADED 0x2badb002u
enum { MULTIBOOT_BYTES = 116, MULTIBOOT_MODULE_BYTES = 16, MULTIBOOT_RANGE_BYTES = 24 };
enum { MULTIBOOT_HAS_MEMORY = 1, MULTIBOOT_HAS_APPEND = 4, MULTIBOOT_HAS_MODULES = 8, MULTIBOOT_HAS_RANGES = 64 };

enum { E820_RAM = 1, E820_RESERVED = 2 }; // the same in all three

struct telling { // to the kernel, below 1 MiB; a bump allocator
    const struct loader_pc_request *request;
    uint64_t next, end;
};

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

// Zeroed, 16-aligned; NULL: no room.
static uint8_t *take(struct telling *t, uint64_t bytes, uint64_t *addr)
{
    uint64_t rounded = (bytes + 15) & ~15ull;
    *addr = 0;
    if (rounded > t->end - t->next)
        return NULL;
    *addr = t->next;
    t->next += rounded;
    uint8_t *at = guest_memory_view(t->request->mem, *addr, rounded);
    if (at)
        memset(at, 0, rounded);
    return at;
}

static int no_room(const struct loader_pc_request *r, struct tv_error *err)
{
    return tv_error_set(err, -ENOSPC, "%s: no room to tell the kernel its command line of %zu bytes; shorten it", r->kernel.name,
                        r->append ? strlen(r->append) : 0);
}

// `first` is a word that comes before it; it may be NULL.
static int put_append(struct telling *t, const char *first, uint64_t *addr, struct tv_error *err)
{
    const char *append = t->request->append ? t->request->append : "";
    size_t len_bytes = strlen(append) + 1, first_bytes = first ? strlen(first) + 1 : 0;
    uint8_t *at = take(t, first_bytes + len_bytes, addr);
    if (!at)
        return no_room(t->request, err);
    if (first) {
        memcpy(at, first, first_bytes - 1);
        at[first_bytes - 1] = ' ';
    }
    memcpy(at + first_bytes, append, len_bytes);
    return 0;
}

static int tell_linux(struct telling *t, const struct pc_plan *plan, uint64_t initrd, uint64_t initrd_bytes,
                      struct loader_pc_result *result, struct tv_error *err)
{
    const struct loader_pc_request *r = t->request;
    uint64_t addr, append;
    uint8_t *params = take(t, LINUX_BYTES, &addr);
    if (r->append && strlen(r->append) > plan->append_max_bytes)
        return tv_error_set(err, -EINVAL, "%s: takes a command line of %" PRIu64 " bytes, not of %zu", r->kernel.name,
                            plan->append_max_bytes, strlen(r->append));
    if (!params)
        return no_room(r, err);
    int rc = put_append(t, NULL, &append, err);
    if (rc < 0)
        return rc;
    memcpy(params + PC_SETUP_HEADER, plan->head + PC_SETUP_HEADER, PC_SETUP_HEADER_MAX - PC_SETUP_HEADER);
    put(params + LINUX_RSDP, r->rsdp_addr, 8);
    put(params + LINUX_LOADER, LINUX_LOADER_UNKNOWN, 1);
    put(params + LINUX_INITRD, initrd, 4);
    put(params + LINUX_INITRD_BYTES, initrd_bytes, 4);
    put(params + LINUX_APPEND, append, 4);
    put(params + LINUX_E820_ENTRIES, r->n_ranges, 1);
    for (unsigned i = 0; i < r->n_ranges; i++) {
        uint8_t *entry = params + LINUX_E820 + i * LINUX_E820_BYTES;
        put(entry, r->ranges[i].addr, 8);
        put(entry + 8, r->ranges[i].size_bytes, 8);
        put(entry + 16, r->ranges[i].is_ram ? E820_RAM : E820_RESERVED, 4);
    }
    result->ebx_esi = (uint32_t)addr;
    return 0;
}

static int tell_pvh(struct telling *t, uint64_t initrd, uint64_t initrd_bytes, struct loader_pc_result *result,
                    struct tv_error *err)
{
    const struct loader_pc_request *r = t->request;
    uint64_t addr, module_addr, ranges_addr, append;
    uint8_t *info = take(t, PVH_BYTES, &addr), *module = take(t, PVH_MODULE_BYTES, &module_addr);
    uint8_t *ranges = take(t, LOADER_PC_RANGES * PVH_RANGE_BYTES, &ranges_addr);
    if (!info || !module || !ranges)
        return no_room(r, err);
    int rc = put_append(t, NULL, &append, err);
    if (rc < 0)
        return rc;
    put(module, initrd, 8);
    put(module + 8, initrd_bytes, 8);
    for (unsigned i = 0; i < r->n_ranges; i++) {
        uint8_t *entry = ranges + i * PVH_RANGE_BYTES;
        put(entry, r->ranges[i].addr, 8);
        put(entry + 8, r->ranges[i].size_bytes, 8);
        put(entry + 16, r->ranges[i].is_ram ? E820_RAM : E820_RESERVED, 4);
    }
    put(info, PVH_MAGIC, 4);
    put(info + 4, 1, 4); // version
    put(info + 12, initrd_bytes ? 1 : 0, 4);
    put(info + 16, module_addr, 8);
    put(info + 24, append, 8);
    put(info + 32, r->rsdp_addr, 8);
    put(info + 40, ranges_addr, 8);
    put(info + 48, r->n_ranges, 4);
    result->ebx_esi = (uint32_t)addr;
    return 0;
}

static int tell_multiboot(struct telling *t, uint64_t initrd, uint64_t initrd_bytes, struct loader_pc_result *result,
                          struct tv_error *err)
{
    const struct loader_pc_request *r = t->request;
    const struct loader_pc_range *usable = &r->ranges[r->usable];
    uint64_t addr, module_addr, ranges_addr, append;
    uint8_t *info = take(t, MULTIBOOT_BYTES, &addr), *module = take(t, MULTIBOOT_MODULE_BYTES, &module_addr);
    uint8_t *ranges = take(t, LOADER_PC_RANGES * MULTIBOOT_RANGE_BYTES, &ranges_addr);
    if (!info || !module || !ranges)
        return no_room(r, err);
    int rc = put_append(t, "kernel", &append, err); // boot loaders put its name first
    if (rc < 0)
        return rc;
    put(module, initrd, 4);
    put(module + 4, initrd + initrd_bytes, 4);
    put(module + 8, append, 4);
    for (unsigned i = 0; i < r->n_ranges; i++) {
        uint8_t *entry = ranges + i * MULTIBOOT_RANGE_BYTES;
        put(entry, MULTIBOOT_RANGE_BYTES - 4, 4);
        put(entry + 4, r->ranges[i].addr, 8);
        put(entry + 12, r->ranges[i].size_bytes, 8);
        put(entry + 20, r->ranges[i].is_ram ? E820_RAM : E820_RESERVED, 4);
    }
    put(info, MULTIBOOT_HAS_MEMORY | MULTIBOOT_HAS_APPEND | MULTIBOOT_HAS_MODULES | MULTIBOOT_HAS_RANGES, 4);
    put(info + 4, r->ranges[0].size_bytes >> 10, 4);
    put(info + 8, usable->size_bytes >> 10, 4);
    put(info + 16, append, 4);
    put(info + 20, initrd_bytes ? 1 : 0, 4);
    put(info + 24, module_addr, 4);
    put(info + 44, (uint64_t)r->n_ranges * MULTIBOOT_RANGE_BYTES, 4);
    put(info + 48, ranges_addr, 4);
    result->eax = MULTIBOOT_LOADED;
    result->ebx_esi = (uint32_t)addr;
    return 0;
}

static int tell(const struct loader_pc_request *r, const struct pc_plan *plan, uint64_t initrd, uint64_t initrd_bytes,
                struct loader_pc_result *result, struct tv_error *err)
{
    struct telling t = {.request = r, .next = r->data_addr, .end = r->data_addr + r->data_size_bytes};
    switch (plan->protocol) {
    case PC_LINUX:
        return tell_linux(&t, plan, initrd, initrd_bytes, result, err);
    case PC_PVH:
        return tell_pvh(&t, initrd, initrd_bytes, result, err);
    default:
        return tell_multiboot(&t, initrd, initrd_bytes, result, err);
    }
}

static int decode(struct kernel_source *source, const struct loader_pc_range *usable, struct pc_plan *plan, struct tv_error *err)
{
    int rc = kernel_unwrap(source, err);
    if (rc == 0)
        rc = pc_decode_linux(source, usable->addr, usable->addr + usable->size_bytes, plan, err);
    if (rc == 0)
        rc = pc_decode_elf(source, plan, err);
    if (rc == 0)
        return tv_error_set(err, -ENOEXEC, "%s: is no kernel for x86-64: neither bzImage nor ELF", source->name);
    return rc < 0 ? rc : 0;
}

static bool is_below(const struct pc_plan *plan, uint64_t end)
{
    for (unsigned i = 0; i < plan->kernel.n_segments; i++)
        if (plan->kernel.segments[i].addr >= end)
            return false;
    return true;
}

static int load_all(const struct loader_pc_request *r, const struct kernel_source *kernel, const struct kernel_source *initrd,
                    const struct pc_plan *plan, struct loader_pc_result *result, struct tv_error *err)
{
    const struct loader_pc_range *usable = &r->ranges[r->usable];
    struct kernel_layout layout = {.ram_base = usable->addr, .ram_end = usable->addr + usable->size_bytes};
    struct kernel_layout below = {.ram_end = r->data_addr}; // where small kernels that run in real mode are
    uint64_t initrd_addr = 0, initrd_bytes = initrd ? initrd->size_bytes : 0;
    int rc = kernel_layout_take(is_below(plan, r->data_addr) ? &below : &layout, &plan->kernel, kernel->name, err);
    if (rc < 0)
        return rc;
    if (initrd) {
        initrd_addr = kernel_layout_place_high(&layout, initrd_bytes, plan->protocol == PC_LINUX ? plan->initrd_end : GIB4);
        if (!initrd_addr)
            return tv_error_set(err, -ENOSPC,
                                "%s: %" PRIu64 " KiB do not fit beside the kernel in %" PRIu64 " MiB; give the machine more memory",
                                initrd->name, initrd_bytes >> 10, usable->size_bytes >> 20);
    }
    result->entry = plan->kernel.entry;
    rc = tell(r, plan, initrd_addr, initrd_bytes, result, err);
    for (unsigned i = 0; i < plan->kernel.n_segments && rc == 0; i++) {
        const struct kernel_segment *s = &plan->kernel.segments[i];
        rc = kernel_read_to_guest(r->mem, kernel, s->file_offset, s->addr, s->file_bytes, err);
    }
    if (rc == 0 && initrd)
        rc = kernel_read_to_guest(r->mem, initrd, 0, initrd_addr, initrd_bytes, err);
    return rc;
}

int loader_pc_load(const struct loader_pc_request *r, struct loader_pc_result *result, struct tv_error *err)
{
    struct kernel_source kernel, initrd;
    bool has_initrd = r->initrd.fd >= 0;
    *result = (struct loader_pc_result){0};
    int rc = kernel_source_open(&kernel, r->kernel.fd, r->kernel.name, err);
    if (rc == 0 && has_initrd)
        rc = kernel_source_open(&initrd, r->initrd.fd, r->initrd.name, err);
    if (rc < 0)
        return rc;
    struct pc_plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        return tv_error_set(err, -ENOMEM, "%s: no memory to load it", kernel.name);
    rc = decode(&kernel, &r->ranges[r->usable], plan, err);
    if (rc == 0)
        rc = load_all(r, &kernel, has_initrd ? &initrd : NULL, plan, result, err);
    kernel_source_close(&kernel);
    free(plan);
    return rc;
}
