// pvpanic: a register in which a guest's kernel says that it has panicked (QEMU, docs/specs/pvpanic.rst, "PCI Interface").
//
// One byte in BAR 0: reads tell which events are understood, a write tells of those that happened. Written on vcpu threads, told on
// the loop's.
#include "machine/device/device.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { VENDOR_REDHAT = 0x1b36, DEVICE_PVPANIC = 0x0011, CLASS_SYSTEM_OTHER = 0x088000 };
enum { BAR_BYTES = 4096 }; // two in QEMU; more of them, since a BAR has a page of its own here

struct pvpanic {
    struct pvpanic_config config;
    struct doorbell *bell;
    _Atomic(uint8_t) events; // happened, not told yet
    bool frozen;             // loop's thread
};

void pvpanic_tell(struct pvpanic *p)
{
    unsigned events = atomic_exchange(&p->events, 0);
    if (events)
        p->config.reported(p->config.arg, events);
}

static void rung(void *arg)
{
    struct pvpanic *p = arg;
    if (!p->frozen) // thawing rings again
        pvpanic_tell(p);
}

static uint64_t bar_read(void *arg, unsigned bar, uint64_t offset, unsigned size)
{
    (void)arg, (void)bar, (void)size;
    return offset == 0 ? PVPANIC_EVENTS : 0;
}

static void bar_write(void *arg, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    struct pvpanic *p = arg;
    (void)bar, (void)size;
    if (offset != 0 || !(value & PVPANIC_EVENTS))
        return;
    atomic_fetch_or(&p->events, (uint8_t)(value & PVPANIC_EVENTS));
    doorbell_ring(p->bell);
}

static void reset(void *arg)
{
    struct pvpanic *p = arg;
    atomic_store(&p->events, 0);
}

static void freeze(void *arg)
{
    ((struct pvpanic *)arg)->frozen = true;
}

static int thaw(void *arg, struct tv_error *err)
{
    struct pvpanic *p = arg;
    (void)err;
    p->frozen = false;
    doorbell_ring(p->bell);
    return 0;
}

static int save_or_load(void *arg, struct state *s)
{
    struct pvpanic *p = arg;
    uint8_t events = atomic_load(&p->events);
    state_section_begin(s, "pvpanic", 1);
    state_u8(s, "events", &events);
    if (events & ~PVPANIC_EVENTS)
        state_fail(s, "pvpanic: events 0x%x, and only 0x%x are known", events, PVPANIC_EVENTS);
    state_section_end(s);
    atomic_store(&p->events, state_failed(s) ? 0 : events);
    return state_failed(s) ? -EINVAL : 0;
}

static void destroy(void *arg)
{
    struct pvpanic *p = arg;
    doorbell_destroy(p->bell);
    free(p);
}

static const struct pcie_function_ops ops = {.name = "pvpanic",
                                             .bar_read = bar_read,
                                             .bar_write = bar_write,
                                             .reset = reset,
                                             .freeze = freeze,
                                             .thaw = thaw,
                                             .state = save_or_load,
                                             .destroy = destroy};

struct pvpanic *pvpanic_add(const struct pvpanic_config *config, struct tv_error *err)
{
    const struct pcie_function_config function = {
        .vendor_id = VENDOR_REDHAT, .device_id = DEVICE_PVPANIC, .revision = 1, .class_code = CLASS_SYSTEM_OTHER};
    struct pvpanic *p = calloc(1, sizeof(*p));
    if (!p) {
        tv_error_set(err, -ENOMEM, "no memory for 'pvpanic'");
        return NULL;
    }
    p->config = *config;
    p->bell = doorbell_create(config->home.loop, rung, p, err);
    struct pcie_function *fn = p->bell ? pcie_add(config->home.pcie, config->home.slot, &function, &ops, p, err) : NULL;
    if (!fn) {
        destroy(p);
        return NULL;
    }
    pcie_add_bar(fn, 0, BAR_BYTES, false);
    return p;
}
