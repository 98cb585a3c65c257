// Linux's bzImage (Documentation/arch/x86/boot.rst). It is entered by its 32-bit protocol, at the start of what follows the setup.
#include "machine/loader/pc.h"

#include <errno.h>
#include <inttypes.h>

#define SECTOR_BYTES 512u
#define VERSION_MIN 0x20au // 2.10: says how much room it needs, and where
#define LOADED_HIGH 1u
#define ALIGN_MIN 0x200000ull

enum { // offsets
    SETUP_SECTS = 0x1f1,
    SYSSIZE = 0x1f4,
    BOOT_FLAG = 0x1fe,
    JUMP_BYTES = 0x201, // how far the header goes, from 0x202 on
    MAGIC = 0x202,
    VERSION = 0x206,
    LOADFLAGS = 0x211,
    INITRD_ADDR_MAX = 0x22c,
    RELOCATABLE = 0x234,
    CMDLINE_SIZE = 0x238,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
};

static int check_header(const struct kernel_source *source, const uint8_t *head, struct tv_error *err)
{
    unsigned version = kernel_le16(head + VERSION);
    if (version < VERSION_MIN)
        return tv_error_set(err, -ENOEXEC, "%s: is a Linux kernel of boot protocol %u.%u, older than 2.10; take one since 2.6.31",
                            source->name, version >> 8, version & 0xff);
    if (!(head[LOADFLAGS] & LOADED_HIGH))
        return tv_error_set(err, -ENOEXEC, "%s: is a zImage, for memory below 1 MiB; build a bzImage", source->name);
    if (0x202u + head[JUMP_BYTES] > PC_SETUP_HEADER_MAX)
        return tv_error_set(err, -EINVAL, "%s: its setup header is damaged; copy it again", source->name);
    return 0;
}

// Where it wants to be, or, if there is no such memory and it can run elsewhere, as low as may be.
static uint64_t place(const uint8_t *head, uint64_t need_bytes, uint64_t low, uint64_t high)
{
    uint64_t wanted = kernel_le64(head + PREF_ADDRESS);
    if (!head[RELOCATABLE] || (wanted >= low && wanted < high && need_bytes <= high - wanted))
        return wanted;
    return (low + ALIGN_MIN - 1) & ~(ALIGN_MIN - 1);
}

int pc_decode_linux(const struct kernel_source *source, uint64_t low, uint64_t high, struct pc_plan *plan, struct tv_error *err)
{
    uint8_t *head = plan->head;
    if (source->size_bytes < PC_SETUP_HEADER_MAX)
        return 0;
    int rc = kernel_source_read(source, 0, head, PC_SETUP_HEADER_MAX, err);
    if (rc < 0)
        return rc;
    if (kernel_le16(head + BOOT_FLAG) != 0xaa55 || memcmp(head + MAGIC, "HdrS", 4) != 0)
        return 0;
    rc = check_header(source, head, err);
    if (rc < 0)
        return rc;
    uint64_t setup_bytes = ((head[SETUP_SECTS] ? head[SETUP_SECTS] : 4u) + 1u) * (uint64_t)SECTOR_BYTES;
    uint64_t body_bytes = (uint64_t)kernel_le32(head + SYSSIZE) * 16;
    if (source->size_bytes <= setup_bytes || body_bytes > source->size_bytes - setup_bytes + 15)
        return tv_error_set(err, -EINVAL, "%s: is cut short: %" PRIu64 " bytes of %" PRIu64 "; copy it again", source->name,
                            source->size_bytes, setup_bytes + body_bytes);
    uint64_t file_bytes = source->size_bytes - setup_bytes, init_bytes = kernel_le32(head + INIT_SIZE);
    struct kernel_segment *segment = &plan->kernel.segments[0];
    segment->file_offset = setup_bytes;
    segment->file_bytes = file_bytes;
    segment->mem_bytes = init_bytes > file_bytes ? init_bytes : file_bytes;
    segment->addr = place(head, segment->mem_bytes, low, high);
    plan->protocol = PC_LINUX;
    plan->kernel.n_segments = 1;
    plan->kernel.entry = segment->addr;
    plan->initrd_end = (uint64_t)kernel_le32(head + INITRD_ADDR_MAX) + 1;
    plan->append_max_bytes = kernel_le32(head + CMDLINE_SIZE);
    memset(head + 0x202 + head[JUMP_BYTES], 0, PC_SETUP_HEADER_MAX - 0x202u - head[JUMP_BYTES]);
    return 1;
}
