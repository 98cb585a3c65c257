// The board's devices, each driven through its registers as a driver would.
#include "board_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <errno.h>

// --- APLIC: addresses of its registers

#define SOURCECFG(i) (MAP_APLIC_BASE + 4ull * (i))
#define TARGET(i) (MAP_APLIC_BASE + 0x3000 + 4ull * (i))
enum { DOMAINCFG = 0, SETIP = 0x1c00, SETIPNUM = 0x1cdc, CLRIP = 0x1d00, CLRIPNUM = 0x1ddc, SETIE = 0x1e00, SETIENUM = 0x1edc };
enum { CLRIE = 0x1f00, CLRIENUM = 0x1fdc, SETIPNUM_LE = 0x2000, SETIPNUM_BE = 0x2004, GENMSI = 0x3000 };
enum { DETACHED = 1, EDGE1 = 4, EDGE0 = 5, LEVEL1 = 6, LEVEL0 = 7 };
#define SOURCE 40

static void aplic(struct rig *rig, uint64_t offset, uint32_t value)
{
    rig_write(rig, MAP_APLIC_BASE + offset, 4, value);
}

static bool pending(struct rig *rig)
{
    return rig_read(rig, MAP_APLIC_BASE + SETIP + SOURCE / 32 * 4, 4) >> (SOURCE % 32) & 1;
}

static bool input(struct rig *rig)
{
    return rig_read(rig, MAP_APLIC_BASE + CLRIP + SOURCE / 32 * 4, 4) >> (SOURCE % 32) & 1;
}

// Source SOURCE goes to hart 1 as identity 77.
static void set_up(struct rig *rig, unsigned mode)
{
    aplic(rig, DOMAINCFG, 1 << 8);
    rig_write(rig, SOURCECFG(SOURCE), 4, mode);
    rig_write(rig, TARGET(SOURCE), 4, 1u << 18 | 77);
    aplic(rig, SETIENUM, SOURCE);
}

static void line(struct rig *rig, bool level)
{
    board_set_irq(rig->board, SOURCE, level);
}

static void expect_msi(struct rig *rig)
{
    assert_int_equal(rig->n_msis, 1);
    assert_int_equal(rig->msis[0].addr, MAP_IMSIC_BASE + MAP_IMSIC_STRIDE);
    assert_int_equal(rig->msis[0].data, 77);
    rig_forget_msis(rig);
}

static void test_aplic_level(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 2);
    set_up(&rig, LEVEL1);
    line(&rig, true);
    expect_msi(&rig);
    assert_true(input(&rig));
    assert_false(pending(&rig)); // forwarding cleared it
    line(&rig, true);            // no rise, no message
    assert_int_equal(rig.n_msis, 0);
    aplic(&rig, SETIPNUM_LE, SOURCE); // what a driver does at the end of an interrupt whose line is still high
    expect_msi(&rig);
    line(&rig, false);
    aplic(&rig, SETIPNUM_LE, SOURCE); // the line is low: nothing
    assert_int_equal(rig.n_msis, 0);
    assert_false(pending(&rig));
    // Low while disabled: the pending bit goes with the line.
    aplic(&rig, CLRIENUM, SOURCE);
    line(&rig, true);
    assert_true(pending(&rig));
    line(&rig, false);
    assert_false(pending(&rig));
    aplic(&rig, SETIENUM, SOURCE);
    assert_int_equal(rig.n_msis, 0);
    // An inverted one rises when it is configured over a low line.
    rig_write(&rig, SOURCECFG(SOURCE), 4, LEVEL0);
    expect_msi(&rig);
    rig_close(&rig);
}

static void test_aplic_edge(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 2);
    set_up(&rig, EDGE1);
    line(&rig, true);
    expect_msi(&rig);
    line(&rig, false);
    assert_int_equal(rig.n_msis, 0);
    aplic(&rig, CLRIENUM, SOURCE);
    line(&rig, true);
    line(&rig, false);
    assert_true(pending(&rig)); // remembered, though the line is low again
    aplic(&rig, SETIENUM, SOURCE);
    expect_msi(&rig);
    rig_write(&rig, SOURCECFG(SOURCE), 4, EDGE0); // the line is low, so its rectified value has risen just now
    expect_msi(&rig);
    line(&rig, true);
    assert_int_equal(rig.n_msis, 0);
    line(&rig, false);
    expect_msi(&rig);
    rig_write(&rig, SOURCECFG(SOURCE), 4, DETACHED);
    line(&rig, true);
    line(&rig, false);
    assert_int_equal(rig.n_msis, 0);
    assert_false(input(&rig));
    aplic(&rig, SETIPNUM_BE, __builtin_bswap32(SOURCE));
    expect_msi(&rig);
    rig_close(&rig);
}

