// The store as its supervisor sees it: a worker, its control socket and a socket for each disk, all in one folder.
//
// DIR/store.sock and DIR/disk-NAME.sock. After a restart of the supervisor the same store is found again by its sockets. Calls
// block for at most STORE_TIMEOUT_MS. On the caller's thread.
#pragma once

#include "base/error.h"
#include "control/spec.h"
#include "control/worker.h"

#include <limits.h>

#define STORE_TIMEOUT_MS 10000

struct store_process {
    struct worker worker; // pid 0: not running
    char dir[PATH_MAX];
};

// Starts a store with its sockets in store->dir. stderr_fd as for worker_start().
int store_process_start(struct store_process *store, bool dies_with_parent, int stderr_fd, struct tv_error *err);

// Opens the disk's image, gives it to the store by the name `label` and connects to it: *front_fd is for the machine.
// A disk of that name that the store still has (from a machine that is gone) is removed first.
int store_process_add(const struct store_process *store, const char *label, const struct disk_spec *disk, int *front_fd,
                      struct tv_error *err);
void store_process_remove(const struct store_process *store, const char *label);

// The store's counters of a disk, or NULL.
json_t *store_process_stat(const struct store_process *store, const char *label);

void store_process_stop(struct store_process *store); // kills it and takes its sockets away
