// PCIe host with ECAM: bus 0 with 32 slots, a single-function type 0 device in each. 32-bit and 64-bit memory BARs, MSI-X; no
// wired interrupts, no I/O space, no bridges ("PCI Local Bus" 3.0 and "PCI Express Base" 4.0, chapter 7).
//
// Threads: ECAM and BAR accesses come on vcpu threads, pcie_msix_raise() from any; the lock is pcie_function.lock, one a function.
// All else on the machine's thread.
#pragma once

#include "base/error.h"
#include "base/state.h"
#include "machine/board/bus.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCIE_SLOTS 32u
#define PCIE_BARS 6u
#define PCIE_VECTORS_MAX 128u

struct pcie;
struct pcie_function;

#define PCIE_WINDOWS 2u

struct pcie_config {
    struct bus *bus; // borrowed
    struct {
        uint64_t base, size_bytes;
    } windows[PCIE_WINDOWS]; // guest-physical; a BAR answers when all of it lies in one
    void *arg;
    int (*raise_msi)(void *arg, uint64_t addr, uint32_t data);      // called with a function's lock held
    int (*bind_doorbell)(void *arg, uint64_t gpa, int fd, bool on); // this and the next: the same; may be NULL
    int (*bind_msi)(void *arg, int fd, bool on, uint64_t addr, uint32_t data);
};

// A device in a slot. Accesses come with no lock held.
struct pcie_function_ops {
    const char *name;
    uint64_t (*bar_read)(void *arg, unsigned bar, uint64_t offset, unsigned size);
    void (*bar_write)(void *arg, unsigned bar, uint64_t offset, unsigned size, uint64_t value);
    // Configuration space of a vendor capability; true: the device answered. May be NULL. offset is 0..255, size 1, 2 or 4.
    bool (*config_read)(void *arg, unsigned offset, unsigned size, uint32_t *value);
    // Called after the bytes that are writable were written. May be NULL.
    void (*config_written)(void *arg, unsigned offset, unsigned size);
    // The function's lock is held, any thread: what is written to the eventfd of pcie_set_call() goes to the guest by itself, or
    // has to be read and raised by the device. May be NULL.
    void (*call_bound)(void *arg, unsigned index, bool bound);
    // All on the machine's thread.
    void (*reset)(void *arg); // no vcpu is running
    void (*freeze)(void *arg);
    int (*thaw)(void *arg, struct tv_error *err);
    int (*state)(void *arg, struct state *s);
    void (*destroy)(void *arg);
};

struct pcie_function_config {
    uint16_t vendor_id, device_id, subsystem_vendor_id, subsystem_id;
    uint8_t revision;
    uint32_t class_code; // 24 bits
    unsigned n_vectors;  // of MSI-X, at most PCIE_VECTORS_MAX; 0: no such capability
    unsigned msix_bar;   // where its table and its pending bits are; the device never sees accesses to these
    uint32_t msix_table_offset, msix_pba_offset; // multiples of 4 KiB
};

struct pcie *pcie_create(const struct pcie_config *config, struct tv_error *err);
void pcie_destroy(struct pcie *pcie); // and the devices in the slots
void pcie_reset(struct pcie *pcie);
void pcie_freeze(struct pcie *pcie);
int pcie_thaw(struct pcie *pcie, struct tv_error *err);
int pcie_state(struct pcie *pcie, struct state *s);

// Puts a device into a slot; it stays until pcie_destroy(), which calls ops->destroy(arg). -EBUSY: the slot is taken.
struct pcie_function *pcie_add(struct pcie *pcie, unsigned slot, const struct pcie_function_config *config,
                               const struct pcie_function_ops *ops, void *arg, struct tv_error *err);
// size_bytes is a power of two, at least 4 KiB; a 64-bit BAR takes `index` and the one after it, and is
// marked prefetchable, which is what host windows over 4 GiB are for.
void pcie_add_bar(struct pcie_function *fn, unsigned index, uint64_t size_bytes, bool is_64bit);
// Appends a capability: id, link, then body. Returns where it begins. writable (may be NULL): a mask as long as the body.
unsigned pcie_add_capability(struct pcie_function *fn, uint8_t id, const uint8_t *body, const uint8_t *writable, size_t len_bytes);
// Bytes of configuration space, for capabilities that the device answers for itself.
uint32_t pcie_config_get(struct pcie_function *fn, unsigned offset, unsigned size);

// Sends the vector, or notes it as pending while it is masked or bus mastering is off; it is lost while MSI-X is off. Any thread.
void pcie_msix_raise(struct pcie_function *fn, unsigned vector);
// Bus mastering is on: the device may touch memory.
bool pcie_is_bus_master(struct pcie_function *fn);

// Eventfds (borrowed until another, or -1, takes the place of fd, or the function goes) of queue `index`, below PCIE_EVENTS. Writes
// of the guest's of two bytes at `offset` of the BAR signal the doorbell's, where the engine does that; the device must do the same
// for those that come to it. A signal to the call's raises the vector, see call_bound(). Any thread.
#define PCIE_EVENTS 64u
#define PCIE_NO_VECTOR 0xffffu
void pcie_set_doorbell(struct pcie_function *fn, unsigned index, unsigned bar, uint64_t offset, int fd);
void pcie_set_call(struct pcie_function *fn, unsigned index, unsigned vector, int fd);

extern const struct bus_ops pcie_ecam_bus_ops; // its device is the struct pcie
