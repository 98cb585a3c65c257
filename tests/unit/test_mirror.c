// Mirrors: what is written is read back, whatever is written at the same time, and while legs are made equal; after a power cut at
// any moment, from any leg that is left, all that was flushed is there; a leg that fails is left out before anything is answered
// without it, and is never taken for one that has everything; legs that come back, or are new, become equal to the others; what
// does not belong together is refused.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/volume/mirror_private.h"
#include "store/volume/ram.h"
#include "volume_model.h"

#define SECTOR MODEL_SECTOR
#define REGION (1ull << 20)
#define SIZE (12 * REGION - 3 * SECTOR)
#define LEG_BYTES (mirror_leg_bytes(SIZE) + SECTOR) // the last sector is not used
#define LEGS 3u
#define AREAS 3u

static const uint64_t areas[AREAS] = {0, 3 * REGION / SECTOR - 60, SIZE / SECTOR - MODEL_AREA_SECTORS};

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct record_volume *below[LEGS];
    unsigned n;
    struct volume *volume;
    struct volume_model model;
    unsigned kick; // every so many steps what is not touched any more goes from the maps
};

static uint32_t zeroes(uint64_t sector)
{
    (void)sector;
    return 0;
}

static struct mirror *mirror_of(const struct rig *rig)
{
    return (struct mirror *)rig->volume;
}

static bool move(void *arg)
{
    struct rig *rig = arg;
    bool moved = volume_env_deliver(&rig->env);
    const uint64_t first = record_random(&rig->model.random) % rig->n;
    for (unsigned i = 0; i < rig->n && !moved; i++)
        moved = record_volume_pump(rig->below[(i + first) % rig->n]);
    if (moved && rig->kick && record_random(&rig->model.random) % rig->kick == 0)
        mirror_clean(mirror_of(rig));
    return moved;
}

// ---- legs ----

// What mirror_format() writes, into a volume.
static void format(struct record_volume *const *legs, unsigned n)
{
    char path[] = "/tmp/test-mirror-XXXXXX";
    struct tv_error err = {0};
    int fds[LEGS];
    for (unsigned i = 0; i < n; i++) {
        strcpy(path, "/tmp/test-mirror-XXXXXX");
        fds[i] = mkstemp(path);
        assert_true(fds[i] >= 0);
        unlink(path);
    }
    assert_int_equal(mirror_format(fds, n, SIZE, &err), 0);
    const uint64_t from = mirror_meta_offset(mirror_leg_bytes(SIZE)), to = mirror_meta_offset(LEG_BYTES);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(pread(fds[i], legs[i]->now + to, MIRROR_META_BYTES, (off_t)from), MIRROR_META_BYTES);
        memcpy(legs[i]->stable + to, legs[i]->now + to, MIRROR_META_BYTES);
        for (uint64_t b = to / 4096; b <= (to + MIRROR_META_BYTES - 1) / 4096; b++)
            legs[i]->touched[b / 64] |= 1ull << b % 64;
        close(fds[i]);
    }
}

static struct volume *open_mirror(struct rig *rig, struct record_volume *const *legs, unsigned n, struct mirror_options options,
                                  struct tv_error *err)
{
    struct volume *volumes[LEGS] = {0};
    for (unsigned i = 0; i < n; i++)
        volumes[i] = &legs[i]->volume;
    *err = (struct tv_error){0};
    return mirror_volume_create(&rig->env, volumes, n, &options, err);
}

static void open_rig(struct rig *rig, unsigned n, uint64_t seed)
{
    struct tv_error err = {0};
    memset(rig, 0, sizeof(*rig));
    rig->n = n;
    rig->loop = loop_create(&err);
    rig->io = io_create(rig->loop, &(struct io_config){.depth = 8, .no_uring = true}, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    for (unsigned i = 0; i < n; i++)
        rig->below[i] = record_volume_create(&rig->env, LEG_BYTES, seed * 10 + i);
    format(rig->below, n);
    rig->volume = open_mirror(rig, rig->below, n, (struct mirror_options){0}, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rig->volume->size_bytes, SIZE);
    rig->model = (struct volume_model){
        .volume = rig->volume, .areas = areas, .n_areas = AREAS, .value = zeroes, .move = move, .arg = rig, .forgets = true};
    model_init(&rig->model, seed);
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->volume);
    model_fini(&rig->model);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
}

