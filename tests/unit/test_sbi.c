// The supervisor binary interface, call by call, on an engine whose vcpus do not run: what each function answers, and what it
// leaves behind. The sections are those of SBI 2.0.
#include "machine/engine/rv64/rv64.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RAM_BASE 0x80000000ull
#define RAM_BYTES (2ull << 20)
#define RAM_END (RAM_BASE + RAM_BYTES)
#define VCPUS 3
#define ALL_ONES (~0ull)

enum { BASE = 0x10, TIME = 0x54494d45, IPI = 0x735049, RFENCE = 0x52464e43, HSM = 0x48534d, SRST = 0x53525354, PMU = 0x504d55 };
enum { DBCN = 0x4442434e, SUSP = 0x53555350 };
enum { NOT_SUPPORTED = -2, INVALID_PARAM = -3, DENIED = -4, INVALID_ADDRESS = -5, ALREADY_AVAILABLE = -6, ALREADY_STARTED = -7 };
enum { ALREADY_STOPPED = -8, NO_SHMEM = -9 };

struct machine {
    struct guest_memory mem;
    struct engine *engine;
    struct rv64_engine *rv64;
    struct rv64_vcpu *v; // hart 0, which calls
    uint8_t *ram;
    char written[64];
    size_t n_written;
    const char *typed;
    uint64_t value; // a1 of the last call
};

static void console_write(void *arg, const uint8_t *buf, size_t len_bytes)
{
    struct machine *m = arg;

    for (size_t i = 0; i < len_bytes && m->n_written < sizeof m->written - 1; i++)
        m->written[m->n_written++] = (char)buf[i];
}

static size_t console_read(void *arg, uint8_t *buf, size_t len_bytes)
{
    struct machine *m = arg;
    size_t n = strlen(m->typed);

    n = n < len_bytes ? n : len_bytes;
    memcpy(buf, m->typed, n);
    m->typed += n;
    return n;
}

static int no_mmio_read(void *arg, uint64_t gpa, unsigned size, uint64_t *value)
{
    (void)arg, (void)gpa, (void)size, (void)value;
    return -ENXIO;
}

static int no_mmio_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)arg, (void)gpa, (void)size, (void)value;
    return -ENXIO;
}

static int setup(void **state)
{
    struct machine *m = calloc(1, sizeof *m);
    struct engine_config config = {.mem = &m->mem, .n_vcpus = VCPUS, .imsic_base = 0x28000000};
    int fd = guest_ram_create("test_sbi", RAM_BYTES, NULL);

    assert_true(fd >= 0);
    guest_memory_init(&m->mem);
    assert_int_equal(guest_memory_add(&m->mem, RAM_BASE, RAM_BYTES, fd, 0, 0, NULL), 0);
    config.host = (struct engine_host){.arg = m,
                                       .mmio_read = no_mmio_read,
                                       .mmio_write = no_mmio_write,
                                       .console_write = console_write,
                                       .console_read = console_read};
    m->engine = engine_rv64.create(&config, NULL);
    assert_non_null(m->engine);
    engine_rv64.reset(m->engine, &(struct engine_start){.entry = RAM_BASE});
    m->rv64 = (struct rv64_engine *)m->engine;
    m->v = m->rv64->vcpus[0];
    atomic_store(&m->v->hart_state, RV64_HART_STARTED);
    m->ram = guest_memory_view(&m->mem, RAM_BASE, RAM_BYTES);
    m->typed = "";
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct machine *m = *state;

    engine_rv64.destroy(m->engine);
    guest_memory_fini(&m->mem);
    free(m);
    return 0;
}

// An ecall of hart 0; returns a0, and a1 in m->value.
static int64_t call(struct machine *m, uint64_t extension, uint64_t function, const uint64_t a[static 6])
{
    memcpy(&m->v->x[10], a, 6 * sizeof a[0]);
    m->v->x[16] = function;
    m->v->x[17] = extension;
    rv64_sbi_call(m->v);
    m->value = m->v->x[11];
    return (int64_t)m->v->x[10];
}

#define CALL(extension, function, ...) call(m, extension, function, (uint64_t[6]){__VA_ARGS__})

