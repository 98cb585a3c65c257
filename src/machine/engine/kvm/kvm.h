// The hardware engine: vcpus by Linux's KVM on x86-64 (Documentation/virt/kvm/api.rst; section numbers in this folder are that
// document's). Private to this folder.
//
// kvm.c    the engine: making, resetting, interrupts, clock
// vcpu.c   running a vcpu and carrying out what it leaves for
// state.c  every bit of a vcpu and of the interrupt controllers, both ways
// cpuid.c  what the guest's CPUID says       baseline.c  levels of it
// events.c doorbells and messages that go past this process
// dirty.c  which pages the guest wrote
// host.c   what the host's KVM must have     probe.c  whether it runs an unmodified kernel
//
// PIC, I/O APIC and local APICs are the kernel's, so that neither an interrupt nor its end, nor a halt, nor a start of another vcpu
// comes to this process. There is no PIT: guests take their time from KVM's clock and the local APIC.
//
// Threads: as engine.h says. A vcpu's descriptor is used by its own thread, and by the machine's thread while it does not run.
#pragma once

#include "base/error.h"
#include "base/state.h"
#include "machine/engine/engine.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define KVM_MSRS_MAX 512u
#define KVM_CPUID_MAX 256u
#define KVM_ROUTES_MAX 512u

enum kvm_cause { // why a vcpu came to this process, in engine_counters.trap_causes
    KVM_CAUSE_PORT_READ,
    KVM_CAUSE_PORT_WRITE,
    KVM_CAUSE_MMIO_READ,
    KVM_CAUSE_MMIO_WRITE,
    KVM_CAUSE_SIGNAL,
    KVM_CAUSE_OTHER,
    KVM_CAUSES,
};
_Static_assert(KVM_CAUSES <= ENGINE_TRAP_CAUSES, "a counter for each");

struct kvm_engine;

struct kvm_vcpu {
    struct kvm_engine *engine;
    unsigned id; // also its APIC id
    int fd, stats_fd;
    struct kvm_run *run;
    struct kvm_dirty_gfn *dirty_ring; // shared with the kernel; NULL: there is none
    uint32_t dirty_next;              // of its entries, to be harvested; guarded by dirty.lock
    _Atomic bool has_thread;          // thread is valid
    pthread_t thread;
    _Atomic bool kicked;
    struct engine_counters counters; // one writer: its thread; all words
};

struct kvm_msrs_list { // those that there are and that can be set
    unsigned n;
    uint32_t indices[KVM_MSRS_MAX];
};

struct kvm_route { // what is written to fd is a message
    bool used;
    int fd;
    uint64_t addr;
    uint32_t data;
};

struct kvm_engine {
    struct engine engine;
    struct engine_config config;
    int vm_fd;
    size_t run_bytes;   // of a vcpu's shared page(s)
    size_t xsave_bytes; // of what KVM_GET_XSAVE2 gives
    bool has_xcrs;      // the host's processor has XSAVE
    unsigned n_vcpus;   // that were made
    struct kvm_vcpu vcpus[ENGINE_VCPUS_MAX];
    struct kvm_cpuid2 *cpuid; // of vcpu 0, KVM_CPUID_MAX entries
    struct kvm_msrs_list msrs;
    void *initial; // the state of all vcpus and of the interrupt controllers after power-on
    size_t initial_bytes;
    uint64_t clock_ns; // the guest's (kvmclock), while it stands
    struct {
        uint32_t ring_entries; // of each vcpu; 0: the dirty log instead
        pthread_mutex_t lock;
        bool runs[GUEST_REGIONS_MAX];       // guarded by it, and so is what follows
        uint64_t *pages[GUEST_REGIONS_MAX]; // harvested, not yet asked for: a bit for each; where it runs, with rings
    } dirty;
    size_t exits_offset; // of the counter "exits" in what a stats_fd gives; 0: there is none
    pthread_mutex_t routes_lock;
    struct kvm_route routes[KVM_ROUTES_MAX]; // guarded by it; one a GSI, behind those of the I/O APIC
    pthread_mutex_t failure_lock;
    char failure[256]; // guarded by it until all vcpus are parked
    bool is_unusable;  // it could not be reset; changes while no vcpu runs
};

static inline struct kvm_engine *kvm_engine_of(const struct engine *e)
{
    return (struct kvm_engine *)(uintptr_t)e;
}

// --- kvm.c
int kvm_put_memory(struct kvm_engine *e, unsigned region, uint32_t flags);

// --- dirty.c: in this order. A ring that cannot be mapped is an error, a kernel without rings is none.
void kvm_dirty_prepare(struct kvm_engine *e); // before the first vcpu
int kvm_dirty_add_vcpu(struct kvm_vcpu *v);
int kvm_dirty_ring_full(struct kvm_vcpu *v); // it came back with KVM_EXIT_DIRTY_RING_FULL, on its thread
int kvm_dirty_log(struct engine *e, unsigned region, uint64_t *bitmap, size_t n_words); // engine_ops.dirty_log
void kvm_dirty_remove_vcpu(struct kvm_vcpu *v);
void kvm_dirty_fini(struct kvm_engine *e);

// --- vcpu.c
int kvm_vcpu_create(struct kvm_engine *e, unsigned id, struct tv_error *err);
void kvm_vcpu_destroy(struct kvm_vcpu *v);
enum engine_exit kvm_run(struct engine *e, unsigned vcpu);
void kvm_kick(struct engine *e, unsigned vcpu);
int kvm_kicks_prepare(struct tv_error *err);                                                        // once a process; again is fine
void kvm_fail(struct kvm_engine *e, const char *format, ...) __attribute__((format(printf, 2, 3))); // the first counts

// --- state.c; no vcpu runs.
int kvm_msrs_find(struct kvm_engine *e, struct tv_error *err); // fills e->msrs; vcpu 0 is there
int kvm_vcpus_state(struct kvm_engine *e, struct state *s);    // vcpus and interrupt controllers

// --- events.c
int kvm_bind_doorbell(struct engine *e, uint64_t gpa, int fd, bool on);
int kvm_bind_msi(struct engine *e, int fd, bool on, uint64_t addr, uint32_t data);

// --- cpuid.c
// Fills e->cpuid by what the host's KVM can give and config.cpu lets through.
int kvm_cpuid_make(struct kvm_engine *e, struct tv_error *err);
// The same for another vcpu: its APIC id. out has room for KVM_CPUID_MAX entries.
void kvm_cpuid_of(const struct kvm_engine *e, unsigned vcpu, struct kvm_cpuid2 *out);
