// What machines and disks do, for the commands that look: read from trivetd, or from one store alone. Blocking; for programs
// without a loop.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

struct look {
    int fd;
    bool is_store;
};

// store_socket: a store's control socket; NULL: trivetd's.
int look_open(struct look *look, const char *store_socket, struct tv_error *err);
void look_close(struct look *look);

// A list of machines as `trivet ps --json` has them. One that runs has what it used: "vcpus", "uptime_ns", "resident_bytes",
// "engine"; and "disks", as disk.stat has them with histograms, unless the store does not answer. Of a store alone the list is one
// nameless machine that has nothing but disks.
int look_read(const struct look *look, json_t **machines, struct tv_error *err);

// Networks, as metrics.h takes them; an empty list of a store alone.
int look_read_networks(const struct look *look, json_t **networks, struct tv_error *err);

// Puts the rates since `before`, an earlier list, into the machines and disks of `now`:
//   machine  cpu_percent, mips, read_bps, write_bps
//   disk     rates: {seconds, iops, read_iops, write_iops, read_bps, write_bps, queue, read: {count, p50_ns, p99_ns, p999_ns},
//            write: {the same}}, and waited_percent, device_percent where the store's scheduler can tell
// A machine that has started since then counts from its start. A disk that was not read twice has no rates; one that was read at
// the same time as before keeps those it had.
void look_add_rates(const json_t *before, json_t *now);
json_t *look_without_histograms(const json_t *machines); // a copy, for people

// true: all of the disk's promises are kept. *held_by: of one that is not, who holds what is lacking; NULL: nobody.
bool look_is_kept(const json_t *disk, const char **held_by);
