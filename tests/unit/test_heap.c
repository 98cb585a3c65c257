// The heap: what comes out is sorted, equal keys in the order in which they went in; nodes leave from anywhere.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/heap.h"

#define NODES 1000

static void test_sorted(void **state)
{
    (void)state;
    struct heap h = {0};
    struct heap_node nodes[NODES] = {0};
    assert_int_equal(heap_reserve(&h, NODES), 0);
    assert_true(heap_first_key(&h) == UINT64_MAX);
    srand(1);
    for (int i = 0; i < NODES; i++)
        heap_push(&h, &nodes[i], (uint64_t)(rand() % 100));
    for (int i = 0; i < NODES; i += 3)
        heap_remove(&h, &nodes[i]);
    uint64_t key = 0;
    struct heap_node *before = NULL;
    int n = 0;
    for (struct heap_node *node; (node = heap_first(&h)); before = node, key = node->key, n++) {
        assert_true(node->key >= key);
        assert_true(!before || node->key > key || node > before);
        assert_true((node - nodes) % 3);
        heap_remove(&h, node);
        assert_int_equal(node->at, 0);
    }
    assert_int_equal(n, NODES - (NODES + 2) / 3);
    heap_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sorted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
