// virtio-pci registers: virtio 1.2, section 4.1.4. On vcpu threads; the lock is virtio_pci.lock, and none of this waits for the
// loop.
#include "machine/device/virtio_pci_internal.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

// The selected queue, or NULL: one that is not there reads as size 0.
static struct virtio_pci_queue *selected(struct virtio_pci *vp)
{
    return vp->queue_select < vp->config.n_queues ? &vp->queues[vp->queue_select] : NULL;
}

static uint64_t read_queue(struct virtio_pci *vp, uint64_t offset)
{
    const struct virtio_pci_queue *q = selected(vp);
    if (!q)
        return offset == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_NO_VECTOR : 0;
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        return q->size;
    case VIRTIO_PCI_COMMON_Q_MSIX:
        return q->vector;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        return q->enabled;
    case VIRTIO_PCI_COMMON_Q_NOFF:
        return vp->queue_select;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
        return q->desc_addr;
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        return q->desc_addr >> 32;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
        return q->avail_addr;
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        return q->avail_addr >> 32;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
        return q->used_addr;
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        return q->used_addr >> 32;
    default:
        return 0;
    }
}

static uint64_t read_common(struct virtio_pci *vp, uint64_t offset)
{
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        return vp->device_feature_select;
    case VIRTIO_PCI_COMMON_DF:
        return feature_word(vp->config.features, vp->device_feature_select);
    case VIRTIO_PCI_COMMON_GFSELECT:
        return vp->driver_feature_select;
    case VIRTIO_PCI_COMMON_GF:
        return feature_word(vp->driver_features, vp->driver_feature_select);
    case VIRTIO_PCI_COMMON_MSIX:
        return vp->config_vector;
    case VIRTIO_PCI_COMMON_NUMQ:
        return vp->config.n_queues;
    case VIRTIO_PCI_COMMON_STATUS:
        return vp->status;
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        return vp->config_generation;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        return vp->queue_select;
    default:
        return read_queue(vp, offset);
    }
}

static uint64_t read_device(struct virtio_pci *vp, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    if (offset < vp->config.config_len_bytes && size <= vp->config.config_len_bytes - offset)
        memcpy(&value, vp->space + offset, size); // little-endian, as the host is
    return value;
}

static uint64_t read_isr(struct virtio_pci *vp)
{
    uint64_t value = vp->isr;
    vp->isr = 0;
    return value;
}

uint64_t virtio_pci_bar_read(void *arg, unsigned bar, uint64_t offset, unsigned size)
{
    struct virtio_pci *vp = arg;
    uint64_t value = 0;
    (void)bar;
    pthread_mutex_lock(&vp->lock);
    if (offset < BAR_ISR)
        value = read_common(vp, offset);
    else if (offset == BAR_ISR)
        value = read_isr(vp);
    else if (offset >= BAR_DEVICE && offset < BAR_NOTIFY)
        value = read_device(vp, offset - BAR_DEVICE, size);
    pthread_mutex_unlock(&vp->lock);
    return value;
}

static void write_status(struct virtio_pci *vp, uint8_t value)
{
    if (value == 0) {
        if (!vp->live) { // nothing of it lives on the loop's thread
            virtio_pci_reset_registers(vp);
            return;
        }
        vp->resetting = true;
        doorbell_ring(vp->bell);
        return;
    }
    unsigned now = vp->status | (value & ~(unsigned)VIRTIO_CONFIG_S_NEEDS_RESET); // bits go by a reset only, 2.1.1
    // 2.2.2, 6.1: only what was offered, and VERSION_1 must be taken.
    bool features_fit = !(vp->driver_features & ~vp->config.features) && vp->driver_features & (1ull << VIRTIO_F_VERSION_1);
    if (!(vp->status & VIRTIO_CONFIG_S_FEATURES_OK) && !features_fit)
        now &= ~(unsigned)VIRTIO_CONFIG_S_FEATURES_OK;
    if (!(now & VIRTIO_CONFIG_S_FEATURES_OK))
        now &= ~(unsigned)VIRTIO_CONFIG_S_DRIVER_OK;
    vp->status = (uint8_t)now;
    if (now & VIRTIO_CONFIG_S_DRIVER_OK && !vp->live) {
        vp->live = true;
        doorbell_ring(vp->bell);
    }
}

