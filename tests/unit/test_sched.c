// What every scheduler owes: each request comes out once, in its disk's order, as many at once as the window allows; terms that it
// cannot hold are refused with a reason; the device is not left idle. And what those from the literature promise.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "store/model/experiment.h"

#define QUEUES 7
#define ITEMS 400
#define WINDOW 13

static const struct dispatch_ops *const schedulers[] = {&dispatch_fifo, &dispatch_sfq, &dispatch_drr, &dispatch_mclock,
                                                        &dispatch_oios};
enum { N_SCHEDULERS = sizeof(schedulers) / sizeof(schedulers[0]) };

static void test_found_by_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_SCHEDULERS; i++) {
        assert_ptr_equal(dispatch_find(schedulers[i]->name), schedulers[i]);
        assert_non_null(strstr(dispatch_names, schedulers[i]->name));
    }
    assert_null(dispatch_find("cfq"));
    static const char *const wrong[] = {"cfq:1", "sfq:", "sfq:0", "sfq:257", "sfq:1x", "sfq:-1", "sfq: 1", ":1", "oios:1"};
    unsigned window = 256;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_null(dispatch_parse(wrong[i], &window));
    assert_int_equal(window, 256);
    assert_ptr_equal(dispatch_parse("drr", &window), &dispatch_drr);
    assert_int_equal(window, 256);
    assert_ptr_equal(dispatch_parse("sfq:32", &window), &dispatch_sfq);
    assert_int_equal(window, 32);
}

// ---- everything comes out, in order ----

struct world {
    struct dispatcher *d;
    struct dispatch_queue *queues[QUEUES];
    struct dispatch_item items[ITEMS], *device[WINDOW];
    unsigned next_in[QUEUES], next_out[QUEUES], n_in, n_out, n_device;
    uint64_t now_ns;
};

static void put_one(struct world *w)
{
    unsigned q = (unsigned)rand() % QUEUES;
    struct dispatch_item *item = &w->items[w->n_in++];
    item->kind = (enum dispatch_kind)(rand() % DISPATCH_KINDS);
    item->len_bytes = item->kind == DISPATCH_FLUSH ? 0 : 4096ull * (unsigned)(1 + rand() % 64);
    item->offset_bytes = w->next_in[q]++; // its number, for the check
    item->enqueued_ns = w->now_ns;
    w->d->ops->enqueue(w->d, w->queues[q], item);
}

static void take_all(struct world *w)
{
    for (struct dispatch_item *item; (item = w->d->ops->next(w->d, w->now_ns));) {
        unsigned q = 0;
        while (w->queues[q] != item->queue)
            q++;
        assert_int_equal(item->offset_bytes, w->next_out[q]++);
        assert_true(w->n_device < WINDOW);
        item->dispatched_ns = w->now_ns;
        w->device[w->n_device++] = item;
        w->n_out++;
    }
}

static void complete_one(struct world *w)
{
    if (!w->n_device)
        return;
    unsigned at = (unsigned)rand() % w->n_device;
    struct dispatch_item *item = w->device[at];
    w->device[at] = w->device[--w->n_device];
    w->d->ops->complete(w->d, item, w->now_ns);
}

// What any of them may be told; those that cannot hold it say so, and go on as they were.
static void change_terms(struct world *w)
{
    struct dispatch_terms terms = {.weight = 1 + (uint32_t)rand() % 1000};
    if (rand() % 2)
        terms.limit.ops_per_s = 100000;
    if (rand() % 2)
        terms.reserve.bytes_per_s = 1000000 + (uint64_t)rand();
    if (rand() % 4 == 0) {
        terms.latency_ns = 1000000;
        terms.latency_permille = 990;
    }
    struct dispatch_queue *queue = w->queues[rand() % QUEUES];
    int r = w->d->ops->queue_set(w->d, queue, rand() % 3 ? &terms : &dispatch_no_terms, w->now_ns, NULL);
    assert_true(!r || r == -EOPNOTSUPP);
}

