// Running a vcpu: see kvm.h.
#include "machine/engine/kvm/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define KICK_SIGNAL (SIGRTMIN + 4)

static void count(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

void kvm_fail(struct kvm_engine *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&e->failure_lock);
    if (!e->failure[0])
        vsnprintf(e->failure, sizeof(e->failure), format, args);
    pthread_mutex_unlock(&e->failure_lock);
    va_end(args);
}

// --- life

// Where "exits" is in a vcpu's binary statistics (4.133); 0: not there.
static size_t find_exits(int stats_fd)
{
    struct kvm_stats_header header;
    if (pread(stats_fd, &header, sizeof(header), 0) != sizeof(header) || header.name_size > 256)
        return 0;
    size_t desc_bytes = sizeof(struct kvm_stats_desc) + header.name_size;
    struct kvm_stats_desc *desc = calloc(1, desc_bytes + 1);
    size_t found = 0;
    for (uint32_t i = 0; desc && !found && i < header.num_desc; i++) {
        if (pread(stats_fd, desc, desc_bytes, (off_t)(header.desc_offset + i * desc_bytes)) != (ssize_t)desc_bytes)
            break;
        if (strcmp(desc->name, "exits") == 0)
            found = header.data_offset + desc->offset;
    }
    free(desc);
    return found;
}

int kvm_vcpu_create(struct kvm_engine *e, unsigned id, struct tv_error *err)
{
    struct kvm_vcpu *v = &e->vcpus[id];
    *v = (struct kvm_vcpu){.engine = e, .id = id, .run = MAP_FAILED, .stats_fd = -1};
    v->fd = ioctl(e->vm_fd, KVM_CREATE_VCPU, (unsigned long)id);
    if (v->fd < 0)
        return tv_error_set(err, -errno, "kvm: no vcpu %u: %s", id, strerror(errno));
    e->n_vcpus = id + 1;
    v->run = mmap(NULL, e->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (v->run == MAP_FAILED)
        return tv_error_set(err, -errno, "kvm: vcpu %u: sharing memory with the kernel: %s", id, strerror(errno));
    int rc = kvm_dirty_add_vcpu(v);
    if (rc < 0)
        return tv_error_set(err, rc, "kvm: vcpu %u: sharing its dirty ring: %s", id, strerror(-rc));
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + KVM_CPUID_MAX * sizeof(cpuid->entries[0]));
    if (!cpuid)
        return tv_error_set(err, -ENOMEM, "kvm: vcpu %u: no memory", id);
    kvm_cpuid_of(e, id, cpuid);
    rc = ioctl(v->fd, KVM_SET_CPUID2, cpuid) < 0 ? -errno : 0;
    free(cpuid);
    if (rc < 0)
        return tv_error_set(err, rc, "kvm: vcpu %u: CPUID: %s", id, strerror(-rc));
    v->stats_fd = ioctl(v->fd, KVM_GET_STATS_FD, 0); // since Linux 5.14
    if (id == 0 && v->stats_fd >= 0)
        e->exits_offset = find_exits(v->stats_fd);
    return 0;
}

void kvm_vcpu_destroy(struct kvm_vcpu *v)
{
    if (v->run != MAP_FAILED)
        munmap(v->run, v->engine->run_bytes);
    kvm_dirty_remove_vcpu(v);
    if (v->stats_fd >= 0)
        close(v->stats_fd);
    close(v->fd);
}

// --- kicks

static void nothing(int signo) // what matters is that the signal ends KVM_RUN
{
    (void)signo;
}

int kvm_kicks_prepare(struct tv_error *err)
{
    struct sigaction action = {.sa_handler = nothing};
    if (sigaction(KICK_SIGNAL, &action, NULL) < 0)
        return tv_error_set(err, -errno, "kvm: signal %d for kicks: %s", KICK_SIGNAL, strerror(errno));
    return 0;
}

// `kicked` is set first: whoever sees immediate_exit alone goes on, and one that has just come back sees `kicked`.
void kvm_kick(struct engine *engine, unsigned vcpu)
{
    struct kvm_vcpu *v = &kvm_engine_of(engine)->vcpus[vcpu];
    atomic_store(&v->kicked, true);
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (atomic_load(&v->has_thread))
        pthread_kill(v->thread, KICK_SIGNAL);
}

// --- exits

// The bus takes aligned accesses of 1, 2, 4 or 8 bytes; the kernel's emulator also gives others, at the ends of pages.
static unsigned next_size(uint64_t gpa, unsigned len_bytes)
{
    unsigned size = 8;
    while (size > len_bytes || gpa % size != 0)
        size /= 2;
    return size;
}

static void mmio(struct kvm_vcpu *v)
{
    const struct engine_host *host = &v->engine->config.host;
    struct kvm_run *run = v->run;
    uint32_t len_bytes = run->mmio.len < 8 ? run->mmio.len : 8;
    for (uint32_t done = 0; done < len_bytes;) {
        uint64_t gpa = run->mmio.phys_addr + done, value = 0;
        unsigned size = next_size(gpa, len_bytes - done);
        if (run->mmio.is_write) {
            memcpy(&value, run->mmio.data + done, size);
            host->mmio_write(host->arg, gpa, size, value); // to nowhere: lost, as on a PC
        } else {
            if (host->mmio_read(host->arg, gpa, size, &value) < 0)
                value = ~0ull;
            memcpy(run->mmio.data + done, &value, size);
        }
        done += size;
    }
    count(&v->counters.mmio_exits);
    count(&v->counters.trap_causes[run->mmio.is_write ? KVM_CAUSE_MMIO_WRITE : KVM_CAUSE_MMIO_READ]);
}

