// Which engine a machine runs on, and which variant of its image: what its file says, or for "auto" what its kernel was made for
// and what the host can do.
//
// A kernel for riscv64 goes to the software engine, one for x86-64 to KVM, a saved machine to the engine that saved it. An image
// that is there for both goes to KVM where that works and the variant is built, unless a disk was made from it: what a disk holds
// was made for one kind of processor, by the name of its image. Any thread.
#pragma once

#include "base/error.h"
#include "control/spec/spec.h"

struct engine_choice {
    const char *engine;            // "kvm" or "rv64"; static
    char image[SPEC_NAME_MAX + 1]; // the variant to boot; "": the machine has no image
    int kvm_fd;                    // /dev/kvm for engine "kvm", the caller's to close; else -1
    char why[256];                 // for a person: "rv64, since ..." goes on with it
};

// kernel_fd and restore_fd are files, borrowed, or -1: the kernel that was named (not an image's), and a saved machine. Errors say
// what was asked for, why it does not go, and what does.
int engine_choose(const struct machine_spec *spec, int kernel_fd, int restore_fd, struct engine_choice *choice,
                  struct tv_error *err);
