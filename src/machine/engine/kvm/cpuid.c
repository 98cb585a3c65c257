// What the guest's CPUID says: all that the host's KVM can give and this engine can save, see kvm.h. Leaves and bits: Intel SDM,
// volume 2A, CPUID; AMD APM, volume 3, appendix E; KVM's own: Documentation/virt/kvm/x86/cpuid.rst.
#include "machine/engine/kvm/baseline.h"
#include "machine/engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { LEAF_FEATURES = 1, LEAF_CACHES = 4, LEAF_MONITOR = 5, LEAF_EXTENDED = 7, LEAF_PMU = 0xa, LEAF_TOPOLOGY = 0xb };
enum { LEAF_TOPOLOGY_V2 = 0x1f, LEAF_KVM_FEATURES = 0x40000001 };
#define LEAF_AMD_FEATURES 0x80000001u
#define LEAF_AMD_SIZES 0x80000008u
#define LEAF_AMD_SVM 0x8000000au
#define LEAF_AMD_CACHES 0x8000001du
#define LEAF_AMD_TOPOLOGY 0x8000001eu

#define ECX1_MONITOR (1u << 3)
#define ECX1_VMX (1u << 5)
#define ECX1_PDCM (1u << 15)
#define ECX1_TSC_DEADLINE (1u << 24)
#define ECX1_HYPERVISOR (1u << 31)
#define EDX1_HTT (1u << 28)
#define ECX_AMD_LEGACY (1u << 1)
#define ECX_AMD_SVM (1u << 2)

// All vcpus are cores of one package, with a thread each.
static uint8_t bits_for(unsigned n)
{
    uint8_t bits = 0;
    while (1u << bits < n)
        bits++;
    return bits;
}

// Levels of leaf 0xb and 0x1f: a thread (of which there is one), a core, and the end.
static void put_topology(struct kvm_cpuid_entry2 *e, unsigned n_vcpus, unsigned vcpu)
{
    e->eax = e->index == 1 ? bits_for(n_vcpus) : 0;
    e->ebx = e->index == 0 ? 1 : e->index == 1 ? n_vcpus : 0;
    e->ecx = e->index | (e->index < 2 ? (e->index + 1) << 8 : 0);
    e->edx = vcpu;
}

// What depends on how many vcpus there are, and on which.
static void put_vcpu(struct kvm_cpuid_entry2 *e, unsigned n_vcpus, unsigned vcpu)
{
    switch (e->function) {
    case LEAF_FEATURES:
        e->ebx = (e->ebx & 0xffff) | (1u << bits_for(n_vcpus)) << 16 | vcpu << 24;
        e->edx = n_vcpus > 1 ? e->edx | EDX1_HTT : e->edx & ~EDX1_HTT;
        break;
    case LEAF_CACHES:
        if (e->eax & 0x1f) // first and second level of a core's own, the third of all; cores of the package
            e->eax = (e->eax & 0x3fff) | ((e->eax >> 5 & 7) >= 3 ? n_vcpus - 1 : 0) << 14 | ((1u << bits_for(n_vcpus)) - 1) << 26;
        break;
    case LEAF_TOPOLOGY:
    case LEAF_TOPOLOGY_V2:
        put_topology(e, n_vcpus, vcpu);
        break;
    case LEAF_AMD_FEATURES:
        e->ecx = n_vcpus > 1 ? e->ecx | ECX_AMD_LEGACY : e->ecx & ~ECX_AMD_LEGACY;
        break;
    case LEAF_AMD_SIZES:
        e->ecx = (uint32_t)bits_for(n_vcpus) << 12 | (n_vcpus - 1);
        break;
    case LEAF_AMD_CACHES:
        if (e->eax & 0x1f)
            e->eax = (e->eax & 0x3fff) | ((e->eax >> 5 & 7) >= 3 ? n_vcpus - 1 : 0) << 14;
        break;
    case LEAF_AMD_TOPOLOGY:
        e->eax = vcpu;
        e->ebx = vcpu; // a thread a core
        e->ecx = 0;
        break;
    }
}

// Takes out what is not for guests, or has state that is not saved: virtualization within, the performance counters.
static void put_features(struct kvm_cpuid_entry2 *e, bool tsc_deadline)
{
    switch (e->function) {
    case LEAF_FEATURES:
        e->ecx = (e->ecx & ~(ECX1_MONITOR | ECX1_VMX | ECX1_PDCM)) | ECX1_HYPERVISOR | (tsc_deadline ? ECX1_TSC_DEADLINE : 0);
        break;
    case LEAF_MONITOR:
    case LEAF_PMU:
    case LEAF_AMD_SVM:
        e->eax = e->ebx = e->ecx = e->edx = 0;
        break;
    case LEAF_AMD_FEATURES:
        e->ecx &= ~ECX_AMD_SVM;
        break;
    }
}

static bool has_leaf(const struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return true;
    return false;
}

// The host may tell one level of its topology only (some hosts have one core with a thread).
static void add_topology(struct kvm_cpuid2 *cpuid)
{
    for (uint32_t index = 0; index < 3 && cpuid->nent < KVM_CPUID_MAX; index++)
        if (!has_leaf(cpuid, LEAF_TOPOLOGY, index))
            cpuid->entries[cpuid->nent++] =
                (struct kvm_cpuid_entry2){.function = LEAF_TOPOLOGY, .index = index, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
}

int kvm_cpuid_make(struct kvm_engine *e, struct tv_error *err)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + KVM_CPUID_MAX * sizeof(cpuid->entries[0]));
    e->cpuid = cpuid;
    if (!cpuid)
        return tv_error_set(err, -ENOMEM, "kvm: no memory");
    cpuid->nent = KVM_CPUID_MAX;
    if (ioctl(e->config.kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        return tv_error_set(err, -errno, "kvm: CPUID of the host: %s", strerror(errno));
    if (cpuid->nent && cpuid->entries[0].function == 0 && cpuid->entries[0].eax >= LEAF_TOPOLOGY)
        add_topology(cpuid);
    bool tsc_deadline = ioctl(e->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    for (uint32_t i = 0; i < cpuid->nent; i++)
        put_features(&cpuid->entries[i], tsc_deadline);
    return e->config.cpu ? kvm_baseline_apply(cpuid, e->config.cpu, err) : 0;
}

void kvm_cpuid_of(const struct kvm_engine *e, unsigned vcpu, struct kvm_cpuid2 *out)
{
    memcpy(out, e->cpuid, sizeof(*out) + e->cpuid->nent * sizeof(out->entries[0]));
    for (uint32_t i = 0; i < out->nent; i++)
        put_vcpu(&out->entries[i], e->config.n_vcpus, vcpu);
}
