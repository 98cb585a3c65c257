// PCI and the virtio devices, each driven as a driver would: configuration space, BARs, MSI-X, virtqueues in memory.
#include "board_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#define BAR MAP_PCI64_BASE
#define BAR_BYTES 0x8000ull
#define QUEUE(i) (MAP_RAM_BASE + 0x10000 + (i)*0x1000ull)
#define BUFFER(i) (MAP_RAM_BASE + 0x40000 + (i)*0x1000ull)
#define VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define QUEUE_SIZE 8

struct host { // what the machine heard
    char output[2][64];
    size_t n_output[2];
    unsigned n_room[2];
    bool is_open[2];
};

static void heard(void *arg, unsigned port, const uint8_t *buf, size_t len_bytes)
{
    struct host *host = arg;
    for (size_t i = 0; i < len_bytes && host->n_output[port] < 63; i++)
        host->output[port][host->n_output[port]++] = (char)buf[i];
}

static void has_room(void *arg, unsigned port)
{
    ((struct host *)arg)->n_room[port]++;
}

static void opened(void *arg, unsigned port, bool is_open)
{
    ((struct host *)arg)->is_open[port] = is_open;
}

static struct device_home home(struct rig *rig, unsigned slot)
{
    return (struct device_home){.loop = rig->loop, .mem = &rig->mem, .pcie = board_pcie(rig->board), .slot = slot};
}

static struct virtio_console *add_console(struct rig *rig, struct host *host)
{
    const struct virtio_console_config config = {
        .home = home(rig, 1), .arg = host, .output = heard, .room = has_room, .opened = opened};
    *host = (struct host){0};
    struct virtio_console *c = virtio_console_add(&config, NULL);
    assert_non_null(c);
    return c;
}

static uint8_t *at(struct rig *rig, uint64_t gpa)
{
    return rig->ram + (gpa - MAP_RAM_BASE);
}

// --- PCI

