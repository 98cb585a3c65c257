// The x86-64 board's ports and tables, driven as a kernel does.
#include "base/state.h"
#include "machine/board/board.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/pci_regs.h>

#define RAM_BYTES (2u << 20)
#define ADDRESS PC_PORT_PCI_ADDRESS
#define DATA PC_PORT_PCI_DATA
#define FW_CFG PC_PORT_FW_CFG

struct fixture {
    struct loop *loop;
    struct guest_memory mem;
    struct board *board;
    unsigned lines; // that are up
};

static int no_msi(void *arg, uint64_t addr, uint32_t data)
{
    (void)arg, (void)addr, (void)data;
    return 0;
}

static void set_irq(void *arg, unsigned line, bool level)
{
    struct fixture *f = arg;
    f->lines = level ? f->lines | 1u << line : f->lines & ~(1u << line);
}

static int open_board(void **state)
{
    struct fixture *f = *state = calloc(1, sizeof(*f));
    f->loop = loop_create(NULL);
    guest_memory_init(&f->mem);
    assert_int_equal(guest_memory_add(&f->mem, 0, RAM_BYTES, guest_ram_create("ram", RAM_BYTES, NULL), 0, 0, NULL), 0);
    const struct board_config config = {
        .loop = f->loop, .mem = &f->mem, .n_vcpus = 3, .arg = f, .arch = ENGINE_X86_64, .raise_msi = no_msi, .set_irq = set_irq};
    f->board = board_create(&config, NULL);
    assert_non_null(f->board);
    return 0;
}

static int close_board(void **state)
{
    struct fixture *f = *state;
    board_destroy(f->board);
    guest_memory_fini(&f->mem);
    loop_destroy(f->loop);
    free(f);
    return 0;
}

static uint64_t in(struct fixture *f, unsigned port, unsigned size)
{
    uint64_t value;
    assert_int_equal(board_port_read(f->board, (uint16_t)port, size, &value), 0);
    return value;
}

static void out(struct fixture *f, unsigned port, unsigned size, uint64_t value)
{
    enum engine_exit exit;
    assert_int_equal(board_port_write(f->board, (uint16_t)port, size, value, &exit), 0);
}

// --- PCI

static uint32_t address_of(unsigned bus, unsigned slot, unsigned function, unsigned reg)
{
    return 1u << 31 | bus << 16 | slot << 11 | function << 8 | reg;
}

// What Linux does to find out whether there is the mechanism (arch/x86/pci/direct.c, pci_check_type1 and pci_sanity_check).
static void test_mechanism_1_is_found(void **state)
{
    struct fixture *f = *state;
    out(f, ADDRESS + 3, 1, 1);
    uint64_t before = in(f, ADDRESS, 4);
    assert_int_equal(before, 0);
    out(f, ADDRESS, 4, 0x80000000);
    assert_int_equal(in(f, ADDRESS, 4), 0x80000000);
    out(f, ADDRESS, 4, address_of(0, 0, 0, PCI_CLASS_DEVICE & ~3u));
    assert_int_equal(in(f, DATA + (PCI_CLASS_DEVICE & 3), 2), 0x0600); // a host bridge
    out(f, ADDRESS, 4, before);
    assert_int_equal(in(f, DATA, 4), 0xffffffff); // off
}

static void test_mechanism_1_is_ecam(void **state)
{
    struct fixture *f = *state;
    uint64_t value;
    for (unsigned reg = 0; reg < 64; reg += 4) {
        out(f, ADDRESS, 4, address_of(0, 0, 0, reg) | 3); // the last two bits are no part of it
        assert_int_equal(in(f, ADDRESS, 4), address_of(0, 0, 0, reg));
        assert_int_equal(bus_read(board_bus(f->board), PC_ECAM_BASE + reg, 4, &value), 0);
        assert_int_equal(in(f, DATA, 4), value);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(in(f, DATA + i, 1), value >> 8 * i & 0xff);
        assert_int_equal(in(f, DATA + 2, 2), value >> 16);
    }
    out(f, ADDRESS, 4, address_of(0, 0, 0, PCI_INTERRUPT_LINE));
    out(f, DATA, 1, 0x5a);
    assert_int_equal(bus_read(board_bus(f->board), PC_ECAM_BASE + PCI_INTERRUPT_LINE, 1, &value), 0);
    assert_int_equal(value, 0x5a);
}

