// The RISC-V boot image: linux/Documentation/arch/riscv/boot-image-header.rst. Usually it is a PE file (EFI stub) as well.
#include "machine/loader/kernel.h"

#include <errno.h>
#include <inttypes.h>

#define IMAGE_HEADER_BYTES 64u
#define IMAGE_FLAG_BIG_ENDIAN 1u
#define PE_MACHINE_RISCV64 0x5064
#define PE_SECTION_BYTES 40u
#define PE_SECTIONS_MAX 16u

// The size in the header counts what is zeroed after the file's end as well, so a file that was cut short shows only in the PE
// section table: every section's bytes must be there.
static int image_check_pe(const struct kernel_source *source, uint32_t pe_offset, struct tv_error *err)
{
    uint8_t pe[24], section[PE_SECTION_BYTES];
    int rc = kernel_source_read(source, pe_offset, pe, sizeof(pe), err);
    if (rc < 0)
        return rc;
    if (memcmp(pe, "PE\0\0", 4) != 0)
        return tv_error_set(err, -EINVAL, "%s: its PE header at offset %" PRIu32 " is damaged; copy it again", source->name,
                            pe_offset);
    if (kernel_le16(pe + 4) != PE_MACHINE_RISCV64)
        return tv_error_set(err, -ENOEXEC, "%s: is a PE file for machine 0x%x; give a riscv64 kernel", source->name,
                            kernel_le16(pe + 4));
    unsigned n_sections = kernel_le16(pe + 6);
    if (n_sections > PE_SECTIONS_MAX)
        return tv_error_set(err, -EINVAL, "%s: its PE header names %u sections; copy it again", source->name, n_sections);
    uint64_t table = (uint64_t)pe_offset + sizeof(pe) + kernel_le16(pe + 20);
    for (unsigned i = 0; i < n_sections; i++) {
        rc = kernel_source_read(source, table + i * PE_SECTION_BYTES, section, sizeof(section), err);
        if (rc < 0)
            return rc;
        uint64_t end = (uint64_t)kernel_le32(section + 20) + kernel_le32(section + 16);
        if (end > source->size_bytes)
            return tv_error_set(err, -EINVAL, "%s: is cut short: %" PRIu64 " bytes of %" PRIu64 "; copy it again", source->name,
                                source->size_bytes, end);
    }
    return 0;
}

int kernel_decode_image(const struct kernel_source *source, uint64_t ram_base, struct kernel_plan *plan, struct tv_error *err)
{
    uint8_t header[IMAGE_HEADER_BYTES];
    if (source->size_bytes < sizeof(header))
        return 0;
    int rc = kernel_source_read(source, 0, header, sizeof(header), err);
    if (rc < 0)
        return rc;
    if (memcmp(header + 56, "ARM\x64", 4) == 0)
        return tv_error_set(err, -ENOEXEC, "%s: is a kernel for arm64; give a riscv64 kernel", source->name);
    if (memcmp(header + 56, "RSC\x05", 4) != 0)
        return 0;
    if (kernel_le64(header + 24) & IMAGE_FLAG_BIG_ENDIAN)
        return tv_error_set(err, -ENOEXEC, "%s: is a big-endian kernel; give a little-endian one", source->name);
    if (memcmp(header, "MZ", 2) == 0) {
        rc = image_check_pe(source, kernel_le32(header + 60), err);
        if (rc < 0)
            return rc;
    }
    uint64_t text_offset = kernel_le64(header + 8), image_size_bytes = kernel_le64(header + 16);
    if (text_offset > UINT64_MAX - ram_base)
        return tv_error_set(err, -EINVAL, "%s: load offset 0x%" PRIx64 " is out of range; copy it again", source->name,
                            text_offset);
    struct kernel_segment *segment = &plan->segments[0];
    segment->addr = ram_base + text_offset;
    segment->file_offset = 0;
    segment->file_bytes = source->size_bytes;
    segment->mem_bytes = image_size_bytes > source->size_bytes ? image_size_bytes : source->size_bytes;
    plan->n_segments = 1;
    plan->entry = segment->addr;
    return 1;
}
