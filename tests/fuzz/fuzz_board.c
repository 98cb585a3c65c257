// A hostile guest at the board: random accesses to every register there is, virtio devices set up in earnest and then broken, rings
// and buffers made of garbage, BARs moved over everything, saves and loads of damaged state in between. Whatever it does costs its
// devices only: nothing outside of guest memory is touched, the loop comes back, and after a reset all works as on the first day.
//
// The input is a program: an operation byte, then its operands. fuzz_board_pc.c is the same for the x86-64 board, with its ports.
#include "base/log.h"
#include "machine/device/device.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BYTES 32768u
#define BAR_BYTES 0x8000ull
#define STEPS_MAX 400

#ifdef FUZZ_BOARD_PC
#define ARCH ENGINE_X86_64
#define RAM_BASE 0ull
#define ECAM_BASE PC_ECAM_BASE
#define PCI32_BASE PC_PCI32_BASE
#define PCI64_BASE PC_PCI64_ALIGN // the first above 4 GiB
#define OPERATIONS 12
#else
#define ARCH ENGINE_RISCV64
#define RAM_BASE MAP_RAM_BASE
#define ECAM_BASE MAP_ECAM_BASE
#define PCI32_BASE MAP_PCI32_BASE
#define PCI64_BASE MAP_PCI64_BASE
#define OPERATIONS 11
#endif

enum { SLOT_CONSOLE = 1, SLOT_RNG = 2, SLOT_PVPANIC = 3 };
enum { BAR_COMMON = 0x0000, BAR_NOTIFY = 0x3000 }; // virtio_pci_regs.c; found out by themselves in the unit tests

static struct loop *loop;
static struct guest_memory mem;
static uint8_t *ram;
static struct board *board;
static struct virtio_console *console;

struct input {
    const uint8_t *at, *end;
};

static uint64_t take(struct input *in, unsigned n_bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < n_bytes && in->at < in->end; i++)
        value |= (uint64_t)*in->at++ << (8 * i);
    return value;
}

// --- the machine around the board

static int raise_msi(void *arg, uint64_t addr, uint32_t data)
{
    (void)arg;
    (void)addr;
    (void)data;
    return 0;
}

static void set_irq(void *arg, unsigned line, bool level)
{
    (void)arg, (void)line, (void)level;
}

static void serial_output(void *arg, const uint8_t *buf, size_t len_bytes)
{
    (void)arg;
    if (len_bytes != 1 || !buf)
        abort();
}

static void serial_room(void *arg)
{
    (void)arg;
    uart16550_input(board_uart(board), (const uint8_t *)"r", 1);
}

// What is put out lies in guest memory.
static void console_output(void *arg, unsigned port, const uint8_t *buf, size_t len_bytes)
{
    (void)arg;
    if (port >= VIRTIO_CONSOLE_PORTS || buf < ram || len_bytes > RAM_BYTES || (size_t)(buf - ram) > RAM_BYTES - len_bytes)
        abort();
}

static void console_room(void *arg, unsigned port)
{
    (void)arg;
    virtio_console_input(console, port, (const uint8_t *)"room", 4);
}

static void pvpanic_reported(void *arg, unsigned events)
{
    (void)arg;
    if (!events || events & ~PVPANIC_EVENTS)
        abort();
}

static void run_loop(void)
{
    for (unsigned i = 0; loop_run_once(loop, 0) > 0; i++)
        if (i > 10000) // a guest must not keep the loop from coming back
            abort();
}

static void open_board(void)
{
    const struct board_config config = {.loop = loop,
                                        .mem = &mem,
                                        .n_vcpus = 2,
                                        .arch = ARCH,
                                        .raise_msi = raise_msi,
                                        .set_irq = set_irq,
                                        .console_output = serial_output,
                                        .console_room = serial_room};
    board = board_create(&config, NULL);
    if (!board)
        abort();
    const struct device_home rng = {.loop = loop, .mem = &mem, .pcie = board_pcie(board), .slot = SLOT_RNG};
    const struct virtio_console_config terminal = {
        .home = {.loop = loop, .mem = &mem, .pcie = board_pcie(board), .slot = SLOT_CONSOLE},
        .output = console_output,
        .room = console_room};
    console = virtio_console_add(&terminal, NULL);
    const struct pvpanic_config pvpanic = {.home = {.loop = loop, .mem = &mem, .pcie = board_pcie(board), .slot = SLOT_PVPANIC},
                                           .reported = pvpanic_reported};
    if (!console || !virtio_rng_add(&rng, NULL) || !pvpanic_add(&pvpanic, NULL))
        abort();
}

