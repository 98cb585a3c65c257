// The audit finds what a translator does wrong: code that was translated right is changed behind the engine's back.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "machine/engine/engine.h"
#include "machine/engine/rv64/x86_64/code.h"

#define RAM_BASE 0x80000000ull
#define RAM_BYTES (8ull << 20)
#define ENTRY 0x80200000ull
#define DEVICE 0x10000000ull
#define ADDED 0x5a3u
#define STORED_AT 0x5c8u

static const uint32_t program[] = {
    0x10000437, // lui s0, 0x10000: the device
    0x803004b7,
    0x02049493,
    0x0204d493,               // s1 = 0x80300000
    0x00042283,               // again: lw t0, 0(s0), where the fault is put in
    0x0040006f,               // j .+4: a block of its own
    ADDED << 20 | 0x00050513, // addi a0, a0, 0x5a3
    0x5ca4b423,               // sd a0, 0x5c8(s1)
    0x5c84b583,               // ld a1, 0x5c8(s1)
    0xfedff06f,               // j again
};

struct rig {
    struct guest_memory mem;
    struct engine *engine;
    unsigned rounds, fault_in_round; // 0: never
    void (*fault)(struct rv64_engine *e);
};

static int mmio_read(void *arg, uint64_t gpa, unsigned size, uint64_t *value)
{
    struct rig *r = arg;
    (void)size;
    *value = 0;
    if (++r->rounds == r->fault_in_round)
        r->fault((struct rv64_engine *)r->engine);
    return gpa == DEVICE ? 0 : -ENXIO;
}

static int mmio_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)arg, (void)gpa, (void)size, (void)value;
    return -ENXIO;
}

static void console_write(void *arg, const uint8_t *buf, size_t len_bytes)
{
    (void)arg, (void)buf, (void)len_bytes;
}

static size_t console_read(void *arg, uint8_t *buf, size_t len_bytes)
{
    (void)arg, (void)buf, (void)len_bytes;
    return 0;
}

static bool create(struct rig *r, unsigned n_vcpus, uint64_t instructions, struct tv_error *err)
{
    const struct engine_config config = {.mem = &r->mem,
                                         .n_vcpus = n_vcpus,
                                         .audit_instructions = instructions,
                                         .host = {.arg = r,
                                                  .mmio_read = mmio_read,
                                                  .mmio_write = mmio_write,
                                                  .console_write = console_write,
                                                  .console_read = console_read}};
    r->engine = engine_rv64.create(&config, err);
    return r->engine;
}

static void rig_init(struct rig *r)
{
    struct tv_error err = {0};
    *r = (struct rig){0};
    guest_memory_init(&r->mem);
    int fd = guest_ram_create("ram", RAM_BYTES, &err);
    assert_true(fd >= 0);
    assert_int_equal(guest_memory_add(&r->mem, RAM_BASE, RAM_BYTES, fd, 0, 0, &err), 0);
    memcpy(guest_memory_view(&r->mem, ENTRY, sizeof(program)), program, sizeof(program));
}

static void rig_fini(struct rig *r)
{
    if (r->engine)
        engine_rv64.destroy(r->engine);
    guest_memory_fini(&r->mem);
}

// Runs the program with the fault put in when the device is read for the fifth time.
static enum engine_exit run(struct rig *r, void (*fault)(struct rv64_engine *), uint64_t instructions)
{
    struct tv_error err = {0};
    enum engine_exit exit;
    rig_init(r);
    r->fault = fault;
    r->fault_in_round = fault ? 5 : 0;
    if (!create(r, 1, instructions, &err)) { // a sanitizer's build
        assert_non_null(strstr(err.text, "no translator"));
        rig_fini(r);
        skip();
    }
    engine_rv64.reset(r->engine, &(struct engine_start){.entry = ENTRY});
    engine_rv64.clock_start(r->engine);
    do
        exit = engine_rv64.run(r->engine, 0);
    while (exit == ENGINE_EXIT_KICK);
    return exit;
}

// Every 32-bit `from` in what was translated becomes `to`.
static void replace(struct rv64_engine *e, uint32_t from, uint32_t to)
{
    struct rv64_code *c = e->code;
    unsigned n = 0;
    for (size_t at = c->thunk_bytes; at + sizeof(from) <= c->used; at++) {
        if (memcmp(c->write + at, &from, sizeof(from)) != 0)
            continue;
        memcpy(c->write + at, &to, sizeof(to));
        n++;
    }
    assert_true(n > 0);
}

static void add_otherwise(struct rv64_engine *e)
{
    replace(e, ADDED, ADDED + 1);
}

static void store_elsewhere(struct rv64_engine *e)
{
    replace(e, STORED_AT, STORED_AT - 8);
}

static void count_otherwise(struct rv64_engine *e)
{
    for (unsigned i = 1; i <= RV64_COUNTS_MAX; i++)
        e->vcpus[0]->counts[i][0]++;
}

static void assert_reported(void (*fault)(struct rv64_engine *), const char *const words[])
{
    struct rig r;
    assert_int_equal(run(&r, fault, 1000), ENGINE_EXIT_FAILURE);
    assert_int_equal(r.rounds, 5);
    assert_non_null(strstr(engine_rv64.failure(r.engine), "differ behind pc 80200018"));
    const char *report = engine_rv64.report(r.engine);
    for (; *words; words++)
        if (!strstr(report, *words))
            fail_msg("'%s' is not in: %s", *words, report);
    rig_fini(&r);
}

static void test_no_difference(void **state)
{
    (void)state;
    struct rig r;
    assert_int_equal(run(&r, NULL, 1000), ENGINE_EXIT_SHUTDOWN);
    assert_non_null(strstr(engine_rv64.report(r.engine), "audit: 100"));
    // Of each round's six instructions all but the device's access and the jump behind it.
    assert_in_range(r.rounds, 240, 260);
    rig_fini(&r);
}

static void test_wrong_result(void **state)
{
    (void)state;
    // What was added four times, once more, and by the translator 1 more than that.
    assert_reported(add_otherwise,
                    (const char *const[]){"x10 (a0)           000000000000168c   0000000000001c2f   0000000000001c30\n",
                                          "addi a0,a0,1443", "a4 05 00 00", NULL});
}

static void test_wrong_address(void **state)
{
    (void)state;
    assert_reported(store_elsewhere,
                    (const char *const[]){"803005c8:8         000000000000168c   0000000000001c2f   000000000000168c\n",
                                          "sd a0,1480(s1)", "c0 05 00 00", NULL});
}

static void test_wrong_count(void **state)
{
    (void)state;
    assert_reported(count_otherwise,
                    (const char *const[]){"the translator did 5 instructions, the interpreter 4", "instret", NULL});
}

static void test_one_vcpu(void **state)
{
    (void)state;
    struct rig r;
    struct tv_error err = {0};
    rig_init(&r);
    assert_false(create(&r, 2, 1, &err));
    assert_int_equal(err.code, -EINVAL);
    assert_non_null(strstr(err.text, "one vcpu, not 2"));
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_difference), cmocka_unit_test(test_wrong_result), cmocka_unit_test(test_wrong_address),
        cmocka_unit_test(test_wrong_count),   cmocka_unit_test(test_one_vcpu),
    };
    return cmocka_run_group_tests_name("audit", tests, NULL, NULL);
}