static void test_bar(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 1);
    const struct device_home at_2 = home(&rig, 2), at_3 = home(&rig, 3);
    assert_non_null(virtio_rng_add(&at_2, NULL));
    assert_non_null(virtio_rng_add(&at_3, NULL));
    assert_null(virtio_rng_add(&at_3, NULL)); // taken
    assert_int_equal(rig_config_read(&rig, 0, PCI_VENDOR_ID, 4), 0xffffffff);
    assert_int_equal(rig_config_read(&rig, 2, PCI_VENDOR_ID, 4), 0x10441af4);
    assert_int_equal(rig_read(&rig, MAP_ECAM_BASE + (2 << 15) + (1 << 12), 4), 0xffffffff); // function 1
    assert_int_equal(rig_read(&rig, MAP_ECAM_BASE + (1 << 20) + (2 << 15), 4), 0xffffffff); // bus 1
    assert_int_equal(rig_read(&rig, MAP_ECAM_BASE + (2 << 15) + 0x100, 4), 0xffffffff);     // extended space
    rig_config_write(&rig, 2, PCI_VENDOR_ID, 4, 0);
    assert_int_equal(rig_config_read(&rig, 2, PCI_VENDOR_ID, 4), 0x10441af4);
    // Size.
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
    assert_int_equal(rig_config_read(&rig, 2, PCI_BASE_ADDRESS_0, 4), 0xffff800c);
    assert_int_equal(rig_config_read(&rig, 2, PCI_BASE_ADDRESS_1, 4), 0xffffffff);
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_2, 4, 0xffffffff);
    assert_int_equal(rig_config_read(&rig, 2, PCI_BASE_ADDRESS_2, 4), 0);
    // Place and move.
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_0, 4, (uint32_t)BAR);
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_1, 4, BAR >> 32);
    assert_false(rig_answers(&rig, BAR));
    rig_config_write(&rig, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(rig_answers(&rig, BAR) && rig_answers(&rig, BAR + BAR_BYTES - 4) && !rig_answers(&rig, BAR + BAR_BYTES));
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_0, 4, (uint32_t)(BAR + BAR_BYTES));
    assert_true(!rig_answers(&rig, BAR) && rig_answers(&rig, BAR + BAR_BYTES));
    // Over another device's: the later one answers nowhere until it moves on, the first is not disturbed.
    rig_config_write(&rig, 3, PCI_BASE_ADDRESS_1, 4, BAR >> 32);
    rig_config_write(&rig, 3, PCI_BASE_ADDRESS_0, 4, (uint32_t)(BAR + BAR_BYTES));
    rig_config_write(&rig, 3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    rig_config_write(&rig, 3, PCI_COMMAND, 2, 0);
    assert_true(rig_answers(&rig, BAR + BAR_BYTES));
    rig_config_write(&rig, 3, PCI_BASE_ADDRESS_0, 4, (uint32_t)BAR);
    rig_config_write(&rig, 3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(rig_answers(&rig, BAR) && rig_answers(&rig, BAR + BAR_BYTES));
    // Over RAM and beyond everything: nowhere. Over the serial port: that one answers.
    static const uint64_t bad[] = {MAP_RAM_BASE, 0, ~(BAR_BYTES - 1), MAP_PCI64_BASE + MAP_PCI64_SIZE};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        rig_config_write(&rig, 2, PCI_BASE_ADDRESS_0, 4, (uint32_t)bad[i]);
        rig_config_write(&rig, 2, PCI_BASE_ADDRESS_1, 4, (uint32_t)(bad[i] >> 32));
        assert_false(rig_answers(&rig, bad[i]));
    }
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_1, 4, 0);
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_0, 4, (uint32_t)MAP_UART_BASE);
    assert_int_equal(rig_read(&rig, MAP_UART_BASE + 5, 1), 0x60);
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_1, 4, 0);
    rig_config_write(&rig, 2, PCI_BASE_ADDRESS_0, 4, (uint32_t)MAP_PCI32_BASE); // a 64-bit BAR may lie low
    assert_true(rig_answers(&rig, MAP_PCI32_BASE));
    board_reset(rig.board);
    assert_false(rig_answers(&rig, MAP_PCI32_BASE) || rig_answers(&rig, BAR));
    rig_close(&rig);
}

