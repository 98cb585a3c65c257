// The file of `trivet up`: tenants, machines, disks and networks in YAML, in the manner of compose; see trivet.yaml(5).
//
// Decoded and checked whole; every message begins with "FILE:LINE:". Any thread.
#pragma once

#include "base/error.h"

#include <jansson.h>

struct up_file {
    json_t *tenants;  // ["a", ...]
    json_t *networks; // [{"name", "tenant"}, ...]
    json_t *machines; // specs as spec_decode() takes them, in the order of the file
};

int up_file_load(const char *path, struct up_file *file, struct tv_error *err);
void up_file_free(struct up_file *file);
