// PCIe host and its functions' configuration space: see pcie.h.
#include "machine/board/pcie.h"

#include "machine/board/pcie_function.h"

#include <assert.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_NAME_BYTES 32
#define FIRST_CAPABILITY 0x40u // behind the type 0 header

struct pcie {
    struct pcie_config config;
    struct pcie_function *slots[PCIE_SLOTS]; // fixed before a vcpu runs
};

int pcie_raise_msi(const struct pcie_function *fn, uint64_t addr, uint32_t data)
{
    const struct pcie_config *c = fn->host;
    return c->raise_msi(c->arg, addr, data); // to nowhere: the message is lost, as on a real bus
}

// --- BARs

static uint64_t bar_read(void *device, uint64_t offset, unsigned size)
{
    const struct pcie_bar *bar = device;
    struct pcie_function *fn = bar->fn;
    if (!msix_holds(fn, bar->index, offset))
        return fn->ops->bar_read(fn->arg, bar->index, offset, size);
    pthread_mutex_lock(&fn->lock);
    uint64_t value = msix_read(fn, offset, size);
    pthread_mutex_unlock(&fn->lock);
    return value;
}

static void bar_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    const struct pcie_bar *bar = device;
    struct pcie_function *fn = bar->fn;
    if (!msix_holds(fn, bar->index, offset)) {
        fn->ops->bar_write(fn->arg, bar->index, offset, size, value);
        return;
    }
    pthread_mutex_lock(&fn->lock);
    msix_write(fn, offset, size, value);
    pthread_mutex_unlock(&fn->lock);
}

static const struct bus_ops bar_bus_ops = {.name = "PCI BAR", .read = bar_read, .write = bar_write};

static uint32_t get32(const uint8_t *space, unsigned offset)
{
    uint32_t value;
    memcpy(&value, space + offset, sizeof(value)); // the host is little-endian, as PCI is
    return value;
}

static uint64_t bar_address(const struct pcie_function *fn, const struct pcie_bar *bar)
{
    unsigned at = PCI_BASE_ADDRESS_0 + bar->index * 4;
    uint64_t addr = get32(fn->space, at) & PCI_BASE_ADDRESS_MEM_MASK & 0xffffffffull;
    if (bar->is_64bit)
        addr |= (uint64_t)get32(fn->space, at + 4) << 32;
    return addr;
}

static bool in_window(const struct pcie_config *c, uint64_t base, uint64_t size_bytes)
{
    for (unsigned i = 0; i < PCIE_WINDOWS; i++) {
        uint64_t window = c->windows[i].base, window_bytes = c->windows[i].size_bytes;
        if (base >= window && base - window < window_bytes && size_bytes <= window_bytes - (base - window))
            return true;
    }
    return false;
}

// Puts the BARs where the registers say. One outside of the host's windows, or over another device, answers nowhere.
static void place_bars(struct pcie_function *fn)
{
    bool enabled = fn->space[PCI_COMMAND] & PCI_COMMAND_MEMORY;
    for (unsigned i = 0; i < PCIE_BARS; i++) {
        struct pcie_bar *bar = &fn->bars[i];
        if (!bar->size_bytes)
            continue;
        uint64_t base = bar_address(fn, bar);
        if (bar->mapped && enabled && bar->base == base)
            continue;
        if (bar->mapped)
            bus_remove(fn->host->bus, bar->base);
        bar->base = base;
        bar->mapped = enabled && in_window(fn->host, base, bar->size_bytes) &&
                      bus_add(fn->host->bus, base, bar->size_bytes, &bar_bus_ops, bar, NULL) == 0;
    }
    pcie_events_update(fn);
}

void pcie_add_bar(struct pcie_function *fn, unsigned index, uint64_t size_bytes, bool is_64bit)
{
    assert(index + is_64bit < PCIE_BARS && size_bytes >= 4096 && (size_bytes & (size_bytes - 1)) == 0);
    unsigned at = PCI_BASE_ADDRESS_0 + index * 4;
    uint64_t mask = ~(size_bytes - 1);
    fn->bars[index] = (struct pcie_bar){.fn = fn, .index = index, .is_64bit = is_64bit, .size_bytes = size_bytes};
    fn->initial[at] = fn->space[at] =
        is_64bit ? PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH : PCI_BASE_ADDRESS_MEM_TYPE_32;
    memcpy(fn->writable + at, &mask, is_64bit ? 8 : 4);
}

// --- configuration space

