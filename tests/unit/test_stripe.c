// Stripes: what is written is read back, whatever is under way at the same time and however the volumes below reorder it; each byte
// lies where it should; ranges without data go to each volume once; an error of one is the request's.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "record_volume.h"
#include "store/volume/stripe.h"

#define STRIPE 4096u
#define CHILD_BYTES (64u * STRIPE + 512u) // the rest is not used
#define MOST 5u

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct record_volume *below[MOST];
    unsigned n;
    struct volume *stripe;
    uint8_t *wanted;
    uint64_t random;
};

static void open_rig(struct rig *rig, unsigned n)
{
    struct tv_error err = {0};
    struct volume *volumes[MOST];
    memset(rig, 0, sizeof(*rig));
    rig->n = n;
    rig->random = n + 1;
    rig->loop = loop_create(&err);
    rig->io = io_create(rig->loop, &(struct io_config){.depth = 8, .no_uring = true}, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    for (unsigned i = 0; i < n; i++) {
        rig->below[i] = record_volume_create(&rig->env, CHILD_BYTES + (i == 1 ? 2 * STRIPE : 0), i + 1);
        volumes[i] = &rig->below[i]->volume;
    }
    rig->stripe = stripe_volume_create(&rig->env, volumes, n, STRIPE, &err);
    assert_non_null(rig->stripe);
    assert_int_equal(rig->stripe->size_bytes, n * 64 * STRIPE);
    rig->wanted = calloc(1, rig->stripe->size_bytes);
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->stripe);
    free(rig->wanted);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
}

static bool move(struct rig *rig)
{
    bool moved = volume_env_deliver(&rig->env);
    const uint64_t first = record_random(&rig->random) % rig->n;
    for (unsigned i = 0; i < rig->n && !moved; i++)
        moved = record_volume_pump(rig->below[(i + first) % rig->n]);
    return moved;
}

struct asked {
    struct volume_request request;
    int result;
    bool is_done;
};

static void on_done(struct volume_request *request, int result)
{
    struct asked *asked = (struct asked *)request;
    asked->result = result;
    asked->is_done = true;
    free(request->context);
}

static void ask(struct rig *rig, struct asked *asked)
{
    asked->is_done = false;
    asked->request.done = on_done;
    asked->request.context = aligned_alloc(VOLUME_CONTEXT_ALIGN, rig->stripe->context_bytes);
    volume_start(rig->stripe, &asked->request);
}

static int run(struct rig *rig, struct asked *asked)
{
    ask(rig, asked);
    while (!asked->is_done)
        assert_true(move(rig));
    return asked->result;
}

static void test_where_things_are(void **state)
{
    (void)state;
    static struct rig rig;
    for (unsigned n = 1; n <= MOST; n++) {
        open_rig(&rig, n);
        for (uint64_t i = 0; i < rig.stripe->size_bytes; i++)
            rig.wanted[i] = (uint8_t)(i / 512 * 7 + i);
        struct iovec iov = {rig.wanted, rig.stripe->size_bytes};
        struct asked all = {.request = {.op = VOLUME_WRITE, .len_bytes = rig.stripe->size_bytes, .data = {&iov, 1, 0}}};
        assert_int_equal(run(&rig, &all), 0);
        for (uint64_t at = 0; at < rig.stripe->size_bytes; at += STRIPE)
            assert_memory_equal(rig.below[at / STRIPE % n]->now + at / STRIPE / n * STRIPE, rig.wanted + at, STRIPE);
        close_rig(&rig);
    }
}

static uint64_t some_range(struct rig *rig, struct volume_request *request)
{
    const uint64_t sectors = rig->stripe->size_bytes / 512;
    request->offset_bytes = record_random(&rig->random) % sectors * 512;
    const uint64_t most = sectors - request->offset_bytes / 512;
    request->len_bytes = (1 + record_random(&rig->random) % (record_random(&rig->random) % 4 ? 40 : 400)) * 512;
    if (request->len_bytes > most * 512)
        request->len_bytes = most * 512;
    return request->len_bytes;
}

