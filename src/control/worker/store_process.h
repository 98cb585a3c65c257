// The store as its supervisor sees it: a worker, its control socket and a socket for each disk, all in one folder.
//
// DIR/store.sock and DIR/disk-NAME.sock. After a restart of the supervisor the same store is found again by its sockets. Only
// store_process_add(), for a supervisor with one machine, waits for an answer, for at most STORE_TIMEOUT_MS; trivetd, which has
// others to serve, takes the parts of it and asks by its loop. On the caller's thread.
#pragma once

#include "base/error.h"
#include "control/spec/spec.h"
#include "control/worker/worker.h"
#include "store/open.h"

#include <jansson.h>
#include <limits.h>

#define STORE_TIMEOUT_MS 30000
#define STORE_STOP_MS 3000

struct store_process {
    struct worker worker; // pid 0: not running
    char dir[PATH_MAX];
};

// A folder for one of the caller's own, below the run directory: store->dir. The names in it are of no use any more once all that
// will be is connected.
int store_process_make_dir(struct store_process *store, struct tv_error *err);
void store_process_remove_dir(const struct store_process *store);

// Starts a store with its sockets in store->dir. stderr_fd as for worker_start(); verdicts_fd: a file in which verdicts outlive it,
// -1: there is none. The caller closes both.
int store_process_start(struct store_process *store, bool dies_with_parent, int stderr_fd, int verdicts_fd, struct tv_error *err);

// What the method disk.add takes: descriptors and its parameters.
struct store_disk {
    struct store_fds fds;
    json_t *params;
};

// The control connection.
int store_process_connect(const struct store_process *store, struct tv_error *err);
// Opens what is behind it, and the socket by the name `label`. The caller hands the descriptors over and closes its own.
int store_process_open_disk(const struct store_process *store, const char *label, const struct disk_spec *disk,
                            struct store_disk *open, struct tv_error *err);
// The second part of it, when disk_image_open() was done before: takes the volume, and what open->fds has.
int store_process_open_socket(const struct store_process *store, const char *label, const struct disk_spec *disk, json_t *volume,
                              struct store_disk *open, struct tv_error *err);
void store_process_close_disk(struct store_disk *open);
// A machine's connection to a disk that the store has taken.
int store_process_connect_disk(const struct store_process *store, const char *label, struct tv_error *err);
void store_process_forget_disk(const struct store_process *store, const char *label); // its socket's name

// All of these for a disk that the store does not have yet: *front_fd is for the machine. `nbd`: NBD clients can have it as well.
// What is promised on trust is appended to `unproven`, if that is not NULL: {"name", "promise", "because"}.
int store_process_add(const struct store_process *store, const char *label, const struct disk_spec *disk, bool nbd, int *front_fd,
                      json_t *unproven, struct tv_error *err);
// NBD clients are waited for at this path; it goes with the store.
int store_process_serve_nbd(const struct store_process *store, char path[static PATH_MAX], struct tv_error *err);

// Asks it to end, kills it when it does not within STORE_STOP_MS, and takes its socket away.
void store_process_stop(struct store_process *store);
