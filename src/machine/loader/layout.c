// Where a kernel and what belongs to it lie in RAM: see kernel.h.
#include "machine/loader/kernel.h"

#include <errno.h>
#include <inttypes.h>

#define PAGE_BYTES 4096ull

static const struct kernel_placement *find_overlap(const struct kernel_layout *layout, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < layout->n; i++)
        if (start < layout->taken[i].end && layout->taken[i].start < end)
            return &layout->taken[i];
    return NULL;
}

uint64_t kernel_layout_place_high(struct kernel_layout *layout, uint64_t size_bytes, uint64_t limit)
{
    limit = limit < layout->ram_end ? limit : layout->ram_end;
    while (limit > layout->ram_base && size_bytes <= limit - layout->ram_base) {
        uint64_t start = (limit - size_bytes) & ~(PAGE_BYTES - 1);
        if (start < layout->ram_base)
            break;
        const struct kernel_placement *other = find_overlap(layout, start, start + size_bytes);
        if (!other) {
            layout->taken[layout->n++] = (struct kernel_placement){start, start + size_bytes};
            return start;
        }
        limit = other->start;
    }
    return 0;
}

int kernel_layout_take(struct kernel_layout *layout, const struct kernel_plan *plan, const char *name, struct tv_error *err)
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
        if (find_overlap(layout, s->addr, s->addr + s->mem_bytes))
            return tv_error_set(err, -EINVAL, "%s: two of its segments overlap at 0x%" PRIx64 "; the file is damaged", name,
                                s->addr);
        layout->taken[layout->n++] = (struct kernel_placement){s->addr, s->addr + s->mem_bytes};
    }
    return 0;
}

int kernel_read_to_guest(const struct guest_memory *mem, const struct kernel_source *source, uint64_t offset, uint64_t addr,
                         uint64_t len_bytes, struct tv_error *err)
{
    if (len_bytes == 0)
        return 0;
    void *to = guest_memory_view(mem, addr, len_bytes);
    if (!to)
        return tv_error_set(err, -EFAULT, "%s: no memory at 0x%" PRIx64, source->name, addr);
    return kernel_source_read(source, offset, to, len_bytes, err);
}