unsigned pcie_add_capability(struct pcie_function *fn, uint8_t id, const uint8_t *body, const uint8_t *writable, size_t len_bytes)
{
    unsigned at = fn->caps_end;
    assert(at + 2 + len_bytes <= PCIE_CONFIG_BYTES);
    fn->initial[fn->last_cap] = (uint8_t)at;
    fn->initial[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    fn->initial[at] = id;
    memcpy(fn->initial + at + 2, body, len_bytes);
    if (writable)
        memcpy(fn->writable + at + 2, writable, len_bytes);
    fn->last_cap = at + 1;
    fn->caps_end = (unsigned)((at + 2 + len_bytes + 3) & ~3ull);
    memcpy(fn->space, fn->initial, sizeof(fn->space));
    return at;
}

uint32_t pcie_config_get(struct pcie_function *fn, unsigned offset, unsigned size)
{
    uint32_t value = 0;
    assert(size <= 4 && offset + size <= PCIE_CONFIG_BYTES);
    pthread_mutex_lock(&fn->lock);
    memcpy(&value, fn->space + offset, size);
    pthread_mutex_unlock(&fn->lock);
    return value;
}

bool pcie_is_bus_master(struct pcie_function *fn)
{
    return pcie_config_get(fn, PCI_COMMAND, 1) & PCI_COMMAND_MASTER;
}

static uint32_t config_read(struct pcie_function *fn, unsigned offset, unsigned size)
{
    uint32_t value;
    if (fn->ops->config_read && fn->ops->config_read(fn->arg, offset, size, &value))
        return value;
    return pcie_config_get(fn, offset, size);
}

static void config_write(struct pcie_function *fn, unsigned offset, unsigned size, uint32_t value)
{
    pthread_mutex_lock(&fn->lock);
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = fn->writable[offset + i], byte = (uint8_t)(value >> (8 * i));
        fn->space[offset + i] = (uint8_t)((fn->space[offset + i] & ~mask) | (byte & mask));
    }
    place_bars(fn);
    msix_config_changed(fn);
    pthread_mutex_unlock(&fn->lock);
    if (fn->ops->config_written)
        fn->ops->config_written(fn->arg, offset, size);
}

// --- the host

// ECAM, "PCI Express Base" 4.0, 7.2.2: bus 27:20, device 19:15, function 14:12, register 11:0.
static struct pcie_function *function_at(const struct pcie *p, uint64_t offset)
{
    uint64_t slot = offset >> 15; // of bus 0; more is another bus
    return slot < PCIE_SLOTS && (offset >> 12 & 7) == 0 ? p->slots[slot] : NULL;
}

static uint64_t ecam_read(void *device, uint64_t offset, unsigned size)
{
    struct pcie_function *fn = function_at(device, offset);
    unsigned at = (unsigned)(offset & 0xfff);
    if (!fn || at + size > PCIE_CONFIG_BYTES)
        return ~0ull;
    if (size <= 4)
        return config_read(fn, at, size);
    uint64_t low = config_read(fn, at, 4);
    return low | (uint64_t)config_read(fn, at + 4, 4) << 32;
}

static void ecam_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pcie_function *fn = function_at(device, offset);
    unsigned at = (unsigned)(offset & 0xfff);
    if (!fn || at + size > PCIE_CONFIG_BYTES)
        return;
    config_write(fn, at, size <= 4 ? size : 4, (uint32_t)value);
    if (size == 8)
        config_write(fn, at + 4, 4, (uint32_t)(value >> 32));
}

const struct bus_ops pcie_ecam_bus_ops = {.name = "PCIe configuration space", .read = ecam_read, .write = ecam_write};

struct pcie *pcie_create(const struct pcie_config *config, struct tv_error *err)
{
    struct pcie *p = calloc(1, sizeof(*p));
    if (p)
        p->config = *config;
    else
        tv_error_set(err, -ENOMEM, "no memory for the PCIe host");
    return p;
}

static void destroy_function(struct pcie_function *fn)
{
    pthread_mutex_lock(&fn->lock);
    pcie_events_forget(fn);
    pthread_mutex_unlock(&fn->lock);
    if (fn->ops->destroy)
        fn->ops->destroy(fn->arg);
    for (unsigned i = 0; i < PCIE_BARS; i++)
        if (fn->bars[i].mapped)
            bus_remove(fn->host->bus, fn->bars[i].base);
    pthread_mutex_destroy(&fn->lock);
    free(fn);
}

void pcie_destroy(struct pcie *p)
{
    for (unsigned i = 0; p && i < PCIE_SLOTS; i++)
        if (p->slots[i])
            destroy_function(p->slots[i]);
    free(p);
}

static void put_identity(struct pcie_function *fn)
{
    const struct pcie_function_config *c = &fn->config;
    uint8_t *space = fn->initial;
    memcpy(space + PCI_VENDOR_ID, &c->vendor_id, 2);
    memcpy(space + PCI_DEVICE_ID, &c->device_id, 2);
    uint32_t class_revision = c->class_code << 8 | c->revision;
    memcpy(space + PCI_CLASS_REVISION, &class_revision, 4);
    memcpy(space + PCI_SUBSYSTEM_VENDOR_ID, &c->subsystem_vendor_id, 2);
    memcpy(space + PCI_SUBSYSTEM_ID, &c->subsystem_id, 2);
    fn->writable[PCI_COMMAND] = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    fn->writable[PCI_COMMAND + 1] = PCI_COMMAND_INTX_DISABLE >> 8;
    fn->writable[PCI_CACHE_LINE_SIZE] = 0xff;
    fn->writable[PCI_INTERRUPT_LINE] = 0xff;
    memcpy(fn->space, fn->initial, sizeof(fn->space));
}

