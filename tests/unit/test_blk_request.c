// virtio-blk requests: whatever the cut of the descriptors, what is good is understood and what is not is refused with the right
// status.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>

#include "store/front/blk_request.h"

static const struct blk_geometry disk = {.capacity_bytes = 1 << 20, .block_size_bytes = 512, .discard = true, .write_zeroes = true};

// A chain over one buffer out and one in, cut after every `cut` bytes.
struct rig {
    struct virtq_chain chain;
    struct blk_request req;
    uint8_t out[8192], in[8192];
};

static void build(struct rig *rig, const void *out, size_t out_len, size_t in_len, size_t cut)
{
    memset(&rig->chain, 0, sizeof(rig->chain));
    memcpy(rig->out, out, out_len);
    for (size_t at = 0; at < out_len; at += cut)
        rig->chain.iov[rig->chain.n_out++] = (struct iovec){rig->out + at, out_len - at < cut ? out_len - at : cut};
    for (size_t at = 0; at < in_len; at += cut)
        rig->chain.iov[rig->chain.n_out + rig->chain.n_in++] = (struct iovec){rig->in + at, in_len - at < cut ? in_len - at : cut};
    rig->chain.len_out_bytes = (uint32_t)out_len;
    rig->chain.len_in_bytes = (uint32_t)in_len;
}

static int decode(struct rig *rig, uint32_t type, uint64_t sector, size_t out_data, size_t in_len, size_t cut)
{
    uint8_t out[8192] = {0};
    struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    memcpy(out, &header, sizeof(header));
    for (size_t i = 0; i < out_data; i++)
        out[sizeof(header) + i] = (uint8_t)(i * 7);
    build(rig, out, sizeof(header) + out_data, in_len, cut);
    return blk_request_decode(&rig->req, &rig->chain, &disk);
}

static void test_read_and_write_however_cut(void **state)
{
    (void)state;
    static struct rig rig;
    for (size_t cut = 64; cut <= 8192; cut += 61) {
        assert_int_equal(decode(&rig, VIRTIO_BLK_T_IN, 3, 0, 4097, cut), 0);
        assert_int_equal(rig.req.op, BLK_READ);
        assert_int_equal(rig.req.offset_bytes, 3 * 512);
        assert_int_equal(rig.req.len_bytes, 4096);
        assert_ptr_equal(rig.req.status, rig.in + 4096);
        size_t sum = 0;
        for (unsigned i = 0; i < rig.req.n_iov; sum += rig.req.iov[i++].iov_len)
            assert_ptr_equal(rig.req.iov[i].iov_base, rig.in + sum);
        assert_int_equal(sum, 4096);

        assert_int_equal(decode(&rig, VIRTIO_BLK_T_OUT, 2047, 512, 1, cut), 0);
        assert_int_equal(rig.req.op, BLK_WRITE);
        assert_int_equal(rig.req.len_bytes, 512);
        assert_ptr_equal(rig.req.iov[0].iov_base, rig.out + 16);
    }
    // A header cut to pieces.
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_OUT, 1, 512, 1, 5), 0);
    assert_ptr_equal(rig.req.iov[0].iov_base, rig.out + 16);
}

static void test_outside_the_disk(void **state)
{
    (void)state;
    static struct rig rig;
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_IN, 2048, 0, 513, 64), VIRTIO_BLK_S_IOERR);
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_IN, 2047, 0, 1025, 64), VIRTIO_BLK_S_IOERR);
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_IN, UINT64_MAX, 0, 513, 64), VIRTIO_BLK_S_IOERR);
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_OUT, UINT64_MAX / 512 + 1, 512, 1, 64), VIRTIO_BLK_S_IOERR);
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_IN, 0, 0, 512, 64), VIRTIO_BLK_S_IOERR); // 511 bytes of data
    assert_ptr_equal(rig.req.status, rig.in + 511);
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_IN, 2048, 0, 1, 64), 0); // nothing, at the end
    assert_int_equal(rig.req.len_bytes, 0);
}

static void test_no_place_and_no_header(void **state)
{
    (void)state;
    static struct rig rig;
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_OUT, 0, 512, 0, 64), -EPROTO);
    build(&rig, "short", 5, 1, 64);
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &disk), VIRTIO_BLK_S_IOERR);
    assert_int_equal(decode(&rig, 77, 0, 0, 1, 64), VIRTIO_BLK_S_UNSUPP);
}

static void test_read_only(void **state)
{
    (void)state;
    static struct rig rig;
    struct blk_geometry ro = disk;
    ro.read_only = true;
    decode(&rig, VIRTIO_BLK_T_OUT, 0, 512, 1, 64);
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &ro), VIRTIO_BLK_S_IOERR);
    decode(&rig, VIRTIO_BLK_T_DISCARD, 0, 16, 1, 64);
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &ro), VIRTIO_BLK_S_IOERR);
    decode(&rig, VIRTIO_BLK_T_IN, 0, 0, 513, 64);
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &ro), 0);
}

