// Any bytes as an x86-64 kernel and as an initrd: they are refused or loaded. What is loaded is entered in what it brought, and
// what the kernel is told leads to bytes in RAM that are nothing else's.
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine/loader/loader.h"

#define RAM_BYTES (8ull << 20)
#define LOW_BYTES 0xa0000ull
#define HIGH_ADDR (1ull << 20)
#define DATA_ADDR 0x10000ull
#define DATA_BYTES 0x10000ull

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
    struct loader_pc_result result;
    struct tv_error err = {0};
    if (mem.n_regions == 0) {
        guest_memory_init(&mem);
        if (guest_memory_add(&mem, 0, RAM_BYTES, guest_ram_create("fuzz", RAM_BYTES, NULL), 0, 0, NULL) < 0)
            abort();
    }
    // The last byte's low bit says whether the same bytes are the initrd too.
    bool has_initrd = size > 0 && (data[size - 1] & 1);
    int fd = file_of(data, size), initrd_fd = has_initrd ? file_of(data, size) : -1;
    struct loader_pc_request request = {.mem = &mem,
                                        .kernel = {fd, "kernel"},
                                        .initrd = {initrd_fd, "initrd"},
                                        .append = "console=ttyS0",
                                        .rsdp_addr = 0xe0000,
                                        .n_ranges = 2,
                                        .ranges = {{0, LOW_BYTES, true}, {HIGH_ADDR, RAM_BYTES - HIGH_ADDR, true}},
                                        .usable = 1,
                                        .data_addr = DATA_ADDR,
                                        .data_size_bytes = DATA_BYTES};
    uint8_t *below = guest_memory_view(&mem, 0, HIGH_ADDR);
    memset(below, 0, HIGH_ADDR);
    if (loader_pc_load(&request, &result, &err) == 0) {
        assert(result.entry < DATA_ADDR || (result.entry >= HIGH_ADDR && result.entry < RAM_BYTES));
        assert(result.ebx_esi >= DATA_ADDR && result.ebx_esi < DATA_ADDR + DATA_BYTES);
    } else {
        assert(err.text[0]);
    }
    for (uint64_t addr = DATA_ADDR; addr < HIGH_ADDR; addr += 8) { // nothing below 1 MiB but what is told, behind a small kernel
        uint64_t word;
        memcpy(&word, below + addr, sizeof(word));
        assert(word == 0 || addr < DATA_ADDR + DATA_BYTES);
    }
    close(fd);
    if (has_initrd)
        close(initrd_fd);
    return 0;
}
