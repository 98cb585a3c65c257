// What the engine tells of its translated code: counters, and the files by which perf(1) names it; and little room for code.
//
// Argument: the guest evict, which runs more code than there is room for.
#include "engine_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LITTLE_CODE (256u * 1024)

static struct engine_counters add_up(const struct machine *m)
{
    struct engine_counters all = {0};
    uint64_t *to = (uint64_t *)&all;
    for (unsigned i = 0; i < VCPUS; i++) {
        struct engine_counters one;
        m->engine->ops->counters(m->engine, i, &one);
        for (size_t w = 0; w < sizeof(one) / sizeof(uint64_t); w++)
            to[w] += ((const uint64_t *)&one)[w];
    }
    return all;
}

static uint64_t sum(const uint64_t *values, size_t n)
{
    uint64_t all = 0;
    while (n-- > 0)
        all += values[n];
    return all;
}

static void check_counters(const struct machine *m)
{
    struct engine_counters c = add_up(m);
    assert_true(c.instructions > 100000);
    assert_true(c.blocks_decoded > 6000);
    assert_true(c.insns_decoded > c.blocks_decoded);
    assert_true(c.insns_decoded < c.instructions);
    assert_true(c.code_fences >= 4 * 40 + 3 * 40);
    assert_true(c.hypercalls >= 3 + 40);
    assert_int_equal(sum(c.trap_causes, ENGINE_TRAP_CAUSES), c.traps);
    assert_true(c.tlb_misses > 0);
    assert_int_equal(c.page_walks, 0); // the guest has no page tables
}

static void check_translator_counters(const struct machine *m)
{
    struct engine_counters c = add_up(m);
    assert_true(c.links > 0 && c.links < c.blocks_decoded * 2);
    assert_true(c.jump_misses > 0);
    assert_true(c.steps >= 4 * 40); // each fence.i is one
    assert_true(sum(c.left, ENGINE_LEFT_CAUSES) > 0);
    assert_true(c.left[ENGINE_LEFT_FULL] > 0);
    assert_true(c.left[ENGINE_LEFT_WFI] <= c.wfi);
}

static void test_little_room(void **state)
{
    struct machine m;
    struct engine_code code;
    machine_init_with(&m, &(struct engine_config){.code_bytes = LITTLE_CODE});
    run_guest(&m, *state);
    m.engine->ops->code(m.engine, &code);
    check_counters(&m);
    if (code.room_bytes) { // there is a translator
        assert_int_equal(code.room_bytes, LITTLE_CODE);
        assert_in_range(code.used_bytes, 1, LITTLE_CODE);
        assert_true(code.thrown_away > 10);
        check_translator_counters(&m);
    }
    machine_fini(&m);
}

static void test_much_room(void **state)
{
    struct machine m;
    struct engine_code code;
    machine_init(&m);
    run_guest(&m, *state);
    m.engine->ops->code(m.engine, &code);
    assert_int_equal(code.thrown_away, 0);
    assert_int_equal(add_up(&m).left[ENGINE_LEFT_FULL], 0);
    machine_fini(&m);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_little_room, argv[1]),
        cmocka_unit_test_prestate(test_much_room, argv[1]),
    };
    return cmocka_run_group_tests_name("inside", tests, NULL, NULL);
}
