// PCI configuration by ports, and the host bridge: see parts.h.
#include "machine/board/pc/map.h"
#include "machine/board/pc/parts.h"

#include <errno.h>

#define ADDRESS_ON (1u << 31)
#define ADDRESS_MASK 0x80fffffcu // the other bits are reserved and read as 0
#define DATA_OFFSET (PC_PORT_PCI_DATA - PC_PORT_PCI_ADDRESS)
#define SLOT_HOST_BRIDGE 0u
enum { VENDOR_REDHAT = 0x1b36, DEVICE_HOST_BRIDGE = 0x0008, CLASS_HOST_BRIDGE = 0x060000 }; // QEMU, docs/specs/pci-ids.rst

// --- the host bridge, which is nothing but its configuration space

static uint64_t bar_read(void *arg, unsigned bar, uint64_t offset, unsigned size)
{
    (void)arg, (void)bar, (void)offset, (void)size;
    return ~0ull;
}

static void bar_write(void *arg, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    (void)arg, (void)bar, (void)offset, (void)size, (void)value;
}

static void nothing(void *arg)
{
    (void)arg;
}

static int thaw(void *arg, struct tv_error *err)
{
    (void)arg, (void)err;
    return 0;
}

static int state(void *arg, struct state *s)
{
    (void)arg, (void)s;
    return 0;
}

static const struct pcie_function_ops host_bridge_ops = {.name = "host bridge",
                                                         .bar_read = bar_read,
                                                         .bar_write = bar_write,
                                                         .reset = nothing,
                                                         .freeze = nothing,
                                                         .thaw = thaw,
                                                         .state = state,
                                                         .destroy = nothing};

int pci_ports_init(struct pci_ports *p, struct pcie *pcie, struct tv_error *err)
{
    const struct pcie_function_config config = {
        .vendor_id = VENDOR_REDHAT, .device_id = DEVICE_HOST_BRIDGE, .class_code = CLASS_HOST_BRIDGE};
    p->pcie = pcie;
    pci_ports_reset(p);
    return pcie_add(pcie, SLOT_HOST_BRIDGE, &config, &host_bridge_ops, p, err) ? 0 : -ENOMEM;
}

// --- the ports

// Where ECAM has the register that the address and an access to the data name.
static uint64_t ecam_offset(uint32_t address, uint64_t offset)
{
    return (uint64_t)(address & 0x00ffff00) << 4 | (address & 0xfc) | (offset & 3);
}

uint64_t pci_ports_read(const struct pci_ports *p, uint64_t offset, unsigned size)
{
    uint32_t address = atomic_load(&p->address);
    if (offset == 0 && size == 4)
        return address;
    if (offset < DATA_OFFSET || !(address & ADDRESS_ON))
        return ~0ull;
    return pcie_ecam_bus_ops.read(p->pcie, ecam_offset(address, offset), size);
}

void pci_ports_write(struct pci_ports *p, uint64_t offset, unsigned size, uint64_t value)
{
    uint32_t address = atomic_load(&p->address);
    if (offset == 0 && size == 4)
        atomic_store(&p->address, (uint32_t)value & ADDRESS_MASK);
    else if (offset >= DATA_OFFSET && address & ADDRESS_ON)
        pcie_ecam_bus_ops.write(p->pcie, ecam_offset(address, offset), size, value);
}

void pci_ports_reset(struct pci_ports *p)
{
    atomic_store(&p->address, 0);
}

void pci_ports_state(struct pci_ports *p, struct state *s)
{
    uint32_t address = atomic_load(&p->address);
    state_section_begin(s, "pci_ports", 1);
    state_u32(s, "address", &address);
    if (address & ~ADDRESS_MASK)
        state_fail(s, "PCI configuration address 0x%08x has bits that there are not", address);
    state_section_end(s);
    atomic_store(&p->address, state_failed(s) ? 0 : address);
}