struct pcie_function *pcie_add(struct pcie *p, unsigned slot, const struct pcie_function_config *config,
                               const struct pcie_function_ops *ops, void *arg, struct tv_error *err)
{
    assert(config->n_vectors <= PCIE_VECTORS_MAX);
    if (slot >= PCIE_SLOTS || p->slots[slot]) {
        tv_error_set(err, -EBUSY, "PCI slot %u for '%s' is taken, or over %u", slot, ops->name, PCIE_SLOTS - 1);
        return NULL;
    }
    struct pcie_function *fn = calloc(1, sizeof(*fn));
    if (!fn) {
        tv_error_set(err, -ENOMEM, "no memory for '%s'", ops->name);
        return NULL;
    }
    fn->pcie = p;
    fn->host = &p->config;
    pcie_events_init(fn);
    fn->config = *config;
    fn->ops = ops;
    fn->arg = arg;
    fn->last_cap = PCI_CAPABILITY_LIST;
    fn->caps_end = FIRST_CAPABILITY;
    pthread_mutex_init(&fn->lock, NULL);
    put_identity(fn);
    if (config->n_vectors)
        msix_init(fn);
    p->slots[slot] = fn;
    return fn;
}

static void reset_function(struct pcie_function *fn)
{
    fn->ops->reset(fn->arg);
    pthread_mutex_lock(&fn->lock);
    memcpy(fn->space, fn->initial, sizeof(fn->space));
    msix_reset(fn);
    place_bars(fn);
    pthread_mutex_unlock(&fn->lock);
}

void pcie_reset(struct pcie *p)
{
    for (unsigned i = 0; i < PCIE_SLOTS; i++)
        if (p->slots[i])
            reset_function(p->slots[i]);
}

void pcie_freeze(struct pcie *p)
{
    for (unsigned i = 0; i < PCIE_SLOTS; i++)
        if (p->slots[i])
            p->slots[i]->ops->freeze(p->slots[i]->arg);
}

int pcie_thaw(struct pcie *p, struct tv_error *err)
{
    int rc = 0;
    for (unsigned i = 0; i < PCIE_SLOTS; i++) { // all of them, even after one failed: err tells of the first
        if (!p->slots[i])
            continue;
        int one = p->slots[i]->ops->thaw(p->slots[i]->arg, rc == 0 ? err : NULL);
        if (rc == 0)
            rc = one;
    }
    return rc;
}

// --- saved state

// Read-only bits must be as this program has them: they tell what is in the slot.
static void check_space(const struct pcie_function *fn, struct state *s)
{
    for (unsigned i = 0; i < PCIE_CONFIG_BYTES; i++)
        if ((fn->space[i] ^ fn->initial[i]) & ~fn->writable[i])
            state_fail(s, "%s: configuration space differs at 0x%x: 0x%02x in the stream, 0x%02x here", fn->ops->name, i,
                       fn->space[i], fn->initial[i]);
}

static void function_state(struct pcie_function *fn, struct state *s)
{
    pthread_mutex_lock(&fn->lock);
    state_bytes(s, "space", fn->space, sizeof(fn->space));
    msix_state(fn, s);
    if (state_is_loading(s)) {
        check_space(fn, s);
        if (state_failed(s)) {
            memcpy(fn->space, fn->initial, sizeof(fn->space));
            msix_reset(fn);
        }
        place_bars(fn);
    }
    pthread_mutex_unlock(&fn->lock);
    fn->ops->state(fn->arg, s);
}

int pcie_state(struct pcie *p, struct state *s)
{
    state_section_begin(s, "pcie", 1);
    for (unsigned i = 0; i < PCIE_SLOTS; i++) {
        char here[STATE_NAME_BYTES] = "", name[STATE_NAME_BYTES];
        if (p->slots[i])
            snprintf(here, sizeof(here), "%s", p->slots[i]->ops->name);
        memcpy(name, here, sizeof(name));
        state_section_begin(s, "slot", 1);
        state_bytes(s, "device", name, sizeof(name));
        name[STATE_NAME_BYTES - 1] = 0;
        if (strcmp(name, here) != 0)
            state_fail(s, "PCI slot %u holds '%s' here and '%s' in the stream", i, here, name);
        if (p->slots[i])
            function_state(p->slots[i], s);
        state_section_end(s);
    }
    state_section_end(s);
    return state_failed(s) ? -EINVAL : 0;
}
