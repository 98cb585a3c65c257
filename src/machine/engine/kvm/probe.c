// See probe.h. No exit of the probe's guest is served: it either comes to its end or is unfit.
#include "machine/engine/kvm/probe.h"

#include "machine/engine/kvm/host.h"
#include "machine/engine/kvm/probe_guest.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PROBE_SIGNAL (SIGRTMIN + 4)
#define PROBE_DEADLINE_S 2
#define CPUID_ENTRIES 256

extern const uint8_t kvm_probe_guest[];
extern const uint32_t kvm_probe_guest_bytes;

static const char *const step_names[PROBE_STEPS] = {
    [PROBE_STEP_CPUID] = "a CPUID of its own",
    [PROBE_STEP_REAL] = "real mode",
    [PROBE_STEP_PROTECTED] = "protected mode",
    [PROBE_STEP_LONG] = "long mode with its own page tables",
    [PROBE_STEP_PRIVILEGE] = "segments that say ring 0",
    [PROBE_STEP_FLAGS] = "reading back the interrupt flag",
    [PROBE_STEP_TABLES] = "reading back descriptor tables",
    [PROBE_STEP_EXCEPTION] = "exceptions and IRETQ",
    [PROBE_STEP_MSR] = "MSRs and SWAPGS",
    [PROBE_STEP_FAULT] = "page faults",
    [PROBE_STEP_PROTECT] = "read-only and no-execute pages",
    [PROBE_STEP_DIRTY] = "accessed and dirty bits",
    [PROBE_STEP_SPACES] = "changes of the address space",
    [PROBE_STEP_FPU] = "the FPU",
    [PROBE_STEP_USER] = "ring 3, SYSCALL and INT",
    [PROBE_STEP_TSS] = "the stack of the TSS",
    [PROBE_STEP_GUARD] = "protection from ring 3",
    [PROBE_STEP_APIC] = "the local APIC",
    [PROBE_STEP_TIMER] = "HLT and the local APIC's timer",
};

struct probe_result {
    uint32_t step, vector;
};

struct probe {
    int kvm, vm, vcpu;
    uint8_t *ram;
    struct kvm_run *run;
    size_t run_bytes;
};

static struct kvm_run *volatile running; // what the signal ends

static void deadline(int number)
{
    (void)number;
    if (running)
        ((volatile struct kvm_run *)running)->immediate_exit = 1;
}

static bool unfit(struct kvm_fitness *out, const char *what)
{
    snprintf(out->why, sizeof(out->why), "/dev/kvm: %s: %s", what, strerror(errno));
    return false;
}

static bool has_capabilities(int kvm, struct kvm_fitness *out)
{
    struct tv_error err = {0};
    if (kvm_host_check(kvm, &err) == 0)
        return true;
    snprintf(out->why, sizeof(out->why), "%.*s", (int)sizeof(out->why) - 1, err.text);
    return false;
}

// A vcpu is told that it has no features; KVM must tell the same of it, but for two bits that follow the guest's own registers
// (OSXSAVE, MONITOR). One that cannot hide what it does not save is found out here, before a guest of it may not come back.
static int check_cpuid(int vcpu)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[CPUID_ENTRIES];
    } cpuid = {.head.nent = 2, .entries = {{.function = 1}, {.function = PROBE_CPUID_LEAF, .eax = PROBE_CPUID_LEAF}}};
    if (ioctl(vcpu, KVM_SET_CPUID2, &cpuid) != 0)
        return -1;
    cpuid.head.nent = CPUID_ENTRIES;
    if (ioctl(vcpu, KVM_GET_CPUID2, &cpuid) != 0)
        return -1;
    for (uint32_t i = 0; i < cpuid.head.nent; i++)
        if (cpuid.entries[i].function == 1 && cpuid.entries[i].ecx & ~(1u << 27 | 1u << 3))
            return 1;
    return 0;
}

// What KVM supports, with a mark that no processor has, so that the guest sees whose CPUID it reads.
static int set_cpuid(const struct probe *p)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(cpuid->entries[0]));
    int ret = cpuid ? 0 : -1;
    if (cpuid) {
        cpuid->nent = CPUID_ENTRIES;
        ret = ioctl(p->kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
        for (uint32_t i = 0; ret == 0 && i < cpuid->nent; i++)
            if (cpuid->entries[i].function == PROBE_CPUID_LEAF)
                cpuid->entries[i].ebx = PROBE_CPUID_EBX;
        if (ret == 0)
            ret = ioctl(p->vcpu, KVM_SET_CPUID2, cpuid);
    }
    int error = errno;
    free(cpuid);
    errno = error;
    return ret;
}