static void test_base(void **state)
{
    struct machine *m = *state;
    static const uint64_t available[] = {BASE, TIME, IPI, RFENCE, HSM, SRST, PMU, DBCN, SUSP, 0, 1, 8};
    static const uint64_t absent[] = {0x9, 0xf, 0x535441, 0x43505043, 0x4e41434c, 0xb000000};

    assert_int_equal(CALL(BASE, 0, 0), 0);
    assert_int_equal(m->value, 2 << 24);
    for (size_t i = 0; i < sizeof available / sizeof available[0]; i++) {
        assert_int_equal(CALL(BASE, 3, available[i]), 0);
        assert_int_equal(m->value, 1);
    }
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        assert_int_equal(CALL(BASE, 3, absent[i]), 0);
        assert_int_equal(m->value, 0);
        assert_int_equal(CALL(absent[i], 0, 0), NOT_SUPPORTED);
    }
    for (uint64_t function = 4; function <= 6; function++) {
        assert_int_equal(CALL(BASE, function, 0), 0);
        assert_int_equal(m->value, 0);
    }
    for (size_t i = 0; i < 9; i++)
        assert_int_equal(CALL(available[i], 0xbad, 0), NOT_SUPPORTED);
}

static void test_hart_masks(void **state)
{
    struct machine *m = *state;
    struct {
        uint64_t mask, base;
        int64_t error;
        unsigned received; // harts, by bit
    } rows[] = {
        {1, 0, 0, 1},
        {6, 0, 0, 6},
        {3, 1, 0, 6},
        {1, 2, 0, 4},
        {0, 0, 0, 0},
        {0, 77, 0, 0},
        {5, ALL_ONES, 0, 7}, // the mask is ignored
        {0, ALL_ONES, 0, 7},
        {8, 0, INVALID_PARAM, 0},
        {2, 2, INVALID_PARAM, 0},
        {1, 3, INVALID_PARAM, 0},
        {1, 64, INVALID_PARAM, 0},
        {1, ALL_ONES - 1, INVALID_PARAM, 0},
        {2, 63, INVALID_PARAM, 0},
        {1ull << 63, 1, INVALID_PARAM, 0},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (unsigned h = 0; h < VCPUS; h++)
            atomic_store(&m->rv64->vcpus[h]->sip, 0);
        assert_int_equal(CALL(IPI, 0, rows[i].mask, rows[i].base), rows[i].error);
        for (unsigned h = 0; h < VCPUS; h++)
            assert_int_equal(atomic_load(&m->rv64->vcpus[h]->sip), rows[i].received >> h & 1 ? 2 : 0);
        assert_int_equal(CALL(RFENCE, 0, rows[i].mask, rows[i].base), rows[i].error);
        assert_int_equal(CALL(RFENCE, 1, rows[i].mask, rows[i].base, 0x1000, 0x1000), rows[i].error);
    }
}

static void test_fences(void **state)
{
    struct machine *m = *state;

    assert_int_equal(CALL(RFENCE, 1, 7, 0, 0, ALL_ONES), 0);
    assert_int_equal(CALL(RFENCE, 1, 7, 0, 0x1000, ALL_ONES), 0);
    assert_int_equal(CALL(RFENCE, 1, 7, 0, ALL_ONES - 0xfff, 0x2000), INVALID_ADDRESS);
    assert_int_equal(CALL(RFENCE, 2, 7, 0, 0, 0, 0xffff), 0);
    assert_int_equal(CALL(RFENCE, 2, 7, 0, 0, 0, 0x10000), INVALID_PARAM);
    for (uint64_t function = 3; function <= 6; function++) // no hypervisor extension
        assert_int_equal(CALL(RFENCE, function, 1, 0), NOT_SUPPORTED);
}

static void test_timer(void **state)
{
    struct machine *m = *state;

    assert_int_equal(CALL(TIME, 0, 12345), 0);
    assert_int_equal(m->v->stimecmp, 12345);
    m->v->x[11] = 77; // legacy calls leave a1 alone
    assert_int_equal(CALL(0, 99, 54321, 77), 0);
    assert_int_equal(m->v->stimecmp, 54321);
    assert_int_equal(m->value, 77);
}

