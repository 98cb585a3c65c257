// Eventfds between the guest and other processes, by the kernel alone (4.25 KVM_IOEVENTFD, 4.43 KVM_SET_GSI_ROUTING, 4.47
// KVM_IRQFD): see engine.h. Any thread; the lock is kvm_engine.routes_lock.
#include "machine/engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define PIC_PINS 8u
#define NOTIFY_BYTES 2u // what a driver writes to a doorbell (virtio 1.2, 4.1.5.2); any other write comes to the device itself

int kvm_bind_doorbell(struct engine *engine, uint64_t gpa, int fd, bool on)
{
    struct kvm_ioeventfd bell = {.addr = gpa, .len = NOTIFY_BYTES, .fd = fd, .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN};
    return ioctl(kvm_engine_of(engine)->vm_fd, KVM_IOEVENTFD, &bell) < 0 ? -errno : 0;
}

static void put_pin(struct kvm_irq_routing *table, uint32_t gsi, uint32_t chip, uint32_t pin)
{
    table->entries[table->nr++] =
        (struct kvm_irq_routing_entry){.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

// The whole table, as it is the kernel's way: the lines of the interrupt controllers, and a line for each message.
static int put_routes(struct kvm_engine *e)
{
    struct kvm_irq_routing *table = calloc(1, sizeof(*table) + (KVM_ROUTES_MAX + 5 * PIC_PINS) * sizeof(table->entries[0]));
    if (!table)
        return -ENOMEM;
    for (uint32_t pin = 0; pin < 2 * PIC_PINS; pin++)
        put_pin(table, pin, pin < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, pin % PIC_PINS);
    for (uint32_t pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
        put_pin(table, pin, KVM_IRQCHIP_IOAPIC, pin);
    for (uint32_t i = 0; i < KVM_ROUTES_MAX; i++)
        if (e->routes[i].used)
            table->entries[table->nr++] =
                (struct kvm_irq_routing_entry){.gsi = KVM_IOAPIC_NUM_PINS + i,
                                               .type = KVM_IRQ_ROUTING_MSI,
                                               .u.msi = {.address_lo = (uint32_t)e->routes[i].addr,
                                                         .address_hi = (uint32_t)(e->routes[i].addr >> 32),
                                                         .data = e->routes[i].data}};
    int rc = ioctl(e->vm_fd, KVM_SET_GSI_ROUTING, table) < 0 ? -errno : 0;
    free(table);
    return rc;
}

static int set_irqfd(struct kvm_engine *e, uint32_t route, int fd, bool on)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = KVM_IOAPIC_NUM_PINS + route, .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
    return ioctl(e->vm_fd, KVM_IRQFD, &irqfd) < 0 ? -errno : 0;
}

static int bind(struct kvm_engine *e, int fd, uint64_t addr, uint32_t data)
{
    uint32_t i = 0;
    while (i < KVM_ROUTES_MAX && e->routes[i].used)
        i++;
    if (i == KVM_ROUTES_MAX)
        return -ENOSPC;
    e->routes[i] = (struct kvm_route){.used = true, .fd = fd, .addr = addr, .data = data};
    int rc = put_routes(e);
    if (rc == 0)
        rc = set_irqfd(e, i, fd, true);
    if (rc < 0)
        e->routes[i].used = false; // the table is put right with the next one
    return rc;
}

static int unbind(struct kvm_engine *e, int fd)
{
    for (uint32_t i = 0; i < KVM_ROUTES_MAX; i++)
        if (e->routes[i].used && e->routes[i].fd == fd) {
            e->routes[i].used = false;
            return set_irqfd(e, i, fd, false);
        }
    return -ENOENT;
}

int kvm_bind_msi(struct engine *engine, int fd, bool on, uint64_t addr, uint32_t data)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    pthread_mutex_lock(&e->routes_lock);
    int rc = on ? bind(e, fd, addr, data) : unbind(e, fd);
    pthread_mutex_unlock(&e->routes_lock);
    return rc;
}
