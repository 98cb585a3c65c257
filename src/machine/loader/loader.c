// Placing a kernel, an initial RAM disk and the device tree in guest memory: see loader.h.
#include "machine/loader/loader.h"
#include "machine/loader/kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define PAGE_BYTES 4096ull
#define UNWRAP_DEPTH_MAX 3

// One over the other: kernel segments first, then what was placed since.
struct placement {
    uint64_t start, end; // end is exclusive; both within RAM
};

struct layout {
    uint64_t ram_base, ram_end;
    unsigned n;
    struct placement taken[KERNEL_SEGMENTS_MAX + 2];
};

static const struct placement *layout_find_overlap(const struct layout *layout, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < layout->n; i++)
        if (start < layout->taken[i].end && layout->taken[i].start < end)
            return &layout->taken[i];
    return NULL;
}

// The highest free page-aligned place for size_bytes; 0 if there is none.
static uint64_t layout_place_high(struct layout *layout, uint64_t size_bytes)
{
    uint64_t limit = layout->ram_end;
    while (limit > layout->ram_base && size_bytes <= limit - layout->ram_base) {
        uint64_t start = (limit - size_bytes) & ~(PAGE_BYTES - 1);
        if (start < layout->ram_base)
            break;
        const struct placement *other = layout_find_overlap(layout, start, start + size_bytes);
        if (!other) {
            layout->taken[layout->n++] = (struct placement){start, start + size_bytes};
            return start;
        }
        limit = other->start;
    }
    return 0;
}

static int layout_take_kernel(struct layout *layout, const struct kernel_plan *plan, const char *name, struct tv_error *err)
{
    for (unsigned i = 0; i < plan->n_segments; i++) {
        const struct kernel_segment *s = &plan->segments[i];
        if (s->addr < layout->ram_base || s->addr >= layout->ram_end)
            return tv_error_set(err, -ENOSPC,
                                "%s: wants to be at 0x%" PRIx64 ", but memory is 0x%" PRIx64 "..0x%" PRIx64
                                "; link it there or give the machine more memory",
                                name, s->addr, layout->ram_base, layout->ram_end - 1);
        if (s->mem_bytes > layout->ram_end - s->addr)
            return tv_error_set(err, -ENOSPC,
                                "%s: needs %" PRIu64 " KiB at 0x%" PRIx64 ", memory ends at 0x%" PRIx64
                                "; give the machine more memory",
                                name, s->mem_bytes >> 10, s->addr, layout->ram_end);
        if (layout_find_overlap(layout, s->addr, s->addr + s->mem_bytes))
            return tv_error_set(err, -EINVAL, "%s: two of its segments overlap at 0x%" PRIx64 "; the file is damaged", name,
                                s->addr);
        layout->taken[layout->n++] = (struct placement){s->addr, s->addr + s->mem_bytes};
    }
    return 0;
}

static int kernel_decode(struct kernel_source *source, uint64_t ram_base, struct kernel_plan *plan, struct tv_error *err)
{
    int rc = 1;
    for (unsigned depth = 0; rc == 1; depth++) {
        if (depth > UNWRAP_DEPTH_MAX)
            return tv_error_set(err, -EINVAL, "%s: is packed more than %d times; unpack it first", source->name, UNWRAP_DEPTH_MAX);
        rc = kernel_unwrap(source, err);
    }
    if (rc == 0)
        rc = kernel_decode_image(source, ram_base, plan, err);
    if (rc == 0)
        rc = kernel_decode_elf(source, ram_base, plan, err);
    if (rc == 0)
        return tv_error_set(err, -ENOEXEC, "%s: is no kernel: neither ELF, Image, gzip nor EFI zboot", source->name);
    return rc < 0 ? rc : 0;
}

static int read_to_guest(const struct loader_request *request, const struct kernel_source *source, uint64_t offset, uint64_t addr,
                         uint64_t len_bytes, struct tv_error *err)
{
    if (len_bytes == 0)
        return 0;
    void *to = guest_memory_view(request->mem, addr, len_bytes);
    if (!to)
        return tv_error_set(err, -EFAULT, "%s: no memory at 0x%" PRIx64, source->name, addr);
    return kernel_source_read(source, offset, to, len_bytes, err);
}

// Places the device tree and the initrd, then carries everything out.
static int load_all(const struct loader_request *request, const struct kernel_source *kernel, const struct kernel_source *initrd,
                    const struct kernel_plan *plan, struct layout *layout, struct loader_result *result, struct tv_error *err)
{
    int rc = layout_take_kernel(layout, plan, kernel->name, err);
    if (rc < 0)
        return rc;
    result->entry = plan->entry;
    result->fdt_addr = layout_place_high(layout, request->fdt_size_bytes);
    if (!result->fdt_addr)
        return tv_error_set(err, -ENOSPC, "%s: leaves no room for the device tree in %" PRIu64 " MiB; give the machine more memory",
                            kernel->name, request->ram_size_bytes >> 20);
    if (initrd) {
        result->initrd_size_bytes = initrd->size_bytes;
        result->initrd_addr = layout_place_high(layout, initrd->size_bytes);
        if (!result->initrd_addr)
            return tv_error_set(err, -ENOSPC,
                                "%s: %" PRIu64 " KiB do not fit beside the kernel in %" PRIu64 " MiB; give the machine more memory",
                                initrd->name, initrd->size_bytes >> 10, request->ram_size_bytes >> 20);
    }
    for (unsigned i = 0; i < plan->n_segments && rc == 0; i++) {
        const struct kernel_segment *s = &plan->segments[i];
        rc = read_to_guest(request, kernel, s->file_offset, s->addr, s->file_bytes, err);
    }
    if (rc == 0 && initrd)
        rc = read_to_guest(request, initrd, 0, result->initrd_addr, initrd->size_bytes, err);
    return rc;
}

int loader_load(const struct loader_request *request, struct loader_result *result, struct tv_error *err)
{
    struct kernel_source kernel, initrd;
    bool has_initrd = request->initrd.fd >= 0;
    struct layout layout = {.ram_base = request->ram_base, .ram_end = request->ram_base + request->ram_size_bytes};
    *result = (struct loader_result){0};
    int rc = kernel_source_open(&kernel, request->kernel.fd, request->kernel.name, err);
    if (rc == 0 && has_initrd)
        rc = kernel_source_open(&initrd, request->initrd.fd, request->initrd.name, err);
    if (rc < 0)
        return rc;
    struct kernel_plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        return tv_error_set(err, -ENOMEM, "%s: no memory to load it", kernel.name);
    rc = kernel_decode(&kernel, request->ram_base, plan, err);
    if (rc == 0)
        rc = load_all(request, &kernel, has_initrd ? &initrd : NULL, plan, &layout, result, err);
    kernel_source_close(&kernel);
    free(plan);
    return rc;
}