static void test_aplic_registers(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 2);
    assert_int_equal(rig_read(&rig, MAP_APLIC_BASE + DOMAINCFG, 4), 0x80000004);
    aplic(&rig, DOMAINCFG, 0xffffffff);
    assert_int_equal(rig_read(&rig, MAP_APLIC_BASE + DOMAINCFG, 4), 0x80000104);
    aplic(&rig, DOMAINCFG, 0);
    // Inactive sources have no other registers, and reserved modes and delegation make inactive.
    rig_write(&rig, TARGET(SOURCE), 4, 5);
    aplic(&rig, SETIENUM, SOURCE);
    aplic(&rig, SETIPNUM, SOURCE);
    assert_int_equal(rig_read(&rig, TARGET(SOURCE), 4), 0);
    assert_false(pending(&rig));
    for (unsigned mode = 2; mode <= 3; mode++) {
        rig_write(&rig, SOURCECFG(SOURCE), 4, mode);
        assert_int_equal(rig_read(&rig, SOURCECFG(SOURCE), 4), 0);
    }
    rig_write(&rig, SOURCECFG(SOURCE), 4, 1 << 10 | EDGE1);
    assert_int_equal(rig_read(&rig, SOURCECFG(SOURCE), 4), 0);
    // Arrays and numbers tell the same.
    rig_write(&rig, SOURCECFG(SOURCE), 4, DETACHED);
    rig_write(&rig, TARGET(SOURCE), 4, 0xffffffff);
    assert_int_equal(rig_read(&rig, TARGET(SOURCE), 4), 0xfffc07ff); // no guest files
    aplic(&rig, SETIP + 4, 0xffffffff);
    assert_int_equal(rig_read(&rig, MAP_APLIC_BASE + SETIP + 4, 4), 1u << (SOURCE - 32));
    aplic(&rig, CLRIP + 4, 1u << (SOURCE - 32));
    assert_false(pending(&rig));
    aplic(&rig, SETIE + 4, 0xffffffff);
    assert_int_equal(rig_read(&rig, MAP_APLIC_BASE + SETIE + 4, 4), 1u << (SOURCE - 32));
    aplic(&rig, CLRIE + 4, 0xffffffff);
    assert_int_equal(rig_read(&rig, MAP_APLIC_BASE + SETIE + 4, 4), 0);
    // The domain is off: pending and enabled, and sent when it goes on. To a hart that is not there: lost.
    rig_write(&rig, TARGET(SOURCE), 4, 1u << 18 | 77);
    aplic(&rig, SETIENUM, SOURCE);
    aplic(&rig, SETIPNUM, SOURCE);
    assert_int_equal(rig.n_msis, 0);
    aplic(&rig, DOMAINCFG, 1 << 8);
    expect_msi(&rig);
    rig_write(&rig, TARGET(SOURCE), 4, 2u << 18 | 77);
    aplic(&rig, SETIPNUM, SOURCE);
    assert_int_equal(rig.n_msis, 0);
    aplic(&rig, GENMSI, 1u << 18 | 77);
    expect_msi(&rig);
    // Going inactive clears everything; other widths do nothing.
    rig_write(&rig, SOURCECFG(SOURCE), 4, 0);
    assert_int_equal(rig_read(&rig, TARGET(SOURCE), 4), 0);
    rig_write(&rig, SOURCECFG(SOURCE), 2, EDGE1);
    assert_int_equal(rig_read(&rig, SOURCECFG(SOURCE), 4), 0);
    rig_close(&rig);
}

// --- serial port