// The mirror goes, its legs stay: as volumes of their own with what they had.
static void take_apart(struct rig *rig, struct record_volume **legs)
{
    model_settle(&rig->model);
    volume_freeze(rig->volume);
    for (unsigned i = 0; i < rig->n; i++) {
        struct volume_request flush = {.op = VOLUME_FLUSH};
        rig->below[i]->write_error = 0;
        if (!rig->below[i]->flush_error) // else it has lost what was not stable
            assert_int_equal(volume_run(&rig->below[i]->volume, &flush), 0);
        legs[i] = record_volume_cut(rig->below[i]);
    }
    volume_destroy(rig->volume);
}

static void reopen(struct rig *rig, struct record_volume **legs, unsigned n, struct mirror_options options)
{
    struct tv_error err;
    rig->volume = open_mirror(rig, legs, n, options, &err);
    if (!rig->volume)
        fail_msg("opened again: %s", err.text);
    for (unsigned i = 0; i < n; i++)
        rig->below[i] = legs[i];
    rig->n = n;
    rig->model.volume = rig->volume;
}

static void check_equal(const struct rig *rig)
{
    for (unsigned a = 0; a < AREAS; a++)
        for (unsigned s = 0; s < MODEL_AREA_SECTORS; s++) {
            const struct model_sector *known = &rig->model.sectors[a * MODEL_AREA_SECTORS + s];
            const uint64_t at = (areas[a] + s) * SECTOR;
            for (unsigned i = 1; i < rig->n && known->values[known->n - 1] != 1; i++)
                assert_memory_equal(rig->below[i]->now + at, rig->below[0]->now + at, SECTOR);
        }
}

// When nothing is under way, and all are in sync: each could go on alone.
static void check_maps_equal(const struct rig *rig)
{
    const uint64_t map = mirror_meta_offset(LEG_BYTES);
    for (unsigned i = 1; i < rig->n; i++)
        assert_memory_equal(rig->below[i]->now + map, rig->below[0]->now + map, (size_t)MIRROR_INTENT_PAGES * MIRROR_PAGE);
}

static void become_equal(struct rig *rig)
{
    while (mirror_of(rig)->n_unsynced || mirror_of(rig)->committing)
        volume_step(rig->volume);
}

static void make_clean(struct rig *rig)
{
    model_settle(&rig->model);
    for (unsigned i = 0; i < 2; i++) { // what was touched since the last time, and then all
        mirror_clean(mirror_of(rig));
        become_equal(rig);
    }
    assert_int_equal(mirror_of(rig)->n_wanted, 0);
}

static const char *state_of(const struct rig *rig, unsigned i)
{
    static char state[32];
    json_t *object = volume_describe(rig->volume);
    json_t *leg = json_array_get(json_object_get(object, "volumes"), i);
    strcpy(state, json_string_value(json_object_get(leg, "state")));
    json_decref(object);
    return state;
}

// ---- tests ----

static void test_concurrent(void **state)
{
    (void)state;
    static struct rig rig;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        open_rig(&rig, 1 + (unsigned)(seed % 2) + 1, seed);
        rig.kick = 200;
        model_act(&rig.model, 5000);
        model_settle(&rig.model);
        check_equal(&rig);
        close_rig(&rig);
    }
}

// All legs lose power at once. What is left is a mirror, of all legs or of any; and it becomes equal again while it is used.
static void check_cut(struct rig *rig)
{
    struct tv_error err;
    struct record_volume *cut[LEGS], *legs[LEGS];
    for (unsigned i = 0; i < rig->n; i++)
        cut[i] = record_volume_cut(rig->below[i]);
    const unsigned alone = (unsigned)(record_random(&rig->model.random) % rig->n);
    legs[0] = record_volume_cut(cut[alone]);
    struct volume *one = open_mirror(rig, legs, 1, (struct mirror_options){.degraded = true}, &err);
    if (!one)
        fail_msg("leg %u alone after a power cut: %s", alone, err.text);
    model_check_cut(&rig->model, one);
    volume_destroy(one);
    struct rig all = {.env = rig->env, .n = rig->n};
    all.volume = open_mirror(rig, cut, rig->n, (struct mirror_options){0}, &err);
    if (!all.volume)
        fail_msg("after a power cut: %s", err.text);
    model_check_cut(&rig->model, all.volume);
    while (mirror_of(&all)->n_unsynced)
        volume_step(all.volume);
    for (unsigned i = 1; i < rig->n; i++)
        for (uint64_t at = 0; at < SIZE; at += REGION / 16)
            assert_memory_equal(cut[i]->now + at, cut[0]->now + at, SIZE - at < REGION / 16 ? SIZE - at : REGION / 16);
    volume_destroy(all.volume);
}