static void test_msix(void **arg)
{
    struct rig rig;
    struct rig_virtio v;
    (void)arg;
    rig_open(&rig, 1);
    const struct device_home at_2 = home(&rig, 2);
    assert_non_null(virtio_rng_add(&at_2, NULL));
    rig_virtio_probe(&v, &rig, 2, BAR, 40);
    assert_true(rig_virtio_negotiate(&v, VERSION_1));
    rig_virtio_queue(&v, 0, QUEUE(0), QUEUE_SIZE);
    rig_virtio_go(&v);
    unsigned cap = rig_find_capability(&rig, 2, PCI_CAP_ID_MSIX, 0);
    uint64_t control = v.msix + 16 + 12, pba = BAR + (rig_config_read(&rig, 2, cap + PCI_MSIX_PBA, 4) & ~7u);
    rig_virtio_offer(&v, 0, 0, BUFFER(0), 16, true);
    assert_int_equal(rig_count_msis(&rig, 41), 1);
    // Masked: pending, and sent when it is unmasked, once.
    rig_write(&rig, control, 4, 1);
    rig_virtio_offer(&v, 0, 1, BUFFER(0), 16, true);
    rig_virtio_offer(&v, 0, 2, BUFFER(0), 16, true);
    assert_int_equal(rig_count_msis(&rig, 41), 1);
    assert_int_equal(rig_read(&rig, pba, 8), 2);
    rig_write(&rig, pba, 8, 0); // read-only
    rig_write(&rig, control, 4, 0);
    assert_int_equal(rig_count_msis(&rig, 41), 2);
    assert_int_equal(rig_read(&rig, pba, 8), 0);
    // The same by the function's mask and by bus mastering; the message goes to where the vector points then.
    rig_config_write(&rig, 2, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    rig_virtio_offer(&v, 0, 3, BUFFER(0), 16, true);
    rig_write(&rig, v.msix + 16 + 8, 4, 99);
    rig_config_write(&rig, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    rig_config_write(&rig, 2, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(rig_count_msis(&rig, 99), 0);
    rig_config_write(&rig, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(rig_count_msis(&rig, 99), 1);
    // Off: lost, and nothing comes later.
    rig_config_write(&rig, 2, cap + PCI_MSIX_FLAGS, 2, 0);
    rig_virtio_offer(&v, 0, 4, BUFFER(0), 16, true);
    rig_config_write(&rig, 2, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(rig_count_msis(&rig, 99), 1);
    assert_int_equal(rig_read(&rig, v.isr, 1) & 1, 1); // the ISR knows, once
    assert_int_equal(rig_read(&rig, v.isr, 1), 0);
    rig_close(&rig);
}

// --- the transport

static void test_negotiation(void **arg)
{
    struct rig rig;
    struct rig_virtio v;
    (void)arg;
    rig_open(&rig, 1);
    const struct device_home at_2 = home(&rig, 2);
    assert_non_null(virtio_rng_add(&at_2, NULL));
    rig_virtio_probe(&v, &rig, 2, BAR, 40);
    uint64_t offered = rig_virtio_offered(&v);
    assert_true(offered & VERSION_1);
    assert_false(rig_virtio_negotiate(&v, 0)); // VERSION_1 must be taken
    rig_virtio_reset(&v);
    assert_false(rig_virtio_negotiate(&v, VERSION_1 | 1ull << 50)); // and nothing that was not offered
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_STATUS, 1, 0xf);
    assert_int_equal(rig_virtio_status(&v), 3); // no DRIVER_OK without FEATURES_OK
    rig_virtio_reset(&v);
    assert_true(rig_virtio_negotiate(&v, offered));
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_GF, 4, 0); // too late
    assert_int_equal(rig_read(&rig, v.common + VIRTIO_PCI_COMMON_GF, 4), offered >> 32);
    // Queues that are not there, sizes that cannot be, vectors that are not there.
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    assert_int_equal(rig_read(&rig, v.common + VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    uint64_t size = rig_read(&rig, v.common + VIRTIO_PCI_COMMON_Q_SIZE, 2);
    static const uint16_t sizes[] = {0, 3, 512, 0xffff};
    for (size_t i = 0; i < 4; i++) {
        rig_write(&rig, v.common + VIRTIO_PCI_COMMON_Q_SIZE, 2, sizes[i]);
        assert_int_equal(rig_read(&rig, v.common + VIRTIO_PCI_COMMON_Q_SIZE, 2), size);
    }
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
    assert_int_equal(rig_read(&rig, v.common + VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
    rig_close(&rig);
}

// A driver that breaks its ring costs itself the device, until it resets it.
static void test_needs_reset(void **arg)
{
    struct rig rig;
    struct rig_virtio v;
    (void)arg;
    rig_open(&rig, 1);
    const struct device_home at_2 = home(&rig, 2);
    assert_non_null(virtio_rng_add(&at_2, NULL));
    rig_virtio_probe(&v, &rig, 2, BAR, 40);
    assert_true(rig_virtio_negotiate(&v, VERSION_1));
    rig_virtio_queue(&v, 0, QUEUE(0), QUEUE_SIZE);
    rig_virtio_go(&v);
    rig_virtio_offer(&v, 0, 0, 0x1000, 16, true); // not RAM
    assert_true(rig_virtio_status(&v) & VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_int_equal(rig_count_msis(&rig, 40), 1); // told as a configuration change
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_STATUS, 1, 0xf);
    assert_true(rig_virtio_status(&v) & VIRTIO_CONFIG_S_NEEDS_RESET);
    // While it is being reset it shows what it was, and takes nothing.
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_not_equal(rig_virtio_status(&v), 0);
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_Q_SELECT, 2, 7);
    rig_virtio_reset(&v);
    assert_int_equal(rig_read(&rig, v.common + VIRTIO_PCI_COMMON_Q_SELECT, 2), 0);
    // Rings outside of RAM.
    assert_true(rig_virtio_negotiate(&v, VERSION_1));
    rig_virtio_queue(&v, 0, QUEUE(0), QUEUE_SIZE);
    rig_virtio_reset(&v);
    assert_true(rig_virtio_negotiate(&v, VERSION_1));
    rig_write(&rig, v.common + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1); // at address 0
    rig_virtio_go(&v);
    assert_true(rig_virtio_status(&v) & VIRTIO_CONFIG_S_NEEDS_RESET);
    // And all is well again.
    rig_virtio_reset(&v);
    assert_true(rig_virtio_negotiate(&v, VERSION_1));
    rig_virtio_queue(&v, 0, QUEUE(0), QUEUE_SIZE);
    rig_virtio_go(&v);
    rig_forget_msis(&rig);
    rig_virtio_offer(&v, 0, 0, BUFFER(0), 16, true);
    assert_int_equal(rig_count_msis(&rig, 41), 1);
    rig_close(&rig);
}

// The window in configuration space does what the BAR does, for those who cannot reach that.
static void test_config_access(void **arg)
{
    struct rig rig;
    (void)arg;
    rig_open(&rig, 1);
    const struct device_home at_2 = home(&rig, 2);
    assert_non_null(virtio_rng_add(&at_2, NULL));
    unsigned cap = 0;
    for (unsigned i = 0; (cap = rig_find_capability(&rig, 2, PCI_CAP_ID_VNDR, i)) != 0; i++)
        if (rig_config_read(&rig, 2, cap + 3, 1) == VIRTIO_PCI_CAP_PCI_CFG)
            break;
    assert_int_not_equal(cap, 0);
    rig_config_write(&rig, 2, cap + 4, 1, 0);
    rig_config_write(&rig, 2, cap + 8, 4, VIRTIO_PCI_COMMON_STATUS);
    rig_config_write(&rig, 2, cap + 12, 4, 1);
    rig_config_write(&rig, 2, cap + 16, 4, 3);
    assert_int_equal(rig_config_read(&rig, 2, cap + 16, 4), 3);
    rig_config_write(&rig, 2, cap + 8, 4, VIRTIO_PCI_COMMON_NUMQ);
    rig_config_write(&rig, 2, cap + 12, 4, 2);
    assert_int_equal(rig_config_read(&rig, 2, cap + 16, 4), 1);
    rig_config_write(&rig, 2, cap + 12, 4, 3); // no such width
    rig_config_read(&rig, 2, cap + 16, 4);
    rig_config_write(&rig, 2, cap + 8, 4, 0xfffffffc); // beyond the BAR
    rig_config_write(&rig, 2, cap + 12, 4, 4);
    rig_config_write(&rig, 2, cap + 16, 4, 3);
    assert_int_equal(rig_config_read(&rig, 2, cap + 16, 4), 0);
    rig_close(&rig);
}

// --- rng

static void test_rng(void **arg)
{
    struct rig rig;
    struct rig_virtio v;
    uint32_t id, len_bytes;
    (void)arg;
    rig_open(&rig, 1);
    const struct device_home at_2 = home(&rig, 2);
    assert_non_null(virtio_rng_add(&at_2, NULL));
    rig_virtio_probe(&v, &rig, 2, BAR, 40);
    assert_true(rig_virtio_negotiate(&v, VERSION_1));
    rig_virtio_queue(&v, 0, QUEUE(0), QUEUE_SIZE);
    rig_virtio_go(&v);
    rig_virtio_offer(&v, 0, 5, BUFFER(0), 64, true);
    assert_true(virtq_driver_take(&v.queues[0], &id, &len_bytes));
    assert_int_equal(id, 5);
    assert_int_equal(len_bytes, 64);
    static const uint8_t zeroes[64];
    assert_memory_not_equal(at(&rig, BUFFER(0)), zeroes, 64);
    assert_memory_equal(at(&rig, BUFFER(0)) + 64, zeroes, 64);
    rig_virtio_offer(&v, 0, 6, BUFFER(0), 16, false); // nothing to write to: given back empty
    assert_true(virtq_driver_take(&v.queues[0], &id, &len_bytes));
    assert_int_equal(len_bytes, 0);
    rig_close(&rig);
}

// --- console

enum { CONTROL_IN = 2, CONTROL_OUT = 3, PORT1_IN = 4, PORT1_OUT = 5 };
enum { SIZE_FEATURE = 1 << 0, MULTIPORT = 1 << 1 };
enum { READY = 0, ADD = 1, PORT_READY = 3, CONSOLE = 4, RESIZE = 5, OPEN = 6, NAME = 7 };

struct control {
    uint32_t id;
    uint16_t event, value;
};

static void start_console(struct rig_virtio *v, struct rig *rig, uint64_t features)
{
    rig_virtio_probe(v, rig, 1, BAR, 40);
    assert_true(rig_virtio_negotiate(v, VERSION_1 | features));
    for (unsigned i = 0; i < (features & MULTIPORT ? 6u : 2u); i++)
        rig_virtio_queue(v, i, QUEUE(i), QUEUE_SIZE);
    rig_virtio_go(v);
}

static void send_control(struct rig_virtio *v, uint32_t id, uint16_t event, uint16_t value)
{
    const struct control m = {id, event, value};
    uint32_t used, len_bytes;
    memcpy(at(v->rig, BUFFER(20)), &m, sizeof(m));
    rig_virtio_offer(v, CONTROL_OUT, 0, BUFFER(20), sizeof(m), false);
    assert_true(virtq_driver_take(&v->queues[CONTROL_OUT], &used, &len_bytes));
}

// Offers one buffer for a control message, which must come at once and be this one; what follows it is returned.
static const char *expect_control(struct rig_virtio *v, uint32_t id, uint16_t event, size_t more_bytes)
{
    struct control m;
    uint32_t used, len_bytes;
    memset(at(v->rig, BUFFER(21)), 0, 64);
    rig_virtio_offer(v, CONTROL_IN, 0, BUFFER(21), 64, true);
    assert_true(virtq_driver_take(&v->queues[CONTROL_IN], &used, &len_bytes));
    memcpy(&m, at(v->rig, BUFFER(21)), sizeof(m));
    assert_int_equal(m.id, id);
    assert_int_equal(m.event, event);
    assert_int_equal(m.value, 1);
    assert_int_equal(len_bytes, sizeof(m) + more_bytes);
    return (const char *)at(v->rig, BUFFER(21)) + sizeof(m);
}

static void test_console_simple(void **arg)
{
    struct rig rig;
    struct rig_virtio v;
    struct host host;
    uint32_t id, len_bytes;
    (void)arg;
    rig_open(&rig, 1);
    struct virtio_console *c = add_console(&rig, &host);
    start_console(&v, &rig, SIZE_FEATURE);
    assert_true(host.is_open[0]);
    memcpy(at(&rig, BUFFER(0)), "hello", 5);
    rig_virtio_offer(&v, 1, 0, BUFFER(0), 5, false);
    assert_string_equal(host.output[0], "hello");
    assert_int_equal(rig_count_msis(&rig, 42), 1);
    // Input: no buffer, then one that is too small for all.
    assert_int_equal(virtio_console_input(c, 0, (const uint8_t *)"abcdef", 6), 0);
    rig_virtio_offer(&v, 0, 0, BUFFER(1), 4, true);
    assert_int_equal(host.n_room[0], 1);
    assert_int_equal(virtio_console_input(c, 0, (const uint8_t *)"abcdef", 6), 4);
    assert_true(virtq_driver_take(&v.queues[0], &id, &len_bytes));
    assert_int_equal(len_bytes, 4);
    assert_memory_equal(at(&rig, BUFFER(1)), "abcd", 4);
    assert_int_equal(rig_count_msis(&rig, 41), 1);
    // A new size is a change of the configuration.
    virtio_console_resize(c, 132, 50);
    assert_int_equal(rig_count_msis(&rig, 40), 1);
    assert_int_equal(rig_read(&rig, v.device, 2), 132);
    assert_int_equal(rig_read(&rig, v.device + 2, 2), 50);
    rig_write(&rig, v.device, 2, 7); // read-only
    assert_int_equal(rig_read(&rig, v.device, 2), 132);
    rig_virtio_reset(&v);
    assert_false(host.is_open[0]);
    assert_int_equal(virtio_console_input(c, 0, (const uint8_t *)"x", 1), 0);
    rig_close(&rig);
}

static void test_console_ports(void **arg)
{
    struct rig rig;
    struct rig_virtio v;
    struct host host;
    uint32_t id, len_bytes;
    (void)arg;
    rig_open(&rig, 1);
    struct virtio_console *c = add_console(&rig, &host);
    virtio_console_resize(c, 80, 25);
    start_console(&v, &rig, MULTIPORT | SIZE_FEATURE);
    assert_int_equal(rig_read(&rig, v.device + 4, 4), VIRTIO_CONSOLE_PORTS);
    send_control(&v, 0, READY, 1);
    expect_control(&v, 0, ADD, 0);
    expect_control(&v, 1, ADD, 0);
    send_control(&v, 0, PORT_READY, 1);
    send_control(&v, 1, PORT_READY, 1);
    send_control(&v, 9, PORT_READY, 1); // not there
    expect_control(&v, 0, CONSOLE, 0);
    const uint16_t size[2] = {80, 25};
    assert_memory_equal(expect_control(&v, 0, RESIZE, 4), size, 4);
    expect_control(&v, 0, OPEN, 0);
    assert_string_equal(expect_control(&v, 1, NAME, strlen(VIRTIO_CONSOLE_CONTROL_NAME)), VIRTIO_CONSOLE_CONTROL_NAME);
    expect_control(&v, 1, OPEN, 0);
    assert_false(virtio_console_is_open(c, 1));
    send_control(&v, 1, OPEN, 1);
    assert_true(virtio_console_is_open(c, 1) && host.is_open[1]);
    rig_virtio_offer(&v, PORT1_IN, 0, BUFFER(2), 32, true);
    assert_int_equal(virtio_console_input(c, 1, (const uint8_t *)"powerdown\n", 10), 10);
    assert_true(virtq_driver_take(&v.queues[PORT1_IN], &id, &len_bytes));
    assert_memory_equal(at(&rig, BUFFER(2)), "powerdown\n", 10);
    memcpy(at(&rig, BUFFER(3)), "ok", 2);
    rig_virtio_offer(&v, PORT1_OUT, 0, BUFFER(3), 2, false);
    assert_string_equal(host.output[1], "ok");
    assert_string_equal(host.output[0], "");
    send_control(&v, 1, OPEN, 0);
    assert_false(host.is_open[1]);
    rig_close(&rig);
}

// --- saved state

static void test_state(void **arg)
{
    struct rig from, to;
    struct rig_virtio v, w;
    struct host host, other;
    uint32_t id, len_bytes;
    (void)arg;
    rig_open(&from, 1);
    rig_open(&to, 1);
    add_console(&from, &host);
    struct virtio_console *c = add_console(&to, &other);
    start_console(&v, &from, MULTIPORT);
    send_control(&v, 0, READY, 1);
    expect_control(&v, 0, ADD, 0); // the second one is still to be told
    rig_write(&from, v.msix + 16 * 3 + 12, 4, 1);
    rig_virtio_offer(&v, CONTROL_IN, 0, BUFFER(21), 64, true); // that is, while its vector is masked
    assert_true(virtq_driver_take(&v.queues[CONTROL_IN], &id, &len_bytes));
    send_control(&v, 1, OPEN, 1);
    virtq_driver_desc(&v.queues[1], 0, BUFFER(0), 5, 0, 0); // output that nobody has looked at yet
    memcpy(at(&from, BUFFER(0)), "later", 5);
    virtq_driver_offer(&v.queues[1], 0);
    rig_save_and_load(&from, &to);
    rig_run(&to);
    assert_string_equal(other.output[0], "later"); // looked at when it went on
    assert_true(other.is_open[1] && virtio_console_is_open(c, 1));
    w = v;
    w.rig = &to;
    for (unsigned i = 0; i < 6; i++) {
        w.queues[i].desc = (void *)(to.ram + ((uint8_t *)v.queues[i].desc - from.ram));
        w.queues[i].avail = (void *)(to.ram + ((uint8_t *)v.queues[i].avail - from.ram));
        w.queues[i].used = (void *)(to.ram + ((uint8_t *)v.queues[i].used - from.ram));
    }
    assert_true(virtq_driver_take(&w.queues[1], &id, &len_bytes));
    rig_forget_msis(&to);
    rig_write(&to, w.msix + 16 * 3 + 12, 4, 0);
    assert_int_equal(rig_count_msis(&to, 43), 1); // the pending bit was saved as well
    rig_virtio_offer(&w, PORT1_IN, 0, BUFFER(2), 32, true);
    assert_int_equal(virtio_console_input(c, 1, (const uint8_t *)"x", 1), 1);
    rig_close(&from);
    rig_close(&to);
}

// In the middle of a reset: it is carried out after the load.
static void test_state_resetting(void **arg)
{
    struct rig from, to;
    struct rig_virtio v;
    struct host host, other;
    (void)arg;
    rig_open(&from, 1);
    rig_open(&to, 1);
    add_console(&from, &host);
    add_console(&to, &other);
    start_console(&v, &from, 0);
    rig_write(&from, v.common + VIRTIO_PCI_COMMON_STATUS, 1, 0);
    rig_save_and_load(&from, &to);
    v.rig = &to;
    assert_int_not_equal(rig_virtio_status(&v), 0);
    rig_run(&to);
    assert_int_equal(rig_virtio_status(&v), 0);
    rig_close(&from);
    rig_close(&to);
}

static void test_state_refused(void **arg)
{
    struct rig from, to, empty;
    struct rig_virtio v;
    struct host host, other;
    size_t len_bytes;
    (void)arg;
    rig_open(&from, 1);
    rig_open(&to, 1);
    rig_open(&empty, 1);
    add_console(&from, &host);
    add_console(&to, &other);
    start_console(&v, &from, MULTIPORT);
    uint8_t *buf = rig_save(&from, &len_bytes);
    assert_int_not_equal(rig_load(&empty, buf, len_bytes), 0); // no such device here
    unsigned refused = 0;
    for (size_t i = 0; i < len_bytes; i++) { // each byte damaged: refused, or a device that still works
        buf[i] ^= 0x81;
        refused += rig_load(&to, buf, len_bytes) != 0;
        board_thaw(to.board, NULL);
        rig_run(&to);
        buf[i] ^= 0x81;
        board_reset(to.board);
    }
    assert_true(refused > 0);
    memcpy(to.ram, from.ram, RIG_RAM_BYTES);
    assert_int_equal(rig_load(&to, buf, len_bytes), 0);
    free(buf);
    rig_close(&from);
    rig_close(&to);
    rig_close(&empty);
}

// --- pvpanic

static void events_came(void *arg, unsigned events)
{
    *(unsigned *)arg |= events;
}

static struct pvpanic *add_pvpanic(struct rig *rig, unsigned *events)
{
    const struct pvpanic_config config = {.home = home(rig, 4), .arg = events, .reported = events_came};
    *events = 0;
    struct pvpanic *p = pvpanic_add(&config, NULL);
    assert_non_null(p);
    return p;
}

static void test_pvpanic(void **arg)
{
    struct rig rig;
    unsigned events;
    (void)arg;
    rig_open(&rig, 1);
    struct pvpanic *p = add_pvpanic(&rig, &events);
    assert_int_equal(rig_config_read(&rig, 4, PCI_VENDOR_ID, 4), 0x00111b36);
    rig_config_write(&rig, 4, PCI_BASE_ADDRESS_0, 4, MAP_PCI32_BASE);
    rig_config_write(&rig, 4, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(rig_read(&rig, MAP_PCI32_BASE, 1), PVPANIC_PANICKED | PVPANIC_CRASH_LOADED | PVPANIC_SHUTDOWN);
    rig_write(&rig, MAP_PCI32_BASE, 1, 0xf8); // no events that anybody knows
    rig_write(&rig, MAP_PCI32_BASE + 1, 1, PVPANIC_PANICKED);
    rig_run(&rig);
    assert_int_equal(events, 0);
    rig_write(&rig, MAP_PCI32_BASE, 1, PVPANIC_CRASH_LOADED);
    assert_int_equal(events, 0); // on the loop, not here
    rig_run(&rig);
    assert_int_equal(events, PVPANIC_CRASH_LOADED);
    // Told at once, and not a second time.
    events = 0;
    rig_write(&rig, MAP_PCI32_BASE, 1, PVPANIC_PANICKED);
    pvpanic_tell(p);
    assert_int_equal(events, PVPANIC_PANICKED);
    events = 0;
    rig_run(&rig);
    assert_int_equal(events, 0);
    // A reset forgets it.
    rig_write(&rig, MAP_PCI32_BASE, 1, PVPANIC_PANICKED);
    board_reset(rig.board);
    rig_run(&rig);
    assert_int_equal(events, 0);
    rig_close(&rig);
}

// What was not told before a save is told after the load, by both.
static void test_pvpanic_state(void **arg)
{
    struct rig from, to;
    unsigned from_events, to_events;
    (void)arg;
    rig_open(&from, 1);
    rig_open(&to, 1);
    add_pvpanic(&from, &from_events);
    add_pvpanic(&to, &to_events);
    rig_config_write(&from, 4, PCI_BASE_ADDRESS_0, 4, MAP_PCI32_BASE);
    rig_config_write(&from, 4, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    rig_write(&from, MAP_PCI32_BASE, 1, PVPANIC_PANICKED);
    board_freeze(from.board);
    rig_run(&from);
    assert_int_equal(from_events, 0);
    rig_save_and_load(&from, &to);
    rig_run(&from);
    rig_run(&to);
    assert_int_equal(from_events, PVPANIC_PANICKED);
    assert_int_equal(to_events, PVPANIC_PANICKED);
    assert_true(rig_answers(&to, MAP_PCI32_BASE));
    rig_close(&from);
    rig_close(&to);
}

// An event that nobody knows is refused.
static void test_pvpanic_state_refused(void **arg)
{
    struct rig rig;
    unsigned events;
    size_t len_bytes;
    (void)arg;
    rig_open(&rig, 1);
    add_pvpanic(&rig, &events);
    uint8_t *buf = rig_save(&rig, &len_bytes);
    uint8_t *name = memmem(buf, len_bytes, "events", 6);
    assert_non_null(name);
    uint8_t *value = name + 6;
    while (value < buf + len_bytes && *value != 0)
        value++;
    *value = 0x80;
    assert_true(rig_load(&rig, buf, len_bytes) < 0);
    free(buf);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bar),
        cmocka_unit_test(test_msix),
        cmocka_unit_test(test_negotiation),
        cmocka_unit_test(test_needs_reset),
        cmocka_unit_test(test_config_access),
        cmocka_unit_test(test_rng),
        cmocka_unit_test(test_console_simple),
        cmocka_unit_test(test_console_ports),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_resetting),
        cmocka_unit_test(test_state_refused),
        cmocka_unit_test(test_pvpanic),
        cmocka_unit_test(test_pvpanic_state),
        cmocka_unit_test(test_pvpanic_state_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
