// Overlays: what is written is read back, whatever is written at the same time and however the data volume reorders it; after a
// power cut at any moment all that was flushed is there, and what was not is as it was or as it was to be; a base that changed, a
// damaged map and a full disk are noticed.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/volume/overlay.h"
#include "store/volume/overlay_map.h"
#include "store/volume/ram.h"
#include "volume_model.h"

#define SECTOR MODEL_SECTOR
#define CAPACITY (2 * OVERLAY_PAGE_COVERS)
#define SIZE (CAPACITY - 3 * SECTOR) // the last block is short
#define BASE_SIZE (100ull * 1000 * 1000 / SECTOR * SECTOR)

// Where things happen: the beginning, between two pages of the map, around the end of the base, and the end.
#define AREAS 4u
static const uint64_t areas[AREAS] = {0, OVERLAY_PAGE_COVERS / SECTOR - 64, BASE_SIZE / SECTOR - 61,
                                      SIZE / SECTOR - MODEL_AREA_SECTORS};

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct record_volume *data, *below; // `below`: of the base, where that is an overlay itself; else NULL
    struct volume *overlay;
    bool has_absorbed;
    struct volume_model model;
};

static uint32_t base_value(uint64_t sector)
{
    return sector < BASE_SIZE / SECTOR ? 0x80000000u + 1000u * (uint32_t)sector : 0;
}

static void format(struct record_volume *data)
{
    struct overlay_header header = {.size_bytes = SIZE, .capacity_bytes = CAPACITY};
    overlay_header_encode(&header, data->now + overlay_header_offset(&header));
    overlay_header_encode(&header, data->stable + overlay_header_offset(&header));
    data->touched[overlay_header_offset(&header) / 4096 / 64] |= 1ull << overlay_header_offset(&header) / 4096 % 64;
}

static uint64_t data_bytes(void)
{
    struct overlay_header header = {.size_bytes = SIZE, .capacity_bytes = CAPACITY};
    return overlay_header_offset(&header) + OVERLAY_BLOCK;
}

static struct volume *make_base(struct rig *rig)
{
    struct tv_error err = {0};
    struct volume *base = ram_volume_create(&rig->env, &(struct ram_options){.size_bytes = BASE_SIZE, .block_bytes = SECTOR}, &err);
    assert_non_null(base);
    for (unsigned a = 0; a < AREAS; a++)
        for (uint64_t s = areas[a]; s < areas[a] + MODEL_AREA_SECTORS && s < BASE_SIZE / SECTOR; s++)
            model_fill(ram_volume_bytes(base) + s * SECTOR, base_value(s));
    base->read_only = true;
    return base;
}

static bool move(void *arg)
{
    struct rig *rig = arg;
    return volume_env_deliver(&rig->env) || record_volume_pump(rig->data) || (rig->below && record_volume_pump(rig->below));
}

// The overlay takes over from its base.
static bool absorb_some(struct model_op *op)
{
    struct volume_model *m = op->model;
    if (!((struct rig *)m->arg)->below || record_random(&m->random) % 8)
        return false;
    const uint64_t area = areas[record_random(&m->random) % AREAS] * SECTOR / OVERLAY_BLOCK;
    const uint64_t first = area + record_random(&m->random) % 16, end = (SIZE + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK;
    op->io = (struct volume_request){.op = VOLUME_ABSORB, .offset_bytes = first * OVERLAY_BLOCK, .len_bytes = 6ull * OVERLAY_BLOCK};
    if (first + 6 >= end)
        op->io.len_bytes = SIZE - op->io.offset_bytes;
    model_submit(op);
    return true;
}

static void open_rig(struct rig *rig, uint64_t seed)
{
    struct tv_error err = {0};
    memset(rig, 0, sizeof(*rig));
    rig->loop = loop_create(&err);
    rig->io = io_create(rig->loop, &(struct io_config){.depth = 8, .no_uring = true}, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    rig->data = record_volume_create(&rig->env, data_bytes(), seed + 1);
    format(rig->data);
    rig->overlay = overlay_volume_create(&rig->env, &rig->data->volume, make_base(rig), &err);
    assert_string_equal(err.text, "");
    assert_non_null(rig->overlay);
    assert_int_equal(rig->overlay->size_bytes, SIZE);
    rig->model = (struct volume_model){.volume = rig->overlay,
                                       .areas = areas,
                                       .n_areas = AREAS,
                                       .value = base_value,
                                       .move = move,
                                       .other = absorb_some,
                                       .arg = rig};
    model_init(&rig->model, seed);
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->overlay);
    model_fini(&rig->model);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
}

// ---- tests ----

static void test_concurrent(void **state)
{
    (void)state;
    static struct rig rig;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        open_rig(&rig, seed);
        model_act(&rig.model, 5000);
        model_settle(&rig.model);
        close_rig(&rig);
    }
}

