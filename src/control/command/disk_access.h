// A disk for the commands that work on disks: found by the words of a person, and asked through whatever store has it. Blocking;
// for programs without a loop.
#pragma once

#include "base/error.h"
#include "control/worker/store_process.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

// Invariant: at most one of the two stores is there.
struct disk_access {
    char path[PATH_MAX];      // absolute; a file or block device, or a volume file
    char label[128];          // as trivetd's store has it: MACHINE.DISK; "": trivetd has no such disk
    int trivetd_fd;           // -1: its machine does not run
    struct store_process own; // pid 0: not started
};

// `word` is a path (it has a slash, or names a file that is there or has the suffix of one), or the name of a disk, as of trivet
// disk promise, or else of one in the state folder. Says nothing of whether the file is there.
int disk_find(const char *word, struct disk_access *disk, struct tv_error *err);
void disk_release(struct disk_access *disk); // in place; a zeroed one is fine

// Asks the store that has the disk now, or one of its own that is started for it and ends with disk_release(): the disk is locked
// then. params are without the disk's name, and taken. pass_fd goes with the call; -1: nothing does.
int disk_call(struct disk_access *disk, bool read_only, const char *method, json_t *params, int pass_fd, json_t **result,
              struct tv_error *err);

// A disk that no machine runs on, as qemu-img(1) can read it: *name is the caller's, and good until disk_release().
int disk_serve(struct disk_access *disk, char **name, struct tv_error *err);
