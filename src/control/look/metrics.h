// What machines, disks and networks do, in Prometheus' text format 0.0.4
// (https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md).
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdio.h>

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

// `machines` as of look.h; without rates.
void metrics_print(FILE *out, const json_t *machines);

// `networks` as `trivet net list --json` has them, each with "stat", what vn.stat answers, where the router could be asked.
void metrics_print_networks(FILE *out, const json_t *networks);

// Serves what `make` gives, anew for each request, at http://HOST:PORT/metrics until a signal comes (tool.h). `address` is
// HOST:PORT, [IPv6]:PORT, or PORT alone for 127.0.0.1; port 0 takes a free one. Says on standard output where it serves. `make`
// returns text for free(), or NULL with err, which is answered by status 503. Its thread is the caller's.
int metrics_serve(const char *address, char *(*make)(void *arg, size_t *len, struct tv_error *err), void *arg,
                  struct tv_error *err);
