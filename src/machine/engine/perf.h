// Files by which perf(1) names translated code: a map of the code that is there (/tmp/perf-PID.map, a line "START SIZE name" in
// hexadecimal for each piece), and a jitdump (tools/perf/Documentation/jitdump-specification.txt of the kernel) of all that ever
// was, with the code itself and the time, for `perf inject --jit`.
//
// Calls come one at a time, on any thread. perf_add() allocates nothing and never fails: a file that cannot be written any more is
// left as it is.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PERF_NAME_MAX 32

struct perf;

// Takes both descriptors (-1: none), which are open for reading and writing. The jitdump is mapped, executable, since that is how
// `perf record` learns of it.
int perf_create(struct perf **out, int map_fd, int jitdump_fd, struct tv_error *err);
void perf_destroy(struct perf *p); // NULL is fine
// `kept`: it stays when other code is thrown away.
void perf_add(struct perf *p, const void *code, size_t bytes, const char *name, bool kept);
void perf_forget(struct perf *p); // code was thrown away and its addresses will be used anew
