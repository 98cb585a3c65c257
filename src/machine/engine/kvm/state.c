// Every bit of the vcpus and of the interrupt controllers, both ways: see kvm.h. What comes from a stream is the kernel's to check:
// a vcpu that it does not take is an error that says which part.
#include "machine/engine/kvm/baseline.h"
#include "machine/engine/kvm/kvm.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define XSAVE_MAX (64u << 10)
#define IRQCHIPS 3u // two PICs and the I/O APIC
#define MSR_TSC_DEADLINE 0x6e0u

struct msrs {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[KVM_MSRS_MAX];
};

struct vcpu_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_mp_state mp_state;
    struct kvm_vcpu_events events;
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[KVM_CPUID_MAX];
    } cpuid;
    struct msrs msrs;
    uint8_t xsave[XSAVE_MAX] __attribute__((aligned(64)));
};

// --- model-specific registers

static bool is_settable(int fd, struct kvm_msr_entry entry)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head.nmsrs = 1, .entry = entry};
    return ioctl(fd, KVM_GET_MSRS, &one) == 1 && ioctl(fd, KVM_SET_MSRS, &one) == 1;
}

// The kernel lists some that this host, or a vcpu with this CPUID, does not have.
int kvm_msrs_find(struct kvm_engine *e, struct tv_error *err)
{
    struct kvm_msr_list *list = calloc(1, sizeof(*list) + KVM_MSRS_MAX * sizeof(list->indices[0]));
    if (!list)
        return tv_error_set(err, -ENOMEM, "kvm: no memory");
    list->nmsrs = KVM_MSRS_MAX;
    int rc = ioctl(e->config.kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0 ? -errno : 0;
    bool has_deadline = false;
    for (uint32_t i = 0; rc == 0 && i < list->nmsrs; i++) {
        if (list->indices[i] == MSR_TSC_DEADLINE)
            has_deadline = true; // the last: it counts from the TSC that was set before it
        else if (is_settable(e->vcpus[0].fd, (struct kvm_msr_entry){.index = list->indices[i]}))
            e->msrs.indices[e->msrs.n++] = list->indices[i];
    }
    if (has_deadline && e->msrs.n < KVM_MSRS_MAX)
        e->msrs.indices[e->msrs.n++] = MSR_TSC_DEADLINE;
    free(list);
    return rc < 0 ? tv_error_set(err, rc, "kvm: model-specific registers of the host: %s", strerror(-rc)) : 0;
}

static int get_msrs(const struct kvm_vcpu *v, struct msrs *msrs)
{
    const struct kvm_msrs_list *list = &v->engine->msrs;
    msrs->head.nmsrs = list->n;
    for (unsigned i = 0; i < list->n; i++)
        msrs->entries[i] = (struct kvm_msr_entry){.index = list->indices[i]};
    int got = ioctl(v->fd, KVM_GET_MSRS, msrs);
    return got < 0 ? -errno : (unsigned)got == list->n ? 0 : -EIO;
}

// The first that the kernel does not take, or 0.
static uint32_t set_msrs(const struct kvm_vcpu *v, struct msrs *msrs)
{
    int done = ioctl(v->fd, KVM_SET_MSRS, msrs);
    unsigned n = done < 0 ? 0 : (unsigned)done;
    return n < msrs->head.nmsrs ? msrs->entries[n].index : 0;
}

// --- vcpus

// What is said of one part, for both directions.
struct part {
    unsigned long get, set;
    size_t offset;
    const char *name;
};

#define AT(member) offsetof(struct vcpu_state, member)
// In the order in which they must be set: modes before what depends on them, the local APIC after its base address (sregs).
static const struct part parts[] = {
    {KVM_GET_SREGS, KVM_SET_SREGS, AT(sregs), "segment and control registers"},
    {KVM_GET_REGS, KVM_SET_REGS, AT(regs), "general registers"},
    {KVM_GET_XCRS, KVM_SET_XCRS, AT(xcrs), "extended control registers"},
    {0, KVM_SET_XSAVE, AT(xsave), "extended registers"},
    {KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, AT(debugregs), "debug registers"},
    {KVM_GET_MP_STATE, KVM_SET_MP_STATE, AT(mp_state), "whether it runs"},
    {KVM_GET_LAPIC, KVM_SET_LAPIC, AT(lapic), "local APIC"},
};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

static void *member(struct vcpu_state *st, const struct part *part)
{
    return (uint8_t *)st + part->offset;
}

static bool is_there(const struct kvm_engine *e, const struct part *part)
{
    return part->set != KVM_SET_XCRS || e->has_xcrs;
}

// What of it failed, or NULL.
static const char *get_vcpu(const struct kvm_vcpu *v, struct vcpu_state *st)
{
    unsigned long get_xsave = v->engine->xsave_bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
    for (size_t i = 0; i < PARTS; i++)
        if (is_there(v->engine, &parts[i]) && ioctl(v->fd, parts[i].get ? parts[i].get : get_xsave, member(st, &parts[i])) < 0)
            return parts[i].name;
    st->cpuid.head.nent = KVM_CPUID_MAX;
    if (ioctl(v->fd, KVM_GET_CPUID2, &st->cpuid) < 0)
        return "CPUID";
    if (get_msrs(v, &st->msrs) != 0)
        return "model-specific registers";
    return ioctl(v->fd, KVM_GET_VCPU_EVENTS, &st->events) < 0 ? "events" : NULL;
}

static void set_vcpu(const struct kvm_vcpu *v, struct vcpu_state *st, struct state *s)
{
    struct tv_error err;
    if (kvm_baseline_check(v->engine->cpuid, &st->cpuid.head, &err) < 0) { // the kernel would take it, and the guest break later
        state_fail(s, "%s", err.text);
        return;
    }
    if (ioctl(v->fd, KVM_SET_CPUID2, &st->cpuid) < 0) {
        state_fail(s, "kvm: vcpu %u: this host cannot give it the CPUID that it had: %s", v->id, strerror(errno));
        return;
    }
    for (size_t i = 0; i < PARTS; i++)
        if (is_there(v->engine, &parts[i]) && ioctl(v->fd, parts[i].set, member(st, &parts[i])) < 0)
            state_fail(s, "kvm: vcpu %u: this host does not take its %s: %s", v->id, parts[i].name, strerror(errno));
    uint32_t refused = set_msrs(v, &st->msrs);
    if (refused)
        state_fail(s, "kvm: vcpu %u: this host does not take its model-specific register 0x%x", v->id, refused);
    if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, &st->events) < 0)
        state_fail(s, "kvm: vcpu %u: this host does not take its events: %s", v->id, strerror(errno));
}

