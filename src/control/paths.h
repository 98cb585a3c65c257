// Where things are: the run directory (sockets, gone with a reboot) and the state directory (database, images, saved machines).
//
// TRIVET_RUN_DIR and TRIVET_STATE_DIR go before the defaults: /run/trivet and /var/lib/trivet for root, $XDG_RUNTIME_DIR/trivet and
// ~/.local/share/trivet for others. Any thread; nothing is created here.
#pragma once

#include "base/error.h"

#include <limits.h>

// Formats a path; -ENAMETOOLONG when it does not fit.
int path_format(char out[static PATH_MAX], struct tv_error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

int path_run_dir(char out[static PATH_MAX], struct tv_error *err);
int path_state_dir(char out[static PATH_MAX], struct tv_error *err);

// The program `name` of this installation: beside the running one, else in PATH.
int path_program(char out[static PATH_MAX], const char *name, struct tv_error *err);