enum { RBR = 0, THR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

static uint8_t uart_get(struct rig *rig, unsigned reg)
{
    return (uint8_t)rig_read(rig, MAP_UART_BASE + reg, 1);
}

static void uart_put(struct rig *rig, unsigned reg, uint8_t value)
{
    rig_write(rig, MAP_UART_BASE + reg, 1, value);
}

static size_t uart_input(struct rig *rig, const char *text)
{
    return uart16550_input(board_uart(rig->board), (const uint8_t *)text, strlen(text));
}

static void test_uart_output(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 1);
    uart_put(&rig, LCR, 0x83); // the divisor is no output
    uart_put(&rig, THR, 2);
    assert_int_equal(uart_get(&rig, RBR), 2);
    uart_put(&rig, LCR, 0x03);
    uart_put(&rig, THR, 'o');
    assert_int_equal(uart_get(&rig, LSR), 0x60);
    uart_put(&rig, THR, 'k');
    assert_string_equal(rig.output, "ok");
    uart_put(&rig, SCR, 0x5a);
    assert_int_equal(uart_get(&rig, SCR), 0x5a);
    // THRE: once when it is enabled, once a character; reading IIR takes it back.
    assert_int_equal(uart_get(&rig, IIR), 0x01);
    uart_put(&rig, IER, 2);
    assert_int_equal(uart_get(&rig, IIR), 0x02);
    assert_int_equal(uart_get(&rig, IIR), 0x01);
    uart_put(&rig, THR, '!');
    assert_int_equal(uart_get(&rig, IIR), 0x02);
    uart_put(&rig, IER, 0);
    uart_put(&rig, IER, 2);
    assert_int_equal(uart_get(&rig, IIR), 0x02);
    rig_close(&rig);
}

static void test_uart_input(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 1);
    assert_int_equal(uart_input(&rig, "xy"), 1); // no FIFO yet
    assert_int_equal(uart_get(&rig, RBR), 'x');
    assert_int_equal(rig.n_room, 1);
    uart_put(&rig, FCR, 0x81); // FIFO, trigger at 8
    uart_put(&rig, IER, 1);
    assert_int_equal(uart_input(&rig, "1234567"), 7);
    assert_int_equal(uart_get(&rig, IIR), 0xcc); // below the trigger: time-out
    assert_int_equal(uart_input(&rig, "89abcdefghijk"), 9);
    assert_int_equal(uart_get(&rig, IIR), 0xc4);
    for (const char *c = "123456789abcdefg"; *c; c++) {
        assert_true(uart_get(&rig, LSR) & 1);
        assert_int_equal(rig.n_room, 1);
        assert_int_equal(uart_get(&rig, RBR), *c);
    }
    assert_int_equal(rig.n_room, 2); // told when all was read
    assert_int_equal(uart_get(&rig, LSR), 0x60);
    assert_int_equal(uart_get(&rig, IIR), 0xc1);
    uart_input(&rig, "gone");
    uart_put(&rig, FCR, 0x83);
    assert_int_equal(uart_get(&rig, LSR), 0x60);
    rig_close(&rig);
}

static void test_uart_break(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 1);
    uart_put(&rig, FCR, 1);
    uart_put(&rig, IER, 5);
    uart_input(&rig, "a");
    assert_int_equal(uart16550_break(board_uart(rig.board)), 0);
    uart_input(&rig, "s");
    assert_int_equal(uart_get(&rig, LSR), 0xe1); // an error is in the FIFO, but not at its top
    assert_int_equal(uart_get(&rig, RBR), 'a');
    assert_int_equal(uart_get(&rig, IIR), 0xc6);
    assert_int_equal(uart_get(&rig, LSR), 0xf9); // break and framing error
    assert_int_equal(uart_get(&rig, LSR), 0x61); // told once
    assert_int_equal(uart_get(&rig, RBR), 0);
    assert_int_equal(uart_get(&rig, RBR), 's');
    rig_close(&rig);
}

static void test_uart_loopback(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 1);
    assert_int_equal(uart_get(&rig, MSR), 0xb0);
    uart_put(&rig, IER, 8);
    uart_put(&rig, MCR, 0x12); // loop, RTS
    assert_int_equal(uart_get(&rig, IIR), 0x00);
    assert_int_equal(uart_get(&rig, MSR), 0x1a); // CTS follows RTS; DSR and DCD fell
    assert_int_equal(uart_get(&rig, MSR), 0x10);
    assert_int_equal(uart_get(&rig, IIR), 0x01);
    uart_put(&rig, THR, 'z');
    assert_int_equal(rig.n_output, 0);
    assert_int_equal(uart_input(&rig, "q"), 0); // the line is cut
    uart_put(&rig, THR, 'y');                   // overrun
    assert_int_equal(uart_get(&rig, LSR), 0x63);
    assert_int_equal(uart_get(&rig, RBR), 'y');
    uart_put(&rig, MCR, 0);
    assert_int_equal(rig.n_room, 1);
    rig_close(&rig);
}