static void test_hart_states(void **state)
{
    struct machine *m = *state;
    struct rv64_vcpu *other = m->rv64->vcpus[1];

    assert_int_equal(CALL(HSM, 2, 0), 0);
    assert_int_equal(m->value, RV64_HART_STARTED);
    assert_int_equal(CALL(HSM, 2, 1), 0);
    assert_int_equal(m->value, RV64_HART_STOPPED);
    assert_int_equal(CALL(HSM, 2, VCPUS), INVALID_PARAM);

    assert_int_equal(CALL(HSM, 0, VCPUS, RAM_BASE, 0), INVALID_PARAM);
    assert_int_equal(CALL(HSM, 0, 1, RAM_END, 0), INVALID_ADDRESS);
    assert_int_equal(CALL(HSM, 0, 1, RAM_BASE + 1, 0), INVALID_ADDRESS);
    assert_int_equal(CALL(HSM, 0, 0, RAM_BASE, 0), ALREADY_AVAILABLE);
    assert_int_equal(CALL(HSM, 0, 1, RAM_BASE + 2, 42), 0);
    assert_int_equal(atomic_load(&other->hart_state), RV64_HART_START_PENDING);
    assert_int_equal(other->start_addr, RAM_BASE + 2);
    assert_int_equal(other->start_opaque, 42);
    assert_int_equal(CALL(HSM, 0, 1, RAM_BASE, 0), ALREADY_AVAILABLE);

    CALL(HSM, 1, 0);
    assert_int_equal(atomic_load(&m->v->hart_state), RV64_HART_STOPPED);
}

static void test_suspend(void **state)
{
    struct machine *m = *state;

    assert_int_equal(CALL(HSM, 3, 1, 0, 0), INVALID_PARAM);
    assert_int_equal(CALL(HSM, 3, 0x10000000, 0, 0), INVALID_PARAM);
    assert_int_equal(CALL(HSM, 3, 0x80000001, RAM_BASE, 0), INVALID_PARAM);
    assert_int_equal(CALL(HSM, 3, 0x80000000, RAM_END, 0), INVALID_ADDRESS);
    assert_int_equal(atomic_load(&m->v->hart_state), RV64_HART_STARTED);
    assert_int_equal(CALL(HSM, 3, 1ull << 63, 0, 0), 0); // the type has 32 bits
    assert_int_equal(atomic_load(&m->v->hart_state), RV64_HART_SUSPENDED);
    assert_true(m->v->suspend_retentive);
    CALL(HSM, 3, 0x80000000, RAM_BASE, 7);
    assert_false(m->v->suspend_retentive);
    assert_int_equal(m->v->start_addr, RAM_BASE);
    assert_int_equal(m->v->start_opaque, 7);

    atomic_store(&m->v->hart_state, RV64_HART_STARTED);
    assert_int_equal(CALL(SUSP, 0, 1, RAM_BASE, 0), INVALID_PARAM);
    assert_int_equal(CALL(SUSP, 0, 0, 0x1000, 0), INVALID_ADDRESS);
    atomic_store(&m->rv64->vcpus[2]->hart_state, RV64_HART_SUSPENDED);
    assert_int_equal(CALL(SUSP, 0, 0, RAM_BASE, 0), DENIED);
    atomic_store(&m->rv64->vcpus[2]->hart_state, RV64_HART_STOPPED);
    assert_int_equal(CALL(SUSP, 0, 0, RAM_BASE + 4, 9), 0);
    assert_int_equal(atomic_load(&m->v->hart_state), RV64_HART_SUSPENDED);
    assert_int_equal(m->v->start_addr, RAM_BASE + 4);
}

