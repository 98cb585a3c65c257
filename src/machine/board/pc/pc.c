// The board of an x86-64 machine: the little of a PC that kernels need when ACPI says that there is no more ("Hardware-reduced
// ACPI", ACPI 6.4, 4.1): a serial port, PCIe, power. Interrupt controllers are the engine's. See board.h and map.h.
#include "machine/board/board_parts.h"
#include "machine/board/pc/map.h"
#include "machine/board/pc/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SLEEP_ENABLE (1u << 5) // ACPI 6.4, 4.8.3.7: sleep control; there is but S5
#define KEYBOARD_RESET 0xfe
#define RESET_NOW (1u << 2)
#define RESET_OFFSET (PC_PORT_RESET - PC_PORT_PCI_ADDRESS)

// Where Linux says how it wants to reboot (arch/x86/kernel/reboot.c), as the first PCs' BIOS understood it.
#define REBOOT_FLAG_ADDR 0x472u
#define REBOOT_WARM 0x1234u

struct pc {
    struct bus *ports;
    struct pci_ports pci;
    struct fw_cfg fw_cfg;
    struct test_ports test;
};

static void uart_irq(void *arg, bool level)
{
    board_set_irq(arg, PC_IRQ_COM1, level);
}

// --- ports that end the machine. The thread that wrote takes the answer along: see board_port_write().

static _Thread_local struct {
    bool ends;
    enum engine_exit exit;
} ending;

static void end_by(enum engine_exit exit)
{
    ending.ends = true;
    ending.exit = exit;
}

static void reboot(const struct board *b)
{
    const uint8_t *flag = guest_memory_view(b->config.mem, REBOOT_FLAG_ADDR, 2);
    end_by(flag && (flag[0] | flag[1] << 8) == REBOOT_WARM ? ENGINE_EXIT_WARM_REBOOT : ENGINE_EXIT_REBOOT);
}

static uint64_t zero_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset, (void)size;
    return 0;
}

static void acpi_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    uint64_t port = PC_PORT_ACPI_SLEEP_CONTROL + offset;
    (void)size;
    if (port == PC_PORT_ACPI_SLEEP_CONTROL && value & SLEEP_ENABLE)
        end_by(ENGINE_EXIT_SHUTDOWN);
    else if (port == PC_PORT_ACPI_RESET)
        reboot(device);
}

static void keyboard_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    if ((value & 0xff) == KEYBOARD_RESET)
        reboot(device);
}

static uint64_t pci_read(void *device, uint64_t offset, unsigned size)
{
    const struct board *b = device;
    const struct pc *pc = b->parts;
    return offset == RESET_OFFSET && size == 1 ? 0 : pci_ports_read(&pc->pci, offset, size);
}

// The reset control register lies within the address, which is written whole.
static void pci_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct board *b = device;
    struct pc *pc = b->parts;
    if (offset != RESET_OFFSET || size != 1)
        pci_ports_write(&pc->pci, offset, size, value);
    else if (value & RESET_NOW)
        reboot(b);
}

static void debug_exit_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct board *b = device;
    (void)offset, (void)size;
    __atomic_store_n(&b->exit_status, (int)((value << 1 | 1) & 0xff), __ATOMIC_RELAXED);
    end_by(ENGINE_EXIT_STATUS);
}

static const struct bus_ops acpi_ops = {.name = "ACPI registers", .read = zero_read, .write = acpi_write};
static const struct bus_ops keyboard_ops = {.name = "keyboard controller", .read = zero_read, .write = keyboard_write};
static const struct bus_ops pci_ops = {.name = "PCI configuration ports", .read = pci_read, .write = pci_write};
static const struct bus_ops debug_exit_ops = {.name = "debug exit", .read = zero_read, .write = debug_exit_write};

// A port of the bus takes accesses of any size and place: they are carried out byte by byte but where one device takes them whole.
int board_port_read(struct board *b, uint16_t port, unsigned size, uint64_t *value)
{
    struct pc *pc = b->parts;
    uint64_t byte;
    if (b->kind != &board_pc)
        return -ENXIO;
    if (bus_read(pc->ports, port, size, value) == 0)
        return 0;
    *value = ~0ull;
    for (unsigned i = 0; i < size; i++)
        if (bus_read(pc->ports, (uint64_t)port + i, 1, &byte) == 0)
            *value = (*value & ~(0xffull << 8 * i)) | byte << 8 * i;
    return 0;
}

int board_port_write(struct board *b, uint16_t port, unsigned size, uint64_t value, enum engine_exit *exit)
{
    struct pc *pc = b->parts;
    if (b->kind != &board_pc)
        return -ENXIO;
    ending.ends = false;
    if (bus_write(pc->ports, port, size, value) < 0)
        for (unsigned i = 0; i < size; i++)
            bus_write(pc->ports, (uint64_t)port + i, 1, value >> 8 * i & 0xff); // to nowhere: lost
    *exit = ending.exit;
    return ending.ends;
}

// --- life

static int map_ports(struct board *b, struct pc *pc, struct tv_error *err)
{
    int rc = bus_add(pc->ports, PC_PORT_COM1, 8, &uart16550_bus_ops, b->uart, err);
    if (rc == 0)
        rc = bus_add(pc->ports, PC_PORT_ACPI_SLEEP_CONTROL, PC_PORT_ACPI_RESET - PC_PORT_ACPI_SLEEP_CONTROL + 1, &acpi_ops, b, err);
    if (rc == 0)
        rc = bus_add(pc->ports, PC_PORT_KEYBOARD, 1, &keyboard_ops, b, err);
    if (rc == 0)
        rc = bus_add(pc->ports, PC_PORT_PCI_ADDRESS, PC_PORT_PCI_DATA + 4 - PC_PORT_PCI_ADDRESS, &pci_ops, b, err);
    if (rc == 0)
        rc = bus_add(pc->ports, PC_PORT_FW_CFG, FW_CFG_PORTS, &fw_cfg_bus_ops, &pc->fw_cfg, err);
    if (rc == 0)
        rc = test_ports_init(&pc->test, b, b->config.mem, pc->ports, err);
    if (rc == 0)
        rc = bus_add(pc->ports, PC_PORT_DEBUG_EXIT, 4, &debug_exit_ops, b, err);
    return rc;
}

