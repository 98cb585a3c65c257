// See host.h.
#include "machine/engine/kvm/host.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <sys/ioctl.h>

static const struct {
    int cap;
    const char *what;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "user memory"},
    {KVM_CAP_IRQCHIP, "interrupt controllers in the kernel"},
    {KVM_CAP_SIGNAL_MSI, "message-signalled interrupts"},
    {KVM_CAP_IOEVENTFD, "eventfds for writes of the guest's"},
    {KVM_CAP_IRQFD, "interrupts by eventfds"},
    {KVM_CAP_IRQ_ROUTING, "routes for interrupts"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    {KVM_CAP_EXT_CPUID, "CPUID"},
    {KVM_CAP_MP_STATE, "states of several vcpus"},
    {KVM_CAP_VCPU_EVENTS, "state of events"},
    {KVM_CAP_DEBUGREGS, "state of debug registers"},
    {KVM_CAP_XSAVE, "state of extended registers"},
    {KVM_CAP_ADJUST_CLOCK, "a clock that can be set"},
};

int kvm_host_check(int kvm_fd, struct tv_error *err)
{
    int version = ioctl(kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return tv_error_set(err, -ENODEV, "/dev/kvm: its interface has version %d, not %d; take another kernel, or engine 'rv64'",
                            version, KVM_API_VERSION);
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
            return tv_error_set(err, -ENOTSUP, "/dev/kvm: the host's KVM has no %s; take a newer kernel, or engine 'rv64'",
                                needed[i].what);
    return 0;
}
