// See probe.h.
#include "machine/engine/kvm/probe.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_BYTES 4096u
#define LEAF 0x40000000u
#define ANSWER 0x74767274u // no processor's own

#define ENTRIES 64u

// A vcpu is told a leaf that nobody has, and a processor without features; the kernel must tell the same of it, but for two bits
// that follow the guest's own registers.
static int set_cpuid(int vcpu)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[ENTRIES];
    } cpuid = {.head.nent = 2, .entries = {{.function = 1}, {.function = LEAF, .eax = LEAF, .ebx = ANSWER}}};
    if (ioctl(vcpu, KVM_SET_CPUID2, &cpuid) < 0)
        return -errno;
    cpuid.head.nent = ENTRIES;
    if (ioctl(vcpu, KVM_GET_CPUID2, &cpuid) < 0)
        return -errno;
    for (uint32_t i = 0; i < cpuid.head.nent; i++)
        if (cpuid.entries[i].function == 1 && cpuid.entries[i].ecx & ~(1u << 27 | 1u << 3))
            return -EIO;
    return 0;
}

// A guest asks for a leaf of CPUID and tells what it got. A KVM that does not show a guest what it was told cannot hide from it
// what is not saved.
static int run(int kvm_fd, int vm, int vcpu, uint8_t *ram)
{
    static const uint8_t code[] = {
        0x66, 0xb8, 0x00, 0x00, 0x00, 0x40, // mov $LEAF, %eax
        0x0f, 0xa2,                         // cpuid
        0x66, 0x89, 0xd8,                   // mov %ebx, %eax
        0x66, 0xe7, 0xf4,                   // out %eax, $0xf4
    };
    struct kvm_userspace_memory_region slot = {.memory_size = RAM_BYTES, .userspace_addr = (uintptr_t)ram};
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rflags = 2};
    uint32_t answer = 0;
    int run_bytes = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return -EINVAL;
    memcpy(ram, code, sizeof(code));
    int rc = set_cpuid(vcpu);
    if (rc)
        return rc;
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0 || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    sregs.cs.base = sregs.cs.selector = 0;
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        return -errno;
    struct kvm_run *r = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (r == MAP_FAILED)
        return -errno;
    rc = ioctl(vcpu, KVM_RUN, 0) < 0 ? -errno : 0;
    if (rc == 0 && r->exit_reason == KVM_EXIT_IO && r->io.data_offset <= (uint64_t)run_bytes - sizeof(answer))
        memcpy(&answer, (const uint8_t *)r + r->io.data_offset, sizeof(answer));
    munmap(r, (size_t)run_bytes);
    return rc ? rc : answer == ANSWER ? 0 : -EIO;
}

void kvm_probe(int kvm_fd, struct kvm_fitness *out)
{
    int rc = -ENODEV, vm = -1, vcpu = -1;
    uint8_t *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ram != MAP_FAILED && ioctl(kvm_fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION &&
        (vm = ioctl(kvm_fd, KVM_CREATE_VM, 0)) >= 0 && (vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)) >= 0)
        rc = run(kvm_fd, vm, vcpu, ram);
    else if (errno)
        rc = -errno;
    out->fit = rc == 0;
    snprintf(out->why, sizeof(out->why), "/dev/kvm: %s",
             rc == -EIO ? "shows its guests another processor than it is told to (is it itself in a guest, without hardware?)"
                        : strerror(-rc));
    if (vcpu >= 0)
        close(vcpu);
    if (vm >= 0)
        close(vm);
    if (ram != MAP_FAILED)
        munmap(ram, RAM_BYTES);
}
