// What a machine's process may ask of the kernel, by thread: see confined.c.
#pragma once

#include "base/confine.h"

// From the moment its configuration was read until its vcpus stand; the loop's thread from then on; a vcpu's thread.
extern const struct confine_list machine_start_list, machine_loop_list, machine_vcpu_list;
