// What the files of the x86-64 loader share; private to this folder.
#pragma once

#include "machine/loader/kernel.h"
#include "machine/loader/loader.h"

#include <stddef.h>

enum pc_protocol { PC_LINUX, PC_PVH, PC_MULTIBOOT };

#define PC_SETUP_HEADER 0x1f1u // where it is in a bzImage and in what the kernel is told
#define PC_SETUP_HEADER_MAX 0x290u

struct pc_plan {
    enum pc_protocol protocol;
    struct kernel_plan kernel; // where it goes and where it is entered
    // Linux alone: what of the file's head is told to the kernel, what may lie behind, and how long a command line may be.
    uint8_t head[PC_SETUP_HEADER_MAX];
    uint64_t initrd_end, append_max_bytes;
};

// Decoders, as kernel.h's. `low` is where the usable RAM begins and `high` where it ends: a bzImage goes where it fits.
int pc_decode_linux(const struct kernel_source *source, uint64_t low, uint64_t high, struct pc_plan *plan, struct tv_error *err);
int pc_decode_elf(const struct kernel_source *source, struct pc_plan *plan, struct tv_error *err);