static void write_driver_feature(struct virtio_pci *vp, uint32_t value)
{
    if (vp->status & VIRTIO_CONFIG_S_FEATURES_OK || vp->driver_feature_select > 1)
        return;
    unsigned shift = 32 * vp->driver_feature_select;
    vp->driver_features = (vp->driver_features & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static uint16_t vector_or_none(const struct virtio_pci *vp, uint64_t value)
{
    return value < vp->n_vectors ? (uint16_t)value : VIRTIO_NO_VECTOR; // 4.1.5.1.2
}

static uint64_t put_half(uint64_t old, uint64_t value, bool high)
{
    return high ? (old & 0xffffffffull) | value << 32 : (old & ~0xffffffffull) | (value & 0xffffffffull);
}

static void write_queue_address(struct virtio_pci_queue *q, uint64_t offset, unsigned size, uint64_t value)
{
    uint64_t *addr = offset < VIRTIO_PCI_COMMON_Q_AVAILLO  ? &q->desc_addr
                     : offset < VIRTIO_PCI_COMMON_Q_USEDLO ? &q->avail_addr
                                                           : &q->used_addr;
    *addr = size == 8 ? value : put_half(*addr, value, offset % 8 != 0);
}

static void write_queue(struct virtio_pci *vp, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci_queue *q = selected(vp);
    if (!q)
        return;
    if (offset == VIRTIO_PCI_COMMON_Q_MSIX) {
        q->vector = vector_or_none(vp, value & 0xffff);
        virtio_pci_put_call(vp, vp->queue_select);
    } else if (q->enabled) {
        return; // 4.1.4.3.2: a live queue is not changed
    } else if (offset == VIRTIO_PCI_COMMON_Q_SIZE) {
        uint16_t wanted = (uint16_t)value;
        if (wanted && wanted <= VIRTIO_QUEUE_SIZE && !(wanted & (wanted - 1)))
            q->size = wanted;
    } else if (offset == VIRTIO_PCI_COMMON_Q_ENABLE) {
        q->enabled = value == 1;
        if (q->enabled && vp->live)
            doorbell_ring(vp->bell);
    } else if (offset >= VIRTIO_PCI_COMMON_Q_DESCLO && offset <= VIRTIO_PCI_COMMON_Q_USEDHI && size >= 4) {
        write_queue_address(q, offset, size, value);
    }
}

static void write_common(struct virtio_pci *vp, uint64_t offset, unsigned size, uint64_t value)
{
    if (vp->resetting)
        return;
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        vp->device_feature_select = (uint32_t)value;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT:
        vp->driver_feature_select = (uint32_t)value;
        break;
    case VIRTIO_PCI_COMMON_GF:
        write_driver_feature(vp, (uint32_t)value);
        break;
    case VIRTIO_PCI_COMMON_MSIX:
        vp->config_vector = vector_or_none(vp, value & 0xffff);
        break;
    case VIRTIO_PCI_COMMON_STATUS:
        write_status(vp, (uint8_t)value);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        vp->queue_select = (uint16_t)value;
        break;
    default:
        write_queue(vp, offset, size, value);
        break;
    }
}

static void write_device(struct virtio_pci *vp, uint64_t offset, unsigned size, uint64_t value)
{
    if (vp->resetting || offset >= vp->config.config_len_bytes || size > vp->config.config_len_bytes - offset)
        return;
    for (unsigned i = 0; i < size; i++)
        if (!vp->writable[offset + i])
            return;
    memcpy(vp->space + offset, &value, size);
    uint32_t from = (uint32_t)offset, to = from + size;
    vp->written_from = vp->config_was_written && vp->written_from < from ? vp->written_from : from;
    vp->written_to = vp->config_was_written && vp->written_to > to ? vp->written_to : to;
    vp->config_was_written = true;
    doorbell_ring(vp->bell);
}

// No lock: the descriptors stay open, and the set of kicked queues is atomic.
static void notify(struct virtio_pci *vp, uint64_t queue)
{
    if (queue >= vp->config.n_queues)
        return;
    const int fd = atomic_load_explicit(&vp->notify_fds[queue], memory_order_relaxed);
    if (fd < 0) {
        atomic_fetch_or_explicit(&vp->kicked, 1ull << queue, memory_order_release);
        doorbell_ring(vp->bell);
        return;
    }
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof(one)); // fails only when the counter is full: then it is kicked
    (void)n;
}

void virtio_pci_bar_write(void *arg, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *vp = arg;
    (void)bar;
    if (offset >= BAR_NOTIFY) {
        if (offset < BAR_MSIX_TABLE)
            notify(vp, (offset - BAR_NOTIFY) / NOTIFY_MULTIPLIER);
        return;
    }
    pthread_mutex_lock(&vp->lock);
    if (offset < BAR_ISR)
        write_common(vp, offset, size, value);
    else if (offset >= BAR_DEVICE)
        write_device(vp, offset - BAR_DEVICE, size, value);
    pthread_mutex_unlock(&vp->lock);
}

// --- the window to the BAR in configuration space (VIRTIO_PCI_CAP_PCI_CFG), 4.1.4.9

