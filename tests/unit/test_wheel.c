// The timing wheel: nodes come in the order of their slots, in time and not before, also those that were put in too late or too
// early.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store/sched/wheel.h"

#define BITS 10u
#define SLOT ((uint64_t)1 << BITS)
#define NODES 500

static void test_random(void **state)
{
    (void)state;
    static struct wheel w;
    static struct wheel_node nodes[NODES];
    uint64_t now = 5 * SLOT;
    unsigned put = 0, got = 0;
    wheel_init(&w, BITS, 100);
    assert_true(wheel_next_ns(&w) == UINT64_MAX);
    srand(2);
    for (int i = 0; i < NODES; i++) { // up to two revolutions ahead
        wheel_put(&w, &nodes[i], now + (uint64_t)(rand() % 2000) * SLOT + (uint64_t)(rand() % 1000), now);
        put++;
    }
    for (int i = 0; i < NODES; i += 5, put--)
        wheel_remove(&w, &nodes[i]);
    while (got < put) {
        now += SLOT / 2;
        assert_true(wheel_next_ns(&w) != UINT64_MAX);
        for (struct wheel_node *node; (node = wheel_due(&w, now)); got++) {
            assert_int_equal(node->key_ns >> BITS, now >> BITS); // in its slot, neither before nor after
            wheel_remove(&w, node);
            assert_false(wheel_holds(node));
        }
    }
    assert_null(wheel_due(&w, UINT64_MAX));
}

static void test_late_ones_keep_their_order(void **state)
{
    (void)state;
    static struct wheel w;
    struct wheel_node nodes[5] = {0};
    wheel_init(&w, BITS, 4);
    uint64_t now = 1000 * SLOT;
    for (unsigned i = 0; i < 3; i++)
        wheel_put(&w, &nodes[i], now + i * SLOT, now);
    now += 5 * SLOT;
    wheel_put(&w, &nodes[3], now, now); // what is more than 4 slots back is moved
    now += 3000 * SLOT;                 // more than a revolution
    wheel_put(&w, &nodes[4], now - 2 * SLOT, now);
    for (unsigned i = 0; i < 5; i++) {
        struct wheel_node *node = wheel_due(&w, now);
        assert_ptr_equal(node, &nodes[i]);
        wheel_remove(&w, node);
    }
    assert_null(wheel_due(&w, now));
}

// Moved within their slot, alone there or not, to other slots and to what cannot be held: as if removed and put again.
static void test_moved(void **state)
{
    (void)state;
    static struct wheel moved, put;
    struct wheel_node a[4] = {0}, b[4] = {0};
    uint64_t now = 1000 * SLOT;
    wheel_init(&moved, BITS, 4);
    wheel_init(&put, BITS, 4);
    for (unsigned i = 0; i < 4; i++) {
        wheel_put(&moved, &a[i], now + i / 2 * SLOT, now);
        wheel_put(&put, &b[i], now + i / 2 * SLOT, now);
    }
    srand(3);
    for (unsigned k = 0; k < 3000; k++) {
        const unsigned i = (unsigned)rand() % 4;
        const uint64_t key =
            k % 2 ? a[i].key_ns / SLOT * SLOT + (uint64_t)rand() % SLOT : now - 8 * SLOT + (uint64_t)(rand() % 1100) * SLOT;
        now += (uint64_t)rand() % (k % 7 ? 9 : SLOT);
        wheel_move(&moved, &a[i], key, now);
        wheel_remove(&put, &b[i]);
        wheel_put(&put, &b[i], key, now);
        struct wheel_node *x = wheel_due(&moved, now), *y = wheel_due(&put, now);
        assert_true(!x == !y && (!x || x - a == y - b));
    }
    assert_int_equal(moved.n, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_late_ones_keep_their_order),
                                       cmocka_unit_test(test_moved)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