static bool make_vm(struct probe *p, struct kvm_fitness *out)
{
    p->ram = mmap(NULL, PROBE_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->ram == MAP_FAILED)
        return unfit(out, "no memory to try it");
    memcpy(p->ram + PROBE_CODE, kvm_probe_guest, kvm_probe_guest_bytes);
    struct kvm_userspace_memory_region region = {.memory_size = PROBE_RAM_BYTES, .userspace_addr = (uintptr_t)p->ram};
    p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
    if (p->vm < 0)
        return unfit(out, "makes no virtual machine");
    if (ioctl(p->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) != 0 || ioctl(p->vm, KVM_CREATE_IRQCHIP, 0) != 0 ||
        ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region) != 0)
        return unfit(out, "cannot set a virtual machine up");
    return true;
}

static bool make_vcpu(struct probe *p, struct kvm_fitness *out)
{
    struct kvm_sregs sregs;
    const struct kvm_regs regs = {.rip = PROBE_CODE, .rflags = 2};
    int bytes = ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
    if (p->vcpu < 0 || bytes <= 0)
        return unfit(out, "makes no vcpu");
    p->run_bytes = (size_t)bytes;
    p->run = mmap(NULL, p->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
    if (p->run == MAP_FAILED)
        return unfit(out, "cannot map a vcpu");
    int rc = check_cpuid(p->vcpu);
    if (rc > 0) {
        snprintf(out->why, sizeof(out->why),
                 "/dev/kvm: shows its guests another processor than it is told to (is it itself in a guest, without hardware?)");
        return false;
    }
    if (rc < 0 || set_cpuid(p) != 0 || ioctl(p->vcpu, KVM_GET_SREGS, &sregs) != 0)
        return unfit(out, "cannot set a vcpu up");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    if (ioctl(p->vcpu, KVM_SET_SREGS, &sregs) != 0 || ioctl(p->vcpu, KVM_SET_REGS, &regs) != 0)
        return unfit(out, "cannot set a vcpu up");
    return true;
}

// How the guest's only run ended: 0, or what KVM_RUN said.
static int run_until(struct probe *p)
{
    struct sigaction action = {.sa_handler = deadline}, before;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = PROBE_SIGNAL};
    const struct itimerspec when = {.it_value.tv_sec = PROBE_DEADLINE_S, .it_interval.tv_nsec = 100000000};
    timer_t timer;
    event._sigev_un._tid = gettid();
    sigaction(PROBE_SIGNAL, &action, &before);
    int ret = -1, error = EAGAIN;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0) {
        running = p->run;
        timer_settime(timer, 0, &when, NULL);
        do
            ret = ioctl(p->vcpu, KVM_RUN, 0);
        while (ret != 0 && errno == EINTR && !((volatile struct kvm_run *)p->run)->immediate_exit);
        error = errno;
        timer_delete(timer);
        running = NULL;
    }
    sigaction(PROBE_SIGNAL, &before, NULL);
    return ret == 0 ? 0 : -error;
}

static bool run_guest(struct probe *p, struct kvm_fitness *out)
{
    struct probe_result result;
    int rc = run_until(p);
    memcpy(&result, p->ram + PROBE_RESULT, sizeof(result));
    const bool at_end = rc == 0 && p->run->exit_reason == KVM_EXIT_IO && p->run->io.port == PROBE_PORT;
    if (at_end && result.step == PROBE_STEPS - 1 && *((const uint8_t *)p->run + p->run->io.data_offset) == 0)
        return true;
    char how[64];
    if (rc == -EINTR)
        snprintf(how, sizeof(how), "does not come back");
    else if (rc != 0)
        snprintf(how, sizeof(how), "%s", strerror(-rc));
    else if (at_end)
        snprintf(how, sizeof(how), "not as on a processor");
    else
        snprintf(how, sizeof(how), "exit %u", p->run->exit_reason);
    snprintf(out->why, sizeof(out->why), "/dev/kvm: it runs no unmodified kernel: %s fails (%s)",
             result.step < PROBE_STEPS ? step_names[result.step] : "memory", how);
    return false;
}

void kvm_probe(int kvm_fd, struct kvm_fitness *out)
{
    struct probe p = {.kvm = kvm_fd, .vm = -1, .vcpu = -1, .ram = MAP_FAILED, .run = MAP_FAILED};
    *out = (struct kvm_fitness){0};
    if (kvm_fd < 0)
        snprintf(out->why, sizeof(out->why), "there is no /dev/kvm, or it may not be opened");
    else
        out->fit = has_capabilities(kvm_fd, out) && make_vm(&p, out) && make_vcpu(&p, out) && run_guest(&p, out);
    if (out->fit)
        snprintf(out->why, sizeof(out->why), "/dev/kvm runs unmodified kernels");
    if (p.run != MAP_FAILED)
        munmap(p.run, p.run_bytes);
    if (p.vcpu >= 0)
        close(p.vcpu);
    if (p.vm >= 0)
        close(p.vm);
    if (p.ram != MAP_FAILED)
        munmap(p.ram, PROBE_RAM_BYTES);
}
