// What the parts of the loader share: a file that is read, and the plan that a format's decoder makes of it. Private to this
// folder.
//
// source.c  reading        unwrap.c  gzip and EFI zboot
// image.c   RISC-V Image   elf.c     ELF64
// layout.c  checks the plan against RAM and finds places for more
// loader.c  carries it out for riscv64   pc.c      for x86-64, whose formats are in pc_elf.c and pc_linux.c
#pragma once

#include "base/error.h"
#include "vhost/memory.h"

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define KERNEL_SEGMENTS_MAX 64
#define KERNEL_UNPACKED_MAX (1ull << 30) // what a compressed kernel may grow to

struct kernel_source {
    const char *name;
    int fd;
    bool owned; // fd is ours to close (an unpacked copy)
    uint64_t size_bytes;
};

// The fd must be a regular file that is not empty.
int kernel_source_open(struct kernel_source *source, int fd, const char *name, struct tv_error *err);
void kernel_source_close(struct kernel_source *source);
// All of len_bytes, or an error that says the file is too short.
int kernel_source_read(const struct kernel_source *source, uint64_t offset, void *buf, uint64_t len_bytes, struct tv_error *err);

// As long as the source is a wrapping, puts what is inside in its place (a memfd). 0: it is none (any more).
int kernel_unwrap(struct kernel_source *source, struct tv_error *err);

struct kernel_segment {
    uint64_t addr, mem_bytes; // guest-physical; what the file does not fill is zero
    uint64_t file_offset, file_bytes;
};

struct kernel_plan {
    unsigned n_segments;
    struct kernel_segment segments[KERNEL_SEGMENTS_MAX];
    uint64_t entry;
};

// Decoders: 1 when the plan is made, 0 when the file is of another format. File offsets are checked, addresses are not.
int kernel_decode_image(const struct kernel_source *source, uint64_t ram_base, struct kernel_plan *plan, struct tv_error *err);
int kernel_decode_elf(const struct kernel_source *source, uint64_t ram_base, struct kernel_plan *plan, struct tv_error *err);

// --- layout.c: one over the other, kernel segments first, then what was placed since.
struct kernel_placement {
    uint64_t start, end; // end is exclusive; both within RAM
};

struct kernel_layout {
    uint64_t ram_base, ram_end;
    unsigned n;
    struct kernel_placement taken[KERNEL_SEGMENTS_MAX + 2];
};

int kernel_layout_take(struct kernel_layout *layout, const struct kernel_plan *plan, const char *name, struct tv_error *err);
// The highest free page-aligned place for size_bytes that ends at `limit` or below; 0 if there is none.
uint64_t kernel_layout_place_high(struct kernel_layout *layout, uint64_t size_bytes, uint64_t limit);
int kernel_read_to_guest(const struct guest_memory *mem, const struct kernel_source *source, uint64_t offset, uint64_t addr,
                         uint64_t len_bytes, struct tv_error *err);

// Little-endian fields at any alignment.
static inline uint16_t kernel_le16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return le16toh(v);
}

static inline uint32_t kernel_le32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static inline uint64_t kernel_le64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}
