// One virtio-blk request (virtio 1.2, section 5.2.6), decoded and checked whole before anything is done with it.
//
// The chain is the driver's and not trusted; its memory may change at any time. The header and the ranges of a discard are read
// once, into our own memory. Data stays where it is: `iov` points into guest memory. Pure logic, any thread.
#pragma once

#include "vhost/virtqueue.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define BLK_SECTOR_BYTES 512u
#define BLK_RANGES_MAX 16u                        // max_discard_seg, max_write_zeroes_seg
#define BLK_RANGE_SECTORS_MAX (1u << 22)          // 2 GiB: max_discard_sectors, max_write_zeroes_sectors
#define BLK_SEGMENTS_MAX (VIRTQ_SEGMENTS_MAX - 2) // seg_max: header and status take a descriptor each
#define BLK_ID_BYTES 20u                          // VIRTIO_BLK_ID_BYTES; padded by zeroes, not terminated

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES, BLK_GET_ID };

// What a request is checked against: the disk as the driver knows it.
struct blk_geometry {
    uint64_t capacity_bytes;   // a multiple of block_size_bytes
    uint32_t block_size_bytes; // a power of 2, at least 512
    bool read_only;
    bool discard, write_zeroes; // the features were negotiated
};

struct blk_range {
    uint64_t offset_bytes, len_bytes;
    bool unmap; // of BLK_WRITE_ZEROES: the range may become a hole
};

struct blk_request {
    enum blk_op op;
    uint64_t offset_bytes; // READ, WRITE
    uint32_t len_bytes;    // READ, WRITE, GET_ID: the sum of iov
    uint8_t *status;       // one byte in guest memory
    unsigned n_iov;        // none of them empty
    unsigned n_ranges;     // none of them empty
    struct blk_range ranges[BLK_RANGES_MAX];
    struct iovec iov[VIRTQ_SEGMENTS_MAX];
};

// 0: *req is a request that can be carried out. Positive: refused; this VIRTIO_BLK_S_ code is the answer, and of *req only `status`
// is set. -EPROTO: there is no place for an answer.
int blk_request_decode(struct blk_request *req, const struct virtq_chain *chain, const struct blk_geometry *geometry);