// True: a write ended the machine.
static bool ports(struct kvm_vcpu *v, enum engine_exit *exit)
{
    const struct engine_host *host = &v->engine->config.host;
    struct kvm_run *run = v->run;
    bool is_write = run->io.direction == KVM_EXIT_IO_OUT, ends = false;
    unsigned size = run->io.size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count && !ends; i++, data += size) { // a string instruction's, to one port
        uint64_t value = 0;
        if (is_write) {
            memcpy(&value, data, size);
            ends = host->port_write(host->arg, run->io.port, size, value, exit) > 0;
        } else {
            if (host->port_read(host->arg, run->io.port, size, &value) < 0)
                value = ~0ull;
            memcpy(data, &value, size);
        }
    }
    count(&v->counters.trap_causes[is_write ? KVM_CAUSE_PORT_WRITE : KVM_CAUSE_PORT_READ]);
    return ends;
}

static uint64_t where(const struct kvm_vcpu *v)
{
    struct kvm_regs regs = {0};
    ioctl(v->fd, KVM_GET_REGS, &regs);
    return regs.rip;
}

static enum engine_exit failed(struct kvm_vcpu *v)
{
    const struct kvm_run *run = v->run;
    switch (run->exit_reason) {
    case KVM_EXIT_SHUTDOWN:
        kvm_fail(v->engine, "vcpu %u: triple fault at rip 0x%" PRIx64, v->id, where(v));
        break;
    case KVM_EXIT_FAIL_ENTRY:
        kvm_fail(v->engine, "vcpu %u: the processor does not enter the guest (reason 0x%llx) at rip 0x%" PRIx64, v->id,
                 (unsigned long long)run->fail_entry.hardware_entry_failure_reason, where(v));
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        kvm_fail(v->engine, "vcpu %u: the host's KVM cannot go on (error %u) at rip 0x%" PRIx64, v->id, run->internal.suberror,
                 where(v));
        break;
    default:
        kvm_fail(v->engine, "vcpu %u: left for a reason (%u) that is not known here, at rip 0x%" PRIx64, v->id, run->exit_reason,
                 where(v));
    }
    return ENGINE_EXIT_FAILURE;
}

// True: run() is to come back with *exit.
static bool carry_out(struct kvm_vcpu *v, enum engine_exit *exit)
{
    count(&v->counters.traps);
    switch (v->run->exit_reason) {
    case KVM_EXIT_MMIO:
        mmio(v);
        return false;
    case KVM_EXIT_IO:
        return ports(v, exit);
    case KVM_EXIT_INTR:
        count(&v->counters.trap_causes[KVM_CAUSE_SIGNAL]);
        return false;
    case KVM_EXIT_DIRTY_RING_FULL:
        count(&v->counters.trap_causes[KVM_CAUSE_OTHER]);
        *exit = ENGINE_EXIT_FAILURE;
        return kvm_dirty_ring_full(v) < 0;
    case KVM_EXIT_SYSTEM_EVENT:
        *exit = v->run->system_event.type == KVM_SYSTEM_EVENT_RESET ? ENGINE_EXIT_REBOOT : ENGINE_EXIT_SHUTDOWN;
        return true;
    default:
        count(&v->counters.trap_causes[KVM_CAUSE_OTHER]);
        *exit = failed(v);
        return true;
    }
}

// An access that was answered is finished by the next KVM_RUN (5, "kvm_run"): before anybody may look at the vcpu's state.
static void finish_access(struct kvm_vcpu *v)
{
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    ioctl(v->fd, KVM_RUN, 0);
    __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

static void unblock_kicks(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

enum engine_exit kvm_run(struct engine *engine, unsigned vcpu)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    struct kvm_vcpu *v = &e->vcpus[vcpu];
    enum engine_exit exit = ENGINE_EXIT_KICK;
    if (!atomic_load(&v->has_thread)) {
        unblock_kicks();
        v->thread = pthread_self();
        atomic_store(&v->has_thread, true);
    }
    if (e->is_unusable)
        return ENGINE_EXIT_FAILURE;
    for (;;) {
        int rc = ioctl(v->fd, KVM_RUN, 0), code = errno;
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        if (rc == 0) {
            if (carry_out(v, &exit)) {
                finish_access(v);
                return exit;
            }
        } else if (code != EINTR && code != EAGAIN) {
            kvm_fail(e, "vcpu %u: the host's KVM does not run it: %s, at rip 0x%" PRIx64, v->id, strerror(code), where(v));
            return ENGINE_EXIT_FAILURE;
        }
        if (atomic_exchange(&v->kicked, false)) {
            if (rc == 0)
                finish_access(v);
            return ENGINE_EXIT_KICK;
        }
    }
}
