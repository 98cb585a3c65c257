// The form of a mirror's legs: see mirror_file.h.
#include "store/mirror_file.h"
#include "store/map_sector.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <zlib.h>

static const char magic[8] = "TVMIRROR";
#define VERSION 1u

struct disk_header {
    char magic[8];
    uint32_t version, check;
    uint8_t set[16];
    uint64_t size_bytes, generation;
    uint32_t region_bytes, n_legs, index, in_sync;
    uint64_t left[MIRROR_LEGS_MAX];
    uint8_t zero[384];
};
_Static_assert(sizeof(struct disk_header) == 512, "a sector");
_Static_assert(MIRROR_META_BYTES == (MIRROR_INTENT_PAGES + 2) * MIRROR_PAGE, "the map and two headers");

static uint32_t check_of(const struct disk_header *d)
{
    struct disk_header copy = *d;
    copy.check = 0;
    return (uint32_t)crc32_z(0, (const uint8_t *)&copy, sizeof(copy));
}

uint64_t mirror_meta_offset(uint64_t leg_bytes)
{
    return leg_bytes < MIRROR_META_BYTES ? 0 : (leg_bytes - MIRROR_META_BYTES) & ~(uint64_t)(MIRROR_PAGE - 1);
}

uint64_t mirror_header_offset(uint64_t leg_bytes, uint64_t generation)
{
    return mirror_meta_offset(leg_bytes) + (MIRROR_INTENT_PAGES + generation % 2) * MIRROR_PAGE;
}

uint64_t mirror_leg_bytes(uint64_t size_bytes)
{
    return (size_bytes + MIRROR_PAGE - 1) / MIRROR_PAGE * MIRROR_PAGE + MIRROR_META_BYTES;
}

uint64_t mirror_regions(const struct mirror_header *header)
{
    return (header->size_bytes + header->region_bytes - 1) / header->region_bytes;
}

static bool makes_sense(const struct mirror_header *h, uint64_t leg_bytes)
{
    const uint32_t all = (1u << h->n_legs) - 1;
    if (!h->size_bytes || h->size_bytes % 512 || h->size_bytes > mirror_meta_offset(leg_bytes) || !h->generation)
        return false;
    if (h->region_bytes < MIRROR_REGION_LEAST || (h->region_bytes & (h->region_bytes - 1)) ||
        mirror_regions(h) > MIRROR_REGIONS_MAX)
        return false;
    return h->index < h->n_legs && h->in_sync >> h->index & 1 && !(h->in_sync & ~all);
}

int mirror_header_decode(const uint8_t bytes[static 512], uint64_t leg_bytes, struct mirror_header *header, struct tv_error *err)
{
    struct disk_header d;
    memcpy(&d, bytes, sizeof(d));
    if (memcmp(d.magic, magic, sizeof(magic)) != 0)
        return tv_error_set(err, -EBADMSG, "is no leg of a mirror: `trivet disk create --mirror` makes them");
    if (le32toh(d.version) != VERSION)
        return tv_error_set(err, -EBADMSG, "is a leg of version %u, and this program knows version %u", le32toh(d.version),
                            VERSION);
    *header = (struct mirror_header){
        .size_bytes = le64toh(d.size_bytes),
        .generation = le64toh(d.generation),
        .region_bytes = le32toh(d.region_bytes),
        .n_legs = le32toh(d.n_legs),
        .index = le32toh(d.index),
        .in_sync = le32toh(d.in_sync),
    };
    memcpy(header->set, d.set, sizeof(d.set));
    for (unsigned i = 0; i < MIRROR_LEGS_MAX; i++)
        header->left[i] = le64toh(d.left[i]);
    if (le32toh(d.check) != check_of(&d) || !header->n_legs || header->n_legs > MIRROR_LEGS_MAX || !makes_sense(header, leg_bytes))
        return tv_error_set(err, -EBADMSG, "its header is damaged");
    return 0;
}

void mirror_header_encode(const struct mirror_header *header, uint8_t bytes[static 512])
{
    struct disk_header d = {
        .version = htole32(VERSION),
        .size_bytes = htole64(header->size_bytes),
        .generation = htole64(header->generation),
        .region_bytes = htole32(header->region_bytes),
        .n_legs = htole32(header->n_legs),
        .index = htole32(header->index),
        .in_sync = htole32(header->in_sync),
    };
    memcpy(d.magic, magic, sizeof(magic));
    memcpy(d.set, header->set, sizeof(d.set));
    for (unsigned i = 0; i < MIRROR_LEGS_MAX; i++)
        d.left[i] = htole64(header->left[i]);
    d.check = htole32(check_of(&d));
    memcpy(bytes, &d, sizeof(d));
}

// ---- new ones ----

static void encode_empty_map(uint8_t *map)
{
    uint64_t *words = (uint64_t *)(void *)map;
    for (uint32_t s = 0; s < MIRROR_INTENT_PAGES * MIRROR_PAGE_SECTORS; s++, words += MIRROR_SECTOR_WORDS + 1)
        words[MIRROR_SECTOR_WORDS] = map_sector_check(words, s);
}

static int format_leg(int fd, const struct mirror_header *header)
{
    const uint64_t bytes = mirror_leg_bytes(header->size_bytes);
    uint8_t *meta = calloc(1, MIRROR_META_BYTES);
    if (!meta)
        return -ENOMEM;
    encode_empty_map(meta);
    mirror_header_encode(header, meta + mirror_header_offset(bytes, header->generation) - mirror_meta_offset(bytes));
    int r = ftruncate(fd, (off_t)bytes) ? -errno : 0;
    if (!r) {
        const ssize_t n = pwrite(fd, meta, MIRROR_META_BYTES, (off_t)mirror_meta_offset(bytes));
        r = n < 0 ? -errno : n != MIRROR_META_BYTES ? -ENOSPC : 0;
    }
    if (!r && fsync(fd))
        r = -errno;
    free(meta);
    return r;
}

int mirror_format(const int *fds, unsigned n, uint64_t size_bytes, struct tv_error *err)
{
    struct mirror_header header = {
        .size_bytes = size_bytes, .region_bytes = MIRROR_REGION_LEAST, .n_legs = n, .in_sync = (1u << n) - 1, .generation = 1};
    if (n < 2 || n > MIRROR_LEGS_MAX)
        return tv_error_set(err, -EINVAL, "a mirror of %u legs: must be 2 to %u", n, MIRROR_LEGS_MAX);
    while (header.region_bytes < 1u << 31 && mirror_regions(&header) > MIRROR_REGIONS_MAX)
        header.region_bytes *= 2;
    if (!size_bytes || size_bytes % 512 || mirror_regions(&header) > MIRROR_REGIONS_MAX)
        return tv_error_set(err, -EINVAL, "a mirror of %llu bytes: must be a multiple of 512, and at most %llu TiB",
                            (unsigned long long)size_bytes, ((unsigned long long)MIRROR_REGIONS_MAX << 31) >> 40);
    if (getrandom(header.set, sizeof(header.set), 0) != sizeof(header.set))
        return tv_error_set(err, -EIO, "no random numbers are to be had");
    for (; header.index < n; header.index++) {
        int r = format_leg(fds[header.index], &header);
        if (r)
            return tv_error_set(err, r, "leg %u of a mirror cannot be made: %s", header.index, strerror(-r));
    }
    return 0;
}