static void shuffle_through(const struct dispatch_ops *ops)
{
    struct world w = {.now_ns = 1};
    struct tv_error err = {0};
    struct dispatch_config config = {.window = WINDOW};
    w.d = ops->create(&config, &err);
    assert_non_null(w.d);
    for (unsigned q = 0; q < QUEUES; q++) {
        w.queues[q] = ops->queue_add(w.d, "q", &err);
        assert_non_null(w.queues[q]);
    }
    for (unsigned step = 0; w.n_out < ITEMS || w.n_device; step++) {
        assert_true(step < 1000000); // nothing is held back for ever
        w.now_ns += (uint64_t)rand() % 20000;
        if (w.n_in < ITEMS && rand() % 3)
            put_one(&w);
        if (rand() % 3 == 0)
            complete_one(&w);
        if (rand() % 20 == 0)
            change_terms(&w);
        if (rand() % 2)
            take_all(&w);
    }
    assert_null(ops->next(w.d, w.now_ns));
    assert_int_equal(w.d->counters.dispatched, ITEMS);
    assert_int_equal(w.d->counters.idle, 0);
    for (unsigned q = 0; q < QUEUES; q++)
        ops->queue_remove(w.d, w.queues[q]);
    ops->destroy(w.d);
}

static void test_all_comes_out(void **state)
{
    (void)state;
    srand(3);
    for (unsigned i = 0; i < N_SCHEDULERS; i++)
        for (int round = 0; round < 20; round++)
            shuffle_through(schedulers[i]);
}

// ---- terms ----

static struct tv_error refusal(const struct dispatch_ops *ops, struct dispatch_terms terms)
{
    struct tv_error err = {0};
    struct dispatch_config config = {.window = 1};
    struct dispatcher *d = ops->create(&config, &err);
    struct dispatch_queue *queue = ops->queue_add(d, "q", &err);
    int r = ops->queue_set(d, queue, &terms, 1, &err);
    assert_int_equal(r, err.code);
    ops->queue_remove(d, queue);
    ops->destroy(d);
    return err;
}

static void test_terms_refused(void **state)
{
    (void)state;
    struct dispatch_terms no_weight = {0}, crossed = dispatch_no_terms, all = dispatch_no_terms, latency = dispatch_no_terms;
    crossed.reserve.bytes_per_s = 2;
    crossed.limit.bytes_per_s = 1;
    all.reserve.device_ppm = 1000001;
    latency.latency_ns = 1;
    for (unsigned i = 0; i < N_SCHEDULERS; i++) {
        assert_int_equal(refusal(schedulers[i], no_weight).code, -EINVAL);
        assert_int_equal(refusal(schedulers[i], crossed).code, -EINVAL);
        assert_int_equal(refusal(schedulers[i], all).code, -EINVAL);
        assert_int_equal(refusal(schedulers[i], latency).code, -EINVAL); // without a percentile
        assert_int_equal(refusal(schedulers[i], dispatch_no_terms).code, 0);
    }
    latency.latency_permille = 990;
    struct tv_error err = refusal(&dispatch_sfq, latency);
    assert_int_equal(err.code, -EOPNOTSUPP);
    assert_non_null(strstr(err.text, "'sfq' holds no latencies"));
    struct dispatch_terms weight = {.weight = 200}, limit = dispatch_no_terms;
    limit.limit.ops_per_s = 1;
    assert_int_equal(refusal(&dispatch_fifo, weight).code, -EOPNOTSUPP);
    assert_int_equal(refusal(&dispatch_drr, weight).code, 0);
    assert_int_equal(refusal(&dispatch_drr, limit).code, -EOPNOTSUPP);
    assert_int_equal(refusal(&dispatch_mclock, limit).code, 0);
    assert_int_equal(refusal(&dispatch_mclock, latency).code, -EOPNOTSUPP);
}

// ---- what they are for ----

static void test_weights(void **state)
{
    (void)state;
    const uint32_t weights[4] = {100, 200, 400, 800};
    struct sim_load loads[4];
    struct experiment_shares r;
    for (unsigned i = 0; i < 4; i++)
        loads[i] = experiment_reads(64);
    for (unsigned i = 0; i < N_SCHEDULERS; i++) {
        if (schedulers[i] == &dispatch_fifo)
            continue;
        struct experiment_rig rig = {.ssd = &ssd_sata, .scheduler = schedulers[i], .window = 32};
        assert_int_equal(experiment_shares(&rig, loads, weights, 4, 1, &r, NULL), 0);
        print_message("%s: weight error %.2f %%\n", schedulers[i]->name, 100 * r.weight_error);
        assert_true(r.weight_error < 0.02);
        assert_int_equal(r.idle, 0);
    }
}