static void test_power_cuts(void **state)
{
    (void)state;
    static struct rig rig;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        open_rig(&rig, 2 + (unsigned)(seed % 2), seed);
        rig.kick = 30;
        for (unsigned cuts = 0; cuts < 15; cuts++) {
            model_act(&rig.model, 1 + (unsigned)(record_random(&rig.model.random) % 100));
            check_cut(&rig);
        }
        model_settle(&rig.model);
        check_cut(&rig);
        close_rig(&rig);
    }
}

// While one leg fails, and after it, nothing is lost; when it comes back it has what it missed; and until then it is not read.
static void test_leg_fails(void **state)
{
    (void)state;
    static struct rig rig;
    struct record_volume *legs[LEGS];
    for (uint64_t seed = 1; seed <= 12; seed++) {
        open_rig(&rig, 2 + (unsigned)(seed % 2), seed);
        rig.kick = 20;
        const unsigned bad = (unsigned)(seed / 2 % rig.n);
        model_act(&rig.model, 500);
        make_clean(&rig);
        if (seed % 3)
            rig.below[bad]->write_error = -EIO;
        else
            rig.below[bad]->flush_error = -EIO;
        model_act(&rig.model, 2000);
        model_settle(&rig.model);
        assert_string_equal(state_of(&rig, bad), "out");
        const unsigned n = rig.n;
        take_apart(&rig, legs);
        reopen(&rig, legs, n, (struct mirror_options){0});
        assert_string_equal(state_of(&rig, bad), "resyncing");
        rig.kick = 0;
        assert_true(mirror_of(&rig)->n_unsynced <= 6); // what was written to, and no more
        if (seed & 4)
            model_act(&rig.model, 2000);
        model_settle(&rig.model);
        become_equal(&rig);
        assert_string_equal(state_of(&rig, bad), "in sync");
        check_cut(&rig);
        check_equal(&rig);
        check_maps_equal(&rig);
        close_rig(&rig);
    }
}

// Power goes at any moment after a leg has failed: it is not taken for one that has everything.
static void test_power_cuts_without_a_leg(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        open_rig(&rig, 2, seed);
        model_act(&rig.model, 300);
        rig.below[seed % 2]->write_error = -EIO;
        for (unsigned cuts = 0; cuts < 10; cuts++) {
            model_act(&rig.model, 1 + (unsigned)(record_random(&rig.model.random) % 60));
            struct record_volume *cut[2] = {record_volume_cut(rig.below[0]), record_volume_cut(rig.below[1])};
            struct volume *volume = open_mirror(&rig, cut, 2, (struct mirror_options){0}, &err);
            if (!volume)
                fail_msg("after a power cut: %s", err.text);
            model_check_cut(&rig.model, volume);
            volume_destroy(volume);
        }
        model_settle(&rig.model);
        close_rig(&rig);
    }
}

// A new leg for one that is gone for good.
static void test_rebuild(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err;
    struct record_volume *legs[LEGS];
    open_rig(&rig, 2, 7);
    model_act(&rig.model, 3000);
    take_apart(&rig, legs);
    volume_destroy(&legs[0]->volume);
    legs[0] = record_volume_create(&rig.env, LEG_BYTES, 99);
    memset(legs[0]->now, 0x5a, SIZE); // it is another's
    assert_null(open_mirror(&rig, legs, 2, (struct mirror_options){0}, &err));
    assert_int_equal(err.code, -EBADMSG);
    assert_non_null(strstr(err.text, "\"rebuild\": 0"));
    reopen(&rig, legs, 2, (struct mirror_options){.has_rebuild = true, .rebuild = 0});
    assert_string_equal(state_of(&rig, 0), "resyncing");
    model_act(&rig.model, 3000);
    model_settle(&rig.model);
    become_equal(&rig);
    assert_string_equal(state_of(&rig, 0), "in sync");
    for (uint64_t at = 0; at + REGION <= SIZE; at += REGION)
        assert_memory_equal(legs[0]->now + at, legs[1]->now + at, REGION);
    take_apart(&rig, legs);
    reopen(&rig, legs, 2, (struct mirror_options){0}); // a leg like the other from now on
    assert_int_equal(mirror_of(&rig)->n_unsynced, 0);
    close_rig(&rig);
}

