// What a machine's process may ask of the kernel, by thread: see confined.c.
#pragma once

#include "base/confine.h"

struct machine_lists {
    const char *engine;
    // From the moment its configuration was read until its vcpus stand; the loop's thread from then on; a vcpu's thread.
    struct confine_list start, loop, vcpu;
};

// Of the engine with that name, as engine_ops has it; those of rv64 for a name that has none.
const struct machine_lists *machine_lists(const char *engine);
