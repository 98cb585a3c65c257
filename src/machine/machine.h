// The process trivet-machine: one machine, from power-on to its end. Private to this folder's top level.
//
// machine.c   the parts, their life and the order in which they stop and go
// boot.c      what is in memory and registers when the vcpus start: a kernel (boot_pc.c for x86-64), or a saved machine
// save.c      saving, step by step
// devices.c   the devices in the slots of the PCIe host
// control.c   the control protocol
// stats.c     what the vcpus have counted
// config.c, console.c, vcpus.c  see their headers
//
// Threads: the loop's thread owns all of this; vcpu threads come in through the engine's host calls only (machine.c).
//
// Whatever needs the machine to stand still is a task: it waits until all vcpus are parked and the board is frozen, and runs on the
// loop's thread. Tasks run one after the other, in the order they came. When none is left the machine goes on, unless it is paused.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "machine/board/board.h"
#include "machine/config.h"
#include "machine/console.h"
#include "machine/device/device.h"
#include "machine/engine/engine.h"
#include "machine/vcpus.h"
#include "vhost/memory.h"

#include <stdbool.h>
#include <stdint.h>

#define MACHINE_PANICKED "the guest panicked"

struct control;
struct machine;

// Ends with machine_task_done(), at once or later.
typedef void machine_task_fn(struct machine *m, void *arg);

struct machine_task {
    struct machine_task *next;
    machine_task_fn *fn;
    void *arg;
};

struct machine_disk {
    struct machine *m;
    unsigned index; // in config.disks
    struct virtio_blk *blk;
};

struct machine_net {
    struct machine *m;
    unsigned index; // in config.nets
    struct virtio_net *net;
};

struct machine {
    struct config config;
    char kernel_name[300], initrd_name[300]; // for messages
    struct loop *loop;
    const struct engine_ops *engine_ops;
    struct guest_memory mem; // RAM: one region, two on x86-64 if it reaches over where devices are
    uint8_t *ram;            // all of it, in the order of addresses
    struct perf *perf;       // NULL: nobody wants translated code named
    struct engine *engine;
    struct board *board;
    struct console *console;
    struct virtio_console *terminal; // the virtio one; what is typed goes there once the guest has written there
    bool terminal_in_use;
    bool powerdown_waits; // the guest was asked to power off and had no agent yet
    struct pvpanic *pvpanic;
    struct machine_disk disks[CONFIG_DISKS_MAX];
    struct machine_net nets[CONFIG_NETS_MAX];
    struct vcpus *vcpus;
    struct control *control; // NULL without a control socket

    bool warm_is_panic; // the guest's kernel reboots warm when it panics, and cold otherwise: see boot.c

    bool parked;  // no vcpu runs, the board is frozen, the clock stands
    bool parking; // on the way there
    bool paused;  // by request: stays parked
    struct machine_task *tasks, *active;

    bool ended;
    int exit_status;
    char reason[300];
    struct loop_source *end_timer, *signals[2];

    int statm_fd; // /proc/self/statm, opened while that is still allowed; -1
    uint64_t created_ns;
    uint64_t guest_ns, running_since_ns; // time the guest has had; since when it goes (0: it stands)
};

// Makes everything and starts the machine. Takes what config holds (also on failure; it is emptied).
struct machine *machine_create(struct config *config, struct loop *loop, struct tv_error *err);
void machine_destroy(struct machine *m); // not while vcpus run: after loop_run() came back, or after machine_create()

void machine_when_parked(struct machine *m, machine_task_fn *fn, void *arg);
void machine_task_done(struct machine *m);
void machine_set_paused(struct machine *m, bool paused);
// The machine ends as soon as it is parked: loop_run() comes back. The first call counts.
void machine_end(struct machine *m, int exit_status, const char *format, ...) __attribute__((format(printf, 3, 4)));

uint64_t machine_resident_bytes(const struct machine *m);
uint64_t machine_guest_ns(const struct machine *m);
uint8_t *machine_ram(const struct machine *m);

// devices.c
int machine_add_devices(struct machine *m, struct tv_error *err);
size_t machine_type(struct machine *m, const uint8_t *buf, size_t len_bytes); // returns how many the guest took
// Asks the guest by its agent to power off; false: no agent is there yet. It is asked when it comes.
bool machine_ask_powerdown(struct machine *m);
bool machine_disk_is_attached(const struct machine *m, unsigned disk);
int machine_attach_disk(struct machine *m, const char *name, int fd, struct tv_error *err); // takes fd
bool machine_net_is_attached(const struct machine *m, unsigned net);
int machine_attach_net(struct machine *m, const char *name, int fd, struct tv_error *err); // takes fd

// boot.c, boot_pc.c; the machine is parked.
int machine_boot_pc(struct machine *m, const char *append, struct tv_error *err);
int machine_boot(struct machine *m, struct tv_error *err);    // RAM reads as zeroes
int machine_reboot(struct machine *m, struct tv_error *err);  // the same from whatever state it is in
int machine_restore(struct machine *m, struct tv_error *err); // from config.restore_fd

// save.c; the machine is parked.
// What a saved machine must have in common with the one that loads it, as JSON text; the caller frees it. NULL: no memory.
char *machine_identity(const struct machine *m);
void machine_state(struct machine *m, struct state *s);                                    // all but RAM, which is saved after it
typedef void machine_saved_fn(void *arg, uint64_t size_bytes, const struct tv_error *err); // err->code 0: it is saved
// Takes fd. Calls saved() on the loop's thread when all is done; the machine must stay parked until then.
void machine_save(struct machine *m, int fd, machine_saved_fn *saved, void *arg);

// stats.c
struct json_t *machine_stats(const struct machine *m); // the caller's

// control.c
struct control *control_create(struct machine *m, int listen_fd, struct tv_error *err); // takes listen_fd
void control_destroy(struct control *c);
void control_tell_progress(struct control *c, const char *what, uint64_t done_bytes, uint64_t total_bytes); // c may be NULL
// `what`: "disk.disconnected" or "net.disconnected". c may be NULL.
void control_tell_disconnected(struct control *c, const char *what, const char *name);
void control_tell_stopped(struct control *c, int exit_status, const char *reason);
