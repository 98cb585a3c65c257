// What pcie.c, msix.c and events.c share; private to this folder.
#pragma once

#include "machine/board/pcie.h"

#include <pthread.h>

#define PCIE_CONFIG_BYTES 256u // conventional configuration space; the extended one reads as ones

struct pcie_bar {
    struct pcie_function *fn;
    unsigned index;
    bool is_64bit;
    uint64_t size_bytes; // 0: there is none
    bool mapped;         // it answers on the bus,
    uint64_t base;       // here
};

struct msix_entry { // as in the table, "PCI Local Bus" 3.0, 6.8.2.6
    uint32_t addr_low, addr_high, data, control;
};

struct pcie_doorbell {
    int fd; // -1: none
    unsigned bar;
    uint64_t offset;
    bool bound; // the engine signals bound_fd on writes to bound_gpa
    int bound_fd;
    uint64_t bound_gpa;
};

struct pcie_call {
    int fd; // -1: none
    unsigned vector;
    bool bound; // a signal to bound_fd is this message
    int bound_fd;
    uint64_t bound_addr;
    uint32_t bound_data;
};

struct pcie_function {
    struct pcie *pcie;
    const struct pcie_config *host;
    struct pcie_function_config config;
    const struct pcie_function_ops *ops;
    void *arg;
    unsigned msix_cap;    // offset of the capability in config space, or 0
    unsigned last_cap;    // where the next capability is linked from
    unsigned caps_end;    // where it goes
    pthread_mutex_t lock; // guards all below
    uint8_t space[PCIE_CONFIG_BYTES];
    uint8_t initial[PCIE_CONFIG_BYTES];  // after reset; fixed when the machine starts
    uint8_t writable[PCIE_CONFIG_BYTES]; // mask; fixed when the machine starts
    struct pcie_bar bars[PCIE_BARS];
    struct msix_entry msix[PCIE_VECTORS_MAX];
    uint64_t pending[PCIE_VECTORS_MAX / 64];
    struct pcie_doorbell doorbells[PCIE_EVENTS];
    struct pcie_call calls[PCIE_EVENTS];
};

int pcie_raise_msi(const struct pcie_function *fn, uint64_t addr, uint32_t data);

// --- events.c; all with fn->lock held
void pcie_events_init(struct pcie_function *fn);
void pcie_events_update(struct pcie_function *fn); // BARs, vectors or what was set may have changed
void pcie_events_forget(struct pcie_function *fn);

// --- msix.c; all with fn->lock held
bool msix_may_send(const struct pcie_function *fn, unsigned vector);
void msix_init(struct pcie_function *fn);
void msix_reset(struct pcie_function *fn);
bool msix_holds(const struct pcie_function *fn, unsigned bar, uint64_t offset);
uint64_t msix_read(const struct pcie_function *fn, uint64_t offset, unsigned size);
void msix_write(struct pcie_function *fn, uint64_t offset, unsigned size, uint64_t value);
void msix_config_changed(struct pcie_function *fn); // message control or bus mastering: sends what was pending
int msix_state(struct pcie_function *fn, struct state *s);
