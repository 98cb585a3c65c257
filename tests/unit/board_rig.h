// A board with a small RAM and no vcpus, driven through its registers as a guest does; MSIs are counted instead of taken. And the
// part of a virtio-pci driver that every device's test needs, written from virtio 1.2, section 4.1.
#pragma once

#include "base/loop.h"
#include "base/state.h"
#include "machine/board/board.h"
#include "machine/device/device.h"
#include "virtq_driver.h"

#include <stdbool.h>
#include <stdint.h>

#define RIG_RAM_BYTES (1u << 20)
#define RIG_MSIS 64

struct rig {
    struct loop *loop;
    struct guest_memory mem;
    uint8_t *ram; // MAP_RAM_BASE
    struct board *board;
    unsigned n_msis; // since the last rig_forget_msis()
    struct {
        uint64_t addr;
        uint32_t data;
    } msis[RIG_MSIS];
    char output[256]; // of the serial port
    size_t n_output;
    unsigned n_room;
};

void rig_open(struct rig *rig, unsigned n_vcpus);
void rig_close(struct rig *rig);
uint64_t rig_read(struct rig *rig, uint64_t gpa, unsigned size); // fails the test when nothing is there
void rig_write(struct rig *rig, uint64_t gpa, unsigned size, uint64_t value);
bool rig_answers(struct rig *rig, uint64_t gpa);
void rig_forget_msis(struct rig *rig);
unsigned rig_count_msis(const struct rig *rig, uint32_t data); // with these data
void rig_run(struct rig *rig);                                 // the loop, until there is nothing left to do
void rig_save_and_load(struct rig *from, struct rig *to);      // frozen meanwhile, thawed after; and RAM
void *rig_save(struct rig *rig, size_t *len_bytes);            // the caller frees it
int rig_load(struct rig *rig, const void *buf, size_t len_bytes);

// --- PCI
uint32_t rig_config_read(struct rig *rig, unsigned slot, unsigned offset, unsigned size);
void rig_config_write(struct rig *rig, unsigned slot, unsigned offset, unsigned size, uint32_t value);
unsigned rig_find_capability(struct rig *rig, unsigned slot, uint8_t id, unsigned nth); // its offset, or 0

// --- a virtio driver
struct rig_virtio {
    struct rig *rig;
    unsigned slot;
    uint64_t common, isr, device, notify, msix; // guest-physical
    uint32_t notify_multiplier;
    struct virtq_driver queues[8];
};

#define RIG_MSI_ADDR (MAP_IMSIC_BASE)
// Places BAR 0 at `bar` and finds everything; vector i sends data msi_base + i.
void rig_virtio_probe(struct rig_virtio *v, struct rig *rig, unsigned slot, uint64_t bar, uint32_t msi_base);
void rig_virtio_reset(struct rig_virtio *v);
// Up to FEATURES_OK; false: the device refused them.
bool rig_virtio_negotiate(struct rig_virtio *v, uint64_t features);
uint64_t rig_virtio_offered(struct rig_virtio *v);
void rig_virtio_queue(struct rig_virtio *v, unsigned index, uint64_t guest_addr, uint16_t size); // vector index + 1
void rig_virtio_go(struct rig_virtio *v);                                                        // DRIVER_OK
uint8_t rig_virtio_status(struct rig_virtio *v);
void rig_virtio_notify(struct rig_virtio *v, unsigned index);
// A buffer of one descriptor, number `desc`, and a notification; the loop runs.
void rig_virtio_offer(struct rig_virtio *v, unsigned index, uint16_t desc, uint64_t addr, uint32_t len_bytes, bool device_writes);
