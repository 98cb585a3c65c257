// The ACPI tables of an x86-64 board ("Advanced Configuration and Power Interface" 6.4; chapter numbers are its): hardware-reduced
// (4.1), so that there is nothing but what is named here. AML is encoded as 20.2 says, with package lengths of three bytes
// throughout.
#include "machine/board/board_parts.h"
#include "machine/board/pc/map.h"

#include <errno.h>
#include <string.h>

struct tables { // in the making
    uint8_t *out;
    size_t n, room; // n may go over room: then it did not fit
};

// --- bytes

static void put_bytes(struct tables *t, const void *bytes, size_t n)
{
    if (t->n + n <= t->room)
        memcpy(t->out + t->n, bytes, n);
    t->n += n;
}

static void put(struct tables *t, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);
        put_bytes(t, &byte, 1);
    }
}

static void put_zeroes(struct tables *t, size_t n)
{
    while (n--)
        put(t, 0, 1);
}

static void patch(struct tables *t, size_t at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes && at + i < t->room; i++)
        t->out[at + i] = (uint8_t)(value >> 8 * i);
}

static uint64_t address(size_t at)
{
    return PC_TABLES_BASE + at;
}

static void patch_checksum(struct tables *t, size_t from, size_t len_bytes, size_t at)
{
    uint8_t sum = 0;
    if (t->n > t->room)
        return;
    for (size_t i = 0; i < len_bytes; i++)
        sum = (uint8_t)(sum + t->out[from + i]);
    t->out[at] = (uint8_t)(t->out[at] - sum);
}

// --- tables, 5.2.6

static size_t table_begin(struct tables *t, const char *signature, uint8_t revision)
{
    put_zeroes(t, -t->n % 16);
    size_t at = t->n;
    put_bytes(t, signature, 4);
    put(t, 0, 4); // length
    put(t, revision, 1);
    put(t, 0, 1); // checksum
    put_bytes(t, "TRIVETTRIVETPC", 14);
    put(t, 1, 4);
    put_bytes(t, "TRVT", 4);
    put(t, 1, 4);
    return at;
}

static void table_end(struct tables *t, size_t at)
{
    patch(t, at + 4, t->n - at, 4);
    patch_checksum(t, at, t->n - at, at + 9);
}

// A register in I/O space, a byte wide, 5.2.3.2.
static void put_register(struct tables *t, uint16_t port)
{
    put(t, 1, 1);
    put(t, 8, 1);
    put(t, 0, 1);
    put(t, 1, 1);
    put(t, port, 8);
}

// --- AML

enum { AML_NAME = 0x08, AML_SCOPE = 0x10, AML_BUFFER = 0x11, AML_PACKAGE = 0x12, AML_METHOD = 0x14, AML_IF = 0xa0 };
enum { AML_DEVICE = 0x825b, AML_NOTIFY = 0x86, AML_EQUAL = 0x93, AML_ARG0 = 0x68 };
enum { NOTIFY_DEVICE = 0x80 };

static size_t aml_begin(struct tables *t, unsigned op)
{
    put(t, op, op > 0xff ? 2 : 1);
    put(t, 0, 3); // package length
    return t->n - 3;
}

static void aml_end(struct tables *t, size_t at) // 20.2.4
{
    size_t len_bytes = t->n - at;
    patch(t, at, 2u << 6 | (len_bytes & 0xf), 1);
    patch(t, at + 1, len_bytes >> 4, 2);
}

static void aml_integer(struct tables *t, uint64_t value)
{
    static const uint8_t prefix[] = {0x0a, 0x0b, 0x0c, 0x0e};
    unsigned size = value <= 0xff ? 0 : value <= 0xffff ? 1 : value <= 0xffffffff ? 2 : 3;
    put(t, prefix[size], 1);
    put(t, value, 1u << size);
}

static void aml_string(struct tables *t, const char *text)
{
    put(t, 0x0d, 1);
    put_bytes(t, text, strlen(text) + 1);
}

static void aml_name(struct tables *t, const char *name)
{
    put(t, AML_NAME, 1);
    put_bytes(t, name, 4);
}

static size_t aml_device(struct tables *t, const char *name)
{
    size_t at = aml_begin(t, AML_DEVICE);
    put_bytes(t, name, 4);
    return at;
}

static void aml_name_integer(struct tables *t, const char *name, uint64_t value)
{
    aml_name(t, name);
    aml_integer(t, value);
}

static void aml_name_string(struct tables *t, const char *name, const char *text)
{
    aml_name(t, name);
    aml_string(t, text);
}

// An EISA identifier, "PNPxxxx" as a number, 19.3.4.
static void aml_name_eisa(struct tables *t, const char *name, uint16_t number)
{
    put(t, AML_NAME, 1);
    put_bytes(t, name, 4);
    put(t, 0x0c, 1);
    put(t, 0xd041u | (uint32_t)(number >> 8) << 16 | (uint32_t)(number & 0xff) << 24, 4);
}

// --- resources, 6.4

