// Kernel formats: puts a kernel and an initial RAM disk into guest memory, and finds room for the device tree (riscv64) or tells
// the kernel what it wants to know (x86-64).
//
// Understood are, for riscv64, the Image (Documentation/arch/riscv/boot-image-header.rst) and ELF64 (ET_EXEC and ET_DYN), either of
// them wrapped in gzip or in an EFI zboot image (gzip, zstd), and wrapped more than once; for x86-64 see loader_pc_load(). Files
// come as descriptors and are foreign: everything is decoded and checked whole before the first byte of guest memory is written.
// Messages name the file.
//
// Runs on the machine's thread, with no vcpu running. Guest RAM must read as zeroes where the kernel goes.
#pragma once

#include "base/error.h"
#include "vhost/memory.h"

#include <stdbool.h>
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

// --- x86-64. Linux's bzImage (Documentation/arch/x86/boot.rst, 32-bit protocol, version 2.10 or newer), ELF with an entry for PVH
// (XEN_ELFNOTE_PHYS32_ENTRY; xen/include/public/arch-x86/hvm/start_info.h), and ELF with a multiboot header ("Multiboot
// Specification" 0.6.96); ELF wrapped in gzip as well.

#define LOADER_PC_RANGES 8

struct loader_pc_range { // of physical memory
    uint64_t addr, size_bytes;
    bool is_ram; // the kernel's to use
};

struct loader_pc_request {
    const struct guest_memory *mem;
    struct loader_file kernel, initrd;
    const char *append; // the command line; may be NULL
    uint64_t rsdp_addr; // of ACPI's tables, which are there already
    unsigned n_ranges;  // what the kernel is told of memory, in the order of addresses
    struct loader_pc_range ranges[LOADER_PC_RANGES];
    unsigned usable;                     // the range that kernel and initrd go into, all of it free and zero
    uint64_t data_addr, data_size_bytes; // room below 1 MiB for what the kernel is told; a small kernel may be below that
};

struct loader_pc_result { // flat 32-bit mode without paging
    uint64_t entry;
    uint32_t eax, ebx_esi;
};

// Errors as loader_load()'s.
int loader_pc_load(const struct loader_pc_request *request, struct loader_pc_result *result, struct tv_error *err);
