// The board's flattened device tree, as Linux's drivers want it (Documentation/devicetree/bindings of Linux 6.12: riscv,imsics,
// riscv,aplic, 8250, google,goldfish-rtc, host-generic-pci). The engine describes its vcpus itself.
#include "machine/board/board_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { PHANDLE_IMSIC = 1, PHANDLE_APLIC = 2, PHANDLE_CPUS = 16 };
enum { IRQ_LEVEL_HIGH = 4, IRQ_S_EXTERNAL = 9 };
// Linux wants windows over 4 GiB prefetchable, as our 64-bit BARs say they are.
enum { PCI_SPACE_MEM32 = 0x02000000, PCI_SPACE_MEM64 = 0x43000000 };
enum { TREE_BYTES = 16384, TREE_BYTES_A_VCPU = 2048 };

// A tree in the making. The first failure sticks; what follows does nothing.
struct tree {
    void *fdt;
    int failed; // a libfdt code, or 0
};

static void keep(struct tree *t, int rc)
{
    if (rc < 0 && t->failed == 0)
        t->failed = rc;
}

static int node(struct tree *t, int parent, const char *name, uint64_t unit_addr)
{
    char full[64];
    snprintf(full, sizeof(full), unit_addr ? "%s@%" PRIx64 : "%s", name, unit_addr);
    if (t->failed)
        return 0;
    int offset = fdt_add_subnode(t->fdt, parent, full);
    keep(t, offset);
    return offset < 0 ? 0 : offset;
}

static void put_text(struct tree *t, int at, const char *name, const char *value)
{
    if (!t->failed)
        keep(t, fdt_setprop(t->fdt, at, name, value, (int)strlen(value) + 1));
}

static void put_empty(struct tree *t, int at, const char *name)
{
    if (!t->failed)
        keep(t, fdt_setprop_empty(t->fdt, at, name));
}

static void put_cell(struct tree *t, int at, const char *name, uint32_t value)
{
    if (!t->failed)
        keep(t, fdt_setprop_u32(t->fdt, at, name, value));
}

static void put_u64(struct tree *t, int at, const char *name, uint64_t value)
{
    if (!t->failed)
        keep(t, fdt_setprop_u64(t->fdt, at, name, value));
}

static void append_u64(struct tree *t, int at, const char *name, uint64_t value)
{
    if (!t->failed)
        keep(t, fdt_appendprop_u64(t->fdt, at, name, value));
}

static void append_cell(struct tree *t, int at, const char *name, uint32_t value)
{
    if (!t->failed)
        keep(t, fdt_appendprop_u32(t->fdt, at, name, value));
}

static void put_reg(struct tree *t, int at, uint64_t base, uint64_t size_bytes)
{
    append_u64(t, at, "reg", base);
    append_u64(t, at, "reg", size_bytes);
}

static void put_irq(struct tree *t, int at, uint32_t source)
{
    put_cell(t, at, "interrupt-parent", PHANDLE_APLIC);
    append_cell(t, at, "interrupts", source);
    append_cell(t, at, "interrupts", IRQ_LEVEL_HIGH);
}

static void add_imsic(struct tree *t, int soc, unsigned n_vcpus)
{
    int at = node(t, soc, "imsics", MAP_IMSIC_BASE);
    put_text(t, at, "compatible", "riscv,imsics");
    put_reg(t, at, MAP_IMSIC_BASE, n_vcpus * MAP_IMSIC_STRIDE);
    put_empty(t, at, "interrupt-controller");
    put_cell(t, at, "#interrupt-cells", 0);
    put_empty(t, at, "msi-controller");
    put_cell(t, at, "#msi-cells", 0);
    for (unsigned i = 0; i < n_vcpus; i++) {
        append_cell(t, at, "interrupts-extended", PHANDLE_CPUS + i);
        append_cell(t, at, "interrupts-extended", IRQ_S_EXTERNAL);
    }
    put_cell(t, at, "riscv,num-ids", MAP_IMSIC_IDS);
    put_cell(t, at, "phandle", PHANDLE_IMSIC);
}

static void add_aplic(struct tree *t, int soc)
{
    int at = node(t, soc, "interrupt-controller", MAP_APLIC_BASE);
    put_text(t, at, "compatible", "riscv,aplic");
    put_reg(t, at, MAP_APLIC_BASE, MAP_APLIC_SIZE);
    put_empty(t, at, "interrupt-controller");
    put_cell(t, at, "#interrupt-cells", 2);
    put_cell(t, at, "riscv,num-sources", MAP_APLIC_SOURCES);
    put_cell(t, at, "msi-parent", PHANDLE_IMSIC);
    put_cell(t, at, "phandle", PHANDLE_APLIC);
}

static void add_serial(struct tree *t, int soc)
{
    int at = node(t, soc, "serial", MAP_UART_BASE);
    put_text(t, at, "compatible", "ns16550a");
    put_reg(t, at, MAP_UART_BASE, MAP_UART_SIZE);
    put_cell(t, at, "clock-frequency", UART_CLOCK_HZ);
    put_irq(t, at, MAP_IRQ_UART);
}

static void add_rtc(struct tree *t, int soc)
{
    int at = node(t, soc, "rtc", MAP_RTC_BASE);
    put_text(t, at, "compatible", "google,goldfish-rtc");
    put_reg(t, at, MAP_RTC_BASE, MAP_RTC_SIZE);
    put_irq(t, at, MAP_IRQ_RTC);
}