// A buffer begins whose size is known at its end.
static size_t resources_begin(struct tables *t)
{
    aml_name(t, "_CRS");
    size_t at = aml_begin(t, AML_BUFFER);
    put(t, 0x0b, 1);
    put(t, 0, 2);
    return at;
}

static void resources_end(struct tables *t, size_t at)
{
    put(t, 0x0079, 2); // the end, with no checksum
    patch(t, at + 4, t->n - at - 6, 2);
    aml_end(t, at);
}

static void resource_interrupt(struct tables *t, uint32_t line) // edge, active high, exclusive, 6.4.3.6
{
    put(t, 0x000689, 3);
    put(t, 0x03, 1);
    put(t, 1, 1);
    put(t, line, 4);
}

static void resource_ports(struct tables *t, uint16_t base, uint8_t n) // 6.4.2.5
{
    put(t, 0x0147, 2);
    put(t, base, 2);
    put(t, base, 2);
    put(t, 1, 1);
    put(t, n, 1);
}

// An address space that a bridge passes on, with fields of `bytes` each, 6.4.3.5.
static void resource_space(struct tables *t, uint8_t kind, uint8_t type, uint8_t flags, uint64_t base, uint64_t size,
                           unsigned bytes)
{
    put(t, kind, 1);
    put(t, 3 + 5 * bytes, 2);
    put(t, type, 1);
    put(t, 0x0c, 1); // produces; both ends are fixed
    put(t, flags, 1);
    put(t, 0, bytes); // granularity
    put(t, base, bytes);
    put(t, base + size - 1, bytes);
    put(t, 0, bytes); // translation
    put(t, size, bytes);
}

// --- what there is

static void put_pci(struct tables *t, uint64_t pci64_base)
{
    size_t device = aml_device(t, "PCI0");
    aml_name_eisa(t, "_HID", 0x0a08);
    aml_name_eisa(t, "_CID", 0x0a03);
    aml_name_integer(t, "_UID", 0);
    aml_name_integer(t, "_SEG", 0);
    aml_name_integer(t, "_BBN", 0);
    aml_name_integer(t, "_CCA", 1);
    size_t resources = resources_begin(t);
    resource_space(t, 0x88, 2, 0, 0, 1, 2);
    resource_space(t, 0x87, 0, 0x01, PC_PCI32_BASE, PC_PCI32_SIZE, 4);
    resource_space(t, 0x8a, 0, 0x07, pci64_base, PC_PCI64_SIZE, 8); // prefetchable, as our 64-bit BARs are
    resources_end(t, resources);
    aml_end(t, device);
    device = aml_device(t, "ECAM"); // what MCFG names must be reserved as well (PCI Firmware Specification 3.2, 4.1.2)
    aml_name_eisa(t, "_HID", 0x0c02);
    resources = resources_begin(t);
    put(t, 0x000986, 3); // 6.4.3.4
    put(t, 1, 1);
    put(t, PC_ECAM_BASE, 4);
    put(t, PC_ECAM_SIZE, 4);
    resources_end(t, resources);
    aml_end(t, device);
}

static void put_serial_port(struct tables *t)
{
    size_t device = aml_device(t, "COM1");
    aml_name_eisa(t, "_HID", 0x0501);
    aml_name_integer(t, "_UID", 1);
    size_t resources = resources_begin(t);
    resource_ports(t, PC_PORT_COM1, 8);
    resource_interrupt(t, PC_IRQ_COM1);
    resources_end(t, resources);
    aml_end(t, device);
}

static void put_notify(struct tables *t, unsigned line, const char *device)
{
    size_t condition = aml_begin(t, AML_IF);
    put(t, AML_EQUAL, 1);
    put(t, AML_ARG0, 1);
    aml_integer(t, line);
    put(t, AML_NOTIFY, 1);
    put_bytes(t, device, 4);
    aml_integer(t, NOTIFY_DEVICE);
    aml_end(t, condition);
}

// What tells of the power button and of a new generation: a device whose interrupts are events (5.6.9).
static void put_events(struct tables *t)
{
    size_t device = aml_device(t, "PWRB");
    aml_name_eisa(t, "_HID", 0x0c0c);
    aml_end(t, device);
    device = aml_device(t, "VGEN"); // "Virtual Machine Generation ID", Microsoft
    aml_name_string(t, "_HID", "TRVT0001");
    aml_name_string(t, "_CID", "VM_Gen_Counter");
    aml_name_string(t, "_DDN", "VM_Gen_Counter");
    aml_name(t, "ADDR");
    size_t package = aml_begin(t, AML_PACKAGE);
    put(t, 2, 1);
    aml_integer(t, PC_VMGENID_ADDR);
    aml_integer(t, 0);
    aml_end(t, package);
    aml_end(t, device);
    device = aml_device(t, "GED_");
    aml_name_string(t, "_HID", "ACPI0013");
    aml_name_integer(t, "_UID", 0);
    size_t resources = resources_begin(t);
    resource_interrupt(t, PC_IRQ_POWER);
    resource_interrupt(t, PC_IRQ_VMGENID);
    resources_end(t, resources);
    size_t method = aml_begin(t, AML_METHOD);
    put_bytes(t, "_EVT", 4);
    put(t, 0x09, 1); // an argument; one at a time
    put_notify(t, PC_IRQ_POWER, "PWRB");
    put_notify(t, PC_IRQ_VMGENID, "VGEN");
    aml_end(t, method);
    aml_end(t, device);
}

