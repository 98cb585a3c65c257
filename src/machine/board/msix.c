// MSI-X ("PCI Local Bus" 3.0, section 6.8.2): the table, the pending bits and the sending. Lock: pcie_function.lock; it is held
// from looking at the mask until the message is sent, so that none goes out after a driver has masked its vector and read that
// back.
#include "machine/board/pcie_function.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#define TABLE_BYTES (PCIE_VECTORS_MAX * 16)
#define PBA_BYTES (PCIE_VECTORS_MAX / 8)
#define ENTRY_MASKED 1u // bit 0 of vector control, set after reset

static unsigned control(const struct pcie_function *fn)
{
    return (unsigned)fn->space[fn->msix_cap + PCI_MSIX_FLAGS] | (unsigned)fn->space[fn->msix_cap + PCI_MSIX_FLAGS + 1] << 8;
}

static bool is_enabled(const struct pcie_function *fn)
{
    return fn->msix_cap && control(fn) & PCI_MSIX_FLAGS_ENABLE;
}

bool msix_may_send(const struct pcie_function *fn, unsigned vector)
{
    return is_enabled(fn) && !(control(fn) & PCI_MSIX_FLAGS_MASKALL) && fn->space[PCI_COMMAND] & PCI_COMMAND_MASTER &&
           !(fn->msix[vector].control & ENTRY_MASKED);
}

static void put_pending(struct pcie_function *fn, unsigned vector, bool on)
{
    uint64_t bit = 1ull << (vector % 64);
    uint64_t *word = &fn->pending[vector / 64];
    *word = on ? *word | bit : *word & ~bit;
}

static void send_or_hold(struct pcie_function *fn, unsigned vector)
{
    const struct msix_entry *e = &fn->msix[vector];
    bool send = msix_may_send(fn, vector);
    put_pending(fn, vector, !send);
    if (send)
        pcie_raise_msi(fn, (uint64_t)e->addr_high << 32 | e->addr_low, e->data);
}

static void send_pending(struct pcie_function *fn, unsigned vector)
{
    if (fn->pending[vector / 64] >> (vector % 64) & 1)
        send_or_hold(fn, vector);
}

void pcie_msix_raise(struct pcie_function *fn, unsigned vector)
{
    pthread_mutex_lock(&fn->lock);
    if (is_enabled(fn) && vector < fn->config.n_vectors)
        send_or_hold(fn, vector);
    pthread_mutex_unlock(&fn->lock);
}

void msix_config_changed(struct pcie_function *fn)
{
    if (!is_enabled(fn))
        memset(fn->pending, 0, sizeof(fn->pending));
    pcie_events_update(fn);
    for (unsigned i = 0; i < fn->config.n_vectors; i++)
        send_pending(fn, i);
}

void msix_init(struct pcie_function *fn)
{
    const struct pcie_function_config *c = &fn->config;
    uint32_t table = c->msix_table_offset | c->msix_bar, pba = c->msix_pba_offset | c->msix_bar;
    uint8_t body[PCI_CAP_MSIX_SIZEOF - 2] = {(uint8_t)(c->n_vectors - 1)};
    uint8_t writable[sizeof(body)] = {0, (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8};
    memcpy(body + PCI_MSIX_TABLE - 2, &table, sizeof(table)); // the host is little-endian, as PCI is
    memcpy(body + PCI_MSIX_PBA - 2, &pba, sizeof(pba));
    fn->msix_cap = pcie_add_capability(fn, PCI_CAP_ID_MSIX, body, writable, sizeof(body));
    msix_reset(fn);
}

void msix_reset(struct pcie_function *fn)
{
    memset(fn->msix, 0, sizeof(fn->msix));
    memset(fn->pending, 0, sizeof(fn->pending));
    for (unsigned i = 0; i < PCIE_VECTORS_MAX; i++)
        fn->msix[i].control = ENTRY_MASKED;
}

static bool in_table(const struct pcie_function *fn, uint64_t offset)
{
    return offset >= fn->config.msix_table_offset && offset - fn->config.msix_table_offset < TABLE_BYTES;
}

bool msix_holds(const struct pcie_function *fn, unsigned bar, uint64_t offset)
{
    bool in_pba = offset >= fn->config.msix_pba_offset && offset - fn->config.msix_pba_offset < PBA_BYTES;
    return fn->msix_cap && bar == fn->config.msix_bar && (in_table(fn, offset) || in_pba);
}

// Accesses are aligned and at most 8 bytes, so they stay within an entry. Entries over n_vectors are there, but raise nothing.
uint64_t msix_read(const struct pcie_function *fn, uint64_t offset, unsigned size)
{
    const uint8_t *from = in_table(fn, offset) ? (const uint8_t *)fn->msix + (offset - fn->config.msix_table_offset)
                                               : (const uint8_t *)fn->pending + (offset - fn->config.msix_pba_offset);
    uint64_t value = 0;
    memcpy(&value, from, size);
    return value;
}

void msix_write(struct pcie_function *fn, uint64_t offset, unsigned size, uint64_t value)
{
    if (!in_table(fn, offset)) // pending bits are for reading
        return;
    uint64_t at = offset - fn->config.msix_table_offset;
    struct msix_entry *e = &fn->msix[at / sizeof(*e)];
    memcpy((uint8_t *)fn->msix + at, &value, size);
    e->addr_low &= ~3u; // 6.8.2.7: must be aligned
    e->control &= ENTRY_MASKED;
    pcie_events_update(fn);
    send_pending(fn, (unsigned)(at / sizeof(*e)));
}

int msix_state(struct pcie_function *fn, struct state *s)
{
    state_section_begin(s, "msix", 1);
    state_bytes(s, "table", fn->msix, sizeof(fn->msix));
    state_u64_array(s, "pending", fn->pending, PCIE_VECTORS_MAX / 64);
    state_section_end(s);
    if (!state_is_loading(s))
        return 0;
    for (unsigned i = 0; i < PCIE_VECTORS_MAX; i++) {
        bool pending = fn->pending[i / 64] >> (i % 64) & 1;
        if (fn->msix[i].addr_low & 3 || fn->msix[i].control & ~ENTRY_MASKED || (pending && i >= fn->config.n_vectors))
            state_fail(s, "%s: MSI-X vector %u cannot be so", fn->ops->name, i);
    }
    return state_failed(s) ? -EINVAL : 0;
}
