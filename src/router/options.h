// The command line of trivet-router.
#pragma once

#include "base/error.h"
#include "router/eal.h"

#include <jansson.h>
#include <stdbool.h>

#define OPTIONS_ITEMS_MAX 256
enum { OPTIONS_HELP = 1, OPTIONS_VERSION = 2 };

// A network or a port, in the order of the command line.
struct option_item {
    bool is_port;
    json_t *params;
};

struct options {
    int control_fd;           // -1: none
    const char *control_path; // NULL: none; a socket is made there
    bool log_json;
    struct eal_config eal;
    unsigned n_items;
    struct option_item items[OPTIONS_ITEMS_MAX];
};

extern const char options_help[], options_version[];

// 0, OPTIONS_HELP, OPTIONS_VERSION, or -EINVAL with err.
int options_parse(struct options *options, int argc, char **argv, struct tv_error *err);
void options_free(struct options *options);