static void test_mechanism_1_elsewhere(void **state)
{
    struct fixture *f = *state;
    const uint32_t nobody[] = {address_of(1, 0, 0, 0), address_of(255, 31, 7, 0xfc), address_of(0, 1, 0, 0),
                               address_of(0, 0, 1, 0)};
    for (unsigned i = 0; i < sizeof(nobody) / sizeof(nobody[0]); i++) {
        out(f, ADDRESS, 4, nobody[i]);
        out(f, DATA, 4, 0);
        assert_int_equal(in(f, DATA, 4), 0xffffffff);
    }
}

static void test_reset_lies_in_the_address(void **state)
{
    struct fixture *f = *state;
    enum engine_exit exit;
    out(f, ADDRESS, 4, 0x80000600); // bit 2 of the second byte: no reset
    out(f, PC_PORT_RESET, 1, 2);
    assert_int_equal(in(f, ADDRESS, 4), 0x80000600);
    assert_int_equal(board_port_write(f->board, PC_PORT_RESET, 1, 6, &exit), 1);
    assert_int_equal(exit, ENGINE_EXIT_REBOOT);
    board_reset(f->board);
    assert_int_equal(in(f, ADDRESS, 4), 0);
}

// --- fw_cfg

static uint64_t ask(struct fixture *f, uint16_t key, unsigned n_bytes)
{
    uint64_t value = 0;
    out(f, FW_CFG, 2, key);
    for (unsigned i = 0; i < n_bytes; i++)
        value |= in(f, FW_CFG + 1, 1) << 8 * i;
    return value;
}

static void test_fw_cfg(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ask(f, 0, 4), 0x554d4551); // "QEMU"
    assert_int_equal(ask(f, 1, 4), 1);          // no DMA
    assert_int_equal(ask(f, 3, 8), RAM_BYTES);
    assert_int_equal(ask(f, 5, 2), 3); // vcpus
    assert_int_equal(ask(f, 15, 2), 3);
    assert_int_equal(ask(f, 25, 8), 0); // no files
    assert_int_equal(ask(f, 5, 8), 3);  // zeroes behind its end
    assert_int_equal(ask(f, 0x8000, 8), 0);
    assert_int_equal(ask(f, 0xffff, 8), 0);
    out(f, FW_CFG, 2, 3);
    out(f, FW_CFG + 1, 1, 0x77);               // read-only
    assert_int_equal(in(f, FW_CFG + 1, 1), 0); // the lowest byte of 2 MiB
}

// --- what tests use

static void test_ports_for_tests(void **state)
{
    struct fixture *f = *state;
    uint64_t value;
    out(f, PC_PORT_TEST, 4, 0x12345678);
    out(f, PC_PORT_TEST + 1, 1, 0xff);
    assert_int_equal(in(f, PC_PORT_TEST, 4), 0x1234ff78);
    assert_int_equal(bus_write(board_bus(f->board), PC_TEST_PAGE + 4088, 8, 0x1122334455667788), 0);
    assert_int_equal(bus_read(board_bus(f->board), PC_TEST_PAGE + 4092, 4, &value), 0);
    assert_int_equal(value, 0x11223344);
    memset(guest_memory_view(&f->mem, 0x5000, 8), 0x77, 8);
    out(f, PC_PORT_TEST_PAGE_OUT, 4, 0x5123);
    assert_int_equal(*(uint8_t *)guest_memory_view(&f->mem, 0x5007, 1), 0x77); // it is still there
    out(f, PC_PORT_TEST_PAGE_OUT, 4, 0xfffff000);                              // and this is nowhere
    out(f, PC_PORT_TEST_LINES + 11, 4, 1);
    assert_int_equal(f->lines, 1 << 11);
    out(f, PC_PORT_TEST_LINES + 23, 1, 1);
    out(f, PC_PORT_TEST_LINES + 11, 1, 0);
    out(f, PC_PORT_TEST_LINES + 24, 1, 1); // there is none
    assert_int_equal(f->lines, 1 << 23);
}

