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

#include "record_volume.h"
#include "store/volume/overlay.h"
#include "store/volume/overlay_map.h"
#include "store/volume/ram.h"

#define SECTOR 512u
#define CAPACITY (2 * OVERLAY_PAGE_COVERS)
#define SIZE (CAPACITY - 3 * SECTOR) // the last block is short
#define BASE_SIZE (100ull * 1000 * 1000 / SECTOR * SECTOR)

// Where things happen: the beginning, between two pages of the map, around the end of the base, and the end.
#define AREA_SECTORS 128u
static const uint64_t areas[] = {0, OVERLAY_PAGE_COVERS / SECTOR - 64, BASE_SIZE / SECTOR - 61, SIZE / SECTOR - AREA_SECTORS};
#define AREAS 4u
#define SECTORS (AREAS * AREA_SECTORS)

#define VALUES 24u // of a sector, since it was last stable

// What a sector may be read as. values[0] was flushed; the last is what it is now. `at`: when each was done; 0: it is in flight.
struct sector {
    uint32_t values[VALUES];
    uint64_t at[VALUES];
    unsigned n;
    bool busy; // a change is under way
};

struct test_op {
    struct volume_request io;
    struct rig *rig;
    unsigned area, first, n; // sectors of an area
    uint32_t value;
    uint64_t started_at;
    uint8_t *bytes;
    struct iovec iov[2];
    bool is_free;
};

#define OPS 24u

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct record_volume *data, *below; // `below`: of the base, where that is an overlay itself; else NULL
    struct volume *base, *overlay;
    bool has_absorbed;
    struct sector sectors[SECTORS];
    struct test_op ops[OPS];
    uint64_t random, clock;
    uint32_t next_value;
    unsigned n_busy;
};

#define DISCARDED 1u // reads as zeroes now, and as anything after a power cut

static void fill(uint8_t *sector, uint32_t value)
{
    for (unsigned i = 0; i < SECTOR / 4; i++) {
        const uint32_t word = value > DISCARDED ? value + i : 0;
        memcpy(sector + 4 * i, &word, sizeof(word));
    }
}

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
        for (uint64_t s = areas[a]; s < areas[a] + AREA_SECTORS && s < BASE_SIZE / SECTOR; s++)
            fill(ram_volume_bytes(base) + s * SECTOR, base_value(s));
    base->read_only = true;
    return base;
}

static void open_rig(struct rig *rig, uint64_t seed)
{
    struct tv_error err = {0};
    memset(rig, 0, sizeof(*rig));
    rig->random = seed * 7919 + 1;
    rig->next_value = 1000;
    rig->loop = loop_create(&err);
    rig->io = io_create(rig->loop, &(struct io_config){.depth = 8, .no_uring = true}, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    rig->data = record_volume_create(&rig->env, data_bytes(), seed + 1);
    format(rig->data);
    rig->base = make_base(rig);
    rig->overlay = overlay_volume_create(&rig->env, &rig->data->volume, rig->base, &err);
    assert_string_equal(err.text, "");
    assert_non_null(rig->overlay);
    assert_int_equal(rig->overlay->size_bytes, SIZE);
    for (unsigned a = 0; a < AREAS; a++)
        for (unsigned i = 0; i < AREA_SECTORS; i++)
            rig->sectors[a * AREA_SECTORS + i] = (struct sector){.values = {base_value(areas[a] + i)}, .n = 1};
    for (unsigned i = 0; i < OPS; i++)
        rig->ops[i] = (struct test_op){.rig = rig, .is_free = true, .bytes = malloc(AREA_SECTORS * SECTOR)};
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->overlay);
    for (unsigned i = 0; i < OPS; i++)
        free(rig->ops[i].bytes);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
}

static bool move(struct rig *rig)
{
    return volume_env_deliver(&rig->env) || record_volume_pump(rig->data) || (rig->below && record_volume_pump(rig->below));
}

// ---- requests and the model ----

static struct sector *sectors_of(struct test_op *op)
{
    return &op->rig->sectors[op->area * AREA_SECTORS + op->first];
}

static void set_values(struct test_op *op, uint64_t at)
{
    for (unsigned i = 0; i < op->n; i++) {
        struct sector *s = &sectors_of(op)[i];
        s->at[s->n - 1] = at;
        s->busy = false;
    }
}

static void check_read(struct test_op *op)
{
    uint8_t wanted[SECTOR];
    for (unsigned i = 0; i < op->n; i++) {
        const struct sector *s = &sectors_of(op)[i];
        fill(wanted, s->values[s->n - 1]);
        assert_memory_equal(op->bytes + i * SECTOR, wanted, SECTOR);
        sectors_of(op)[i].busy = false;
    }
}

