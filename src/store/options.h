// The command line of trivet-store.
#pragma once

#include "base/error.h"
#include "store/store.h"

#include <stdbool.h>

#define OPTIONS_DISKS_MAX 64
#define OPTIONS_NBD_MAX 16
enum { OPTIONS_HELP = 1, OPTIONS_VERSION = 2 };

struct option_disk {
    struct disk_config disk;
    const char *path, *socket; // socket NULL: none
    json_t *volume;            // path NULL: instead of it; with paths and addresses (open.h)
};

struct option_nbd {
    const char *address; // as listen.h has it
    json_t *exports;     // names; NULL: all
    bool has_tls, tls_off, tls_required;
    const char *certificate, *key, *ca, *psk; // paths
    char *text;                               // what the strings above point into
};

struct options {
    int control_fd;            // -1: none
    const char *control_path;  // NULL: none; a socket is made there
    int verdicts_fd;           // -1: none
    const char *verdicts_path; // NULL: none; made if need be
    bool no_uring, log_json;
    const char *scheduler; // NULL: the default
    unsigned poll_us;
    unsigned n_disks;
    struct option_disk disks[OPTIONS_DISKS_MAX];
    char *text[OPTIONS_DISKS_MAX]; // what the strings above point into
    unsigned n_nbd;
    struct option_nbd nbd[OPTIONS_NBD_MAX];
};

extern const char options_help[], options_version[];

// 0, OPTIONS_HELP, OPTIONS_VERSION, or -EINVAL with err.
int options_parse(struct options *options, int argc, char **argv, struct tv_error *err);
void options_free(struct options *options);

// options_nbd.c
int options_parse_nbd(struct options *options, const char *argument, struct tv_error *err);
void options_free_nbd(struct options *options);