static struct volume *base_after_cut(struct rig *rig)
{
    struct tv_error err = {0};
    if (!rig->below || rig->has_absorbed)
        return make_base(rig);
    return overlay_volume_create(&rig->env, &record_volume_cut(rig->below)->volume, make_base(rig), &err);
}

// What a power cut at this moment would leave is an overlay, and each sector of it is one of those that it may be.
static void check_cut(struct rig *rig)
{
    struct tv_error err = {0};
    struct record_volume *data = record_volume_cut(rig->data);
    struct volume *overlay = overlay_volume_create(&rig->env, &data->volume, base_after_cut(rig), &err);
    if (!overlay)
        fail_msg("after a power cut: %s", err.text);
    model_check_cut(&rig->model, overlay);
    volume_destroy(overlay);
}

static void test_power_cuts(void **state)
{
    (void)state;
    static struct rig rig;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        open_rig(&rig, seed);
        for (unsigned cuts = 0; cuts < 50; cuts++) {
            model_act(&rig.model, 1 + (unsigned)(record_random(&rig.model.random) % 100));
            check_cut(&rig);
        }
        model_settle(&rig.model);
        check_cut(&rig);
        close_rig(&rig);
    }
}

// The overlay becomes the base of another.
static void put_over(struct rig *rig, uint64_t seed)
{
    struct tv_error err = {0};
    struct volume_request flush = {.op = VOLUME_FLUSH};
    assert_int_equal(volume_run(rig->overlay, &flush), 0);
    model_set_stable(&rig->model);
    volume_freeze(rig->overlay);
    assert_true(rig->overlay->read_only && rig->data->volume.read_only);
    rig->below = rig->data;
    rig->data = record_volume_create(&rig->env, data_bytes(), seed + 1);
    format(rig->data);
    rig->overlay = overlay_volume_create(&rig->env, &rig->data->volume, rig->overlay, &err);
    assert_non_null(rig->overlay);
    rig->model.volume = rig->overlay;
}

// Whoever writes and reads sees nothing of it, nor is anything of it amiss after a power cut; and when all is taken over, the first
// base will do.
static void test_absorb(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err = {0};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        open_rig(&rig, seed);
        model_act(&rig.model, 2000);
        model_settle(&rig.model);
        put_over(&rig, seed);
        for (unsigned cuts = 0; cuts < 20; cuts++) {
            model_act(&rig.model, 1 + (unsigned)(record_random(&rig.model.random) % 100));
            check_cut(&rig);
        }
        model_settle(&rig.model);
        struct volume_request all = {.op = VOLUME_ABSORB, .len_bytes = SIZE}, flush = {.op = VOLUME_FLUSH};
        assert_int_equal(volume_run(rig.overlay, &all), 0);
        assert_int_equal(volume_run(rig.overlay, &flush), 0);
        assert_int_equal(overlay_volume_unbind(rig.overlay, &err), 0);
        check_cut(&rig);
        rig.has_absorbed = true;
        check_cut(&rig);
        close_rig(&rig);
    }
}

static void test_absorb_of_no_overlay(void **state)
{
    (void)state;
    static struct rig rig;
    open_rig(&rig, 1);
    struct volume_request all = {.op = VOLUME_ABSORB, .len_bytes = SIZE};
    assert_int_equal(volume_run(rig.overlay, &all), -EOPNOTSUPP);
    close_rig(&rig);
}

static struct volume *reopen(struct rig *rig, struct volume *base, struct tv_error *err)
{
    *err = (struct tv_error){0};
    struct record_volume *data = record_volume_cut(rig->data);
    struct volume *overlay = overlay_volume_create(&rig->env, &data->volume, base, err);
    if (!overlay) {
        volume_destroy(&data->volume);
        volume_destroy(base);
    }
    return overlay;
}

static void test_wrong_base(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err;
    open_rig(&rig, 1);
    volume_destroy(reopen(&rig, make_base(&rig), &err));
    assert_int_equal(err.code, 0);
    struct volume *changed = make_base(&rig);
    ram_volume_bytes(changed)[1080] ^= 1;
    assert_null(reopen(&rig, changed, &err));
    assert_int_equal(err.code, -ESTALE);
    struct volume *larger = ram_volume_create(&rig.env, &(struct ram_options){BASE_SIZE + 4096, SECTOR}, &err);
    assert_null(reopen(&rig, larger, &err));
    assert_int_equal(err.code, -ESTALE);
    close_rig(&rig);
}