// All that was done when it was started is stable.
static void check_flush(struct test_op *op)
{
    for (unsigned i = 0; i < SECTORS; i++) {
        struct sector *s = &op->rig->sectors[i];
        unsigned last = 0;
        for (unsigned v = 1; v < s->n; v++)
            if (s->at[v] && s->at[v] < op->started_at)
                last = v;
        s->n -= last;
        memmove(s->values, s->values + last, s->n * sizeof(s->values[0]));
        memmove(s->at, s->at + last, s->n * sizeof(s->at[0]));
    }
}

static void make_durable(struct test_op *op)
{
    for (unsigned i = 0; i < op->n; i++) {
        struct sector *s = &sectors_of(op)[i];
        s->values[0] = s->values[s->n - 1];
        s->n = 1;
    }
}

static void on_done(struct volume_request *io, int result)
{
    struct test_op *op = (struct test_op *)io;
    assert_int_equal(result, 0);
    op->rig->n_busy--;
    op->is_free = true;
    const uint64_t now = ++op->rig->clock;
    if (io->op == VOLUME_READ)
        check_read(op);
    else if (io->op == VOLUME_FLUSH)
        check_flush(op);
    else if (io->op != VOLUME_ABSORB)
        set_values(op, now);
    if (io->durable)
        make_durable(op);
    free(io->context);
}

static void submit(struct test_op *op)
{
    op->started_at = ++op->rig->clock;
    op->io.done = on_done;
    op->io.context = aligned_alloc(VOLUME_CONTEXT_ALIGN, op->rig->overlay->context_bytes);
    op->is_free = false;
    op->rig->n_busy++;
    volume_start(op->rig->overlay, &op->io);
}

static bool claim(struct test_op *op, enum volume_op kind)
{
    struct rig *rig = op->rig;
    op->area = (unsigned)(record_random(&rig->random) % AREAS);
    op->n = 1 + (unsigned)(record_random(&rig->random) % (record_random(&rig->random) & 1 ? 8 : 64));
    op->first = (unsigned)(record_random(&rig->random) % (AREA_SECTORS - op->n + 1));
    if (kind == VOLUME_DISCARD || record_random(&rig->random) % 4 == 0) { // whole blocks
        op->first = (op->first + 7) & ~7u;
        op->n = (op->n + 7) & ~7u;
        while ((areas[op->area] + op->first) % 8)
            op->first++;
    }
    if (op->first + op->n > AREA_SECTORS)
        return false;
    for (unsigned i = 0; i < op->n; i++)
        if (sectors_of(op)[i].busy || sectors_of(op)[i].n == VALUES)
            return false;
    for (unsigned i = 0; i < op->n; i++)
        sectors_of(op)[i].busy = true;
    return true;
}

static void prepare_change(struct test_op *op)
{
    struct rig *rig = op->rig;
    for (unsigned i = 0; i < op->n; i++) {
        struct sector *s = &sectors_of(op)[i];
        s->values[s->n] = op->io.op == VOLUME_WRITE ? rig->next_value += 200 : op->io.op == VOLUME_DISCARD ? DISCARDED : 0;
        fill(op->bytes + i * SECTOR, s->values[s->n]);
        s->at[s->n++] = 0;
    }
    op->io.durable = record_random(&rig->random) % 8 == 0;
    op->io.may_unmap = record_random(&rig->random) & 1;
}

