// Rings between threads: nothing lost, nothing twice, each producer's order kept, contents seen with the pointer.
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/ring.h"

static void test_capacity(void **state)
{
    (void)state;
    assert_null(spsc_ring_create(0));
    assert_null(spsc_ring_create(1));
    assert_null(spsc_ring_create(6));
    assert_null(mpsc_ring_create(1000));
    assert_null(mpsc_ring_create(SIZE_MAX / 2 + 1));
    spsc_ring_destroy(NULL);
    mpsc_ring_destroy(NULL);
}

static void test_full_and_empty(void **state)
{
    (void)state;
    int items[8];
    struct spsc_ring *s = spsc_ring_create(4);
    struct mpsc_ring *m = mpsc_ring_create(4);
    for (int round = 0; round < 10; round++) { // the positions come round
        assert_null(spsc_ring_pop(s));
        assert_null(mpsc_ring_pop(m));
        for (int i = 0; i < 4; i++) {
            assert_true(spsc_ring_push(s, &items[i]));
            assert_true(mpsc_ring_push(m, &items[i]));
        }
        assert_false(spsc_ring_push(s, &items[4]));
        assert_false(mpsc_ring_push(m, &items[4]));
        for (int i = 0; i < 3; i++) {
            assert_ptr_equal(spsc_ring_pop(s), &items[i]);
            assert_ptr_equal(mpsc_ring_pop(m), &items[i]);
        }
        assert_true(spsc_ring_push(s, &items[5]));
        // A batch may be shorter than what is there: the consumer looks for more only when it knows of none.
        void *rest[8];
        size_t n = 0, got;
        while ((got = spsc_ring_pop_many(s, rest + n, 8 - n)) > 0)
            n += got;
        assert_int_equal(n, 2);
        assert_ptr_equal(rest[0], &items[3]);
        assert_ptr_equal(rest[1], &items[5]);
        assert_ptr_equal(mpsc_ring_pop(m), &items[3]);
    }
    spsc_ring_destroy(s);
    mpsc_ring_destroy(m);
}

enum { PRODUCERS = 3, ITEMS = 100000, CAPACITY = 64 };

struct item {
    unsigned producer, number;
};

struct producer {
    pthread_t thread;
    unsigned id;
    struct spsc_ring *spsc; // one of the two
    struct mpsc_ring *mpsc;
    struct item items[ITEMS];
};

static void *produce(void *arg)
{
    struct producer *p = arg;
    for (unsigned i = 0; i < ITEMS; i++) {
        p->items[i] = (struct item){p->id, i}; // written here, read by the consumer: the ring's ordering is what makes it right
        while (p->spsc ? !spsc_ring_push(p->spsc, &p->items[i]) : !mpsc_ring_push(p->mpsc, &p->items[i]))
            sched_yield();
    }
    return NULL;
}

static void run(struct spsc_ring *spsc, struct mpsc_ring *mpsc, unsigned n)
{
    struct producer *producers = calloc(n, sizeof(*producers));
    unsigned next[PRODUCERS] = {0};
    assert_non_null(producers);
    for (unsigned i = 0; i < n; i++) {
        producers[i].id = i;
        producers[i].spsc = spsc;
        producers[i].mpsc = mpsc;
        assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
    }
    unsigned wrong = 0;
    for (unsigned got = 0; got < n * ITEMS;) {
        void *batch[16];
        size_t there = spsc ? spsc_ring_pop_many(spsc, batch, 16) : (batch[0] = mpsc_ring_pop(mpsc)) != NULL;
        if (there == 0)
            sched_yield();
        for (size_t i = 0; i < there; i++) {
            const struct item *item = batch[i];
            wrong += item->producer >= n || item->number != next[item->producer]++;
        }
        got += (unsigned)there;
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(producers[i].thread, NULL);
    assert_int_equal(wrong, 0);
    assert_null(spsc ? spsc_ring_pop(spsc) : mpsc_ring_pop(mpsc));
    free(producers);
}

static void test_spsc_threads(void **state)
{
    (void)state;
    struct spsc_ring *ring = spsc_ring_create(CAPACITY);
    run(ring, NULL, 1);
    spsc_ring_destroy(ring);
}

static void test_mpsc_threads(void **state)
{
    (void)state;
    struct mpsc_ring *ring = mpsc_ring_create(CAPACITY);
    run(NULL, ring, PRODUCERS);
    mpsc_ring_destroy(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_full_and_empty),
        cmocka_unit_test(test_spsc_threads),
        cmocka_unit_test(test_mpsc_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