static void test_damage(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err;
    open_rig(&rig, 3);
    model_act(&rig.model, 3000);
    model_settle(&rig.model);
    struct volume_request flush = {.op = VOLUME_FLUSH};
    assert_int_equal(volume_run(rig.overlay, &flush), 0);
    for (uint64_t at = CAPACITY; at < data_bytes(); at += 200) {
        rig.data->stable[at] ^= 0x10;
        const bool matters = at < data_bytes() - OVERLAY_BLOCK + 512;
        struct volume *overlay = reopen(&rig, make_base(&rig), &err);
        assert_true(matters ? !overlay : overlay != NULL);
        assert_int_equal(err.code, matters ? -EBADMSG : 0);
        volume_destroy(overlay);
        rig.data->stable[at] ^= 0x10;
    }
    close_rig(&rig);
}

static int result_of(struct rig *rig, enum volume_op kind, uint64_t offset, uint64_t len)
{
    static uint8_t bytes[4 * OVERLAY_BLOCK];
    struct iovec iov = {bytes, len};
    struct volume_request q = {.op = kind, .offset_bytes = offset, .len_bytes = len, .data = {.iov = &iov, .n_iov = 1}};
    return volume_run(rig->overlay, &q);
}

// A full disk fails what needs room, and nothing else is lost; a flush that failed has failed for good.
static void test_errors(void **state)
{
    (void)state;
    static struct rig rig;
    uint8_t bytes[SECTOR], wanted[SECTOR];
    open_rig(&rig, 4);
    rig.data->write_error = -ENOSPC;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, OVERLAY_BLOCK), -ENOSPC);
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 512, 1024), -ENOSPC);
    assert_int_equal(model_read(rig.overlay, 512, bytes, SECTOR), 0);
    model_fill(wanted, base_value(1));
    assert_memory_equal(bytes, wanted, SECTOR);
    assert_int_equal(result_of(&rig, VOLUME_FLUSH, 0, 0), 0);
    rig.data->write_error = 0;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, OVERLAY_BLOCK), 0);
    assert_int_equal(result_of(&rig, VOLUME_FLUSH, 0, 0), 0);
    assert_int_equal(result_of(&rig, VOLUME_WRITE, OVERLAY_BLOCK, OVERLAY_BLOCK), 0);
    rig.data->flush_error = -EIO;
    assert_int_equal(result_of(&rig, VOLUME_FLUSH, 0, 0), -EIO);
    rig.data->flush_error = 0;
    assert_int_equal(result_of(&rig, VOLUME_FLUSH, 0, 0), -EIO);
    close_rig(&rig);
}

// What is in place costs one request below, and so does a flush when the map is stored; an overlay takes no more than was written.
static void test_costs(void **state)
{
    (void)state;
    static struct rig rig;
    open_rig(&rig, 5);
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4 * OVERLAY_BLOCK), 0);
    assert_int_equal(result_of(&rig, VOLUME_FLUSH, 0, 0), 0);
    const unsigned before = rig.data->n_entries;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 512, 2 * OVERLAY_BLOCK), 0);
    assert_int_equal(result_of(&rig, VOLUME_FLUSH, 0, 0), 0);
    assert_int_equal(rig.data->n_entries, before + 1);
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 4 * OVERLAY_BLOCK, OVERLAY_BLOCK), 0);
    assert_int_equal(result_of(&rig, VOLUME_FLUSH, 0, 0), 0);
    assert_int_equal(rig.data->n_entries, before + 3); // and a page of the map
    close_rig(&rig);
}

static void test_resize(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err = {0};
    open_rig(&rig, 6);
    assert_int_equal(volume_resize(rig.overlay, SIZE - SECTOR, &err), -EOPNOTSUPP);
    assert_int_equal(volume_resize(rig.overlay, CAPACITY + SECTOR, &err), -EFBIG);
    assert_int_equal(volume_resize(rig.overlay, SIZE + 1, &err), -EINVAL);
    assert_int_equal(volume_resize(rig.overlay, CAPACITY, &err), 0);
    assert_int_equal(result_of(&rig, VOLUME_WRITE, CAPACITY - SECTOR, SECTOR), 0);
    struct volume *overlay = reopen(&rig, make_base(&rig), &err);
    assert_non_null(overlay);
    assert_int_equal(overlay->size_bytes, CAPACITY);
    volume_destroy(overlay);
    close_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_concurrent), cmocka_unit_test(test_power_cuts), cmocka_unit_test(test_wrong_base),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_errors),     cmocka_unit_test(test_costs),
        cmocka_unit_test(test_resize),     cmocka_unit_test(test_absorb),     cmocka_unit_test(test_absorb_of_no_overlay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