static void test_uart_interrupt_line(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 1);
    aplic(&rig, DOMAINCFG, 1 << 8);
    rig_write(&rig, SOURCECFG(MAP_IRQ_UART), 4, LEVEL1);
    rig_write(&rig, TARGET(MAP_IRQ_UART), 4, 9);
    aplic(&rig, SETIENUM, MAP_IRQ_UART);
    uart_put(&rig, IER, 1);
    uart_input(&rig, "a");
    assert_int_equal(rig.n_msis, 1);
    assert_int_equal(rig.msis[0].data, 9);
    uart_get(&rig, RBR);
    aplic(&rig, SETIPNUM_LE, MAP_IRQ_UART);
    assert_int_equal(rig.n_msis, 1); // the line fell
    rig_close(&rig);
}

// --- clock

static uint64_t rtc_now(struct rig *rig)
{
    uint64_t low = rig_read(rig, MAP_RTC_BASE, 4);
    return low | rig_read(rig, MAP_RTC_BASE + 4, 4) << 32;
}

static void rtc_alarm(struct rig *rig, uint64_t at_ns)
{
    rig_write(rig, MAP_RTC_BASE + 0x0c, 4, at_ns >> 32);
    rig_write(rig, MAP_RTC_BASE + 0x08, 4, (uint32_t)at_ns);
}

static void test_rtc(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 1);
    aplic(&rig, DOMAINCFG, 1 << 8);
    rig_write(&rig, SOURCECFG(MAP_IRQ_RTC), 4, LEVEL1);
    rig_write(&rig, TARGET(MAP_IRQ_RTC), 4, 9);
    aplic(&rig, SETIENUM, MAP_IRQ_RTC);
    uint64_t before = (uint64_t)time(NULL);
    uint64_t now = rtc_now(&rig) / 1000000000;
    assert_true(now >= before && now <= (uint64_t)time(NULL));
    // An alarm in the past goes off at once, one in the future when it is time.
    rig_write(&rig, MAP_RTC_BASE + 0x10, 4, 1);
    rtc_alarm(&rig, 1);
    assert_int_equal(rig.n_msis, 1);
    assert_int_equal(rig_read(&rig, MAP_RTC_BASE + 0x18, 4), 0);
    rig_write(&rig, MAP_RTC_BASE + 0x1c, 4, 1);
    rtc_alarm(&rig, rtc_now(&rig) + 20000000);
    assert_int_equal(rig_read(&rig, MAP_RTC_BASE + 0x18, 4), 1);
    while (rig.n_msis == 1)
        loop_run_once(rig.loop, 1000);
    assert_int_equal(rig.n_msis, 2);
    rig_write(&rig, MAP_RTC_BASE + 0x1c, 4, 1);
    // Set to the year 2001, it goes on from there.
    rig_write(&rig, MAP_RTC_BASE + 4, 4, 1000000000000000000ull >> 32);
    rig_write(&rig, MAP_RTC_BASE, 4, (uint32_t)1000000000000000000ull);
    assert_true(rtc_now(&rig) - 1000000000000000000ull < 60000000000ull);
    // A cleared alarm is none.
    rtc_alarm(&rig, rtc_now(&rig) + 3600000000000ull);
    rig_write(&rig, MAP_RTC_BASE + 0x14, 4, 1);
    assert_int_equal(rig_read(&rig, MAP_RTC_BASE + 0x18, 4), 0);
    rig_run(&rig);
    rig_close(&rig);
}

// --- bus

static uint64_t dummy_read(void *device, uint64_t offset, unsigned size)
{
    (void)size;
    return *(uint64_t *)device + offset;
}

static void dummy_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)size;
    *(uint64_t *)device = value + offset;
}