static size_t put_dsdt(struct tables *t, uint64_t pci64_base)
{
    size_t table = table_begin(t, "DSDT", 2);
    size_t scope = aml_begin(t, AML_SCOPE);
    put_bytes(t, "\\_SB_", 5);
    put_pci(t, pci64_base);
    put_serial_port(t);
    put_events(t);
    aml_end(t, scope);
    aml_name(t, "_S5_"); // 7.4.2
    size_t package = aml_begin(t, AML_PACKAGE);
    put(t, 4, 1);
    for (unsigned i = 0; i < 4; i++)
        aml_integer(t, i == 0 ? 5 : 0);
    aml_end(t, package);
    table_end(t, table);
    return table;
}

enum { // 5.2.9
    BOOT_NO_VGA = 1 << 2,
    BOOT_NO_CMOS = 1 << 5,
    FLAG_WBINVD = 1 << 0,
    FLAG_POWER_BUTTON_IS_A_DEVICE = 1 << 4,
    FLAG_NO_SLEEP_BUTTON = 1 << 5,
    FLAG_RESET_REGISTER = 1 << 10,
    FLAG_HARDWARE_REDUCED = 1 << 20,
};

static size_t put_fadt(struct tables *t, size_t dsdt)
{
    size_t table = table_begin(t, "FACP", 6);
    put(t, 0, 4);
    put(t, address(dsdt), 4);
    put_zeroes(t, 109 - 44);
    put(t, BOOT_NO_VGA | BOOT_NO_CMOS, 2);
    put(t, 0, 1);
    put(t, FLAG_WBINVD | FLAG_POWER_BUTTON_IS_A_DEVICE | FLAG_NO_SLEEP_BUTTON | FLAG_RESET_REGISTER | FLAG_HARDWARE_REDUCED, 4);
    put_register(t, PC_PORT_ACPI_RESET);
    put(t, 1, 1); // what is written there
    put(t, 0, 2);
    put(t, 4, 1); // minor version
    put(t, 0, 8);
    put(t, address(dsdt), 8);
    put_zeroes(t, 244 - 148);
    put_register(t, PC_PORT_ACPI_SLEEP_CONTROL);
    put_register(t, PC_PORT_ACPI_SLEEP_STATUS);
    put_bytes(t, "TRIVET\0", 8);
    table_end(t, table);
    return table;
}

static size_t put_madt(struct tables *t, unsigned n_vcpus) // 5.2.12
{
    size_t table = table_begin(t, "APIC", 5);
    put(t, PC_LAPIC_BASE, 4);
    put(t, 0, 4); // no PICs that would have to be turned off
    for (unsigned i = 0; i < n_vcpus; i++) {
        put(t, 0x0800, 2);
        put(t, i, 1);
        put(t, i, 1);
        put(t, 1, 4); // enabled
    }
    put(t, 0x0c01, 2);
    put(t, 0, 2);
    put(t, PC_IOAPIC_BASE, 4);
    put(t, 0, 4); // its first line
    table_end(t, table);
    return table;
}

static size_t put_mcfg(struct tables *t)
{
    size_t table = table_begin(t, "MCFG", 1);
    put(t, 0, 8);
    put(t, PC_ECAM_BASE, 8);
    put(t, 0, 2);
    put(t, 0, 1); // first bus
    put(t, 0, 1); // and last
    put(t, 0, 4);
    table_end(t, table);
    return table;
}

int board_acpi(const struct board *b, uint8_t *out, size_t room, struct tv_error *err)
{
    struct tables t = {.out = out, .room = room};
    put_bytes(&t, "RSD PTR ", 8); // 5.2.5.3; the rest follows
    put_zeroes(&t, 36 - 8);
    size_t dsdt = put_dsdt(&t, pc_pci64_base(b->config.mem));
    const size_t tables[] = {put_fadt(&t, dsdt), put_madt(&t, b->config.n_vcpus), put_mcfg(&t)};
    size_t xsdt = table_begin(&t, "XSDT", 1);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        put(&t, address(tables[i]), 8);
    table_end(&t, xsdt);
    if (t.n > room)
        return tv_error_set(err, -ENOSPC, "the ACPI tables take %zu bytes of %zu", t.n, room);
    memcpy(out + 9, "TRIVET", 6);
    patch(&t, 15, 2, 1);
    patch(&t, 20, 36, 4);
    patch(&t, 24, address(xsdt), 8);
    patch_checksum(&t, 0, 20, 8);
    patch_checksum(&t, 0, 36, 32);
    return (int)t.n;
}
