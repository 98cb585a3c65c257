// Who holds the lock on a file. The kernel names no process for an open-file-description lock (fcntl(2): l_pid is -1), but lists
// the locks of each descriptor in /proc/PID/fdinfo. For messages only: what is not visible from here is not found. Any thread.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct holder {
    pid_t pid;
    char command[32];
};

bool holder_find(int fd, struct holder *holder);
