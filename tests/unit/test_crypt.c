// Encryption at rest: what lies below is what IEEE 1619 says, what is written comes back, the writer's memory stays as it was,
// zeroes are no zeroes below, and nothing is let through that must not be.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/volume/crypt.h"
#include "store/volume/ram.h"

#define SIZE (2u << 20)
#define OFFSET 8192u

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct volume *ram, *crypt;
};

static struct crypt_options options_of(uint32_t sector_bytes, size_t key_bytes)
{
    struct crypt_options options = {.key_bytes = key_bytes, .sector_bytes = sector_bytes, .offset_bytes = OFFSET};
    for (unsigned i = 0; i < sizeof(options.key); i++)
        options.key[i] = (uint8_t)(i * 7 + 1);
    return options;
}

static void open_env(struct rig *rig)
{
    struct tv_error err = {0};
    rig->loop = loop_create(&err);
    rig->io = io_create(rig->loop, &(struct io_config){.depth = 8, .no_uring = true}, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    rig->ram = ram_volume_create(&rig->env, &(struct ram_options){.size_bytes = SIZE, .block_bytes = 512}, &err);
    assert_non_null(rig->ram);
}

static void open_rig(struct rig *rig, const struct crypt_options *options)
{
    struct tv_error err = {0};
    open_env(rig);
    rig->crypt = crypt_volume_create(&rig->env, rig->ram, options, &err);
    assert_string_equal(err.text, "");
    assert_non_null(rig->crypt);
    assert_int_equal(rig->crypt->size_bytes, SIZE - OFFSET);
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->crypt);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
}

static int run(struct rig *rig, enum volume_op op, uint64_t offset, uint8_t *bytes, size_t len, bool only_fast)
{
    struct iovec iov[2] = {{bytes, len / 3}, {bytes + len / 3, len - len / 3}};
    struct volume_request request = {
        .op = op, .offset_bytes = offset, .len_bytes = len, .data = {.iov = iov, .n_iov = 2}, .only_fast = only_fast};
    return volume_run(rig->crypt, &request);
}

// IEEE Std 1619-2007, annex B, vector 4.
static void test_vector(void **state)
{
    (void)state;
    struct rig rig;
    struct crypt_options options = {
        .key = {0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26,
                0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95},
        .key_bytes = 32,
        .sector_bytes = 512,
        .offset_bytes = OFFSET,
    };
    static const uint8_t wanted[] = {0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76, 0x48, 0x9f, 0x30,
                                     0x8c, 0xd4, 0xcf, 0xa6, 0xe2, 0xa9, 0x6e, 0x4b, 0xbe, 0x32, 0x08,
                                     0xff, 0x25, 0x28, 0x7d, 0xd3, 0x81, 0x96, 0x16, 0xe8, 0x9c};
    open_rig(&rig, &options);
    uint8_t bytes[512];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(run(&rig, VOLUME_WRITE, 0, bytes, sizeof(bytes), false), 0);
    assert_memory_equal(ram_volume_bytes(rig.ram) + OFFSET, wanted, sizeof(wanted));
    close_rig(&rig);
}

static void test_what_is_written_comes_back(void **state)
{
    (void)state;
    const size_t len = (600u << 10); // several buffers' worth
    uint8_t *bytes = malloc(len), *copy = malloc(len);
    for (unsigned i = 0; i < 4; i++) {
        struct rig rig;
        const struct crypt_options options = options_of(i & 1 ? 4096 : 512, i & 2 ? 32 : 64);
        open_rig(&rig, &options);
        assert_int_equal(rig.crypt->block_bytes, options.sector_bytes);
        for (size_t b = 0; b < len; b++)
            copy[b] = bytes[b] = (uint8_t)(b * 31 + (b >> 9));
        assert_int_equal(run(&rig, VOLUME_WRITE, 12288, bytes, len, false), 0);
        assert_memory_equal(bytes, copy, len);
        assert_memory_not_equal(ram_volume_bytes(rig.ram) + OFFSET + 12288, bytes, 512);
        memset(bytes, 0, len);
        assert_int_equal(run(&rig, VOLUME_READ, 12288, bytes, len, false), 0);
        assert_memory_equal(bytes, copy, len);
        assert_int_equal(run(&rig, VOLUME_ZERO, 12288, NULL, 8192, true), -EOPNOTSUPP);
        assert_int_equal(run(&rig, VOLUME_ZERO, 12288, NULL, 8192, false), 0);
        const uint8_t *below = ram_volume_bytes(rig.ram) + OFFSET + 12288;
        assert_memory_not_equal(below, below + 4096, 512); // of the same zeroes, in other sectors
        assert_int_equal(run(&rig, VOLUME_READ, 12288, bytes, 8192, false), 0);
        assert_true(bytes[0] == 0 && !memcmp(bytes, bytes + 1, 8191));
        close_rig(&rig);
    }
    free(bytes);
    free(copy);
}

static void test_discards(void **state)
{
    (void)state;
    for (unsigned discards = 0; discards < 2; discards++) {
        struct rig rig;
        struct crypt_options options = options_of(512, 64);
        uint8_t bytes[8192] = {1}, found[8192];
        options.discards = discards;
        open_rig(&rig, &options);
        assert_int_equal(rig.crypt->can_discard, discards);
        assert_int_equal(run(&rig, VOLUME_WRITE, 0, bytes, sizeof(bytes), false), 0);
        assert_int_equal(run(&rig, VOLUME_DISCARD, 0, NULL, sizeof(bytes), false), 0);
        assert_int_equal(run(&rig, VOLUME_READ, 0, found, sizeof(found), false), 0);
        assert_int_equal(!memcmp(bytes, found, sizeof(bytes)), !discards);
        close_rig(&rig);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t sector_bytes;
        size_t key_bytes;
        uint64_t offset_bytes;
        bool same_halves;
        const char *says;
    } bad[] = {
        {512, 16, 0, false, "a key of 16 bytes"},    {1024, 64, 0, false, "sectors of 1024 bytes"},
        {512, 64, 512, false, "a multiple of 4096"}, {512, 64, SIZE, false, "nothing begins before"},
        {512, 64, 0, true, "both halves"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rig rig;
        struct tv_error err = {0};
        struct crypt_options options = options_of(bad[i].sector_bytes, bad[i].key_bytes);
        options.offset_bytes = bad[i].offset_bytes;
        if (bad[i].same_halves)
            memcpy(options.key + 32, options.key, 32);
        open_env(&rig);
        rig.crypt = crypt_volume_create(&rig.env, rig.ram, &options, &err);
        assert_null(rig.crypt);
        assert_int_equal(err.code, -EINVAL);
        assert_non_null(strstr(err.text, bad[i].says));
        close_rig(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector),
        cmocka_unit_test(test_what_is_written_comes_back),
        cmocka_unit_test(test_discards),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
