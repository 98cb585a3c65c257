// Any chain as a virtio-blk request: it is refused with a status, or lies within the disk, and its segments within the chain's.
// Input: a byte of disk flags, then for each segment a length (2 bytes, little-endian; the top bit: writable), then the out bytes.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/front/blk_request.h"

#define SEGMENTS 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct blk_request *req, const struct blk_geometry *disk, const uint8_t *memory, size_t memory_len)
{
    size_t sum = 0;
    assert(req->status >= memory && req->status < memory + memory_len);
    for (unsigned i = 0; i < req->n_iov; i++) {
        const uint8_t *base = req->iov[i].iov_base;
        assert(req->iov[i].iov_len && base >= memory && base + req->iov[i].iov_len <= memory + memory_len);
        sum += req->iov[i].iov_len;
    }
    assert(sum == req->len_bytes);
    if (req->op == BLK_READ || req->op == BLK_WRITE) {
        assert(req->offset_bytes <= disk->capacity_bytes && req->len_bytes <= disk->capacity_bytes - req->offset_bytes);
        assert(!(req->offset_bytes % disk->block_size_bytes) && !(req->len_bytes % disk->block_size_bytes));
    }
    assert(req->op != BLK_WRITE || !disk->read_only);
    assert(req->n_ranges <= BLK_RANGES_MAX && (!req->n_ranges || !disk->read_only));
    for (unsigned i = 0; i < req->n_ranges; i++) {
        const struct blk_range *range = &req->ranges[i];
        assert(range->len_bytes && range->offset_bytes <= disk->capacity_bytes);
        assert(range->len_bytes <= disk->capacity_bytes - range->offset_bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtq_chain chain;
    static struct blk_request req;
    if (size < 1 + 2 * SEGMENTS)
        return 0;
    struct blk_geometry disk = {
        .capacity_bytes = 1 << 20,
        .block_size_bytes = data[0] & 1 ? 4096 : 512,
        .read_only = data[0] & 2,
        .discard = data[0] & 4,
        .write_zeroes = data[0] & 8,
    };
    size_t lens[SEGMENTS], total = 0;
    bool writable[SEGMENTS];
    for (unsigned i = 0; i < SEGMENTS; i++) {
        unsigned word = data[1 + 2 * i] | (unsigned)data[2 + 2 * i] << 8;
        lens[i] = word & 0x7fff;
        writable[i] = word & 0x8000;
        total += lens[i];
    }
    uint8_t *memory = calloc(1, total + 1);
    size_t rest = size - 1 - 2 * SEGMENTS, at = 0;
    memcpy(memory, data + 1 + 2 * SEGMENTS, rest < total ? rest : total);
    memset(&chain, 0, sizeof(chain));
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < SEGMENTS; i++) {
            if (writable[i] != (pass == 1))
                continue;
            chain.iov[chain.n_out + chain.n_in] = (struct iovec){memory + at, lens[i]};
            *(pass ? &chain.n_in : &chain.n_out) += 1;
            *(pass ? &chain.len_in_bytes : &chain.len_out_bytes) += (uint32_t)lens[i];
            at += lens[i];
        }
    int r = blk_request_decode(&req, &chain, &disk);
    assert(r >= 0 || !chain.len_in_bytes);
    if (!r)
        check(&req, &disk, memory, total);
    free(memory);
    return 0;
}
