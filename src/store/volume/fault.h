// A volume that fails as it is told, over any other: for tests of what lies above it, guests and their programs as well as our own.
// It can keep a log of what it changed, from which every state is made that a power cut could have left (fault_log.h). Without
// rules and without a log it hands requests on as they are. The store's thread.
//
// A flush that failed by a rule has failed for good, as volume.h has it.
#pragma once

#include "store/volume/env.h"
#include "store/volume/fault_rules.h"

// Takes `over` and log_fd (-1: no log), both also on failure.
struct volume *fault_volume_create(struct volume_env *env, struct volume *over, const struct fault_rules *rules, int log_fd,
                                   struct tv_error *err);
