// Decoding of virtio-blk requests: see blk_request.h.
#include "store/front/blk_request.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <string.h>

// A range of at least nothing that lies within the disk, in whole blocks.
static bool range_is_good(const struct blk_geometry *geometry, uint64_t sector, uint64_t len_bytes)
{
    uint64_t capacity_sectors = geometry->capacity_bytes / BLK_SECTOR_BYTES;
    if (len_bytes % BLK_SECTOR_BYTES || sector > capacity_sectors || len_bytes / BLK_SECTOR_BYTES > capacity_sectors - sector)
        return false;
    uint64_t mask = geometry->block_size_bytes - 1u;
    return !((sector * BLK_SECTOR_BYTES) & mask) && !(len_bytes & mask);
}

// The status is the last writable byte, however the driver has cut its descriptors (2.7.4.2: no framing may be relied on).
static uint8_t *find_status(const struct virtq_chain *chain)
{
    for (unsigned i = chain->n_out + chain->n_in; i > chain->n_out; i--) {
        const struct iovec *seg = &chain->iov[i - 1];
        if (seg->iov_len)
            return (uint8_t *)seg->iov_base + seg->iov_len - 1;
    }
    return NULL;
}

// The segments from `first` on, without the first `skip` bytes and after len_bytes cut off.
static void take_data(struct blk_request *req, const struct iovec *first, unsigned n, size_t skip, uint32_t len_bytes)
{
    req->len_bytes = len_bytes;
    size_t left = len_bytes;
    for (unsigned i = 0; i < n && left; i++) {
        size_t len = first[i].iov_len;
        size_t drop = skip < len ? skip : len;
        skip -= drop;
        len -= drop;
        if (!len)
            continue;
        if (len > left)
            len = left;
        req->iov[req->n_iov++] = (struct iovec){.iov_base = (uint8_t *)first[i].iov_base + drop, .iov_len = len};
        left -= len;
    }
}

static int decode_io(struct blk_request *req, const struct virtq_chain *chain, const struct blk_geometry *geometry, uint64_t sector)
{
    bool write = req->op == BLK_WRITE;
    if (write && geometry->read_only)
        return VIRTIO_BLK_S_IOERR;
    uint32_t len = write ? chain->len_out_bytes - (uint32_t)sizeof(struct virtio_blk_outhdr) : chain->len_in_bytes - 1;
    if (!range_is_good(geometry, sector, len))
        return VIRTIO_BLK_S_IOERR;
    req->offset_bytes = sector * BLK_SECTOR_BYTES;
    if (write)
        take_data(req, chain->iov, chain->n_out, sizeof(struct virtio_blk_outhdr), len);
    else
        take_data(req, chain->iov + chain->n_out, chain->n_in, 0, len);
    return 0;
}

// 5.2.6.2: an unknown flag, or unmap with discard, is answered by UNSUPP; a range outside the disk by IOERR.
static int decode_ranges(struct blk_request *req, const struct virtq_chain *chain, const struct blk_geometry *geometry)
{
    struct virtio_blk_discard_write_zeroes ranges[BLK_RANGES_MAX];
    uint32_t len = chain->len_out_bytes - (uint32_t)sizeof(struct virtio_blk_outhdr);
    if (geometry->read_only || !len || len % sizeof(ranges[0]) || len > sizeof(ranges))
        return VIRTIO_BLK_S_IOERR;
    if (virtq_chain_read(chain, sizeof(struct virtio_blk_outhdr), ranges, len) != len)
        return VIRTIO_BLK_S_IOERR;
    unsigned n = (unsigned)(len / sizeof(ranges[0]));
    uint32_t known = req->op == BLK_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t sector = le64toh(ranges[i].sector);
        uint32_t sectors = le32toh(ranges[i].num_sectors), flags = le32toh(ranges[i].flags);
        if (flags & ~known)
            return VIRTIO_BLK_S_UNSUPP;
        if (sectors > BLK_RANGE_SECTORS_MAX || !range_is_good(geometry, sector, (uint64_t)sectors * BLK_SECTOR_BYTES))
            return VIRTIO_BLK_S_IOERR;
        if (sectors)
            req->ranges[req->n_ranges++] = (struct blk_range){.offset_bytes = sector * BLK_SECTOR_BYTES,
                                                              .len_bytes = (uint64_t)sectors * BLK_SECTOR_BYTES,
                                                              .unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};
    }
    return 0;
}

int blk_request_decode(struct blk_request *req, const struct virtq_chain *chain, const struct blk_geometry *geometry)
{
    req->n_iov = req->n_ranges = 0;
    req->len_bytes = 0;
    req->offset_bytes = 0;
    req->status = find_status(chain);
    if (!req->status)
        return -EPROTO;
    struct virtio_blk_outhdr header;
    if (virtq_chain_read(chain, 0, &header, sizeof(header)) != sizeof(header))
        return VIRTIO_BLK_S_IOERR;
    uint64_t sector = le64toh(header.sector);
    switch (le32toh(header.type)) {
    case VIRTIO_BLK_T_IN:
        req->op = BLK_READ;
        return decode_io(req, chain, geometry, sector);
    case VIRTIO_BLK_T_OUT:
        req->op = BLK_WRITE;
        return decode_io(req, chain, geometry, sector);
    case VIRTIO_BLK_T_FLUSH:
        req->op = BLK_FLUSH;
        return 0;
    case VIRTIO_BLK_T_DISCARD:
        req->op = BLK_DISCARD;
        return geometry->discard ? decode_ranges(req, chain, geometry) : VIRTIO_BLK_S_UNSUPP;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        req->op = BLK_WRITE_ZEROES;
        return geometry->write_zeroes ? decode_ranges(req, chain, geometry) : VIRTIO_BLK_S_UNSUPP;
    case VIRTIO_BLK_T_GET_ID:
        req->op = BLK_GET_ID;
        take_data(req, chain->iov + chain->n_out, chain->n_in, 0,
                  chain->len_in_bytes - 1 < BLK_ID_BYTES ? chain->len_in_bytes - 1 : BLK_ID_BYTES);
        return 0;
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}