static void test_reset(void **state)
{
    struct machine *m = *state;
    static const struct {
        uint64_t type, reason;
        int64_t error;
        int outcome;
    } rows[] = {
        {3, 0, INVALID_PARAM, -1},          {0xf0000000, 0, INVALID_PARAM, -1}, {0, 2, INVALID_PARAM, -1},
        {0, 0xe0000000, INVALID_PARAM, -1}, {0, 0, 0, ENGINE_EXIT_SHUTDOWN},    {1, 0, 0, ENGINE_EXIT_REBOOT},
        {2, 0, 0, ENGINE_EXIT_WARM_REBOOT}, {0, 1, 0, ENGINE_EXIT_FAILURE},     {1, 1, 0, ENGINE_EXIT_FAILURE},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        atomic_store(&m->rv64->outcome, -1);
        assert_int_equal(CALL(SRST, 0, rows[i].type, rows[i].reason), rows[i].error);
        assert_int_equal(atomic_load(&m->rv64->outcome), rows[i].outcome);
    }
    assert_true(strlen(engine_rv64.failure(m->engine)) > 0);
    atomic_store(&m->rv64->outcome, -1);
    CALL(8, 0, 0);
    assert_int_equal(atomic_load(&m->rv64->outcome), ENGINE_EXIT_SHUTDOWN);
}

static void test_console(void **state)
{
    struct machine *m = *state;

    memcpy(m->ram + 16, "hello", 5);
    assert_int_equal(CALL(DBCN, 0, 5, RAM_BASE + 16, 0), 0);
    assert_int_equal(m->value, 5);
    assert_int_equal(CALL(DBCN, 2, 0x12300 | '!'), 0);
    assert_int_equal(m->value, 0);
    CALL(1, 0, '\n');
    assert_string_equal(m->written, "hello!\n");

    assert_int_equal(CALL(DBCN, 0, 0, 0, 0), 0);
    assert_int_equal(CALL(DBCN, 0, 5, RAM_BASE + 16, 1), INVALID_PARAM);
    assert_int_equal(CALL(DBCN, 0, 2, RAM_END - 1, 0), INVALID_PARAM);
    assert_int_equal(CALL(DBCN, 0, ALL_ONES, RAM_BASE, 0), INVALID_PARAM);
    assert_int_equal(CALL(DBCN, 1, 2, RAM_END - 1, 0), INVALID_PARAM);

    m->typed = "abc";
    assert_int_equal(CALL(DBCN, 1, 2, RAM_BASE, 0), 0);
    assert_int_equal(m->value, 2);
    assert_memory_equal(m->ram, "ab", 2);
    assert_int_equal(CALL(2, 0, 0), 'c');
    assert_int_equal(CALL(2, 0, 0), -1);
    assert_int_equal(CALL(DBCN, 1, 2, RAM_BASE, 0), 0);
    assert_int_equal(m->value, 0);
}

// --- the legacy calls that take a pointer to their mask

static void test_legacy_masks(void **state)
{
    struct machine *m = *state;
    const uint64_t mask = 6;

    memcpy(m->ram + 64, &mask, sizeof mask);
    assert_int_equal(CALL(4, 0, RAM_BASE + 64), 0);
    assert_int_equal(atomic_load(&m->rv64->vcpus[0]->sip), 0);
    assert_int_equal(atomic_load(&m->rv64->vcpus[2]->sip), 2);
    assert_int_equal(CALL(4, 0, 0), 0); // all
    assert_int_equal(CALL(3, 0, 0), 1);
    assert_int_equal(CALL(3, 0, 0), 0);
    assert_int_equal(CALL(5, 0, RAM_BASE + 64), 0);
    assert_int_equal(CALL(6, 0, RAM_BASE + 64, 0x1000, 0x1000), 0);
    assert_int_equal(CALL(7, 0, 0, 0, ALL_ONES, 3), 0);
    if (setjmp(m->v->sbi_fault) == 0) {
        CALL(4, 0, 0x1000); // nothing there: the guest takes the fault
        fail();
    }
    assert_int_equal(m->v->trap_cause, 5);
    assert_int_equal(m->v->trap_value, 0x1000);
}

// --- counters

#define CONFIG_SKIP 1
#define CONFIG_CLEAR 2
#define CONFIG_START 4
#define EVENT_CYCLES 1
#define EVENT_INSTRUCTIONS 2
#define EVENT_SET_TIMER 0xf0005
#define EVENT_IPI_SENT 0xf0006

static uint64_t n_counters(struct machine *m)
{
    assert_int_equal(CALL(PMU, 0, 0), 0);
    return m->value;
}