static void vcpu_fields(const struct kvm_engine *e, struct vcpu_state *st, struct state *s)
{
    uint32_t xsave_bytes = (uint32_t)e->xsave_bytes, n_msrs = st->msrs.head.nmsrs, n_leaves = st->cpuid.head.nent;
    state_bytes(s, "regs", &st->regs, sizeof(st->regs));
    state_bytes(s, "sregs", &st->sregs, sizeof(st->sregs));
    state_bytes(s, "xcrs", &st->xcrs, sizeof(st->xcrs));
    state_count(s, "xsave_bytes", &xsave_bytes, XSAVE_MAX);
    state_bytes(s, "xsave", st->xsave, xsave_bytes);
    state_bytes(s, "debugregs", &st->debugregs, sizeof(st->debugregs));
    state_bytes(s, "lapic", &st->lapic, sizeof(st->lapic));
    state_bytes(s, "mp_state", &st->mp_state, sizeof(st->mp_state));
    state_bytes(s, "events", &st->events, sizeof(st->events));
    state_count(s, "n_leaves", &n_leaves, KVM_CPUID_MAX);
    state_bytes(s, "cpuid", st->cpuid.entries, n_leaves * sizeof(st->cpuid.entries[0]));
    state_count(s, "n_msrs", &n_msrs, KVM_MSRS_MAX);
    state_bytes(s, "msrs", st->msrs.entries, n_msrs * sizeof(st->msrs.entries[0]));
    st->msrs.head.nmsrs = n_msrs;
    st->cpuid.head.nent = n_leaves;
}

static void vcpu_state(struct kvm_vcpu *v, struct vcpu_state *st, struct state *s)
{
    memset(st, 0, sizeof(*st));
    state_section_begin(s, "vcpu", 1);
    const char *missing = state_is_loading(s) ? NULL : get_vcpu(v, st);
    if (missing)
        state_fail(s, "kvm: vcpu %u: the kernel does not tell its %s: %s", v->id, missing, strerror(errno));
    vcpu_fields(v->engine, st, s);
    if (state_is_loading(s) && !state_failed(s))
        set_vcpu(v, st, s);
    state_section_end(s);
}

// --- interrupt controllers

static void irqchips_state(struct kvm_engine *e, struct state *s)
{
    struct kvm_irqchip chip;
    state_section_begin(s, "irqchips", 1);
    for (uint32_t i = 0; i < IRQCHIPS; i++) {
        chip = (struct kvm_irqchip){.chip_id = i};
        if (!state_is_loading(s) && ioctl(e->vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
            state_fail(s, "kvm: the kernel does not tell of interrupt controller %u: %s", i, strerror(errno));
        state_bytes(s, "chip", &chip.chip, sizeof(chip.chip));
        if (state_is_loading(s) && !state_failed(s) && ioctl(e->vm_fd, KVM_SET_IRQCHIP, &chip) < 0)
            state_fail(s, "kvm: this host does not take interrupt controller %u: %s", i, strerror(errno));
    }
    state_section_end(s);
}

int kvm_vcpus_state(struct kvm_engine *e, struct state *s)
{
    struct vcpu_state *st = aligned_alloc(64, (sizeof(*st) + 63) & ~63ull);
    if (!st) {
        state_fail(s, "kvm: no memory");
        return -ENOMEM;
    }
    if (e->xsave_bytes > XSAVE_MAX)
        state_fail(s, "kvm: the host's extended registers take %zu bytes, and %u is all that is saved", e->xsave_bytes, XSAVE_MAX);
    for (unsigned i = 0; i < e->n_vcpus; i++)
        vcpu_state(&e->vcpus[i], st, s);
    irqchips_state(e, s);
    free(st);
    return state_failed(s) ? -EINVAL : 0;
}
