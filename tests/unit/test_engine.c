// The software engine runs small guests (tests/unit/guest/*.S), which check it from within; and what the machine asks of an engine.
//
// Arguments: the guests' flat binaries, each a test of its own.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <libfdt.h>
#include <pthread.h>

#include "engine_rig.h"

// --- the guests

// As a machine runs it, which interprets what runs a few times only; all of it translated; all of it interpreted.
static void test_guest(void **state)
{
    const struct engine_config ways[] = {
        {0}, {.translate = ENGINE_TRANSLATE_SMALL}, {.translate = ENGINE_TRANSLATE_FULL}, {.interpret = true}};
    for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct machine m;
        machine_init_with(&m, &ways[i]);
        run_guest(&m, *state);
        machine_fini(&m);
    }
}

// --- what the machine asks

static void test_kick_is_not_lost(void **state)
{
    (void)state;
    struct machine m;
    machine_init(&m);
    static const uint32_t loop[] = {0x0000006f}; // j .
    put_program(&m, loop, sizeof(loop));
    const struct engine_ops *ops = m.engine->ops;
    ops->kick(m.engine, 0); // before it runs
    assert_int_equal(ops->run(m.engine, 0), ENGINE_EXIT_KICK);
    ops->kick(m.engine, 1); // stopped
    assert_int_equal(ops->run(m.engine, 1), ENGINE_EXIT_KICK);
    machine_fini(&m);
}

static void test_messages_and_unknown_engines(void **state)
{
    (void)state;
    struct machine m;
    machine_init(&m);
    const struct engine_ops *ops = m.engine->ops;
    assert_int_equal(ops->raise_msi(m.engine, IMSIC_BASE + 0x3000, 5), 0);
    assert_int_equal(ops->raise_msi(m.engine, IMSIC_BASE + 0x4000, 5), -ENXIO);
    assert_int_equal(ops->raise_msi(m.engine, IMSIC_BASE + 4, 5), -ENXIO);
    assert_int_equal(ops->raise_msi(m.engine, IMSIC_BASE - 0x1000, 5), -ENXIO);
    struct tv_error err = {0};
    assert_null(engine_find("vax", &err));
    assert_non_null(strstr(err.text, "rv64"));
    machine_fini(&m);
}

// Runs from ENTRY until the guest does `ecall` of the SBI's reset.
#define SRST_SHUTDOWN 0x535258b7, 0x35488893, 0x00000813, 0x00000513, 0x00000593, 0x00000073

static void test_dirty_log(void **state)
{
    (void)state;
    struct machine m;
    machine_init(&m);
    static const uint32_t program[] = {
        0x80300437,                            // lui s0, 0x80300
        0x02041413,    0x02045413,             // zero-extended
        0x00842023,                            // sw s0, 0(s0)
        0x000014b7,    0x009404b3, 0x0004b023, // lui s1, 1; add s1, s0, s1; sd zero, 0(s1)
        SRST_SHUTDOWN,
    };
    put_program(&m, program, sizeof(program));
    const struct engine_ops *ops = m.engine->ops;
    uint64_t log[RAM_BYTES / 4096 / 64];
    assert_int_equal(ops->dirty_log(m.engine, 0, log, 1), -EINVAL);
    assert_int_equal(ops->dirty_log(m.engine, 1, log, 32), -EINVAL);
    assert_int_equal(ops->dirty_log(m.engine, 0, log, 32), 0);
    assert_int_equal(run_all(&m), ENGINE_EXIT_SHUTDOWN);
    assert_int_equal(ops->dirty_log(m.engine, 0, log, 32), 0);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(log[i], i == 0x300 / 64 ? 3 : 0);
    assert_int_equal(ops->dirty_log(m.engine, 0, log, 32), 0);
    assert_int_equal(log[0x300 / 64], 0);
    machine_fini(&m);
}

static void *run_once(void *arg)
{
    struct runner *r = arg;
    assert_int_equal(r->m->engine->ops->run(r->m->engine, r->vcpu), ENGINE_EXIT_KICK);
    return NULL;
}

