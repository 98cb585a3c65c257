// What virtio_pci.c (queues and life, on the loop's thread) and virtio_pci_regs.c (registers, on vcpu threads) share.
#pragma once

#include "base/log.h"
#include "machine/device/virtio_pci.h"

#include <pthread.h>
#include <stdatomic.h>

#define VIRTIO_NO_VECTOR PCIE_NO_VECTOR

// BAR 0: one structure a page, so that each could be mapped by itself.
enum {
    BAR_COMMON = 0x0000,
    BAR_ISR = 0x1000,
    BAR_DEVICE = 0x2000,
    BAR_NOTIFY = 0x3000,
    BAR_MSIX_TABLE = 0x4000,
    BAR_MSIX_PBA = 0x5000,
    BAR_BYTES = 0x8000,
    NOTIFY_MULTIPLIER = 4,
};
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

struct virtio_pci_queue {
    uint16_t size, vector;
    bool enabled;
    uint64_t desc_addr, avail_addr, used_addr;
};

struct virtio_pci {
    struct virtio_pci_config config;       // with all features that are offered; fixed
    struct pcie_function_ops function_ops; // with the name of the device
    struct pcie_function *fn;
    unsigned cfg_access_cap; // offset of the VIRTIO_PCI_CAP_PCI_CFG capability
    unsigned n_vectors;
    struct doorbell *bell;                     // rung for all that has to be done on the loop's thread
    _Atomic uint64_t kicked;                   // queues that were notified; release on the vcpu's thread, acquire on the loop's
    _Atomic int notify_fds[VIRTIO_QUEUES_MAX]; // or -1; written on the loop's thread, open as long as the device lives
    _Atomic uint64_t bound;                    // queues whose interrupts go past this process

    pthread_mutex_t lock; // guards the registers:
    uint32_t device_feature_select, driver_feature_select;
    uint64_t driver_features;
    uint16_t config_vector, queue_select;
    uint8_t status, isr, config_generation;
    struct log_limit told;   // that it needs a reset
    bool resetting;          // the driver wrote 0 to the status and the loop has not come to it
    bool live;               // DRIVER_OK was there since the last reset
    bool config_was_written; // in [written_from, written_to), by the driver
    uint32_t written_from, written_to;
    struct virtio_pci_queue queues[VIRTIO_QUEUES_MAX];
    int call_fds[VIRTIO_QUEUES_MAX]; // or -1
    uint8_t space[VIRTIO_CONFIG_MAX], writable[VIRTIO_CONFIG_MAX];

    // The loop's thread only:
    bool frozen;
    bool running;       // ops->started() was called
    uint64_t features;  // that the driver took, while running
    uint64_t started;   // queues, a bit each
    uint64_t unwatched; // call eventfds that the loop does not look at
    struct loop_source *call_sources[VIRTIO_QUEUES_MAX];
    struct virtqueue *vqs; // NULL if the device makes its own
};

// --- virtio_pci_regs.c
uint64_t virtio_pci_bar_read(void *arg, unsigned bar, uint64_t offset, unsigned size);
void virtio_pci_bar_write(void *arg, unsigned bar, uint64_t offset, unsigned size, uint64_t value);
bool virtio_pci_config_space_read(void *arg, unsigned offset, unsigned size, uint32_t *value);
void virtio_pci_config_space_written(void *arg, unsigned offset, unsigned size);
void virtio_pci_add_capabilities(struct virtio_pci *vp);
void virtio_pci_reset_registers(struct virtio_pci *vp);          // lock held
void virtio_pci_put_call(struct virtio_pci *vp, unsigned index); // lock held: the queue's vector, or its eventfd, has changed
