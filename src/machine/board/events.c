// Eventfds of a device whose queues other processes serve: the engine, where it can, signals a doorbell's on the guest's write and
// sends a message when a call's is signalled, past this process. See pcie.h. Lock: pcie_function.lock.
#include "machine/board/pcie_function.h"

static void update_doorbell(struct pcie_function *fn, struct pcie_doorbell *d)
{
    const struct pcie_config *c = fn->host;
    uint64_t gpa = fn->bars[d->bar].base + d->offset;
    bool wanted = d->fd >= 0 && fn->bars[d->bar].mapped;
    if (d->bound && (!wanted || d->bound_gpa != gpa || d->bound_fd != d->fd)) {
        c->bind_doorbell(c->arg, d->bound_gpa, d->bound_fd, false);
        d->bound = false;
    }
    if (wanted && !d->bound && c->bind_doorbell(c->arg, gpa, d->fd, true) == 0) {
        d->bound = true;
        d->bound_gpa = gpa;
        d->bound_fd = d->fd;
    }
}

static void update_call(struct pcie_function *fn, unsigned index)
{
    struct pcie_call *call = &fn->calls[index];
    const struct pcie_config *c = fn->host;
    bool wanted = call->fd >= 0 && call->vector < fn->config.n_vectors && msix_may_send(fn, call->vector), was = call->bound;
    struct msix_entry entry = wanted ? fn->msix[call->vector] : (struct msix_entry){0};
    uint64_t addr = (uint64_t)entry.addr_high << 32 | entry.addr_low;
    if (call->bound && (!wanted || call->bound_addr != addr || call->bound_data != entry.data || call->bound_fd != call->fd)) {
        c->bind_msi(c->arg, call->bound_fd, false, call->bound_addr, call->bound_data);
        call->bound = false;
    }
    if (wanted && !call->bound && c->bind_msi(c->arg, call->fd, true, addr, entry.data) == 0)
        *call = (struct pcie_call){.fd = call->fd,
                                   .vector = call->vector,
                                   .bound = true,
                                   .bound_fd = call->fd,
                                   .bound_addr = addr,
                                   .bound_data = entry.data};
    if (call->bound != was && fn->ops->call_bound)
        fn->ops->call_bound(fn->arg, index, call->bound);
}

void pcie_events_update(struct pcie_function *fn)
{
    for (unsigned i = 0; i < PCIE_EVENTS; i++) {
        if (fn->host->bind_doorbell)
            update_doorbell(fn, &fn->doorbells[i]);
        if (fn->host->bind_msi)
            update_call(fn, i);
    }
}

void pcie_events_init(struct pcie_function *fn)
{
    for (unsigned i = 0; i < PCIE_EVENTS; i++)
        fn->doorbells[i].fd = fn->calls[i].fd = -1;
}

void pcie_events_forget(struct pcie_function *fn)
{
    pcie_events_init(fn);
    pcie_events_update(fn);
}

void pcie_set_doorbell(struct pcie_function *fn, unsigned index, unsigned bar, uint64_t offset, int fd)
{
    pthread_mutex_lock(&fn->lock);
    fn->doorbells[index].bar = bar;
    fn->doorbells[index].offset = offset;
    fn->doorbells[index].fd = fd;
    pcie_events_update(fn);
    pthread_mutex_unlock(&fn->lock);
}

void pcie_set_call(struct pcie_function *fn, unsigned index, unsigned vector, int fd)
{
    pthread_mutex_lock(&fn->lock);
    fn->calls[index].vector = vector;
    fn->calls[index].fd = fd;
    pcie_events_update(fn);
    pthread_mutex_unlock(&fn->lock);
}
