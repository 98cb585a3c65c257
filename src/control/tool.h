// Running a program of the host (apt-get, mke2fs, ...) and waiting for it.
//
// It runs with LC_ALL=C, without a terminal on its standard input, with the sbin folders in PATH, and dies with us. What it says on
// standard error is kept and, when it fails, the last line of it goes into the error. SIGINT, SIGTERM and SIGHUP end the program
// and make the call return -EINTR, once tool_catch_signals() was called. Any thread that outlives the call.
#pragma once

#include "base/error.h"

struct tool {
    const char *const *argv; // ends with NULL; argv[0] is looked up in PATH
    const char *package;     // the Debian package that has it, for the message when it is missing
    const char *cwd;         // NULL: ours
    const char *const *env;  // "NAME=value" additions, ends with NULL; may be NULL
    int stdin_fd;            // 0: /dev/null
    int stdout_fd;           // 0: to /dev/null
    void (*tick)(void *arg); // about five times a second while it runs; may be NULL
    void *arg;
};

int tool_run(const struct tool *tool, struct tv_error *err);
// The same, and what it wrote to its standard output, NUL-terminated; the caller frees it.
int tool_output(const struct tool *tool, char **out, struct tv_error *err);

void tool_catch_signals(void);
int tool_interrupted(void); // the signal that came, or 0
