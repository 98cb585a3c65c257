// The form of an overlay: see overlay_file.h.
#include "store/overlay_file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static const char magic[8] = "TVOVERLY";
#define VERSION 1u
#define FLAG_BOUND 1u

// Room to grow in: a sparse file costs nothing. 8 TiB is what an ext4 file can be with some to spare.
#define CAPACITY_LEAST (64ull << 30)
#define CAPACITY_MOST (8ull << 40)

struct disk_header {
    char magic[8];
    uint32_t version, check, flags, base_check;
    uint64_t size_bytes, capacity_bytes, base_size_bytes, session;
    uint8_t zero[456];
};
_Static_assert(sizeof(struct disk_header) == 512, "a sector");

static uint32_t check_of(const struct disk_header *d)
{
    struct disk_header copy = *d;
    copy.check = 0;
    return (uint32_t)crc32_z(0, (const uint8_t *)&copy, sizeof(copy));
}

uint64_t overlay_map_pages(uint64_t size_bytes)
{
    return size_bytes / OVERLAY_PAGE_COVERS + !!(size_bytes % OVERLAY_PAGE_COVERS);
}

uint64_t overlay_header_offset(const struct overlay_header *header)
{
    return header->capacity_bytes + overlay_map_pages(header->capacity_bytes) * OVERLAY_BLOCK;
}

uint64_t overlay_capacity_for(uint64_t size_bytes)
{
    uint64_t wanted = size_bytes > CAPACITY_MOST / 4 ? CAPACITY_MOST : 4 * size_bytes;
    wanted = wanted < CAPACITY_LEAST ? CAPACITY_LEAST : wanted;
    return size_bytes > CAPACITY_MOST ? 0 : overlay_map_pages(wanted) * OVERLAY_PAGE_COVERS;
}

static bool makes_sense(const struct overlay_header *h, uint64_t total_bytes)
{
    if (!h->size_bytes || h->size_bytes % 512 || h->capacity_bytes % OVERLAY_PAGE_COVERS || h->size_bytes > h->capacity_bytes)
        return false;
    return h->capacity_bytes <= CAPACITY_MOST + OVERLAY_PAGE_COVERS && overlay_header_offset(h) + OVERLAY_BLOCK == total_bytes;
}

int overlay_header_decode(const uint8_t bytes[static 512], uint64_t total_bytes, struct overlay_header *header,
                          struct tv_error *err)
{
    struct disk_header d;
    memcpy(&d, bytes, sizeof(d));
    if (memcmp(d.magic, magic, sizeof(magic)) != 0)
        return tv_error_set(
            err, -EBADMSG,
            "is no overlay, or was cut off: its last 4096 bytes are no header; `trivet disk create --over` makes one");
    if (le32toh(d.version) != VERSION)
        return tv_error_set(err, -EBADMSG, "is an overlay of version %u, and this program knows version %u", le32toh(d.version),
                            VERSION);
    *header = (struct overlay_header){
        .size_bytes = le64toh(d.size_bytes),
        .capacity_bytes = le64toh(d.capacity_bytes),
        .bound = le32toh(d.flags) & FLAG_BOUND,
        .base_size_bytes = le64toh(d.base_size_bytes),
        .base_check = le32toh(d.base_check),
        .session = le64toh(d.session),
    };
    if (le32toh(d.check) != check_of(&d) || !makes_sense(header, total_bytes))
        return tv_error_set(err, -EBADMSG, "is damaged: its header is not what was written; restore it from a copy");
    return 0;
}

void overlay_header_encode(const struct overlay_header *header, uint8_t bytes[static 512])
{
    struct disk_header d = {
        .version = htole32(VERSION),
        .flags = htole32(header->bound ? FLAG_BOUND : 0),
        .base_check = htole32(header->base_check),
        .size_bytes = htole64(header->size_bytes),
        .capacity_bytes = htole64(header->capacity_bytes),
        .base_size_bytes = htole64(header->base_size_bytes),
        .session = htole64(header->session),
    };
    memcpy(d.magic, magic, sizeof(magic));
    d.check = htole32(check_of(&d));
    memcpy(bytes, &d, sizeof(d));
}

int overlay_format(int fd, uint64_t size_bytes, struct tv_error *err)
{
    struct overlay_header header = {.size_bytes = size_bytes, .capacity_bytes = overlay_capacity_for(size_bytes)};
    uint8_t block[OVERLAY_BLOCK] = {0};
    if (!size_bytes || size_bytes % 512 || !header.capacity_bytes)
        return tv_error_set(err, -EINVAL, "an overlay of %llu bytes: must be a multiple of 512, and at most 8 TiB",
                            (unsigned long long)size_bytes);
    const uint64_t at = overlay_header_offset(&header);
    overlay_header_encode(&header, block);
    int r = ftruncate(fd, (off_t)(at + OVERLAY_BLOCK)) ? -errno : 0;
    if (!r)
        r = -posix_fallocate(fd, (off_t)header.capacity_bytes, (off_t)(overlay_map_pages(size_bytes) * OVERLAY_BLOCK));
    if (!r && pwrite(fd, block, sizeof(block), (off_t)at) != (ssize_t)sizeof(block))
        r = errno ? -errno : -EIO;
    if (!r && fsync(fd))
        r = -errno;
    return r ? tv_error_set(err, r, "an overlay of %llu bytes cannot be made: %s", (unsigned long long)size_bytes, strerror(-r))
             : 0;
}