// --- state

static int load(struct fixture *f, const void *buf, size_t len_bytes)
{
    struct state *s = state_create_load(buf, len_bytes);
    board_state(f->board, s);
    int rc = state_finish(s, NULL, NULL, NULL);
    state_destroy(s);
    return rc;
}

static void test_state(void **state)
{
    struct fixture *f = *state;
    void *buf;
    size_t len_bytes;
    out(f, ADDRESS, 4, address_of(0, 0, 0, PCI_CLASS_REVISION));
    out(f, FW_CFG, 2, 3);
    for (unsigned i = 0; i < 2; i++)
        in(f, FW_CFG + 1, 1);
    struct state *s = state_create_save();
    board_freeze(f->board);
    board_state(f->board, s);
    assert_int_equal(state_finish(s, &buf, &len_bytes, NULL), 0);
    state_destroy(s);
    board_reset(f->board);
    assert_int_equal(in(f, FW_CFG + 1, 1), 'Q');
    assert_int_equal(load(f, buf, len_bytes), 0);
    assert_int_equal(in(f, ADDRESS, 4), address_of(0, 0, 0, PCI_CLASS_REVISION));
    assert_int_equal(in(f, FW_CFG + 1, 1), RAM_BYTES >> 16); // its third byte
    free(buf);
}

// --- ACPI

static void check_sum(const uint8_t *table, size_t len_bytes)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len_bytes; i++)
        sum = (uint8_t)(sum + table[i]);
    assert_int_equal(sum, 0);
}

static uint64_t number(const uint8_t *at, unsigned n_bytes)
{
    uint64_t value = 0;
    memcpy(&value, at, n_bytes);
    return value;
}

static const uint8_t *table_at(struct fixture *f, uint64_t addr)
{
    const uint8_t *table = guest_memory_view(&f->mem, addr, 36);
    assert_non_null(table);
    assert_in_range(addr, PC_TABLES_BASE, PC_TABLES_BASE + PC_TABLES_SIZE);
    check_sum(table, number(table + 4, 4));
    return table;
}

static void test_tables_are_summed(void **state)
{
    struct fixture *f = *state;
    static const char *const signatures[] = {"FACP", "APIC", "MCFG"};
    assert_int_equal(board_put_firmware(f->board, NULL), 0);
    const uint8_t *rsdp = guest_memory_view(&f->mem, PC_TABLES_BASE, 36);
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    check_sum(rsdp, 20);
    check_sum(rsdp, 36);
    const uint8_t *xsdt = table_at(f, number(rsdp + 24, 8));
    assert_int_equal(number(xsdt + 4, 4), 36 + 8 * 3);
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *table = table_at(f, number(xsdt + 36 + 8 * i, 8));
        assert_memory_equal(table, signatures[i], 4);
        if (i == 0)
            assert_memory_equal(table_at(f, number(table + 140, 8)), "DSDT", 4);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_board, close_board)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mechanism_1_is_found),
        TEST(test_mechanism_1_is_ecam),
        TEST(test_mechanism_1_elsewhere),
        TEST(test_reset_lies_in_the_address),
        TEST(test_fw_cfg),
        TEST(test_ports_for_tests),
        TEST(test_state),
        TEST(test_tables_are_summed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
