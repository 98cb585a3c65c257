// The machine's devices: the one public header of this folder. All sit in a slot of the board's PCIe host, which owns them:
// they are reset, frozen, saved and destroyed with it. All but pvpanic are modern virtio-pci devices (virtio 1.2).
//
// virtio_pci.h      the transport
// virtio_console.c  terminal and control line
// virtio_rng.c      random numbers from the host
// virtio_blk.c      a disk of a store, by vhost-user
// virtio_net.c      a port of a router, by vhost-user
// pvpanic.c         the guest's kernel says that it has panicked
//
// All functions on the machine's thread (the loop's); so are all callbacks. A device serves its queues there, too, never on a
// vcpu's thread.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "machine/board/board.h"
#include "vhost/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device_home {                // where a device lives
    struct loop *loop;              // borrowed
    const struct guest_memory *mem; // borrowed
    struct pcie *pcie;              // takes the device
    unsigned slot;
};

// --- virtio-console. Port 0 is the console (hvc0), port 1 a control line that the guest finds by its name.
#define VIRTIO_CONSOLE_CONTROL_NAME "org.trivet.control"
enum { VIRTIO_CONSOLE_PORT_TERMINAL = 0, VIRTIO_CONSOLE_PORT_CONTROL = 1, VIRTIO_CONSOLE_PORTS = 2 };

struct virtio_console;

struct virtio_console_config {
    struct device_home home;
    void *arg;
    void (*output)(void *arg, unsigned port, const uint8_t *buf, size_t len_bytes);
    void (*room)(void *arg, unsigned port);                 // virtio_console_input() may be tried again; may be NULL
    void (*opened)(void *arg, unsigned port, bool is_open); // by a program in the guest; may be NULL
};

struct virtio_console *virtio_console_add(const struct virtio_console_config *config, struct tv_error *err);
// Gives bytes to the guest; returns how many there was room for. When it took less than all, `room` will be called once.
size_t virtio_console_input(struct virtio_console *c, unsigned port, const uint8_t *buf, size_t len_bytes);
void virtio_console_resize(struct virtio_console *c, uint16_t columns, uint16_t rows);
bool virtio_console_is_open(const struct virtio_console *c, unsigned port);

// --- virtio-rng
struct virtio_rng;
struct virtio_rng *virtio_rng_add(const struct device_home *home, struct tv_error *err);

// --- virtio-blk, by vhost-user
#define VIRTIO_BLK_QUEUES_MAX 64u

struct virtio_blk;

struct virtio_blk_config {
    struct device_home home;
    unsigned n_queues; // at most this many, and no more than the back end has; 1..VIRTIO_BLK_QUEUES_MAX
    void *arg;
    void (*disconnected)(void *arg); // the back end has gone; requests wait for virtio_blk_attach(); may be NULL
};

// fd: a connected vhost-user socket (taken, also on failure). The back end must be there at first: it says what the disk can do.
struct virtio_blk *virtio_blk_add(const struct virtio_blk_config *config, int fd, struct tv_error *err);
// Takes fd (also on failure). -EBUSY: the last one is still attached.
int virtio_blk_attach(struct virtio_blk *blk, int fd, struct tv_error *err);
bool virtio_blk_is_attached(const struct virtio_blk *blk);

// --- virtio-net, by vhost-user
#define VIRTIO_NET_PAIRS_MAX 16u
#define VIRTIO_NET_MTU_MIN 68u // virtio 1.2, 5.1.4.1

struct virtio_net;

struct virtio_net_config {
    struct device_home home;
    uint8_t mac[6];
    uint16_t mtu_bytes; // that the driver is told; 0: nothing
    unsigned n_pairs;   // of queues: at most this many, and no more than the back end has; 1..VIRTIO_NET_PAIRS_MAX
    void *arg;
    void (*disconnected)(void *arg); // the back end has gone; frames wait for virtio_net_attach(); may be NULL
};

// fd: a connected vhost-user socket (taken, also on failure). The back end must be there at first: it says what it can do.
struct virtio_net *virtio_net_add(const struct virtio_net_config *config, int fd, struct tv_error *err);
// Takes fd (also on failure). -EBUSY: the last one is still attached.
int virtio_net_attach(struct virtio_net *net, int fd, struct tv_error *err);
bool virtio_net_is_attached(const struct virtio_net *net);

// --- pvpanic
#define PVPANIC_PANICKED 1u     // it will do nothing more than what its kernel does after a panic
#define PVPANIC_CRASH_LOADED 2u // it goes on with a kernel that was loaded for this
#define PVPANIC_SHUTDOWN 4u     // it is about to power off
#define PVPANIC_EVENTS (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED | PVPANIC_SHUTDOWN)

struct pvpanic;

struct pvpanic_config {
    struct device_home home;
    void *arg;
    void (*reported)(void *arg, unsigned events); // never 0, only PVPANIC_EVENTS
};

struct pvpanic *pvpanic_add(const struct pvpanic_config *config, struct tv_error *err);
// Calls reported() now if there is something that it was not told yet: for who sees the guest end before the loop came round to it.
void pvpanic_tell(struct pvpanic *p);