static void test_bus(void **arg)
{
    static const struct bus_ops ops = {.name = "dummy", .read = dummy_read, .write = dummy_write};
    struct bus *bus = bus_create();
    struct tv_error err = {0};
    uint64_t a = 100, b = 200, value;
    (void)arg;
    assert_int_equal(bus_add(bus, 0x1000, 0x100, &ops, &a, NULL), 0);
    assert_int_equal(bus_add(bus, 0x1100, 0x100, &ops, &b, NULL), 0);
    assert_int_equal(bus_add(bus, 0x10ff, 2, &ops, &a, &err), -EBUSY);
    assert_non_null(strstr(err.text, "dummy"));
    assert_int_equal(bus_add(bus, 0xf00, 0x101, &ops, &a, NULL), -EBUSY);
    assert_int_equal(bus_add(bus, ~0ull, 2, &ops, &a, NULL), -EINVAL);
    assert_int_equal(bus_add(bus, 0, 0, &ops, &a, NULL), -EINVAL);
    assert_int_equal(bus_add(bus, ~0ull, 1, &ops, &a, NULL), 0);
    assert_int_equal(bus_read(bus, 0x1008, 8, &value), 0);
    assert_int_equal(value, 108);
    assert_int_equal(bus_read(bus, 0x1104, 4, &value), 0);
    assert_int_equal(value, 204);
    assert_int_equal(bus_read(bus, 0x10fc, 8, &value), -ENXIO); // over the end of its range
    assert_int_equal(bus_read(bus, 0xfff, 1, &value), -ENXIO);
    bus_remove(bus, 0x1000);
    bus_remove(bus, 0x1104); // not where a range begins
    assert_int_equal(bus_write(bus, 0x1000, 4, 1), -ENXIO);
    assert_int_equal(bus_write(bus, 0x1100, 4, 1), 0);
    assert_int_equal(b, 1);
    bus_destroy(bus);
}

// --- saved state

static void test_state(void **arg)
{
    struct rig from, to;
    (void)arg;
    rig_open(&from, 2);
    rig_open(&to, 2);
    set_up(&from, LEVEL1);
    aplic(&from, CLRIENUM, SOURCE);
    line(&from, true); // pending, not enabled
    uart_put(&from, FCR, 0x81);
    uart_put(&from, IER, 1);
    uart_put(&from, LCR, 0x03);
    uart_input(&from, "half read");
    uart_get(&from, RBR);
    rtc_alarm(&from, rtc_now(&from) + 3600000000000ull);
    rig_save_and_load(&from, &to);
    assert_int_equal(to.n_msis, 0);
    assert_true(pending(&to));
    aplic(&to, SETIENUM, SOURCE);
    expect_msi(&to);
    line(&to, false);
    assert_false(input(&to));
    for (const char *c = "alf read"; *c; c++)
        assert_int_equal(uart_get(&to, RBR), *c);
    assert_int_equal(uart_get(&to, LSR), 0x60);
    assert_int_equal(rig_read(&to, MAP_RTC_BASE + 0x18, 4), 1);
    assert_int_equal(uart_get(&from, RBR), 'a'); // the one that was saved goes on as well
    rig_close(&from);
    rig_close(&to);
}

// Whatever byte of a saved board is changed: it loads or is refused, and can be reset and used after it.
static void test_state_damaged(void **arg)
{
    struct rig rig, to;
    size_t len_bytes;
    (void)arg;
    rig_open(&rig, 1);
    rig_open(&to, 1);
    uart_input(&rig, "x");
    uint8_t *buf = rig_save(&rig, &len_bytes);
    for (size_t i = 0; i < len_bytes; i++) {
        buf[i] ^= 0xa5;
        rig_load(&to, buf, len_bytes);
        buf[i] ^= 0xa5;
        uart_get(&to, RBR);
        uart_get(&to, LSR);
    }
    for (size_t cut = 0; cut < len_bytes; cut += 7)
        assert_int_not_equal(rig_load(&to, buf, cut), 0);
    assert_int_equal(rig_load(&to, buf, len_bytes), 0);
    assert_int_equal(uart_get(&to, RBR), 'x');
    free(buf);
    rig_close(&rig);
    rig_close(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bus),
        cmocka_unit_test(test_aplic_level),
        cmocka_unit_test(test_aplic_edge),
        cmocka_unit_test(test_aplic_registers),
        cmocka_unit_test(test_uart_output),
        cmocka_unit_test(test_uart_input),
        cmocka_unit_test(test_uart_break),
        cmocka_unit_test(test_uart_loopback),
        cmocka_unit_test(test_uart_interrupt_line),
        cmocka_unit_test(test_rtc),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
