// The user's terminal joined to a machine's console: raw mode, the escape key, both directions.
//
// Raw mode is entered when standard input is a terminal and we are in its foreground, and left on every way out: terminal_fini(),
// exit(), and again entered after a stop (SIGCONT). Only then ^A is the escape key: ^A x leaves, ^A h helps, ^A ^A is a ^A.
// Input that is no terminal goes through as it is; its end is not an end of anything. On the loop's thread.
#pragma once

#include "base/error.h"
#include "base/loop.h"

#include <stdbool.h>

struct terminal;

struct terminal_config {
    struct loop *loop;
    int console_fd;            // connected stream socket, taken
    void (*leave)(void *arg);  // the user wants out: ^A x, or nobody reads our output any more
    void (*closed)(void *arg); // the console's other end has gone; all its output is written
    void *arg;
};

struct terminal *terminal_create(const struct terminal_config *config, struct tv_error *err);
void terminal_destroy(struct terminal *t);

// Writes what the console still holds, without waiting for more.
void terminal_drain(struct terminal *t);