static void setup(void)
{
    log_configure(LOG_ERROR, false);
    loop = loop_create(NULL);
    guest_memory_init(&mem);
    int fd = guest_ram_create("fuzz", RAM_BYTES, NULL);
    if (!loop || guest_memory_add(&mem, RAM_BASE, RAM_BYTES, fd, 0, 0, NULL) != 0)
        abort();
    ram = guest_memory_view(&mem, RAM_BASE, RAM_BYTES);
    open_board();
}

// --- the guest

static void put(uint64_t gpa, unsigned size, uint64_t value)
{
    bus_write(board_bus(board), gpa, size, value);
}

static uint64_t get(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    if (bus_read(board_bus(board), gpa, size, &value) == 0 && size < 8 && value >> (8 * size))
        abort();
    return value;
}

static uint64_t bar_of(unsigned slot)
{
    return PCI64_BASE + slot * BAR_BYTES;
}

static uint64_t config_of(unsigned slot)
{
    return ECAM_BASE + (slot << 15);
}

// An address that is worth an access, aligned to size as the engine has them.
static uint64_t take_address(struct input *in, unsigned size)
{
    uint64_t where = take(in, 1), offset = take(in, 2);
    uint64_t gpa = 0;
    switch (where % 8) {
#ifndef FUZZ_BOARD_PC
    case 0:
        gpa = MAP_APLIC_BASE + offset % MAP_APLIC_SIZE;
        break;
    case 1:
        gpa = MAP_UART_BASE + offset % 16;
        break;
    case 2:
        gpa = MAP_RTC_BASE + offset % 64;
        break;
#endif
    case 3:
        gpa = config_of(SLOT_CONSOLE + (where >> 4) % 3) + offset % 272;
        break;
    case 4:
        gpa = PCI32_BASE + offset;
        break;
    default:
        gpa = bar_of(SLOT_CONSOLE + (where >> 4) % 2) + offset % BAR_BYTES;
        break;
    }
    return gpa & ~(uint64_t)(size - 1);
}

#ifdef FUZZ_BOARD_PC
// A port of the board's, or any.
static uint16_t take_port(struct input *in)
{
    static const uint16_t ports[] = {
        PC_PORT_COM1,       PC_PORT_FW_CFG,  PC_PORT_PCI_ADDRESS, PC_PORT_PCI_DATA, PC_PORT_ACPI_SLEEP_CONTROL,
        PC_PORT_DEBUG_EXIT, PC_PORT_KEYBOARD};
    uint64_t where = take(in, 1);
    if (where % 8 == 7)
        return (uint16_t)take(in, 2);
    return (uint16_t)(ports[where % 8] + (where >> 4) % 8);
}

static void access_port(struct input *in, unsigned op)
{
    unsigned size = 1u << (op >> 4) % 3;
    uint16_t port = take_port(in);
    uint64_t value;
    enum engine_exit exit;
    if (op & 0x80) {
        if (board_port_read(board, port, size, &value) != 0)
            abort();
    } else if (board_port_write(board, port, size, take(in, size), &exit) > 0) {
        if (exit != ENGINE_EXIT_SHUTDOWN && exit != ENGINE_EXIT_REBOOT && exit != ENGINE_EXIT_WARM_REBOOT &&
            exit != ENGINE_EXIT_STATUS)
            abort();
        board_reset(board); // the machine ended, or starts again
    }
}

static uint64_t uart_get(unsigned reg)
{
    uint64_t value = 0;
    board_port_read(board, (uint16_t)(PC_PORT_COM1 + reg), 1, &value);
    return value;
}

static void uart_put(unsigned reg, uint64_t value)
{
    enum engine_exit exit;
    board_port_write(board, (uint16_t)(PC_PORT_COM1 + reg), 1, value, &exit);
}

static bool is_new(void)
{
    uint64_t value;
    return board_port_read(board, PC_PORT_PCI_ADDRESS, 4, &value) == 0 && value == 0;
}
#else
static uint64_t uart_get(unsigned reg)
{
    return get(MAP_UART_BASE + reg, 1);
}

