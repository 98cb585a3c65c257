// Worker processes: trivet-machine and trivet-store.
//
// A worker opens nothing. It is started with exactly the descriptors that are listed for it, under the numbers they have here, and
// is known by pid and start time together, so that a pid that was given out again is never taken for it. On the caller's thread;
// the caller has one thread when it starts one.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct worker {
    pid_t pid;            // 0: none
    uint64_t start_ticks; // field 22 of /proc/PID/stat
};

struct worker_start {
    const char *program;     // "trivet-machine": looked up by path_program()
    const char *const *argv; // ends with NULL
    const int *fds;          // passed on; all else is closed by exec
    size_t n_fds;
    int stderr_fd;         // -1: ours
    bool dies_with_parent; // else it is put into a session of its own and outlives us
    // Called in the new process before it becomes the worker; its -errno ends the start. NULL: nothing.
    int (*prepare)(void *arg);
    void *prepare_arg;
};

int worker_start(struct worker *worker, const struct worker_start *start, struct tv_error *err);

// Is it still that process? (A zombie of ours is not.)
bool worker_is_alive(const struct worker *worker);
// A pidfd of it, or -ESRCH.
int worker_open(const struct worker *worker);
// The same for a child of ours that was not waited for: it may have ended already.
int worker_open_child(const struct worker *worker);
void worker_kill(const struct worker *worker, int signo);
// What a signal says that ended a worker, in `text`: "signal 9", or "its confinement" (base/confine.h).
const char *worker_describe_signal(int signo, char text[static 32]);
// How workers are confined: TRIVET_CONFINE, "required", "best" or "off"; without it "best".
const char *worker_confine_mode(void);
