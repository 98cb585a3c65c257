// Starting a machine: opens what it is made of and starts its worker, by the contract of `trivet-machine --config FD`.
//
// Used by `trivet run` and by trivetd alike. Nothing is started before everything is open. On the caller's thread.
#pragma once

#include "base/error.h"
#include "control/spec/spec.h"
#include "control/worker/engine_choice.h"
#include "control/worker/worker.h"

// Descriptors of a machine, all owned by this struct; -1 where there is none.
struct launch {
    int kernel_fd, initrd_fd, restore_fd;
    int control_fd;                    // listening
    int console_listen_fd, console_fd; // one of them
    int log_fd, status_fd, stderr_fd;  // stderr_fd -1: ours
    int disk_fds[SPEC_DISKS_MAX];      // connected vhost-user sockets
    int nic_fds[SPEC_NICS_MAX];        // the same, of the router
    int net_fds[SPEC_NETS_MAX];        // the same
    bool dies_with_parent;
    char *append;                // the whole command line
    struct engine_choice engine; // its kvm_fd is ours
};

void launch_init(struct launch *launch);
void launch_fini(struct launch *launch); // closes what is open

// Chooses the engine, opens kernel, initrd (or those of the image) and the saved machine, connects to the networks' ports, and
// looks at the disks. Errors name the file and the remedy.
int launch_open(struct launch *launch, const struct machine_spec *spec, struct tv_error *err);

// Starts the worker. The caller closes its own descriptors afterwards by launch_fini().
int launch_start(const struct launch *launch, const struct machine_spec *spec, struct worker *worker, struct tv_error *err);