static void test_counter_info(void **state)
{
    struct machine *m = *state;
    uint64_t n = n_counters(m), n_firmware = 0;

    assert_int_equal(CALL(PMU, 1, 0), 0);
    assert_int_equal(m->value, 0xc00 | 63 << 12);
    assert_int_equal(CALL(PMU, 1, 1), INVALID_PARAM); // time is no counter
    assert_int_equal(CALL(PMU, 1, 2), 0);
    assert_int_equal(m->value, 0xc02 | 63 << 12);
    for (uint64_t i = 3; i < n; i++) {
        assert_int_equal(CALL(PMU, 1, i), 0);
        n_firmware += m->value >> 63;
    }
    assert_true(n_firmware >= 8);
    assert_int_equal(CALL(PMU, 1, n), INVALID_PARAM);
    assert_int_equal(CALL(PMU, 5, 0), INVALID_PARAM);
    assert_int_equal(CALL(PMU, 6, n - 1), 0);
    assert_int_equal(m->value, 0);
}

static void test_firmware_counter(void **state)
{
    struct machine *m = *state;
    uint64_t n = n_counters(m), all = ((1ull << n) - 1) & ~2ull, index;

    assert_int_equal(CALL(PMU, 2, 0, all, CONFIG_CLEAR, EVENT_SET_TIMER, 0), 0);
    index = m->value;
    CALL(TIME, 0, 1);
    assert_int_equal(CALL(PMU, 5, index), 0);
    assert_int_equal(m->value, 0); // not started
    assert_int_equal(CALL(PMU, 3, index, 1, 1, 100), 0);
    assert_int_equal(CALL(PMU, 3, index, 1, 0, 0), ALREADY_STARTED);
    CALL(TIME, 0, 1);
    CALL(TIME, 0, 1);
    CALL(PMU, 5, index);
    assert_int_equal(m->value, 102);
    assert_int_equal(CALL(PMU, 2, index, 1, 0, EVENT_IPI_SENT, 0), NOT_SUPPORTED); // in use
    assert_int_equal(CALL(PMU, 4, index, 1, 0), 0);
    assert_int_equal(CALL(PMU, 4, index, 1, 0), ALREADY_STOPPED);
    CALL(TIME, 0, 1);
    CALL(PMU, 5, index);
    assert_int_equal(m->value, 102);
    assert_int_equal(CALL(PMU, 4, index, 1, 1), ALREADY_STOPPED); // and forgets its event
    assert_int_equal(CALL(PMU, 3, index, 1, 0, 0), INVALID_PARAM);
}

static void test_hardware_counters(void **state)
{
    struct machine *m = *state;
    uint64_t value, other;

    m->v->instret = 1000;
    assert_int_equal(rv64_pmu_read(m->v, 2, &value), 0); // runs from power-on
    assert_int_equal(value, 1000);
    assert_int_equal(CALL(PMU, 2, 0, 4, CONFIG_CLEAR | CONFIG_START, EVENT_INSTRUCTIONS, 0), 0);
    assert_int_equal(m->value, 2);
    m->v->instret += 50;
    rv64_pmu_read(m->v, 2, &value);
    assert_int_equal(value, 50);
    assert_int_equal(CALL(PMU, 2, 3, 1, CONFIG_START, EVENT_INSTRUCTIONS, 0), 0); // a programmable one counts the same
    assert_int_equal(CALL(PMU, 4, 2, 1, 0), 0);
    m->v->instret += 5;
    rv64_pmu_read(m->v, 2, &value);
    assert_int_equal(value, 50);
    rv64_pmu_read(m->v, 3, &other);
    assert_int_equal(other, 5);
    assert_int_equal(CALL(PMU, 2, 0, 1, 0, EVENT_INSTRUCTIONS, 0), NOT_SUPPORTED);
    assert_int_equal(CALL(PMU, 2, 0, 1, 0, EVENT_CYCLES, 1), NOT_SUPPORTED);
    assert_int_equal(CALL(PMU, 2, 0, 1, 0, 0xf0000 | 256, 0), NOT_SUPPORTED);
    assert_int_equal(CALL(PMU, 2, 0, 1, 0x100, EVENT_CYCLES, 0), INVALID_PARAM);
    assert_int_equal(CALL(PMU, 2, 0, 2, 0, EVENT_CYCLES, 0), INVALID_PARAM);
    assert_int_equal(CALL(PMU, 2, 2, 1, CONFIG_SKIP | CONFIG_CLEAR, EVENT_INSTRUCTIONS, 0), 0);
    assert_int_equal(m->value, 2);
    assert_int_equal(rv64_pmu_read(m->v, 1, &value), -EINVAL);
    assert_int_equal(rv64_pmu_read(m->v, 31, &value), -EINVAL);
}

