// Whether a /dev/kvm runs what an unmodified kernel relies on. A KVM may answer all questions as it should and yet run only guests
// that know of it (one that is nested without VMX or SVM), so a small guest (probe_guest.S) tries what a kernel does.
#pragma once

#include <stdbool.h>

struct kvm_fitness {
    bool fit;
    char why[200]; // for a person, without a full stop; also when it is fit
};

// kvm_fd: an open /dev/kvm, borrowed; -1: there is none. Takes some milliseconds, two seconds at most, on the calling thread; its
// VM is gone afterwards. For that time the thread takes a signal (SIGRTMIN + 4) whose action is put back. Not on two threads at
// once.
void kvm_probe(int kvm_fd, struct kvm_fitness *out);