static void test_blocks_of_4096(void **state)
{
    (void)state;
    static struct rig rig;
    struct blk_geometry big = disk;
    big.block_size_bytes = 4096;
    decode(&rig, VIRTIO_BLK_T_OUT, 8, 4096, 1, 512);
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &big), 0);
    decode(&rig, VIRTIO_BLK_T_OUT, 4, 4096, 1, 512);
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &big), VIRTIO_BLK_S_IOERR);
    decode(&rig, VIRTIO_BLK_T_OUT, 8, 512, 1, 512);
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &big), VIRTIO_BLK_S_IOERR);
}

static int decode_ranges(struct rig *rig, uint32_t type, const struct virtio_blk_discard_write_zeroes *ranges, size_t len)
{
    uint8_t out[8192];
    struct virtio_blk_outhdr header = {.type = type};
    memcpy(out, &header, sizeof(header));
    memcpy(out + sizeof(header), ranges, len);
    build(rig, out, sizeof(header) + len, 1, 7);
    return blk_request_decode(&rig->req, &rig->chain, &disk);
}

static void test_ranges(void **state)
{
    (void)state;
    static struct rig rig;
    struct virtio_blk_discard_write_zeroes r[17] = {
        {.sector = 8, .num_sectors = 16}, {.num_sectors = 0}, {.sector = 2040, .num_sectors = 8}};
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_DISCARD, r, 3 * sizeof(r[0])), 0);
    assert_int_equal(rig.req.n_ranges, 2); // the empty one is dropped
    assert_int_equal(rig.req.ranges[1].offset_bytes, 2040 * 512);
    assert_int_equal(rig.req.ranges[1].len_bytes, 8 * 512);
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_DISCARD, r, 16 * sizeof(r[0])), 0);
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_DISCARD, r, 17 * sizeof(r[0])), VIRTIO_BLK_S_IOERR);
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_DISCARD, r, 15), VIRTIO_BLK_S_IOERR);
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_DISCARD, r, 0), VIRTIO_BLK_S_IOERR);
    r[0].flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_DISCARD, r, sizeof(r[0])), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_WRITE_ZEROES, r, sizeof(r[0])), 0);
    assert_true(rig.req.ranges[0].unmap);
    r[0].flags = 2;
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_WRITE_ZEROES, r, sizeof(r[0])), VIRTIO_BLK_S_UNSUPP);
    r[0] = (struct virtio_blk_discard_write_zeroes){.sector = 2047, .num_sectors = 2};
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_WRITE_ZEROES, r, sizeof(r[0])), VIRTIO_BLK_S_IOERR);
    r[0] = (struct virtio_blk_discard_write_zeroes){.sector = 0, .num_sectors = UINT32_MAX};
    assert_int_equal(decode_ranges(&rig, VIRTIO_BLK_T_DISCARD, r, sizeof(r[0])), VIRTIO_BLK_S_IOERR);
}

static void test_ranges_not_negotiated(void **state)
{
    (void)state;
    static struct rig rig;
    struct blk_geometry none = disk;
    none.discard = none.write_zeroes = false;
    struct virtio_blk_discard_write_zeroes r = {.num_sectors = 1};
    decode_ranges(&rig, VIRTIO_BLK_T_DISCARD, &r, sizeof(r));
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &none), VIRTIO_BLK_S_UNSUPP);
    decode_ranges(&rig, VIRTIO_BLK_T_WRITE_ZEROES, &r, sizeof(r));
    assert_int_equal(blk_request_decode(&rig.req, &rig.chain, &none), VIRTIO_BLK_S_UNSUPP);
}

static void test_get_id(void **state)
{
    (void)state;
    static struct rig rig;
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_GET_ID, 0, 0, 21, 6), 0);
    assert_int_equal(rig.req.len_bytes, 20);
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_GET_ID, 0, 0, 300, 64), 0); // more room than an identity needs
    assert_int_equal(rig.req.len_bytes, 20);
    assert_ptr_equal(rig.req.status, rig.in + 299);
    assert_int_equal(decode(&rig, VIRTIO_BLK_T_GET_ID, 0, 0, 5, 64), 0); // and less
    assert_int_equal(rig.req.len_bytes, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_and_write_however_cut),
        cmocka_unit_test(test_outside_the_disk),
        cmocka_unit_test(test_no_place_and_no_header),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_blocks_of_4096),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_ranges_not_negotiated),
        cmocka_unit_test(test_get_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
