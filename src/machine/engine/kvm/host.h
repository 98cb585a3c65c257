// What the host's KVM must be able to do for this engine: asked by the engine, and by the probe before there is one.
#pragma once

#include "base/error.h"

// kvm_fd: an open /dev/kvm, borrowed. -ENODEV, -ENOTSUP with what is missing.
int kvm_host_check(int kvm_fd, struct tv_error *err);