#define CFG_DATA sizeof(struct virtio_pci_cap) // where its data are

// What the window shows: an access to BAR 0. False: the driver set it up wrongly.
static bool cfg_window(struct virtio_pci *vp, uint32_t *offset, uint32_t *len_bytes)
{
    unsigned cap = vp->cfg_access_cap;
    *offset = pcie_config_get(vp->fn, cap + offsetof(struct virtio_pci_cap, offset), 4);
    *len_bytes = pcie_config_get(vp->fn, cap + offsetof(struct virtio_pci_cap, length), 4);
    uint32_t bar = pcie_config_get(vp->fn, cap + offsetof(struct virtio_pci_cap, bar), 1);
    return bar == 0 && (*len_bytes == 1 || *len_bytes == 2 || *len_bytes == 4) && *offset % *len_bytes == 0;
}

bool virtio_pci_config_space_read(void *arg, unsigned offset, unsigned size, uint32_t *value)
{
    struct virtio_pci *vp = arg;
    uint32_t at, len_bytes;
    (void)size;
    if (!vp->cfg_access_cap || offset != vp->cfg_access_cap + CFG_DATA || !cfg_window(vp, &at, &len_bytes))
        return false;
    *value = (uint32_t)virtio_pci_bar_read(vp, 0, at, len_bytes) & (0xffffffffu >> (32 - 8 * len_bytes));
    return true;
}

void virtio_pci_config_space_written(void *arg, unsigned offset, unsigned size)
{
    struct virtio_pci *vp = arg;
    uint32_t at, len_bytes;
    (void)size;
    if (!vp->cfg_access_cap || offset != vp->cfg_access_cap + CFG_DATA || !cfg_window(vp, &at, &len_bytes))
        return;
    virtio_pci_bar_write(vp, 0, at, len_bytes, pcie_config_get(vp->fn, offset, len_bytes));
}

// --- capabilities, 4.1.4

#define BODY(field) (offsetof(struct virtio_pci_cap, field) - 2) // in the body, behind id and link

static unsigned add_structure(struct virtio_pci *vp, uint8_t type, uint32_t offset, uint32_t len_bytes, uint32_t extra,
                              bool has_extra)
{
    uint8_t body[sizeof(struct virtio_pci_cap) + 4 - 2] = {0}, writable[sizeof(body)] = {0};
    size_t body_bytes = has_extra ? sizeof(body) : sizeof(body) - 4;
    body[BODY(cap_len)] = (uint8_t)(body_bytes + 2);
    body[BODY(cfg_type)] = type;
    memcpy(body + BODY(offset), &offset, sizeof(offset));
    memcpy(body + BODY(length), &len_bytes, sizeof(len_bytes));
    memcpy(body + sizeof(struct virtio_pci_cap) - 2, &extra, sizeof(extra));
    if (type == VIRTIO_PCI_CAP_PCI_CFG) {
        writable[BODY(bar)] = 0xff;
        memset(writable + BODY(offset), 0xff, sizeof(body) - BODY(offset)); // offset, length and the data
    }
    return pcie_add_capability(vp->fn, PCI_CAP_ID_VNDR, body, writable, body_bytes);
}

void virtio_pci_add_capabilities(struct virtio_pci *vp)
{
    uint32_t notify_bytes = vp->config.n_queues * NOTIFY_MULTIPLIER;
    add_structure(vp, VIRTIO_PCI_CAP_COMMON_CFG, BAR_COMMON, sizeof(struct virtio_pci_common_cfg), 0, false);
    add_structure(vp, VIRTIO_PCI_CAP_ISR_CFG, BAR_ISR, 1, 0, false);
    if (vp->config.config_len_bytes)
        add_structure(vp, VIRTIO_PCI_CAP_DEVICE_CFG, BAR_DEVICE, vp->config.config_len_bytes, 0, false);
    add_structure(vp, VIRTIO_PCI_CAP_NOTIFY_CFG, BAR_NOTIFY, notify_bytes, NOTIFY_MULTIPLIER, true);
    vp->cfg_access_cap = add_structure(vp, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0, true);
}

void virtio_pci_reset_registers(struct virtio_pci *vp)
{
    vp->device_feature_select = vp->driver_feature_select = 0;
    vp->driver_features = 0;
    vp->config_vector = VIRTIO_NO_VECTOR;
    vp->queue_select = 0;
    vp->status = vp->isr = 0;
    vp->resetting = vp->live = vp->config_was_written = false;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        vp->queues[i] = (struct virtio_pci_queue){.size = VIRTIO_QUEUE_SIZE, .vector = VIRTIO_NO_VECTOR};
    for (unsigned i = 0; vp->fn && i < vp->config.n_queues; i++)
        virtio_pci_put_call(vp, i);
}