static void uart_put(unsigned reg, uint64_t value)
{
    put(MAP_UART_BASE + reg, 1, value);
}

static bool is_new(void)
{
    return get(MAP_APLIC_BASE, 4) == 0x80000004;
}
#endif

static void place_bar(unsigned slot, uint64_t base)
{
    put(config_of(slot) + PCI_BASE_ADDRESS_0, 4, (uint32_t)base);
    put(config_of(slot) + PCI_BASE_ADDRESS_1, 4, base >> 32);
    put(config_of(slot) + PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void enable_msix(unsigned slot)
{
    uint64_t cap = get(config_of(slot) + PCI_CAPABILITY_LIST, 1);
    while (cap && get(config_of(slot) + cap, 1) != PCI_CAP_ID_MSIX)
        cap = get(config_of(slot) + cap + 1, 1);
    put(config_of(slot) + cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    uint64_t table = bar_of(slot) + (get(config_of(slot) + cap + PCI_MSIX_TABLE, 4) & PCI_MSIX_TABLE_OFFSET);
    for (unsigned i = 0; i < 8; i++)
        put(table + i * 16 + 12, 4, 0);
}

static void enable_queue(uint64_t common, unsigned index, uint64_t base, uint16_t size)
{
    put(common + VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
    put(common + VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    put(common + VIRTIO_PCI_COMMON_Q_MSIX, 2, index + 1);
    put(common + VIRTIO_PCI_COMMON_Q_DESCLO, 8, base);
    put(common + VIRTIO_PCI_COMMON_Q_AVAILLO, 8, base + 16ull * size);
    put(common + VIRTIO_PCI_COMMON_Q_USEDLO, 8, base + 16ull * size + 512);
    put(common + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

// The road to DRIVER_OK, all in order, so that the fuzzer gets to what lies behind it. Queue i is at i * 2 KiB.
static void bring_up(unsigned slot, uint64_t features)
{
    uint64_t common = bar_of(slot) + BAR_COMMON;
    place_bar(slot, bar_of(slot));
    enable_msix(slot);
    put(common + VIRTIO_PCI_COMMON_STATUS, 1, 0);
    run_loop();
    put(common + VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    put(common + VIRTIO_PCI_COMMON_GF, 4, 1);
    put(common + VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    put(common + VIRTIO_PCI_COMMON_GF, 4, features);
    put(common + VIRTIO_PCI_COMMON_STATUS, 1, 0xb);
    put(common + VIRTIO_PCI_COMMON_MSIX, 2, 0);
    for (unsigned i = 0; i < 6; i++)
        enable_queue(common, i, RAM_BASE + (slot - 1) * 0x3000 + i * 0x800, 16);
    put(common + VIRTIO_PCI_COMMON_STATUS, 1, 0xf);
    run_loop();
}

static uint64_t take_features(struct input *in)
{
    uint64_t how = take(in, 1);
    return (how & 1 ? 2u : 0u) | (how & 2 ? 1u << VIRTIO_RING_F_INDIRECT_DESC : 0u) |
           (how & 4 ? 1u << VIRTIO_RING_F_EVENT_IDX : 0u);
}

// A descriptor of a queue that bring_up() made, mostly plausible, offered and notified.
static void offer(struct input *in)
{
    unsigned slot = SLOT_CONSOLE + take(in, 1) % 2, queue = take(in, 1) % 6;
    uint8_t *ring = ram + (slot - 1) * 0x3000 + queue * 0x800;
    uint16_t head = take(in, 1) % 20;
    struct vring_desc desc = {.addr = RAM_BASE + take(in, 2) % (RAM_BYTES + 64),
                              .len = (uint32_t)take(in, 2) % 8192,
                              .flags = (uint16_t)(take(in, 1) & 7),
                              .next = (uint16_t)(take(in, 1) % 20)};
    struct vring_avail *avail = (struct vring_avail *)(void *)(ring + 16 * 16);
    if (head < 16)
        memcpy(ring + 16 * head, &desc, sizeof(desc));
    avail->ring[avail->idx % 16] = head;
    avail->idx++;
    put(bar_of(slot) + BAR_NOTIFY + 4 * queue, 2, queue);
}

static void save_and_load(struct input *in)
{
    struct tv_error err = {0};
    void *buf = NULL;
    size_t len_bytes = 0, n_changes = take(in, 1) % 4;
    struct state *s = state_create_save();
    board_freeze(board);
    board_state(board, s);
    if (state_finish(s, &buf, &len_bytes, &err) != 0)
        abort();
    state_destroy(s);
    for (size_t i = 0; i < n_changes; i++)
        ((uint8_t *)buf)[take(in, 2) % len_bytes] ^= (uint8_t)take(in, 1);
    s = state_create_load(buf, len_bytes);
    board_state(board, s);
    int rc = state_finish(s, NULL, NULL, &err);
    state_destroy(s);
    free(buf);
    if (rc != 0 && n_changes == 0)
        fprintf(stderr, "what was saved does not load: %s\n", err.text), abort();
    if (rc != 0)
        board_reset(board); // a machine that did not load is not run
    board_thaw(board, NULL);
}

static void host_event(struct input *in)
{
    uint8_t text[40];
    uint64_t what = take(in, 1);
    size_t len_bytes = take(in, 1) % sizeof(text);
    memset(text, 'h', sizeof(text));
    switch (what % 6) {
    case 0:
        uart16550_input(board_uart(board), text, len_bytes);
        break;
    case 1:
        uart16550_break(board_uart(board));
        break;
    case 2:
        virtio_console_input(console, (unsigned)(what >> 4) % 2, text, len_bytes);
        break;
    case 3:
        virtio_console_resize(console, (uint16_t)take(in, 2), (uint16_t)take(in, 2));
        break;
    case 4:
        board_set_irq(board, 1 + (unsigned)(what >> 4), len_bytes & 1);
        break;
    default:
        board_freeze(board);
        run_loop();
        board_thaw(board, NULL);
        break;
    }
}

static void step(struct input *in)
{
    unsigned op = (unsigned)take(in, 1), size = 1u << (op >> 4 & 3);
    switch (op % OPERATIONS) {
    case 0:
        get(take_address(in, size), size);
        break;
    case 1:
    case 2: {
        uint64_t gpa = take_address(in, size);
        put(gpa, size, take(in, size));
        break;
    }
    case 3:
        run_loop();
        break;
    case 4:
        host_event(in);
        break;
    case 5:
        if (op >> 4 == SLOT_PVPANIC)
            place_bar(SLOT_PVPANIC, PCI32_BASE);
        else
            bring_up(SLOT_CONSOLE + (op >> 4) % 2, take_features(in));
        break;
    case 6:
    case 7:
        offer(in);
        break;
    case 8: {
        uint64_t offset = take(in, 2) % RAM_BYTES;
        ram[offset] = (uint8_t)take(in, 1);
        break;
    }
    case 9:
        place_bar(SLOT_CONSOLE + (op >> 4) % 2, take(in, 6) << 8);
        break;
#ifdef FUZZ_BOARD_PC
    case 11:
        access_port(in, op);
        break;
#endif
    default:
        save_and_load(in);
        break;
    }
}

// After a reset everything is as it was on the first day.
static void check_recovers(void)
{
    board_reset(board);
    run_loop();
    memset(ram, 0, RAM_BYTES);
    while (uart_get(5) & 1) // what serial_room() put there
        uart_get(0);
    uart_put(7, 0x5a);
    if (uart_get(5) != 0x60 || uart_get(7) != 0x5a || !is_new())
        abort();
    bring_up(SLOT_RNG, 0);
    if (get(bar_of(SLOT_RNG) + VIRTIO_PCI_COMMON_STATUS, 1) != 0xf)
        abort();
    uint8_t *ring = ram + (SLOT_RNG - 1) * 0x3000;
    struct vring_desc desc = {.addr = RAM_BASE + 0x7000, .len = 64, .flags = VRING_DESC_F_WRITE};
    struct vring_avail *avail = (struct vring_avail *)(void *)(ring + 16 * 16);
    const struct vring_used *used = (const struct vring_used *)(void *)(ring + 16 * 16 + 512);
    memcpy(ring, &desc, sizeof(desc));
    avail->idx = 1;
    put(bar_of(SLOT_RNG) + BAR_NOTIFY, 2, 0);
    run_loop();
    if (used->idx != 1 || used->ring[0].len != 64)
        abort();
    board_reset(board);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.at = data, .end = data + size};
    if (!board)
        setup();
    for (unsigned i = 0; i < STEPS_MAX && in.at < in.end; i++)
        step(&in);
    run_loop();
    check_recovers();
    return 0;
}
