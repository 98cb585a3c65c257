// The command line of trivet-store.
#pragma once

#include "base/error.h"
#include "store/store.h"

#include <stdbool.h>

#define OPTIONS_DISKS_MAX 64
enum { OPTIONS_HELP = 1, OPTIONS_VERSION = 2 };

struct option_disk {
    struct disk_config disk;
    const char *path, *socket; // socket NULL: none
    json_t *volume;            // path NULL: instead of it; with paths and addresses (open.h)
};

struct options {
    int control_fd;           // -1: none
    const char *control_path; // NULL: none; a socket is made there
    bool no_uring, log_json;
    const char *scheduler; // NULL: the default
    unsigned poll_us;
    unsigned n_disks;
    struct option_disk disks[OPTIONS_DISKS_MAX];
    char *text[OPTIONS_DISKS_MAX]; // what the strings above point into
};

extern const char options_help[], options_version[];

// 0, OPTIONS_HELP, OPTIONS_VERSION, or -EINVAL with err.
int options_parse(struct options *options, int argc, char **argv, struct tv_error *err);
void options_free(struct options *options);
