// What the files of the x86-64 board share; private to this folder.
#pragma once

#include "base/error.h"
#include "base/state.h"
#include "machine/board/bus.h"
#include "machine/board/pcie.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

// --- pci_ports.c: configuration mechanism #1 ("PCI Local Bus" 3.0, 3.2.2.3.2), for what does not read MCFG, or not yet; and the
// host bridge in slot 0, without which Linux does not believe in the mechanism. Any thread: an address that another vcpu changes
// before the access to the data is the guest's own affair, as on a PC.
struct pci_ports {
    struct pcie *pcie;
    _Atomic uint32_t address; // bit 31: on; bus 23:16, device 15:11, function 10:8, register 7:2
};

int pci_ports_init(struct pci_ports *p, struct pcie *pcie, struct tv_error *err);
// offset is from PC_PORT_PCI_ADDRESS, below 8.
uint64_t pci_ports_read(const struct pci_ports *p, uint64_t offset, unsigned size);
void pci_ports_write(struct pci_ports *p, uint64_t offset, unsigned size, uint64_t value);
void pci_ports_reset(struct pci_ports *p);
void pci_ports_state(struct pci_ports *p, struct state *s);

// --- fw_cfg.c: what firmware and small kernels ask of the machine before they can read tables (QEMU, docs/specs/fw_cfg.rst, the
// traditional interface by ports), read-only: the numbers of vcpus, the size of RAM, and no files.
#define FW_CFG_PORTS 2u

struct fw_cfg {
    uint64_t memory_bytes;
    uint16_t n_vcpus;
    pthread_mutex_t lock; // guards all below; a leaf
    uint16_t key;
    uint32_t at; // the next byte of it
};

void fw_cfg_init(struct fw_cfg *f, unsigned n_vcpus, uint64_t memory_bytes);
void fw_cfg_fini(struct fw_cfg *f);
void fw_cfg_reset(struct fw_cfg *f);
void fw_cfg_state(struct fw_cfg *f, struct state *s);
extern const struct bus_ops fw_cfg_bus_ops; // its device is the struct fw_cfg, its range PC_PORT_FW_CFG and FW_CFG_PORTS

// --- test_ports.c: for kernels that test a machine, where QEMU's pc-testdev has it (hw/misc/pc-testdev.c) and with no more power
// than any guest has anyway: a port and a page that keep what is written, which makes the host's KVM emulate whatever instruction
// accesses them, a port that takes the address of a page of RAM which is to fault in the host once more, and ports that drive the
// lines of the I/O APIC. Any thread.
struct board;
struct guest_memory;

struct test_ports {
    struct board *board;
    const struct guest_memory *mem;
    _Atomic uint8_t port[4], page[4096];
};

int test_ports_init(struct test_ports *t, struct board *board, const struct guest_memory *mem, struct bus *ports,
                    struct tv_error *err);
void test_ports_reset(struct test_ports *t);
void test_ports_state(struct test_ports *t, struct state *s);