static void test_mclock(void **state)
{
    (void)state;
    struct experiment_rig rig = {.ssd = &ssd_sata, .scheduler = &dispatch_mclock, .window = 32};
    struct sim_load load = experiment_reads(32);
    double least, error;
    uint64_t idle;
    assert_int_equal(experiment_reserve(&rig, &load, 200000000, NS_PER_S / 10, 10, &least, &idle, NULL), 0);
    assert_true(least > 0.98);
    assert_int_equal(experiment_limit(&rig, 5000, true, 2, &error, &idle, NULL), 0);
    assert_true(error < 0.02);
    assert_int_equal(idle, 0);
}

// ---- what verdicts are made of ----

static struct dispatch_item *put(struct dispatcher *d, struct dispatch_queue *queue, struct dispatch_item *item, uint64_t now_ns)
{
    *item = (struct dispatch_item){.kind = DISPATCH_READ, .len_bytes = 4096, .enqueued_ns = now_ns};
    d->ops->enqueue(d, queue, item);
    return item;
}

static void take(struct dispatcher *d, struct dispatch_item *wanted, uint64_t now_ns)
{
    assert_ptr_equal(d->ops->next(d, now_ns), wanted);
    if (wanted)
        wanted->dispatched_ns = now_ns;
}

// OIOS tells for how long requests waited for others, and up to when one waited for its own disk's limit.
static void test_oios_tells_who_waited(void **state)
{
    (void)state;
    const struct dispatch_config config = {.window = 1};
    const struct dispatch_terms slow = {.weight = 100, .limit.ops_per_s = 1000};
    struct dispatch_item items[4];
    struct dispatcher *d = dispatch_oios.create(&config, NULL);
    struct dispatch_queue *a = d->ops->queue_add(d, "a", NULL);
    take(d, put(d, a, &items[0], NS_PER_MS), NS_PER_MS);
    assert_int_equal(d->ops->waited_ns(d, a, 2 * NS_PER_MS), 0); // it is with the device
    put(d, a, &items[1], 2 * NS_PER_MS);
    take(d, NULL, 2 * NS_PER_MS);
    assert_int_equal(d->ops->waited_ns(d, a, 5 * NS_PER_MS), 3 * NS_PER_MS);
    d->ops->complete(d, &items[0], 5 * NS_PER_MS);
    take(d, &items[1], 5 * NS_PER_MS);
    d->ops->complete(d, &items[1], 9 * NS_PER_MS);
    assert_int_equal(d->ops->waited_ns(d, a, 9 * NS_PER_MS), 3 * NS_PER_MS);

    assert_int_equal(d->ops->queue_set(d, a, &slow, 10 * NS_PER_MS, NULL), 0);
    take(d, put(d, a, &items[2], 10 * NS_PER_MS), 10 * NS_PER_MS);
    d->ops->complete(d, &items[2], 10 * NS_PER_MS);
    put(d, a, &items[3], 10 * NS_PER_MS);
    take(d, NULL, 10 * NS_PER_MS + NS_PER_MS / 2); // the limit
    take(d, &items[3], 11 * NS_PER_MS + NS_PER_MS / 2);
    assert_true(items[2].held_ns <= 10 * NS_PER_MS && items[3].held_ns == 11 * NS_PER_MS);
    assert_int_equal(d->ops->waited_ns(d, a, 12 * NS_PER_MS), 3 * NS_PER_MS);
    d->ops->complete(d, &items[3], 12 * NS_PER_MS);
    d->ops->queue_remove(d, a);
    d->ops->destroy(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found_by_name), cmocka_unit_test(test_all_comes_out), cmocka_unit_test(test_terms_refused),
        cmocka_unit_test(test_weights),       cmocka_unit_test(test_mclock),        cmocka_unit_test(test_oios_tells_who_waited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