static void start_absorb(struct test_op *op)
{
    const uint64_t area = areas[record_random(&op->rig->random) % AREAS] * SECTOR / OVERLAY_BLOCK;
    const uint64_t first = area + record_random(&op->rig->random) % 16, end = (SIZE + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK;
    op->io = (struct volume_request){.op = VOLUME_ABSORB, .offset_bytes = first * OVERLAY_BLOCK, .len_bytes = 6ull * OVERLAY_BLOCK};
    if (first + 6 >= end)
        op->io.len_bytes = SIZE - op->io.offset_bytes;
    submit(op);
}

static void start_one(struct test_op *op)
{
    static const enum volume_op kinds[] = {VOLUME_READ,  VOLUME_READ, VOLUME_WRITE, VOLUME_WRITE,
                                           VOLUME_WRITE, VOLUME_ZERO, VOLUME_ZERO,  VOLUME_DISCARD};
    struct rig *rig = op->rig;
    enum volume_op kind = kinds[record_random(&rig->random) % 8];
    if (record_random(&rig->random) % 10 == 0)
        kind = VOLUME_FLUSH;
    if (op->rig->below && record_random(&rig->random) % 8 == 0) {
        start_absorb(op);
        return;
    }
    op->io = (struct volume_request){.op = kind};
    if (kind == VOLUME_FLUSH) {
        submit(op);
        return;
    }
    if (!claim(op, kind))
        return;
    op->io.offset_bytes = (areas[op->area] + op->first) * SECTOR;
    op->io.len_bytes = op->n * SECTOR;
    const size_t cut = (size_t)(record_random(&rig->random) % (op->io.len_bytes + 1));
    op->iov[0] = (struct iovec){op->bytes, cut};
    op->iov[1] = (struct iovec){op->bytes + cut, op->io.len_bytes - cut};
    op->io.data = (struct volume_data){.iov = op->iov, .n_iov = 2};
    if (kind != VOLUME_READ)
        prepare_change(op);
    submit(op);
}

static void act(struct rig *rig, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        struct test_op *op = &rig->ops[record_random(&rig->random) % OPS];
        if (op->is_free && record_random(&rig->random) & 1)
            start_one(op);
        else
            move(rig);
    }
}

static void settle(struct rig *rig)
{
    while (move(rig))
        ;
    assert_int_equal(rig->n_busy, 0);
}

// ---- tests ----

static void test_concurrent(void **state)
{
    (void)state;
    static struct rig rig;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        open_rig(&rig, seed);
        act(&rig, 5000);
        settle(&rig);
        close_rig(&rig);
    }
}

static int read_now(struct volume *volume, uint64_t offset, void *bytes, uint64_t len)
{
    struct iovec iov = {bytes, len};
    struct volume_request q = {.op = VOLUME_READ, .offset_bytes = offset, .len_bytes = len, .data = {.iov = &iov, .n_iov = 1}};
    return volume_run(volume, &q);
}

static bool may_be(const struct sector *s, const uint8_t *bytes)
{
    uint8_t wanted[SECTOR];
    for (unsigned v = 0; v < s->n; v++) {
        fill(wanted, s->values[v]);
        if (s->values[v] == DISCARDED || !memcmp(wanted, bytes, SECTOR))
            return true;
    }
    return false;
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
    static uint8_t bytes[AREA_SECTORS * SECTOR];
    struct tv_error err = {0};
    struct record_volume *data = record_volume_cut(rig->data);
    struct volume *overlay = overlay_volume_create(&rig->env, &data->volume, base_after_cut(rig), &err);
    if (!overlay)
        fail_msg("after a power cut: %s", err.text);
    for (unsigned a = 0; a < AREAS; a++) {
        assert_int_equal(read_now(overlay, areas[a] * SECTOR, bytes, sizeof(bytes)), 0);
        for (unsigned i = 0; i < AREA_SECTORS; i++)
            if (!may_be(&rig->sectors[a * AREA_SECTORS + i], bytes + i * SECTOR))
                fail_msg("after a power cut sector %u of area %u is what it never was", i, a);
    }
    volume_destroy(overlay);
}

static void test_power_cuts(void **state)
{
    (void)state;
    static struct rig rig;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        open_rig(&rig, seed);
        for (unsigned cuts = 0; cuts < 50; cuts++) {
            act(&rig, 1 + (unsigned)(record_random(&rig.random) % 100));
            check_cut(&rig);
        }
        settle(&rig);
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
    for (unsigned i = 0; i < SECTORS; i++) {
        rig->sectors[i].values[0] = rig->sectors[i].values[rig->sectors[i].n - 1];
        rig->sectors[i].n = 1;
    }
    volume_freeze(rig->overlay);
    assert_true(rig->overlay->read_only && rig->data->volume.read_only);
    rig->below = rig->data;
    rig->data = record_volume_create(&rig->env, data_bytes(), seed + 1);
    format(rig->data);
    rig->overlay = overlay_volume_create(&rig->env, &rig->data->volume, rig->overlay, &err);
    assert_non_null(rig->overlay);
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
        act(&rig, 2000);
        settle(&rig);
        put_over(&rig, seed);
        for (unsigned cuts = 0; cuts < 20; cuts++) {
            act(&rig, 1 + (unsigned)(record_random(&rig.random) % 100));
            check_cut(&rig);
        }
        settle(&rig);
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
    act(&rig, 3000);
    settle(&rig);
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
    assert_int_equal(read_now(rig.overlay, 512, bytes, SECTOR), 0);
    fill(wanted, base_value(1));
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