// Two at a time, over each other's lanes; ranges that do not overlap.
static void test_any_ranges(void **state)
{
    (void)state;
    static struct rig rig;
    static uint8_t bytes[2][400 * 512];
    for (unsigned n = 1; n <= MOST; n++) {
        open_rig(&rig, n);
        for (unsigned round = 0; round < 3000; round++) {
            struct asked asked[2] = {0};
            struct iovec iov[2][3];
            for (unsigned i = 0; i < 2; i++) {
                struct volume_request *q = &asked[i].request;
                const unsigned kind = (unsigned)(record_random(&rig.random) % 4);
                q->op = kind < 2 ? VOLUME_WRITE : kind == 2 ? VOLUME_READ : VOLUME_ZERO;
                const uint64_t len = some_range(&rig, q), cut = record_random(&rig.random) % (len + 1);
                iov[i][0] = (struct iovec){bytes[i], cut};
                iov[i][1] = (struct iovec){NULL, 0};
                iov[i][2] = (struct iovec){bytes[i] + cut, len - cut};
                q->data = (struct volume_data){iov[i], 3, 0};
                for (uint64_t b = 0; b < len; b++)
                    bytes[i][b] = (uint8_t)record_random(&rig.random);
            }
            const struct volume_request *a = &asked[0].request, *b = &asked[1].request;
            if (a->offset_bytes < b->offset_bytes + b->len_bytes && b->offset_bytes < a->offset_bytes + a->len_bytes)
                continue;
            ask(&rig, &asked[0]);
            ask(&rig, &asked[1]);
            while (!asked[0].is_done || !asked[1].is_done)
                assert_true(move(&rig));
            for (unsigned i = 0; i < 2; i++) {
                const struct volume_request *q = &asked[i].request;
                assert_int_equal(asked[i].result, 0);
                if (q->op == VOLUME_READ)
                    assert_memory_equal(bytes[i], rig.wanted + q->offset_bytes, q->len_bytes);
                else if (q->op == VOLUME_WRITE)
                    memcpy(rig.wanted + q->offset_bytes, bytes[i], q->len_bytes);
                else
                    memset(rig.wanted + q->offset_bytes, 0, q->len_bytes);
            }
        }
        close_rig(&rig);
    }
}

static unsigned entries(const struct rig *rig)
{
    unsigned n = 0;
    for (unsigned i = 0; i < rig->n; i++)
        n += rig->below[i]->n_entries;
    return n;
}

static void test_costs_and_errors(void **state)
{
    (void)state;
    static struct rig rig;
    open_rig(&rig, 3);
    struct asked zero = {.request = {.op = VOLUME_ZERO, .offset_bytes = 512, .len_bytes = rig.stripe->size_bytes - 1024}};
    assert_int_equal(run(&rig, &zero), 0);
    assert_int_equal(entries(&rig), 3); // once each, however long
    struct asked flush = {.request = {.op = VOLUME_FLUSH}};
    assert_int_equal(run(&rig, &flush), 0);
    struct asked status = {.request = {.op = VOLUME_STATUS, .offset_bytes = STRIPE - 512, .len_bytes = 10 * STRIPE}};
    assert_int_equal(run(&rig, &status), 0);
    assert_int_equal(status.request.extent.len_bytes, 512);
    rig.below[2]->flush_error = -EIO;
    assert_int_equal(run(&rig, &flush), -EIO);
    rig.below[1]->write_error = -ENOSPC;
    assert_int_equal(run(&rig, &zero), -ENOSPC);
    struct asked one = {.request = {.op = VOLUME_ZERO, .offset_bytes = 0, .len_bytes = STRIPE}};
    assert_int_equal(run(&rig, &one), 0); // it is not on that one
    struct asked absorb = {.request = {.op = VOLUME_ABSORB, .len_bytes = STRIPE}};
    assert_int_equal(run(&rig, &absorb), -EOPNOTSUPP);
    volume_freeze(rig.stripe);
    assert_true(rig.stripe->read_only && rig.below[0]->volume.read_only && rig.below[2]->volume.read_only);
    close_rig(&rig);
}

static void test_refused(void **state)
{
    (void)state;
    static struct rig rig;
    struct tv_error err = {0};
    open_rig(&rig, 2);
    struct volume *volumes[2] = {&rig.below[0]->volume, &rig.below[1]->volume};
    assert_null(stripe_volume_create(&rig.env, volumes, 0, STRIPE, &err));
    assert_null(stripe_volume_create(&rig.env, volumes, 2, STRIPE + 512, &err));
    assert_null(stripe_volume_create(&rig.env, volumes, 2, 512, &err));
    assert_null(stripe_volume_create(&rig.env, volumes, 2, 64u << 20, &err));
    assert_int_equal(err.code, -EINVAL);
    close_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_things_are),
        cmocka_unit_test(test_any_ranges),
        cmocka_unit_test(test_costs_and_errors),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