// A guest claims interrupts by csrrw from stopei and counts them; a device raises the next one as soon as it sees the last one
// counted, so that many come just as the guest looks.
static void test_no_message_is_lost(void **state)
{
    (void)state;
    enum { MESSAGES = 5000, COUNT_AT = 0x300000, DEADLINE_S = 120 };
    static const uint32_t program[] = {
        0x07000293, 0x15029073, 0x1510d073,             // eidelivery = 1
        0x0c000293, 0x15029073, 0xfff00293, 0x15129073, // eie0 = all
        0x00001437, 0x8034041b, 0x01441413,             // s0 = RAM_BASE + COUNT_AT
        0x15c01573, 0xfe050ee3,                         // 1: csrrw a0, stopei, zero; beqz a0, 1b
        0x00043583, 0x00158593, 0x00b43023, 0xfedff06f, // ++*s0; j 1b
    };
    struct machine m;
    machine_init(&m);
    put_program(&m, program, sizeof(program));
    const volatile uint64_t *count = (const volatile uint64_t *)(const void *)(m.ram + COUNT_AT);
    const struct engine_ops *ops = m.engine->ops;
    pthread_t thread;
    struct runner r = {&m, 0};
    assert_int_equal(pthread_create(&thread, NULL, run_once, &r), 0);
    time_t deadline = time(NULL) + DEADLINE_S;
    for (uint64_t i = 0; i < MESSAGES; i++) {
        assert_int_equal(ops->raise_msi(m.engine, IMSIC_BASE, 1 + (uint32_t)(i % 60)), 0);
        while (*count == i)
            if (time(NULL) > deadline)
                fail_msg("message %llu was not claimed", (unsigned long long)i);
        assert_int_equal(*count, i + 1);
    }
    do
        ops->kick(m.engine, 0);
    while (pthread_tryjoin_np(thread, NULL) != 0);
    machine_fini(&m);
}

static void test_save_and_load(void **state)
{
    (void)state;
    struct machine m;
    machine_init(&m);
    static const uint32_t program[] = {0x00100413, 0x0000006f}; // li s0, 1; j .
    static const uint32_t rest[] = {0x00000013, SRST_SHUTDOWN}; // nop, which is passed by, and what stands in the loop's place
    put_program(&m, program, sizeof(program));
    const struct engine_ops *ops = m.engine->ops;
    // Until it stands in its loop: kicked from outside, as soon as it runs.
    pthread_t thread;
    struct runner r = {&m, 0};
    assert_int_equal(pthread_create(&thread, NULL, run_once, &r), 0);
    struct engine_counters c;
    do
        ops->counters(m.engine, 0, &c);
    while (c.blocks_decoded == 0);
    ops->kick(m.engine, 0);
    pthread_join(thread, NULL);
    uint64_t x[32], pc;
    assert_int_equal(ops->get_registers(m.engine, 0, x, &pc), 0);
    assert_int_equal(pc, ENTRY + 4);
    assert_int_equal(x[8], 1);
    struct state *s = state_create_save();
    assert_int_equal(ops->state(m.engine, s), 0);
    void *buf;
    size_t len;
    struct tv_error err = {0};
    assert_int_equal(state_finish(s, &buf, &len, &err), 0);
    state_destroy(s);
    machine_fini(&m);

    machine_init(&m);
    put_program(&m, rest, sizeof(rest));
    ops->reset(m.engine, &(struct engine_start){.entry = 0xdead0000}); // which the state overrules
    s = state_create_load(buf, len);
    assert_int_equal(ops->state(m.engine, s), 0);
    assert_int_equal(state_finish(s, NULL, NULL, &err), 0);
    state_destroy(s);
    assert_int_equal(run_all(&m), ENGINE_EXIT_SHUTDOWN);
    machine_fini(&m);
    free(buf);
}

static void test_describe(void **state)
{
    (void)state;
    struct machine m;
    machine_init(&m);
    char fdt[8192];
    assert_int_equal(fdt_create_empty_tree(fdt, sizeof(fdt)), 0);
    assert_int_equal(m.engine->ops->describe(m.engine, fdt, 17), 0);
    int node = fdt_path_offset(fdt, "/cpus/cpu@3");
    assert_true(node >= 0);
    assert_string_equal(fdt_getprop(fdt, node, "mmu-type", NULL), "riscv,sv57");
    assert_true(fdt_stringlist_contains(fdt_getprop(fdt, node, "riscv,isa-extensions", NULL), 200, "sstc"));
    node = fdt_path_offset(fdt, "/cpus/cpu@3/interrupt-controller");
    assert_int_equal(fdt_get_phandle(fdt, node), 20);
    char small[256];
    assert_int_equal(fdt_create_empty_tree(small, sizeof(small)), 0);
    assert_int_equal(m.engine->ops->describe(m.engine, small, 1), -ENOSPC);
    machine_fini(&m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest fixed[] = {
        cmocka_unit_test(test_kick_is_not_lost),   cmocka_unit_test(test_messages_and_unknown_engines),
        cmocka_unit_test(test_dirty_log),          cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_no_message_is_lost), cmocka_unit_test(test_describe),
    };
    int failed = cmocka_run_group_tests_name("engine", fixed, NULL, NULL);
    for (int i = 1; i < argc; i++) {
        const struct CMUnitTest guest[] = {cmocka_unit_test_prestate(test_guest, argv[i])};
        failed += cmocka_run_group_tests_name(argv[i], guest, NULL, NULL);
    }
    return failed;
}