// Each was used without the other: neither is right, and somebody has to say which counts.
static void test_used_apart(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err;
    struct record_volume *legs[LEGS];
    struct volume *volume;
    open_rig(&rig, 2, 8);
    model_act(&rig.model, 1000);
    take_apart(&rig, legs);
    assert_null(open_mirror(&rig, legs, 1, (struct mirror_options){0}, &err));
    assert_non_null(strstr(err.text, "\"degraded\": true"));
    for (unsigned i = 0; i < 2; i++) {
        struct record_volume *one = record_volume_cut(legs[i]);
        volume = open_mirror(&rig, &one, 1, (struct mirror_options){.degraded = true}, &err);
        assert_non_null(volume);
        legs[i] = record_volume_cut(one);
        volume_destroy(volume);
    }
    assert_null(open_mirror(&rig, legs, 2, (struct mirror_options){0}, &err));
    assert_int_equal(err.code, -ESTALE);
    reopen(&rig, legs, 2, (struct mirror_options){.has_rebuild = true, .rebuild = 1});
    become_equal(&rig);
    assert_string_equal(state_of(&rig, 1), "in sync");
    close_rig(&rig);
}

// A leg of last week's backup, beside one of today: all of it counts as missed, however little has changed.
static void test_restored(void **state)
{
    (void)state;
    static struct rig rig;
    struct record_volume *legs[LEGS], *old[LEGS];
    for (unsigned failed = 0; failed < 2; failed++) {
        open_rig(&rig, 2, 14);
        take_apart(&rig, old);
        legs[0] = record_volume_cut(old[0]);
        legs[1] = old[1];
        reopen(&rig, legs, 2, (struct mirror_options){0});
        model_act(&rig.model, 500);
        take_apart(&rig, legs);
        reopen(&rig, legs, 2, (struct mirror_options){0});
        model_act(&rig.model, 500);
        rig.below[0]->write_error = failed ? -EIO : 0;
        model_act(&rig.model, 500);
        take_apart(&rig, legs);
        volume_destroy(&legs[0]->volume);
        legs[0] = old[0];
        reopen(&rig, legs, 2, (struct mirror_options){0});
        assert_string_equal(state_of(&rig, 0), "resyncing");
        assert_int_equal(mirror_of(&rig)->n_unsynced, mirror_of(&rig)->n_regions);
        model_act(&rig.model, 500);
        model_settle(&rig.model);
        become_equal(&rig);
        check_equal(&rig);
        close_rig(&rig);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err;
    open_rig(&rig, 2, 9);
    struct record_volume *twice[2] = {record_volume_cut(rig.below[0]), record_volume_cut(rig.below[0])};
    assert_null(open_mirror(&rig, twice, 2, (struct mirror_options){0}, &err));
    assert_non_null(strstr(err.text, "same leg"));
    struct record_volume *others[2] = {record_volume_create(&rig.env, LEG_BYTES, 1), record_volume_create(&rig.env, LEG_BYTES, 2)};
    format(others, 2);
    struct record_volume *mixed[2] = {twice[0], others[1]};
    assert_null(open_mirror(&rig, mixed, 2, (struct mirror_options){0}, &err));
    assert_non_null(strstr(err.text, "another mirror"));
    const uint64_t header = mirror_header_offset(LEG_BYTES, 1);
    others[0]->now[header + 100] ^= 1;
    assert_null(open_mirror(&rig, others, 2, (struct mirror_options){0}, &err));
    assert_non_null(strstr(err.text, "damaged"));
    assert_null(open_mirror(&rig, others, 0, (struct mirror_options){0}, &err));
    struct record_volume *small = record_volume_create(&rig.env, 32 * 1024, 3);
    assert_null(open_mirror(&rig, &small, 1, (struct mirror_options){.degraded = true}, &err));
    volume_destroy(&small->volume);
    for (unsigned i = 0; i < 2; i++) {
        volume_destroy(&twice[i]->volume);
        volume_destroy(&others[i]->volume);
    }
    close_rig(&rig);
}

static int result_of(struct rig *rig, enum volume_op kind, uint64_t offset, uint64_t len, bool only_fast)
{
    static uint8_t bytes[64 * 1024];
    struct iovec iov = {bytes, len};
    struct volume_request q = {
        .op = kind, .only_fast = only_fast, .offset_bytes = offset, .len_bytes = len, .data = {.iov = &iov, .n_iov = 1}};
    return volume_run(rig->volume, &q);
}

// What all legs refuse is an error of the request, and of no leg; what one alone does not do fast, it does slowly; the last leg is
// never left out.
static void test_errors(void **state)
{
    (void)state;
    static struct rig rig;
    open_rig(&rig, 2, 10);
    rig.below[0]->write_error = rig.below[1]->write_error = -EOPNOTSUPP;
    assert_int_equal(result_of(&rig, VOLUME_ZERO, 0, 4096, true), -EIO); // the map cannot be written either
    rig.below[0]->write_error = rig.below[1]->write_error = 0;
    assert_int_equal(result_of(&rig, VOLUME_ZERO, 0, 4096, true), 0);
    rig.below[0]->write_error = rig.below[1]->write_error = -EOPNOTSUPP;
    assert_int_equal(result_of(&rig, VOLUME_ZERO, 0, 4096, true), -EOPNOTSUPP);
    rig.below[0]->write_error = rig.below[1]->write_error = -ENOSPC;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), -ENOSPC);
    assert_int_equal(mirror_of(&rig)->n_unsynced, 1); // they may differ there
    rig.below[0]->write_error = rig.below[1]->write_error = 0;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), 0);
    assert_string_equal(state_of(&rig, 0), "in sync");
    assert_string_equal(state_of(&rig, 1), "in sync");
    rig.below[1]->refuses_fast = true;
    assert_int_equal(result_of(&rig, VOLUME_ZERO, 0, 4096, true), 0);
    assert_string_equal(state_of(&rig, 1), "in sync");
    rig.below[1]->write_error = -EIO;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), 0);
    assert_string_equal(state_of(&rig, 1), "out");
    rig.below[0]->write_error = -EIO;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), -EIO);
    assert_string_equal(state_of(&rig, 0), "in sync");
    rig.below[0]->write_error = 0;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), 0);
    close_rig(&rig);
}

