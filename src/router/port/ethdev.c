// Ports of DPDK's own drivers, each a row at the end: af_packet and af_xdp on devices of the kernel's, memif to other processes,
// PCI functions, and null, which receives empty frames without end and forgets what it is sent. A device is probed when its port is
// opened and removed with it.
#include "router/port/port.h"

#include "router/eal.h"
#include "router/params.h"

#include <errno.h>
#include <rte_alarm.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DESCRIPTORS 512
#define DEVARGS_MAX 256

struct ethdev {
    uint16_t id;
    struct rte_device *device;
};

static int configure(struct port *port, uint16_t id, struct tv_error *err)
{
    static const struct rte_eth_conf conf = {0};
    uint16_t n_receive = DESCRIPTORS, n_send = DESCRIPTORS;
    int r = rte_eth_dev_configure(id, 1, 1, &conf);
    if (!r)
        r = rte_eth_dev_adjust_nb_rx_tx_desc(id, &n_receive, &n_send);
    if (!r)
        r = rte_eth_rx_queue_setup(id, 0, n_receive, (unsigned)SOCKET_ID_ANY, NULL, port->env.pool);
    if (!r)
        r = rte_eth_tx_queue_setup(id, 0, n_send, (unsigned)SOCKET_ID_ANY, NULL);
    if (!r)
        r = rte_eth_dev_start(id);
    if (!r)
        rte_eth_promiscuous_enable(id); // what cannot is so anyway
    return r ? tv_error_set(err, r, "port '%s': the device cannot be started: %s", port->name, strerror(-r)) : 0;
}

static int probe(struct ethdev *own, const char *bus, const char *name, const char *args, struct tv_error *err)
{
    int r = rte_eal_hotplug_add(bus, name, args);
    if (r)
        return tv_error_set(err, r, "device '%s' (%s): %s", name, args, strerror(-r));
    r = rte_eth_dev_get_port_by_name(name, &own->id);
    struct rte_eth_dev_info info;
    if (!r)
        r = rte_eth_dev_info_get(own->id, &info);
    if (r) {
        rte_eal_hotplug_remove(bus, name);
        return tv_error_set(err, r, "device '%s' is none for packets", name);
    }
    own->device = info.device;
    return 0;
}

static void set_passed(void *arg)
{
    atomic_store_explicit((_Atomic bool *)arg, true, memory_order_release);
}

// Waits until the thread that runs the drivers' callbacks has come by: memif's may be in the middle of one, for a peer that goes,
// and would find the device freed.
static void wait_for_callbacks(void)
{
    _Atomic bool has_passed = false;
    if (rte_eal_alarm_set(1, set_passed, &has_passed))
        return;
    while (!atomic_load_explicit(&has_passed, memory_order_acquire))
        sched_yield();
}

static void ethdev_close(struct port *port)
{
    struct ethdev *own = port->own;
    rte_eth_dev_stop(own->id);
    wait_for_callbacks();
    rte_eth_dev_close(own->id);
    rte_dev_remove(own->device);
    free(own);
}

static int open_device(struct port *port, const char *bus, const char *name, const char *args, struct tv_error *err)
{
    struct ethdev *own = port->own = calloc(1, sizeof(*own));
    if (!own)
        return tv_error_set(err, -ENOMEM, "out of memory");
    int r = probe(own, bus, name, args, err);
    if (r) {
        free(own);
        return r;
    }
    r = configure(port, own->id, err);
    if (r)
        ethdev_close(port);
    return r;
}

