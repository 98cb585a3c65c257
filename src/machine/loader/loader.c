// Placing a kernel, an initial RAM disk and the device tree in guest memory: see loader.h.
#include "machine/loader/loader.h"
#include "machine/loader/kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static int kernel_decode(struct kernel_source *source, uint64_t ram_base, struct kernel_plan *plan, struct tv_error *err)
{
    int rc = kernel_unwrap(source, err);
    if (rc == 0)
        rc = kernel_decode_image(source, ram_base, plan, err);
    if (rc == 0)
        rc = kernel_decode_elf(source, ram_base, plan, err);
    if (rc == 0)
        return tv_error_set(err, -ENOEXEC, "%s: is no kernel: neither ELF, Image, gzip nor EFI zboot", source->name);
    return rc < 0 ? rc : 0;
}

// Places the device tree and the initrd, then carries everything out.
static int load_all(const struct loader_request *request, const struct kernel_source *kernel, const struct kernel_source *initrd,
                    const struct kernel_plan *plan, struct kernel_layout *layout, struct loader_result *result,
                    struct tv_error *err)
{
    int rc = kernel_layout_take(layout, plan, kernel->name, err);
    if (rc < 0)
        return rc;
    result->entry = plan->entry;
    result->fdt_addr = kernel_layout_place_high(layout, request->fdt_size_bytes, UINT64_MAX);
    if (!result->fdt_addr)
        return tv_error_set(err, -ENOSPC, "%s: leaves no room for the device tree in %" PRIu64 " MiB; give the machine more memory",
                            kernel->name, request->ram_size_bytes >> 20);
    if (initrd) {
        result->initrd_size_bytes = initrd->size_bytes;
        result->initrd_addr = kernel_layout_place_high(layout, initrd->size_bytes, UINT64_MAX);
        if (!result->initrd_addr)
            return tv_error_set(err, -ENOSPC,
                                "%s: %" PRIu64 " KiB do not fit beside the kernel in %" PRIu64 " MiB; give the machine more memory",
                                initrd->name, initrd->size_bytes >> 10, request->ram_size_bytes >> 20);
    }
    for (unsigned i = 0; i < plan->n_segments && rc == 0; i++) {
        const struct kernel_segment *s = &plan->segments[i];
        rc = kernel_read_to_guest(request->mem, kernel, s->file_offset, s->addr, s->file_bytes, err);
    }
    if (rc == 0 && initrd)
        rc = kernel_read_to_guest(request->mem, initrd, 0, result->initrd_addr, initrd->size_bytes, err);
    return rc;
}

int loader_load(const struct loader_request *request, struct loader_result *result, struct tv_error *err)
{
    struct kernel_source kernel, initrd;
    bool has_initrd = request->initrd.fd >= 0;
    struct kernel_layout layout = {.ram_base = request->ram_base, .ram_end = request->ram_base + request->ram_size_bytes};
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
