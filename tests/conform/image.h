// What the generator and the program inside the image agree on. Shared by host and guest code: plain types only.
//
// Physical memory:                                          Virtual, while a block runs under paging:
//   0x80000000  the oracle's firmware (shim.S); never used      not mapped
//   0x80200000  runtime.S, runtime.c                            only its first page (the way in and out) and its context
//   0x80300000  struct image_header, then the blocks' code      there for S mode; at IMAGE_USER_CODE for U mode
//   0x80400000  data, 64 KiB                                    windows, with page-table entries of every kind
//   0x80500000  page tables                                     not mapped
#pragma once

#include <stdint.h>

#define IMAGE_RUNTIME 0x80200000ull
#define IMAGE_PROGRAM 0x80300000ull
#define IMAGE_PROGRAM_SIZE 0x100000ull
#define IMAGE_DATA 0x80400000ull
#define IMAGE_DATA_SIZE 0x10000ull
#define IMAGE_TABLES 0x80500000ull
#define IMAGE_USER_CODE 0x40300000ull

#define IMAGE_MAGIC 0x666e6f63766972ull
#define IMAGE_BLOCKS_MAX 4096
#define IMAGE_CHECKPOINT_RUNS 64
#define IMAGE_TRAPS_MAX 48 // of one run; then it ends

// A block is straight code with forward branches and bounded loops. It ends with ebreak at offset_bytes + len_bytes.
enum {
    IMAGE_BLOCK_WILD = 1 << 0,       // uses arbitrary values as addresses: only under paging
    IMAGE_BLOCK_SUPERVISOR = 1 << 1, // only in S mode
    IMAGE_BLOCK_USER = 1 << 2,       // only in U mode
    IMAGE_BLOCK_FS_KNOWN = 1 << 3,   // reads sstatus: FS starts as Off or Dirty
};

struct image_block {
    uint32_t offset_bytes; // from IMAGE_PROGRAM
    uint32_t len_bytes;
    uint32_t flags, reserved;
};

struct image_header {
    uint64_t magic, seed;
    uint32_t n_blocks, n_runs;
    uint32_t verbose_first, verbose_last; // runs to print in full; none if first > last
    uint32_t on_oracle, reserved;         // whether QEMU's known deviations are to be undone (docs/conformance.md)
    struct image_block blocks[IMAGE_BLOCKS_MAX];
};

// Integer registers that hold addresses of data while a block runs; blocks do not write them. The last two are aligned to 8.
#define IMAGE_POINTERS                                                                                                             \
    {                                                                                                                              \
        2, 8, 9, 15, 20                                                                                                            \
    }
#define IMAGE_LOOP_REGISTER 31

// The oracle looks at the reserved bits 54 to 60 of a page-table entry only where it has neither Svnapot nor Svpbmt. So every other
// image does without these and has reserved bits instead.
#define IMAGE_HAS_RESERVED_BITS(seed) ((seed) % 2 == 0)
