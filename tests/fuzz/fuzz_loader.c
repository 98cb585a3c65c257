// Any bytes as a kernel and as an initrd: they are refused or loaded, and what the loader says lies in RAM and does not overlap.
#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine/loader/loader.h"

#define RAM_BASE 0x80000000ull
#define RAM_BYTES (4ull << 20)
#define FDT_BYTES 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest_memory mem;
    struct loader_result result;
    struct tv_error err = {0};
    if (mem.n_regions == 0) {
        guest_memory_init(&mem);
        if (guest_memory_add(&mem, RAM_BASE, RAM_BYTES, guest_ram_create("fuzz", RAM_BYTES, NULL), 0, 0, NULL) < 0)
            abort();
    }
    // The last byte's low bit says whether the same bytes are the initrd too.
    bool has_initrd = size > 0 && (data[size - 1] & 1);
    int fd = file_of(data, size), initrd_fd = has_initrd ? file_of(data, size) : -1;
    struct loader_request request = {.mem = &mem,
                                     .ram_base = RAM_BASE,
                                     .ram_size_bytes = RAM_BYTES,
                                     .kernel = {fd, "kernel"},
                                     .initrd = {initrd_fd, "initrd"},
                                     .fdt_size_bytes = FDT_BYTES};
    if (loader_load(&request, &result, &err) == 0) {
        assert(guest_memory_view(&mem, result.fdt_addr, FDT_BYTES));
        assert(!has_initrd || guest_memory_view(&mem, result.initrd_addr, result.initrd_size_bytes));
        assert(!has_initrd || result.initrd_addr + result.initrd_size_bytes <= result.fdt_addr ||
               result.fdt_addr + FDT_BYTES <= result.initrd_addr);
    } else {
        assert(err.text[0]);
    }
    close(fd);
    if (has_initrd)
        close(initrd_fd);
    return 0;
}
