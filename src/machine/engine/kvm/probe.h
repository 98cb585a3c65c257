// Whether this host's KVM can run guests: a /dev/kvm that opens says little.
#pragma once

#include <stdbool.h>

struct kvm_fitness {
    bool fit;
    char why[200]; // for a person, when it is not
};

// kvm_fd: an open /dev/kvm, borrowed; below 0: none. Makes a machine of its own and takes it away.
void kvm_probe(int kvm_fd, struct kvm_fitness *out);