uint64_t pc_pci64_base(const struct guest_memory *mem)
{
    uint64_t end = PC_HIGH_RAM_BASE;
    for (unsigned i = 0; i < mem->n_regions; i++)
        if (mem->regions[i].guest_addr + mem->regions[i].size_bytes > end)
            end = mem->regions[i].guest_addr + mem->regions[i].size_bytes;
    return (end + PC_PCI64_ALIGN - 1) & ~(PC_PCI64_ALIGN - 1);
}

static uint64_t memory_bytes(const struct guest_memory *mem)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < mem->n_regions; i++)
        sum += mem->regions[i].size_bytes;
    return sum;
}

static int pc_create(struct board *b, struct tv_error *err)
{
    const struct board_config *c = &b->config;
    const struct uart16550_config uart = {
        .arg = b, .irq = uart_irq, .sink = c->arg, .output = c->console_output, .room = c->console_room};
    const struct pcie_config pcie = {.bus = b->bus,
                                     .windows = {{PC_PCI32_BASE, PC_PCI32_SIZE}, {pc_pci64_base(c->mem), PC_PCI64_SIZE}},
                                     .arg = c->arg,
                                     .raise_msi = c->raise_msi,
                                     .bind_doorbell = c->bind_doorbell,
                                     .bind_msi = c->bind_msi};
    struct pc *pc = b->parts = calloc(1, sizeof(*pc));
    if (!pc || !(pc->ports = bus_create()))
        return tv_error_set(err, -ENOMEM, "no memory for the board");
    fw_cfg_init(&pc->fw_cfg, c->n_vcpus, memory_bytes(c->mem));
    if (!(b->uart = uart16550_create(&uart, err)) || !(b->pcie = pcie_create(&pcie, err)))
        return -ENOMEM;
    int rc = pci_ports_init(&pc->pci, b->pcie, err);
    if (rc == 0)
        rc = bus_add(b->bus, PC_ECAM_BASE, PC_ECAM_SIZE, &pcie_ecam_bus_ops, b->pcie, err);
    return rc < 0 ? rc : map_ports(b, pc, err);
}

static void pc_destroy(struct board *b)
{
    struct pc *pc = b->parts;
    if (!pc)
        return;
    if (pc->ports)
        fw_cfg_fini(&pc->fw_cfg);
    bus_destroy(pc->ports);
    free(pc);
}

static void put_generation(const struct board *b)
{
    uint8_t id[PC_VMGENID_BYTES];
    if (getrandom(id, sizeof(id), 0) == sizeof(id)) // always, at this size, once the host has booted (getrandom(2))
        memcpy(guest_memory_view(b->config.mem, PC_VMGENID_ADDR, sizeof(id)), id, sizeof(id));
}

// An edge on one of the lines of the event device (acpi.c).
static void tell_event(struct board *b, unsigned line)
{
    board_set_irq(b, line, true);
    board_set_irq(b, line, false);
}

void board_new_generation(struct board *b)
{
    if (b->kind != &board_pc)
        return;
    put_generation(b);
    tell_event(b, PC_IRQ_VMGENID);
}

bool board_press_power_button(struct board *b)
{
    if (b->kind != &board_pc)
        return false;
    tell_event(b, PC_IRQ_POWER);
    return true;
}

int board_put_firmware(const struct board *b, struct tv_error *err)
{
    static const uint8_t reset_code[] = {
        0xba,
        PC_PORT_ACPI_RESET & 0xff,
        PC_PORT_ACPI_RESET >> 8, // mov dx, port
        0xb0,
        1,
        0xee, // mov al, 1; out dx, al
        0xf4,
        0xeb,
        0xfd, // hlt; jmp to it
    };
    memcpy(guest_memory_view(b->config.mem, PC_RESET_ENTRY, sizeof(reset_code)), reset_code, sizeof(reset_code));
    put_generation(b);
    int rc = board_acpi(b, guest_memory_view(b->config.mem, PC_TABLES_BASE, PC_TABLES_SIZE), PC_TABLES_SIZE, err);
    return rc < 0 ? rc : 0;
}

static void pc_nothing(struct board *b)
{
    (void)b;
}

static void pc_reset(struct board *b)
{
    struct pc *pc = b->parts;
    b->exit_status = 0;
    pci_ports_reset(&pc->pci);
    fw_cfg_reset(&pc->fw_cfg);
    test_ports_reset(&pc->test);
}

static void pc_state(struct board *b, struct state *s)
{
    struct pc *pc = b->parts;
    uart16550_state(b->uart, s);
    pci_ports_state(&pc->pci, s);
    fw_cfg_state(&pc->fw_cfg, s);
    test_ports_state(&pc->test, s);
}

static void pc_set_irq(struct board *b, unsigned line, bool level)
{
    b->config.set_irq(b->config.arg, line, level);
}

const struct board_kind board_pc = {.create = pc_create,
                                    .destroy = pc_destroy,
                                    .reset = pc_reset,
                                    .freeze = pc_nothing,
                                    .thaw = pc_nothing,
                                    .state = pc_state,
                                    .set_irq = pc_set_irq};