static void test_snapshot(void **state)
{
    struct machine *m = *state;
    uint64_t *shared = (uint64_t *)(void *)(m->ram + 0x1000);

    assert_int_equal(CALL(PMU, 2, 3, 1, CONFIG_CLEAR | CONFIG_START, EVENT_INSTRUCTIONS, 0), 0);
    assert_int_equal(CALL(PMU, 4, 3, 1, 2), NO_SHMEM);
    assert_int_equal(CALL(PMU, 7, RAM_BASE + 0x1000, 0, 1), INVALID_PARAM);
    assert_int_equal(CALL(PMU, 7, RAM_BASE + 0x1008, 0, 0), INVALID_PARAM);
    assert_int_equal(CALL(PMU, 7, RAM_END, 0, 0), INVALID_ADDRESS);
    assert_int_equal(CALL(PMU, 7, RAM_BASE, 1, 0), INVALID_ADDRESS);
    assert_int_equal(CALL(PMU, 7, RAM_BASE + 0x1000, 0, 0), 0);
    m->v->instret += 33;
    shared[0] = 1;
    assert_int_equal(CALL(PMU, 4, 2, 2, 2), 0); // counter 3, the second from base 2
    assert_int_equal(shared[0], 0);
    assert_int_equal(shared[1], 0);
    assert_int_equal(shared[2], 33);
    shared[2] = 500;
    assert_int_equal(CALL(PMU, 3, 2, 2, 3, 0), INVALID_PARAM); // the two flags exclude each other
    assert_int_equal(CALL(PMU, 3, 2, 2, 2, 0), 0);
    m->v->instret += 1;
    assert_int_equal(CALL(PMU, 4, 3, 1, 2), 0);
    assert_int_equal(shared[1], 501);
    assert_int_equal(CALL(PMU, 7, ALL_ONES, ALL_ONES, 0), 0);
    assert_int_equal(CALL(PMU, 3, 3, 1, 2, 0), NO_SHMEM);
}

static void test_saved_state(void **state)
{
    struct machine *m = *state;
    struct state *s = state_create_save();
    uint64_t value;
    void *buf;
    size_t len_bytes;

    CALL(PMU, 2, 3, 1, CONFIG_CLEAR | CONFIG_START, EVENT_INSTRUCTIONS, 0);
    m->v->instret += 10;
    CALL(HSM, 3, 0x80000000, RAM_BASE + 8, 5);
    assert_int_equal(rv64_sbi_state(m->v, s), 0);
    assert_int_equal(state_finish(s, &buf, &len_bytes, NULL), 0);
    state_destroy(s);

    rv64_sbi_reset(m->v);
    m->v->instret = 0; // a counter goes on from its value, whatever it counts from
    s = state_create_load(buf, len_bytes);
    assert_int_equal(rv64_sbi_state(m->v, s), 0);
    assert_int_equal(state_finish(s, NULL, NULL, NULL), 0);
    state_destroy(s);
    free(buf);
    assert_int_equal(atomic_load(&m->v->hart_state), RV64_HART_SUSPENDED);
    assert_int_equal(m->v->start_addr, RAM_BASE + 8);
    m->v->instret = 7;
    assert_int_equal(rv64_pmu_read(m->v, 3, &value), 0);
    assert_int_equal(value, 17);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_base),         TEST(test_hart_masks),       TEST(test_fences),
        TEST(test_timer),        TEST(test_hart_states),      TEST(test_suspend),
        TEST(test_reset),        TEST(test_console),          TEST(test_legacy_masks),
        TEST(test_counter_info), TEST(test_firmware_counter), TEST(test_hardware_counters),
        TEST(test_snapshot),     TEST(test_saved_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
