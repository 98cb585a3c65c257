// See board_rig.h.
#include "board_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

static int raise_msi(void *arg, uint64_t addr, uint32_t data)
{
    struct rig *rig = arg;
    if (rig->n_msis < RIG_MSIS) {
        rig->msis[rig->n_msis].addr = addr;
        rig->msis[rig->n_msis].data = data;
    }
    rig->n_msis++;
    return 0;
}

static void output(void *arg, const uint8_t *buf, size_t len_bytes)
{
    struct rig *rig = arg;
    for (size_t i = 0; i < len_bytes && rig->n_output < sizeof(rig->output) - 1; i++)
        rig->output[rig->n_output++] = (char)buf[i];
}

static void room(void *arg)
{
    struct rig *rig = arg;
    rig->n_room++;
}

void rig_open(struct rig *rig, unsigned n_vcpus)
{
    *rig = (struct rig){.loop = loop_create(NULL)};
    assert_non_null(rig->loop);
    guest_memory_init(&rig->mem);
    int fd = guest_ram_create("ram", RIG_RAM_BYTES, NULL);
    assert_int_equal(guest_memory_add(&rig->mem, MAP_RAM_BASE, RIG_RAM_BYTES, fd, 0, 0, NULL), 0);
    rig->ram = guest_memory_view(&rig->mem, MAP_RAM_BASE, RIG_RAM_BYTES);
    const struct board_config config = {.loop = rig->loop,
                                        .mem = &rig->mem,
                                        .n_vcpus = n_vcpus,
                                        .arg = rig,
                                        .raise_msi = raise_msi,
                                        .console_output = output,
                                        .console_room = room};
    rig->board = board_create(&config, NULL);
    assert_non_null(rig->board);
}

void rig_close(struct rig *rig)
{
    board_destroy(rig->board);
    guest_memory_fini(&rig->mem);
    loop_destroy(rig->loop);
}

uint64_t rig_read(struct rig *rig, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    assert_int_equal(bus_read(board_bus(rig->board), gpa, size, &value), 0);
    return value;
}

void rig_write(struct rig *rig, uint64_t gpa, unsigned size, uint64_t value)
{
    assert_int_equal(bus_write(board_bus(rig->board), gpa, size, value), 0);
}

bool rig_answers(struct rig *rig, uint64_t gpa)
{
    uint64_t value;
    return bus_read(board_bus(rig->board), gpa, 4, &value) == 0;
}

void rig_forget_msis(struct rig *rig)
{
    rig->n_msis = 0;
}

unsigned rig_count_msis(const struct rig *rig, uint32_t data)
{
    unsigned n = 0;
    for (unsigned i = 0; i < rig->n_msis && i < RIG_MSIS; i++)
        n += rig->msis[i].data == data;
    return n;
}

void rig_run(struct rig *rig)
{
    while (loop_run_once(rig->loop, 0) > 0)
        ;
}

void *rig_save(struct rig *rig, size_t *len_bytes)
{
    void *buf = NULL;
    struct state *s = state_create_save();
    board_freeze(rig->board);
    board_state(rig->board, s);
    assert_int_equal(state_finish(s, &buf, len_bytes, NULL), 0);
    state_destroy(s);
    return buf;
}

int rig_load(struct rig *rig, const void *buf, size_t len_bytes)
{
    struct state *s = state_create_load(buf, len_bytes);
    board_freeze(rig->board);
    board_state(rig->board, s);
    int rc = state_finish(s, NULL, NULL, NULL);
    state_destroy(s);
    return rc;
}

void rig_save_and_load(struct rig *from, struct rig *to)
{
    size_t len_bytes;
    void *buf = rig_save(from, &len_bytes);
    memcpy(to->ram, from->ram, RIG_RAM_BYTES);
    assert_int_equal(rig_load(to, buf, len_bytes), 0);
    free(buf);
    assert_int_equal(board_thaw(from->board, NULL), 0);
    assert_int_equal(board_thaw(to->board, NULL), 0);
}

// --- PCI

static uint64_t config_addr(unsigned slot, unsigned offset)
{
    return MAP_ECAM_BASE + (slot << 15) + offset;
}

uint32_t rig_config_read(struct rig *rig, unsigned slot, unsigned offset, unsigned size)
{
    return (uint32_t)rig_read(rig, config_addr(slot, offset), size);
}

void rig_config_write(struct rig *rig, unsigned slot, unsigned offset, unsigned size, uint32_t value)
{
    rig_write(rig, config_addr(slot, offset), size, value);
}

unsigned rig_find_capability(struct rig *rig, unsigned slot, uint8_t id, unsigned nth)
{
    unsigned at = rig_config_read(rig, slot, PCI_CAPABILITY_LIST, 1);
    for (unsigned steps = 0; at && steps < 48; steps++) {
        if (rig_config_read(rig, slot, at, 1) == id && nth-- == 0)
            return at;
        at = rig_config_read(rig, slot, at + 1, 1);
    }
    return 0;
}

// --- virtio

static void common_write(struct rig_virtio *v, unsigned offset, unsigned size, uint64_t value)
{
    rig_write(v->rig, v->common + offset, size, value);
}

static uint64_t common_read(struct rig_virtio *v, unsigned offset, unsigned size)
{
    return rig_read(v->rig, v->common + offset, size);
}

