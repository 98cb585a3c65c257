// The devices in the slots of the machine's PCIe host: see machine.h. On the loop's thread.
#include "base/log.h"
#include "machine/machine.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { SLOT_CONSOLE = 1, SLOT_RNG = 2, SLOT_DISKS = 3, SLOT_NETS = SLOT_DISKS + CONFIG_DISKS_MAX, SLOT_PVPANIC = PCIE_SLOTS - 1 };

_Static_assert(SLOT_NETS + CONFIG_NETS_MAX <= SLOT_PVPANIC, "a slot for each disk and network");

#define POWERDOWN "powerdown\n" // what the guest's agent takes for a request to power off

// What the guest says on the control line is for an agent's sake alone: nothing is expected there.
static void terminal_output(void *arg, unsigned port, const uint8_t *buf, size_t len_bytes)
{
    struct machine *m = arg;
    if (port != VIRTIO_CONSOLE_PORT_TERMINAL)
        return;
    m->terminal_in_use = true;
    console_write(m->console, buf, len_bytes);
}

static void terminal_room(void *arg, unsigned port)
{
    struct machine *m = arg;
    if (port == VIRTIO_CONSOLE_PORT_TERMINAL)
        console_room(m->console);
}

static void terminal_opened(void *arg, unsigned port, bool is_open)
{
    struct machine *m = arg;
    if (port == VIRTIO_CONSOLE_PORT_TERMINAL && !is_open)
        m->terminal_in_use = false;
    if (port == VIRTIO_CONSOLE_PORT_CONTROL && is_open && m->powerdown_waits)
        machine_ask_powerdown(m);
}

static void guest_reported(void *arg, unsigned events)
{
    struct machine *m = arg;
    if (events & PVPANIC_PANICKED)
        machine_end(m, 1, MACHINE_PANICKED);
    else if (events & PVPANIC_SHUTDOWN)
        machine_end(m, 0, "shutdown");
    else
        log_event(LOG_WARN, "machine", "the guest panicked and goes on with its crash kernel", LOG_STR("machine", m->config.name));
}

size_t machine_type(struct machine *m, const uint8_t *buf, size_t len_bytes)
{
    if (m->terminal_in_use)
        return virtio_console_input(m->terminal, VIRTIO_CONSOLE_PORT_TERMINAL, buf, len_bytes);
    return uart16550_input(board_uart(m->board), buf, len_bytes);
}

static void disk_disconnected(void *arg)
{
    struct machine_disk *disk = arg;
    control_tell_disconnected(disk->m->control, "disk.disconnected", disk->m->config.disks[disk->index].name);
}

static int add_disk(struct machine *m, unsigned i, const struct device_home *home, struct tv_error *err)
{
    struct config_disk *config = &m->config.disks[i];
    m->disks[i] = (struct machine_disk){.m = m, .index = i};
    const struct virtio_blk_config blk = {
        .home = *home, .n_queues = config->queues, .arg = &m->disks[i], .disconnected = disk_disconnected};
    int fd = config->fd;
    config->fd = -1;
    m->disks[i].blk = virtio_blk_add(&blk, fd, err);
    if (m->disks[i].blk)
        return 0;
    tv_error_prefix(err, "disk '%s'", config->name);
    return -EINVAL;
}

static void net_disconnected(void *arg)
{
    struct machine_net *net = arg;
    control_tell_disconnected(net->m->control, "net.disconnected", net->m->config.nets[net->index].name);
}

static int add_net(struct machine *m, unsigned i, const struct device_home *home, struct tv_error *err)
{
    struct config_net *config = &m->config.nets[i];
    m->nets[i] = (struct machine_net){.m = m, .index = i};
    struct virtio_net_config net = {.home = *home,
                                    .mtu_bytes = (uint16_t)config->mtu_bytes,
                                    .n_pairs = config->queues,
                                    .arg = &m->nets[i],
                                    .disconnected = net_disconnected};
    memcpy(net.mac, config->mac, sizeof(net.mac));
    int fd = config->fd;
    config->fd = -1;
    m->nets[i].net = virtio_net_add(&net, fd, err);
    if (m->nets[i].net)
        return 0;
    tv_error_prefix(err, "net '%s'", config->name);
    return -EINVAL;
}

int machine_add_devices(struct machine *m, struct tv_error *err)
{
    struct device_home home = {.loop = m->loop, .mem = &m->mem, .pcie = board_pcie(m->board), .slot = SLOT_CONSOLE};
    const struct virtio_console_config terminal = {
        .home = home, .arg = m, .output = terminal_output, .room = terminal_room, .opened = terminal_opened};
    m->terminal = virtio_console_add(&terminal, err);
    home.slot = SLOT_RNG;
    if (!m->terminal || !virtio_rng_add(&home, err))
        return -EINVAL;
    home.slot = SLOT_PVPANIC;
    const struct pvpanic_config pvpanic = {.home = home, .arg = m, .reported = guest_reported};
    m->pvpanic = pvpanic_add(&pvpanic, err);
    if (!m->pvpanic)
        return -EINVAL;
    for (unsigned i = 0; i < m->config.n_disks; i++) {
        home.slot = SLOT_DISKS + i;
        if (add_disk(m, i, &home, err) < 0)
            return -EINVAL;
    }
    for (unsigned i = 0; i < m->config.n_nets; i++) {
        home.slot = SLOT_NETS + i;
        if (add_net(m, i, &home, err) < 0)
            return -EINVAL;
    }
    return 0;
}

bool machine_ask_powerdown(struct machine *m)
{
    m->powerdown_waits = !virtio_console_is_open(m->terminal, VIRTIO_CONSOLE_PORT_CONTROL) ||
                         virtio_console_input(m->terminal, VIRTIO_CONSOLE_PORT_CONTROL, (const uint8_t *)POWERDOWN,
                                              strlen(POWERDOWN)) != strlen(POWERDOWN);
    return !m->powerdown_waits;
}

bool machine_disk_is_attached(const struct machine *m, unsigned disk)
{
    return virtio_blk_is_attached(m->disks[disk].blk);
}

int machine_attach_disk(struct machine *m, const char *name, int fd, struct tv_error *err)
{
    for (unsigned i = 0; i < m->config.n_disks; i++) {
        if (strcmp(m->config.disks[i].name, name) != 0)
            continue;
        int rc = virtio_blk_attach(m->disks[i].blk, fd, err);
        return rc < 0 ? (tv_error_prefix(err, "machine '%s': disk '%s'", m->config.name, name), rc) : rc;
    }
    close(fd);
    return tv_error_set(err, -ENOENT, "machine '%s': has no disk '%s'", m->config.name, name);
}

bool machine_net_is_attached(const struct machine *m, unsigned net)
{
    return virtio_net_is_attached(m->nets[net].net);
}

int machine_attach_net(struct machine *m, const char *name, int fd, struct tv_error *err)
{
    for (unsigned i = 0; i < m->config.n_nets; i++) {
        if (strcmp(m->config.nets[i].name, name) != 0)
            continue;
        int rc = virtio_net_attach(m->nets[i].net, fd, err);
        return rc < 0 ? (tv_error_prefix(err, "machine '%s': net '%s'", m->config.name, name), rc) : rc;
    }
    close(fd);
    return tv_error_set(err, -ENOENT, "machine '%s': has no net '%s'", m->config.name, name);
}
