// Which of the host processor's features a guest sees: all of them ("host"), or exactly those of a level that many hosts have, so
// that a guest finds the same wherever it is started or loaded. Pure functions on what KVM says of CPUID.
//
// Levels are those of "System V ABI, AMD64 Architecture Processor Supplement", 3.1.1, with what a kernel makes of such processors
// besides (x2APIC, AES and the like; see the table in baseline.c). Nothing that is not in the level is shown, but for what guards a
// guest against other code on its processor (speculation control): that is the host's, always. Model names and caches stay the
// host's.
#pragma once

#include "base/error.h"

#include <linux/kvm.h>

#define KVM_BASELINES "'host', 'x86-64-v2', 'x86-64-v3', 'x86-64-v4'"

// Takes out of cpuid what is beyond the level `cpu`. -EINVAL: no such level; -ENOTSUP: the host has less, with the names of what is
// missing and the highest level that it has.
int kvm_baseline_apply(struct kvm_cpuid2 *cpuid, const char *cpu, struct tv_error *err);

// Whether a guest that was told `saved` finds all of that in `now`. -ENOTSUP with the names of what is missing.
int kvm_baseline_check(const struct kvm_cpuid2 *now, const struct kvm_cpuid2 *saved, struct tv_error *err);