// A write that fails in a region that is just being made equal: that begins anew.
static void test_fails_while_copied(void **state)
{
    (void)state;
    static struct rig rig;
    open_rig(&rig, 2, 15);
    const struct mirror *m = mirror_of(&rig);
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), 0);
    rig.below[0]->write_error = rig.below[1]->write_error = -ENOSPC;
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), -ENOSPC);
    while (m->copies[0].at_bytes < REGION / 2) {
        rig.below[0]->write_error = rig.below[1]->write_error = 0;
        assert_true(move(&rig));
    }
    rig.below[0]->write_error = rig.below[1]->write_error = -ENOSPC; // the copy's own writes as well, which is no failure of a leg
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), -ENOSPC);
    rig.below[0]->write_error = rig.below[1]->write_error = 0;
    while (m->copies[0].at_bytes >= REGION / 2 && m->copies[0].is_active)
        assert_true(move(&rig));
    assert_int_equal(m->n_unsynced, 1);
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), 0);
    assert_string_equal(state_of(&rig, 0), "in sync");
    assert_string_equal(state_of(&rig, 1), "in sync");
    close_rig(&rig);
}

static void settle_copies(struct rig *rig)
{
    while (move(rig))
        ;
}

// Legs that differ for want of room are tried again, one region at a time as long as there is none, and become equal when there is.
static void test_room_comes(void **state)
{
    (void)state;
    static struct rig rig;
    open_rig(&rig, 2, 16);
    const struct mirror *m = mirror_of(&rig);
    const uint64_t places[] = {0, 4 * REGION, 9 * REGION};
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(result_of(&rig, VOLUME_WRITE, places[i], 4096, false), 0);
    settle_copies(&rig);
    rig.below[0]->write_error = rig.below[1]->write_error = -ENOSPC;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(result_of(&rig, VOLUME_WRITE, places[i], 4096, false), -ENOSPC);
    settle_copies(&rig);
    assert_int_equal(m->n_unsynced, 3);
    for (unsigned i = 0; i < 4; i++) {
        const uint64_t before = rig.below[0]->n_reads + rig.below[1]->n_reads;
        mirror_copy_again(mirror_of(&rig));
        settle_copies(&rig);
        assert_int_equal(m->n_unsynced, 3);
        assert_int_equal(rig.below[0]->n_reads + rig.below[1]->n_reads - before, REGION / BOUNCE_BYTES);
    }
    rig.below[0]->write_error = rig.below[1]->write_error = 0;
    assert_int_equal(m->n_unsynced, 3); // nobody wrote
    mirror_copy_again(mirror_of(&rig));
    settle_copies(&rig);
    assert_int_equal(m->n_unsynced, 0);
    assert_string_equal(state_of(&rig, 0), "in sync");
    assert_string_equal(state_of(&rig, 1), "in sync");
    close_rig(&rig);
}

