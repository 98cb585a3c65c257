// The file of `trivet up`: tenants, machines, disks and networks in YAML, in the manner of compose; see trivet.yaml(5).
//
// Decoded and checked whole; every message begins with "FILE:LINE:", or "FILE:" when it is about the whole. Any thread.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stddef.h>

struct up_file {
    json_t *host;     // as host_spec_check() makes it; NULL: the file does not say
    json_t *tenants;  // ["a", ...]
    json_t *networks; // specifications as net_spec_check() makes them, in the order of the file
    json_t *machines; // specs as spec_decode() takes them, in the order of the file
    json_t
        *overlays; // disks that share a template, to be made if they are not there: [{"name", "path", "over", "size_bytes"}, ...]
};

int up_file_load(const char *path, struct up_file *file, struct tv_error *err);
// The same of text in memory: `name` stands for the file in messages, relative paths begin at `dir`, which is absolute.
int up_file_parse(const char *name, const char *dir, const char *text, size_t len_bytes, struct up_file *file,
                  struct tv_error *err);
void up_file_free(struct up_file *file);