static void enable_msix(struct rig_virtio *v, uint64_t bar, uint32_t msi_base)
{
    unsigned cap = rig_find_capability(v->rig, v->slot, PCI_CAP_ID_MSIX, 0);
    assert_int_not_equal(cap, 0);
    unsigned n = (rig_config_read(v->rig, v->slot, cap + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
    v->msix = bar + (rig_config_read(v->rig, v->slot, cap + PCI_MSIX_TABLE, 4) & PCI_MSIX_TABLE_OFFSET);
    rig_config_write(v->rig, v->slot, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    for (unsigned i = 0; i < n; i++) {
        rig_write(v->rig, v->msix + i * 16, 4, RIG_MSI_ADDR);
        rig_write(v->rig, v->msix + i * 16 + 4, 4, 0);
        rig_write(v->rig, v->msix + i * 16 + 8, 4, msi_base + i);
        rig_write(v->rig, v->msix + i * 16 + 12, 4, 0);
    }
}

void rig_virtio_probe(struct rig_virtio *v, struct rig *rig, unsigned slot, uint64_t bar, uint32_t msi_base)
{
    unsigned cap;
    *v = (struct rig_virtio){.rig = rig, .slot = slot};
    rig_config_write(rig, slot, PCI_BASE_ADDRESS_0, 4, (uint32_t)bar);
    rig_config_write(rig, slot, PCI_BASE_ADDRESS_1, 4, (uint32_t)(bar >> 32));
    rig_config_write(rig, slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    for (unsigned i = 0; (cap = rig_find_capability(rig, slot, PCI_CAP_ID_VNDR, i)) != 0; i++) {
        uint64_t at = bar + rig_config_read(rig, slot, cap + offsetof(struct virtio_pci_cap, offset), 4);
        switch (rig_config_read(rig, slot, cap + offsetof(struct virtio_pci_cap, cfg_type), 1)) {
        case VIRTIO_PCI_CAP_COMMON_CFG:
            v->common = at;
            break;
        case VIRTIO_PCI_CAP_ISR_CFG:
            v->isr = at;
            break;
        case VIRTIO_PCI_CAP_DEVICE_CFG:
            v->device = at;
            break;
        case VIRTIO_PCI_CAP_NOTIFY_CFG:
            v->notify = at;
            v->notify_multiplier = rig_config_read(rig, slot, cap + (unsigned)sizeof(struct virtio_pci_cap), 4);
            break;
        default:
            break;
        }
    }
    assert_true(v->common && v->isr && v->notify && v->notify_multiplier);
    enable_msix(v, bar, msi_base);
    common_write(v, VIRTIO_PCI_COMMON_MSIX, 2, 0);
}

uint8_t rig_virtio_status(struct rig_virtio *v)
{
    return (uint8_t)common_read(v, VIRTIO_PCI_COMMON_STATUS, 1);
}

void rig_virtio_reset(struct rig_virtio *v)
{
    common_write(v, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    rig_run(v->rig);
    assert_int_equal(rig_virtio_status(v), 0);
}

uint64_t rig_virtio_offered(struct rig_virtio *v)
{
    common_write(v, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
    uint64_t features = common_read(v, VIRTIO_PCI_COMMON_DF, 4);
    common_write(v, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
    return features | common_read(v, VIRTIO_PCI_COMMON_DF, 4) << 32;
}

bool rig_virtio_negotiate(struct rig_virtio *v, uint64_t features)
{
    unsigned status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
    common_write(v, VIRTIO_PCI_COMMON_STATUS, 1, status);
    common_write(v, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    common_write(v, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)features);
    common_write(v, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    common_write(v, VIRTIO_PCI_COMMON_GF, 4, features >> 32);
    common_write(v, VIRTIO_PCI_COMMON_STATUS, 1, status | VIRTIO_CONFIG_S_FEATURES_OK);
    return rig_virtio_status(v) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void rig_virtio_queue(struct rig_virtio *v, unsigned index, uint64_t guest_addr, uint16_t size)
{
    struct virtq_driver *q = &v->queues[index];
    virtq_driver_init(q, v->rig->ram + (guest_addr - MAP_RAM_BASE), guest_addr, size, false);
    common_write(v, VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
    common_write(v, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    common_write(v, VIRTIO_PCI_COMMON_Q_MSIX, 2, index + 1);
    common_write(v, VIRTIO_PCI_COMMON_Q_DESCLO, 4, (uint32_t)q->desc_addr);
    common_write(v, VIRTIO_PCI_COMMON_Q_DESCHI, 4, q->desc_addr >> 32);
    common_write(v, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, (uint32_t)q->avail_addr);
    common_write(v, VIRTIO_PCI_COMMON_Q_AVAILHI, 4, q->avail_addr >> 32);
    common_write(v, VIRTIO_PCI_COMMON_Q_USEDLO, 4, (uint32_t)q->used_addr);
    common_write(v, VIRTIO_PCI_COMMON_Q_USEDHI, 4, q->used_addr >> 32);
    common_write(v, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

void rig_virtio_go(struct rig_virtio *v)
{
    common_write(v, VIRTIO_PCI_COMMON_STATUS, 1, rig_virtio_status(v) | VIRTIO_CONFIG_S_DRIVER_OK);
    rig_run(v->rig);
}

void rig_virtio_notify(struct rig_virtio *v, unsigned index)
{
    common_write(v, VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
    uint64_t offset = common_read(v, VIRTIO_PCI_COMMON_Q_NOFF, 2) * v->notify_multiplier;
    rig_write(v->rig, v->notify + offset, 2, index);
    rig_run(v->rig);
}

void rig_virtio_offer(struct rig_virtio *v, unsigned index, uint16_t desc, uint64_t addr, uint32_t len_bytes, bool device_writes)
{
    virtq_driver_desc(&v->queues[index], desc, addr, len_bytes, device_writes ? VRING_DESC_F_WRITE : 0, 0);
    virtq_driver_offer(&v->queues[index], desc);
    rig_virtio_notify(v, index);
}
