// One machine in the foreground, as `trivet run` has it: its store, its console on the terminal, until it ends.
//
// The workers die with us, whatever we die of. Nothing stays in the file system but the disks that were asked for.
#pragma once

#include "base/error.h"
#include "control/spec/spec.h"

// Runs it until its end. Returns the exit status: 0 the guest shut down or was left by ^A x, 1 it failed, 2 it could not be
// started (the reason is in err, or was said by the worker itself: err->code 0), 128 + N when signal N ended it.
int foreground_run(const struct machine_spec *spec, struct tv_error *err);