static void append_window(struct tree *t, int at, uint32_t space, uint64_t base, uint64_t size_bytes)
{
    append_cell(t, at, "ranges", space);
    append_u64(t, at, "ranges", base); // on the PCI side and
    append_u64(t, at, "ranges", base); // on ours
    append_u64(t, at, "ranges", size_bytes);
}

static void add_pcie(struct tree *t, int soc)
{
    int at = node(t, soc, "pci", MAP_ECAM_BASE);
    put_text(t, at, "compatible", "pci-host-ecam-generic");
    put_text(t, at, "device_type", "pci");
    put_reg(t, at, MAP_ECAM_BASE, MAP_ECAM_SIZE);
    put_cell(t, at, "#address-cells", 3);
    put_cell(t, at, "#size-cells", 2);
    put_cell(t, at, "#interrupt-cells", 1);
    put_cell(t, at, "linux,pci-domain", 0);
    append_cell(t, at, "bus-range", 0);
    append_cell(t, at, "bus-range", (uint32_t)(MAP_ECAM_SIZE >> 20) - 1);
    put_empty(t, at, "dma-coherent");
    append_window(t, at, PCI_SPACE_MEM32, MAP_PCI32_BASE, MAP_PCI32_SIZE);
    append_window(t, at, PCI_SPACE_MEM64, MAP_PCI64_BASE, MAP_PCI64_SIZE);
    put_cell(t, at, "msi-parent", PHANDLE_IMSIC);
}

static void add_soc(struct tree *t, unsigned n_vcpus)
{
    int soc = node(t, 0, "soc", 0);
    put_text(t, soc, "compatible", "simple-bus");
    put_cell(t, soc, "#address-cells", 2);
    put_cell(t, soc, "#size-cells", 2);
    put_empty(t, soc, "ranges");
    // libfdt puts a new node before its siblings, which do not move otherwise: what comes first in the tree is added last.
    add_pcie(t, soc);
    add_rtc(t, soc);
    add_serial(t, soc);
    add_aplic(t, soc);
    add_imsic(t, soc, n_vcpus);
}

static void add_memory(struct tree *t, const struct guest_memory *mem)
{
    for (unsigned i = mem->n_regions; i-- > 0;) {
        int at = node(t, 0, "memory", mem->regions[i].guest_addr);
        put_text(t, at, "device_type", "memory");
        put_reg(t, at, mem->regions[i].guest_addr, mem->regions[i].size_bytes);
    }
}

// Seeds the kernel's random numbers and its layout: fresh at each boot.
static void add_seeds(struct tree *t, int chosen)
{
    uint8_t seed[64];
    uint64_t layout;
    if (getrandom(seed, sizeof(seed), 0) != sizeof(seed) || getrandom(&layout, sizeof(layout), 0) != sizeof(layout))
        return; // a kernel without a seed gathers its own
    if (!t->failed)
        keep(t, fdt_setprop(t->fdt, chosen, "rng-seed", seed, sizeof(seed)));
    put_u64(t, chosen, "kaslr-seed", layout);
}

static void add_chosen(struct tree *t, const struct board_boot *boot)
{
    char serial[64];
    snprintf(serial, sizeof(serial), "/soc/serial@%" PRIx64, (uint64_t)MAP_UART_BASE);
    int aliases = node(t, 0, "aliases", 0);
    put_text(t, aliases, "serial0", serial);
    int chosen = node(t, 0, "chosen", 0);
    put_text(t, chosen, "bootargs", boot->append ? boot->append : "");
    put_text(t, chosen, "stdout-path", serial);
    if (boot->initrd_len_bytes) {
        put_u64(t, chosen, "linux,initrd-start", boot->initrd_addr);
        put_u64(t, chosen, "linux,initrd-end", boot->initrd_addr + boot->initrd_len_bytes);
    }
    add_seeds(t, chosen);
}

static void fill(struct tree *t, const struct board *board, const struct board_boot *boot)
{
    const struct board_config *config = &board->config;
    put_cell(t, 0, "#address-cells", 2);
    put_cell(t, 0, "#size-cells", 2);
    put_text(t, 0, "compatible", "riscv-virtio");
    put_text(t, 0, "model", "trivet,virt");
    add_soc(t, config->n_vcpus);
    if (!t->failed && boot->engine->ops->describe(boot->engine, t->fdt, PHANDLE_CPUS) != 0)
        t->failed = -FDT_ERR_NOSPACE;
    add_memory(t, config->mem);
    add_chosen(t, boot);
    if (!t->failed)
        keep(t, fdt_pack(t->fdt));
}

int board_device_tree(const struct board *board, const struct board_boot *boot, void **fdt, size_t *len_bytes, struct tv_error *err)
{
    size_t append_len_bytes = boot->append ? strlen(boot->append) : 0;
    if (append_len_bytes > 65536)
        return tv_error_set(err, -E2BIG, "the kernel's command line has %zu bytes; at most 65536 fit", append_len_bytes);
    size_t room = TREE_BYTES + append_len_bytes + (size_t)board->config.n_vcpus * TREE_BYTES_A_VCPU;
    struct tree t = {.fdt = calloc(1, room)};
    if (!t.fdt)
        return tv_error_set(err, -ENOMEM, "no memory for the device tree");
    keep(&t, fdt_create_empty_tree(t.fdt, (int)room));
    fill(&t, board, boot);
    if (t.failed) {
        free(t.fdt);
        return tv_error_set(err, -EINVAL, "cannot make the device tree: %s", fdt_strerror(t.failed));
    }
    *fdt = t.fdt;
    *len_bytes = fdt_totalsize(t.fdt);
    return 0;
}