// A virtual device of the driver, which takes `key`=VALUE; what the parameter of the same name says. No comma, as that would begin
// another argument of the driver's.
static int open_virtual(struct port *port, const json_t *params, const char *driver, const char *parameter, const char *format,
                        struct tv_error *err)
{
    static unsigned n_opened;
    char name[32], args[DEVARGS_MAX];
    const char *value = "";
    int r = parameter ? params_get_string(params, parameter, NULL, &value, err) : 0;
    if (r)
        return r;
    if (strchr(value, ',') || strlen(value) > 108)
        return tv_error_set(err, -EINVAL, "\"%s\" must have no comma, and at most 108 characters", parameter);
    r = eal_load_driver(driver, err);
    if (r)
        return r;
    snprintf(name, sizeof(name), "%s%u", driver, n_opened++);
    const int len = snprintf(args, sizeof(args), "%s%s", format, value);
    return len >= (int)sizeof(args) ? -EINVAL : open_device(port, "vdev", name, args, err);
}

static int packet_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    (void)fd;
    return open_virtual(port, params, "net_af_packet", "device", "blocksz=65536,framesz=2048,framecnt=512,iface=", err);
}

static int xdp_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    (void)fd;
    return open_virtual(port, params, "net_af_xdp", "device", "iface=", err);
}

static int memif_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    const char *role;
    (void)fd;
    if (params_get_string(params, "role", "server", &role, err))
        return -EINVAL;
    if (strcmp(role, "server") && strcmp(role, "client"))
        return tv_error_set(err, -EINVAL, "\"role\" must be server or client");
    const bool is_server = *role == 's';
    return open_virtual(port, params, "net_memif", "socket",
                        is_server ? "role=server,socket-abstract=no,socket=" : "role=client,socket-abstract=no,socket=", err);
}

static int null_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    (void)fd;
    return open_virtual(port, params, "net_null", NULL, "size=64,copy=1", err);
}

// The function must be meant for user space: DPDK's drivers take some from under the kernel's, which may be the host's own.
static int check_function(const char *address, struct tv_error *err)
{
    static const char *const drivers[] = {"vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core"};
    char path[64], driver[256];
    if (strlen(address) != strlen("0000:00:00.0") || strspn(address, "0123456789abcdef:.") != strlen(address))
        return tv_error_set(err, -EINVAL, "\"address\" is '%.40s'; must be that of a function on PCI, as 0000:01:00.1", address);
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", address);
    const ssize_t len = readlink(path, driver, sizeof(driver) - 1);
    driver[len > 0 ? len : 0] = 0;
    const char *name = strrchr(driver, '/');
    for (size_t i = 0; name && i < sizeof(drivers) / sizeof(drivers[0]); i++)
        if (!strcmp(name + 1, drivers[i]))
            return 0;
    return tv_error_set(err, -EBUSY, "function '%s' has %s%s for a driver; it must be bound to vfio-pci", address,
                        name ? "the kernel's " : "none", name ? name + 1 : "");
}

static int pci_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    const char *address;
    (void)fd;
    int r = params_get_string(params, "address", NULL, &address, err);
    if (!r)
        r = check_function(address, err);
    return r ? r : open_device(port, "pci", address, "", err);
}

static uint16_t ethdev_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    const struct ethdev *own = port->own;
    return rte_eth_rx_burst(own->id, 0, packets, n);
}

static uint16_t ethdev_send(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    const struct ethdev *own = port->own;
    return rte_eth_tx_burst(own->id, 0, packets, n);
}

// Nothing tells of packets: the worker looks again soon.
static bool ethdev_arm(struct port *port)
{
    (void)port;
    return true;
}

#define ETHDEV(name_, open_)                                                                                                       \
    {                                                                                                                              \
        .name = (name_), .open = (open_), .close = ethdev_close, .receive = ethdev_receive, .send = ethdev_send,                   \
        .arm = ethdev_arm, .naps = true                                                                                            \
    }

const struct port_kind port_packet = ETHDEV("packet", packet_open);
const struct port_kind port_xdp = ETHDEV("xdp", xdp_open);
const struct port_kind port_memif = ETHDEV("memif", memif_open);
const struct port_kind port_pci = ETHDEV("pci", pci_open);
const struct port_kind port_null = ETHDEV("null", null_open);