// A sector that cannot be read comes from the other leg, and is written anew.
static void test_read_error(void **state)
{
    (void)state;
    static struct rig rig;
    static uint8_t bytes[4096], wanted[4096];
    open_rig(&rig, 2, 11);
    memset(wanted, 7, sizeof(wanted));
    struct iovec iov = {wanted, sizeof(wanted)};
    struct volume_request q = {.op = VOLUME_WRITE, .len_bytes = 4096, .data = {.iov = &iov, .n_iov = 1}};
    assert_int_equal(volume_run(rig.volume, &q), 0);
    for (unsigned bad = 0; bad < 2; bad++) {
        rig.below[bad]->unreadable_from = 0;
        rig.below[bad]->unreadable_end = 512;
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(model_read(rig.volume, 0, bytes, sizeof(bytes)), 0);
            assert_memory_equal(bytes, wanted, sizeof(bytes));
        }
        while (mirror_of(&rig)->n_unsynced)
            volume_step(rig.volume);
        assert_int_equal(rig.below[bad]->unreadable_end, 0); // it was
        assert_string_equal(state_of(&rig, bad), "in sync");
    }
    for (unsigned i = 0; i < 2; i++)
        rig.below[i]->unreadable_end = 512;
    assert_int_equal(model_read(rig.volume, 0, bytes, sizeof(bytes)), -EIO);
    close_rig(&rig);
}

// A write where one was before costs each leg one request, and a flush one; the map follows once, and again when it is clean.
static void test_costs(void **state)
{
    (void)state;
    static struct rig rig;
    open_rig(&rig, 2, 12);
    assert_int_equal(result_of(&rig, VOLUME_WRITE, 0, 4096, false), 0);
    const unsigned before = rig.below[1]->n_entries;
    for (unsigned i = 1; i < 10; i++)
        assert_int_equal(result_of(&rig, VOLUME_WRITE, i * 4096, 4096, false), 0);
    assert_int_equal(result_of(&rig, VOLUME_FLUSH, 0, 0, false), 0);
    assert_int_equal(rig.below[1]->n_entries, before + 9);
    assert_int_equal(rig.below[0]->n_entries, before + 9);
    const uint64_t reads[2] = {rig.below[0]->n_reads, rig.below[1]->n_reads};
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(result_of(&rig, VOLUME_READ, i % 3 * 8192, 4096, false), 0);
    assert_int_equal(rig.below[0]->n_reads - reads[0] + rig.below[1]->n_reads - reads[1], 10);
    assert_true(rig.below[0]->n_reads > reads[0] && rig.below[1]->n_reads > reads[1]);
    mirror_clean(mirror_of(&rig)); // it was touched since the last time
    mirror_clean(mirror_of(&rig));
    while (mirror_of(&rig)->committing)
        volume_step(rig.volume);
    assert_int_equal(mirror_of(&rig)->n_wanted, 0);
    assert_int_equal(rig.below[1]->n_entries, before + 10);
    close_rig(&rig);
}

static void test_freeze(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err;
    open_rig(&rig, 2, 13);
    model_act(&rig.model, 1000);
    model_settle(&rig.model);
    volume_freeze(rig.volume);
    assert_true(rig.volume->read_only && rig.below[0]->volume.read_only && rig.below[1]->volume.read_only);
    struct record_volume *legs[2] = {record_volume_cut(rig.below[0]), record_volume_cut(rig.below[1])};
    struct volume *again = open_mirror(&rig, legs, 2, (struct mirror_options){0}, &err);
    assert_non_null(again);
    assert_int_equal(((struct mirror *)again)->n_unsynced, 0); // all was put in order
    volume_destroy(again);
    close_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_concurrent), cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_leg_fails),  cmocka_unit_test(test_power_cuts_without_a_leg),
        cmocka_unit_test(test_rebuild),    cmocka_unit_test(test_restored),
        cmocka_unit_test(test_used_apart), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_errors),     cmocka_unit_test(test_fails_while_copied),
        cmocka_unit_test(test_read_error), cmocka_unit_test(test_costs),
        cmocka_unit_test(test_freeze),     cmocka_unit_test(test_room_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
