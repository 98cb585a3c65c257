// Kernel formats: puts a kernel and an initial RAM disk into guest memory and finds room for the device tree.
//
// Understood are the RISC-V Image (Documentation/arch/riscv/boot-image-header.rst), ELF64 (ET_EXEC and ET_DYN), either of them
// wrapped in gzip or in an EFI zboot image (gzip, zstd), and wrapped more than once. Files come as descriptors and are foreign:
// everything is decoded and checked whole before the first byte of guest memory is written. Messages name the file.
//
// Runs on the machine's thread, with no vcpu running. Guest RAM must read as zeroes where the kernel goes.
#pragma once

#include "base/error.h"
#include "vhost/memory.h"

#include <stdint.h>

struct loader_file {
    int fd;           // a regular file, borrowed, read by pread(2); -1: none
    const char *name; // for messages
};

struct loader_request {
    const struct guest_memory *mem;
    uint64_t ram_base, ram_size_bytes; // one region of mem; all of it is free
    struct loader_file kernel, initrd;
    uint64_t fdt_size_bytes; // room to keep for the device tree
};

struct loader_result {
    uint64_t entry;                          // physical
    uint64_t initrd_addr, initrd_size_bytes; // page-aligned; 0 and 0 without one
    uint64_t fdt_addr;                       // page-aligned, high in RAM
};

// -ENOEXEC: no kernel, or one for another machine. -ENOSPC: does not fit. -EINVAL: damaged. Else what reading gave.
int loader_load(const struct loader_request *request, struct loader_result *result, struct tv_error *err);
