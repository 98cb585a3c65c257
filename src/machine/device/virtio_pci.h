// The modern virtio-pci transport (virtio 1.2, sections 3.1 and 4.1): private to this folder.
//
// A device is a struct virtio_ops and what stands behind it. The transport answers the driver's register accesses on vcpu threads,
// under virtio_pci.lock and without ever waiting; queues and the device itself live on the loop's thread. What the driver does to
// them (DRIVER_OK, reset, a late queue_enable, a notification) is noted and carried out there, soon: a driver sees its reset done
// when it reads a status of 0 (4.1.4.3.2).
//
// All functions and callbacks on the loop's thread, unless they say otherwise.
#pragma once

#include "machine/device/device.h"
#include "vhost/virtqueue.h"

#define VIRTIO_QUEUES_MAX 64u
#define VIRTIO_QUEUE_SIZE 256u
#define VIRTIO_CONFIG_MAX 256u

struct virtio_pci;

struct virtio_queue_setup { // what the driver asks for; not checked but for the size
    uint16_t size;
    uint64_t desc_addr, avail_addr, used_addr;
};

struct virtio_ops {
    const char *name;
    uint16_t device_type; // section 5
    uint32_t class_code;  // PCI's
    // DRIVER_OK, before queues are started. Non-zero: the device needs a reset. May be NULL.
    int (*started)(void *dev, uint64_t features);
    // Queues of the device's own making (vhost-user). NULL: the transport has struct virtqueues for virtio_pci_queue().
    int (*queue_start)(void *dev, unsigned index, const struct virtio_queue_setup *setup);
    void (*queue_stop)(void *dev, unsigned index);
    // The driver made buffers available in a queue whose notifications go to no eventfd, or the machine was thawed. May be NULL if
    // all go to eventfds.
    void (*notified)(void *dev, unsigned index);
    void (*config_written)(void *dev, uint32_t offset, uint32_t len_bytes); // may be NULL
    void (*reset)(void *dev);                                               // all queues have been stopped
    // After the machine was thawed or loaded, and before notified(). May be NULL.
    int (*thawed)(void *dev, struct tv_error *err);
    int (*state)(void *dev, struct state *s); // after the transport's own
    void (*destroy)(void *dev);
};

struct virtio_pci_config {
    struct device_home home;
    const struct virtio_ops *ops;
    void *dev;
    uint64_t features; // the device's own; the transport adds VERSION_1 and, for its own queues, INDIRECT_DESC and EVENT_IDX
    unsigned n_queues;
    uint32_t config_len_bytes;
};

// On failure dev is still the caller's; afterwards it belongs to the PCI slot.
struct virtio_pci *virtio_pci_create(const struct virtio_pci_config *config, struct tv_error *err);

struct virtqueue *virtio_pci_queue(struct virtio_pci *vp, unsigned index);
// The queue is started and the machine not frozen: its memory may be touched.
bool virtio_pci_queue_is_live(const struct virtio_pci *vp, unsigned index);
bool virtio_pci_queue_is_started(const struct virtio_pci *vp, unsigned index);           // the machine may be frozen
struct virtio_queue_setup virtio_pci_queue_setup(struct virtio_pci *vp, unsigned index); // of a started queue
uint64_t virtio_pci_features(const struct virtio_pci *vp); // what the driver took, while it is started
// Notifications of this queue go to an eventfd (borrowed for good), written on the vcpu's thread, and not to notified(); -1: to
// that again. What the driver said a moment before may still go the way before.
void virtio_pci_set_notify_fd(struct virtio_pci *vp, unsigned index, int fd);
// Interrupts of this queue may come by an eventfd (borrowed for good), which `source` watches on the loop: while the engine takes
// what is written there to the guest by itself, the loop does not look.
void virtio_pci_set_call(struct virtio_pci *vp, unsigned index, int fd, struct loop_source *source);
// notified() again, soon: the device had enough for one round.
void virtio_pci_notify_again(struct virtio_pci *vp, unsigned index);

void virtio_pci_interrupt(struct virtio_pci *vp, unsigned queue);    // used buffers; any thread
void virtio_pci_push(struct virtio_pci *vp, unsigned queue);         // after one or more pushes: interrupts if the driver wants it
void virtio_pci_needs_reset(struct virtio_pci *vp, const char *why); // DEVICE_NEEDS_RESET, 2.1.2; any thread
// The device's configuration space, as the driver sees it. A change from the device's side is told to the driver.
void virtio_pci_config_set(struct virtio_pci *vp, uint32_t offset, const void *bytes, uint32_t len_bytes, bool tell);
void virtio_pci_config_get(struct virtio_pci *vp, uint32_t offset, void *bytes, uint32_t len_bytes);
void virtio_pci_config_writable(struct virtio_pci *vp, uint32_t offset, uint32_t len_bytes); // before a driver is there
