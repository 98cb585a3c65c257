// The files in /tmp by which perf(1) finds a machine's translated code: perf-PID.map and jit-PID.dump. On the caller's thread.
//
// The machine's process id is known only when there is one, and the names have to be right before it begins: so the files are made
// under other names, and get theirs in the child, before it becomes the machine. They stay when the machine ends.
#pragma once

#include "base/error.h"

#include <stdbool.h>

struct perf_files {
    int map_fd, jitdump_fd; // -1: not asked for
    char map_path[32], jitdump_path[32];
};

int perf_files_open(struct perf_files *p, bool map, bool jitdump, struct tv_error *err);
int perf_files_name(void *perf_files); // in the child: 0 or -errno
// Closes them; `started`: they have their names and stay.
void perf_files_close(struct perf_files *p, bool started);
