// Address translation (Privileged ISA, sections 10.3 to 10.6) and access to guest memory. See mmu.h.
//
// Page tables are read afresh at each miss and never written: accessed and dirty bits are the guest's (Svade).
#include "machine/engine/rv64/mmu.h"

#include <string.h>

#define PTE_V (1ull << 0)
#define PTE_R (1ull << 1)
#define PTE_W (1ull << 2)
#define PTE_X (1ull << 3)
#define PTE_U (1ull << 4)
#define PTE_G (1ull << 5)
#define PTE_A (1ull << 6)
#define PTE_D (1ull << 7)
#define PTE_PPN_SHIFT 10
#define PTE_PPN ((1ull << 44) - 1)
#define PTE_RESERVED (0x7full << 54)
#define PTE_PBMT (3ull << 61)
#define PTE_N (1ull << 63)

#define SATP_MODE(satp) ((satp) >> 60)
#define SATP_PPN(satp) ((satp)&PTE_PPN)

struct translation {
    uint64_t pa;
    unsigned leaf_shift; // log2 of the bytes that the leaf maps
    bool global;
};

// --- Guest-physical memory

uint8_t *rv64_ram(const struct rv64_engine *e, uint64_t pa, uint64_t len_bytes)
{
    const struct guest_memory *mem = e->config.mem;
    for (unsigned i = 0; i < mem->n_regions; i++) {
        const struct guest_region *r = &mem->regions[i];
        uint64_t offset = pa - r->guest_addr;
        if (offset < r->size_bytes && len_bytes <= r->size_bytes - offset)
            return r->host + offset;
    }
    return NULL;
}

static void mark_page_dirty(const struct rv64_engine *e, uint64_t pa)
{
    const struct guest_memory *mem = e->config.mem;
    for (unsigned i = 0; i < mem->n_regions; i++) {
        uint64_t page = (pa - mem->regions[i].guest_addr) / RV64_PAGE_BYTES;
        if (pa - mem->regions[i].guest_addr >= mem->regions[i].size_bytes || !e->dirty[i])
            continue;
        atomic_fetch_or_explicit(&e->dirty[i][page / 64], 1ull << (page % 64), memory_order_relaxed);
    }
}

void rv64_mark_dirty(const struct rv64_engine *e, uint64_t pa, uint64_t len_bytes)
{
    for (uint64_t page = pa & RV64_PAGE_MASK; page < pa + len_bytes; page += RV64_PAGE_BYTES)
        mark_page_dirty(e, page);
}

// --- Page walks

static bool fault(struct rv64_vcpu *v, uint64_t va, enum rv64_access access, bool page)
{
    static const uint8_t causes[3][2] = {
        [RV64_READ] = {RV64_CAUSE_LOAD_ACCESS, RV64_CAUSE_LOAD_PAGE},
        [RV64_WRITE] = {RV64_CAUSE_STORE_ACCESS, RV64_CAUSE_STORE_PAGE},
        [RV64_EXECUTE] = {RV64_CAUSE_FETCH_ACCESS, RV64_CAUSE_FETCH_PAGE},
    };
    v->trap_cause = causes[access][page];
    v->trap_value = va;
    return false;
}

static bool leaf_permits(const struct rv64_vcpu *v, uint64_t pte, enum rv64_access access)
{
    if (v->priv == RV64_U && !(pte & PTE_U))
        return false;
    if (v->priv == RV64_S && (pte & PTE_U) && (access == RV64_EXECUTE || !(v->sstatus & RV64_SSTATUS_SUM)))
        return false;
    if (!(pte & PTE_A))
        return false;
    switch (access) {
    case RV64_READ:
        return pte & PTE_R || (pte & PTE_X && v->sstatus & RV64_SSTATUS_MXR);
    case RV64_WRITE:
        return pte & PTE_W && pte & PTE_D;
    default:
        return pte & PTE_X;
    }
}

// The leaf's page frame applied to va; false when the leaf is malformed (Privileged ISA 10.3.2 step 5, Svnapot).
static bool leaf_translate(uint64_t pte, unsigned level, uint64_t va, struct translation *out)
{
    uint64_t ppn = pte >> PTE_PPN_SHIFT & PTE_PPN;
    unsigned shift = 12 + 9 * level;
    if (pte & PTE_N) {
        if (level != 0 || (ppn & 15) != 8)
            return false; // 64 KiB is the only size there is
        ppn &= ~15ull;
        shift = 16;
    }
    uint64_t mapped = (1ull << shift) - 1;
    if (ppn & (mapped >> 12))
        return false; // a misaligned superpage
    out->pa = ppn << 12 | (va & mapped);
    out->leaf_shift = shift;
    out->global |= (pte & PTE_G) != 0;
    return true;
}

static bool walk(struct rv64_vcpu *v, uint64_t va, enum rv64_access access, struct translation *out)
{
    unsigned levels = (unsigned)SATP_MODE(v->satp) - 8 + 3; // modes 8, 9 and 10: Sv39, Sv48, Sv57
    unsigned va_bits = 12 + 9 * levels;
    rv64_count(&v->counters.page_walks, 1);
    if ((uint64_t)((int64_t)(va << (64 - va_bits)) >> (64 - va_bits)) != va)
        return fault(v, va, access, true);

    uint64_t table = SATP_PPN(v->satp) << 12;
    out->global = false;
    for (unsigned level = levels; level-- > 0;) {
        uint64_t index = va >> (12 + 9 * level) & 511;
        const _Atomic uint64_t *entry = (const _Atomic uint64_t *)(void *)rv64_ram(v->engine, table + index * 8, 8);
        if (!entry)
            return fault(v, va, access, false);
        uint64_t pte = atomic_load_explicit(entry, memory_order_acquire);
        if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W || pte & PTE_RESERVED || (pte & PTE_PBMT) == PTE_PBMT)
            return fault(v, va, access, true);
        if (!(pte & (PTE_R | PTE_X))) {
            if (pte & (PTE_A | PTE_D | PTE_U | PTE_N | PTE_PBMT))
                return fault(v, va, access, true);
            table = (pte >> PTE_PPN_SHIFT & PTE_PPN) << 12;
            out->global |= (pte & PTE_G) != 0; // and so is all below it (10.3.1)
            continue;
        }
        if (!leaf_permits(v, pte, access) || !leaf_translate(pte, level, va, out))
            return fault(v, va, access, true);
        return true;
    }
    return fault(v, va, access, true); // the last level has no leaf
}

static bool translate(struct rv64_vcpu *v, uint64_t va, enum rv64_access access, struct translation *out)
{
    if (SATP_MODE(v->satp) != 0)
        return walk(v, va, access, out);
    *out = (struct translation){.pa = va, .leaf_shift = 12};
    return true;
}

// The host's address behind va, entered into the cache; NULL with *pa set when it is no RAM. False: the access faults.
static bool resolve(struct rv64_vcpu *v, uint64_t va, enum rv64_access access, uint8_t **host, uint64_t *pa)
{
    struct translation t;
    rv64_count(&v->counters.tlb_misses, 1);
    if (!translate(v, va, access, &t))
        return false;
    *pa = t.pa;
    uint8_t *page = rv64_ram(v->engine, t.pa & RV64_PAGE_MASK, RV64_PAGE_BYTES);
    *host = NULL;
    if (!page)
        return true;
    *host = page + (t.pa & (RV64_PAGE_BYTES - 1));
    if (access == RV64_WRITE)
        mark_page_dirty(v->engine, t.pa);
    rv64_mmu_add_page(v->context, access, va, page, t.leaf_shift, t.global);
    return true;
}

// RAM at va, through the cache. NULL with the trap set when the access faults or there is no RAM.
static uint8_t *ram_at(struct rv64_vcpu *v, uint64_t va, enum rv64_access access)
{
    uint8_t *host = rv64_tlb_hit(v->context, access, va);
    uint64_t pa;
    if (host)
        return host;
    if (!resolve(v, va, access, &host, &pa))
        return NULL;
    if (!host)
        fault(v, va, access, false);
    return host;
}

// --- Accesses

static bool mmio(struct rv64_vcpu *v, uint64_t va, unsigned size, enum rv64_access access, uint64_t *value)
{
    const struct rv64_engine *e = v->engine;
    uint64_t pa = v->device_pa;
    rv64_count(&v->counters.mmio_exits, 1);
    if (pa & (size - 1))
        return fault(v, va, access, false); // devices take aligned accesses only
    if (pa - e->config.imsic_base < (uint64_t)e->config.n_vcpus * RV64_PAGE_BYTES) {
        // An interrupt file: seteipnum_le is all there is to write, reads are zero (AIA 3.5).
        if (size != 4)
            return fault(v, va, access, false);
        uint64_t file = (pa - e->config.imsic_base) / RV64_PAGE_BYTES;
        if (access == RV64_READ)
            *value = 0;
        else if (pa % RV64_PAGE_BYTES == 0)
            rv64_imsic_raise(e->vcpus[file], (uint32_t)*value);
        return true;
    }
    const struct engine_host *host = &e->config.host;
    int ret = access == RV64_READ ? host->mmio_read(host->arg, pa, size, value) : host->mmio_write(host->arg, pa, size, *value);
    return ret ? fault(v, va, access, false) : true;
}

bool rv64_load_device(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t *value)
{
    return mmio(v, va, size, RV64_READ, value);
}

bool rv64_store_device(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t value)
{
    return mmio(v, va, size, RV64_WRITE, &value);
}

// Aligned accesses are single ones, as other harts see them.
static RV64_GUEST_RACES uint64_t ram_read(const void *host, unsigned size)
{
    switch (size) {
    case 1:
        return ((const struct rv64_unaligned_uint8_t *)host)->value;
    case 2:
        return ((const struct rv64_unaligned_uint16_t *)host)->value;
    case 4:
        return ((const struct rv64_unaligned_uint32_t *)host)->value;
    default:
        return ((const struct rv64_unaligned_uint64_t *)host)->value;
    }
}

static RV64_GUEST_RACES void ram_write(void *host, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        ((struct rv64_unaligned_uint8_t *)host)->value = (uint8_t)value;
        break;
    case 2:
        ((struct rv64_unaligned_uint16_t *)host)->value = (uint16_t)value;
        break;
    case 4:
        ((struct rv64_unaligned_uint32_t *)host)->value = (uint32_t)value;
        break;
    default:
        ((struct rv64_unaligned_uint64_t *)host)->value = value;
        break;
    }
}

// The two parts of what crosses a page's end: both are translated before anything is done, so that faults are precise.
static bool split(struct rv64_vcpu *v, uint64_t va, enum rv64_access access, uint8_t *parts[static 2], unsigned *first_bytes)
{
    *first_bytes = (unsigned)(RV64_PAGE_BYTES - (va & (RV64_PAGE_BYTES - 1)));
    parts[0] = ram_at(v, va, access);
    if (!parts[0])
        return false;
    parts[1] = ram_at(v, va + *first_bytes, access);
    return parts[1] != NULL;
}

static void copy_bytes(uint8_t *to, const uint8_t *from, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        to[i] = from[i];
}

bool rv64_load_ram(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t *value, bool *device)
{
    *value = 0;
    if (rv64_crosses_page(va, size)) {
        uint8_t *parts[2];
        unsigned first;
        if (!split(v, va, RV64_READ, parts, &first))
            return false;
        copy_bytes((uint8_t *)value, parts[0], first);
        copy_bytes((uint8_t *)value + first, parts[1], size - first);
        return true;
    }
    uint8_t *host = rv64_tlb_hit(v->context, RV64_READ, va); // known, when it is one of a group that lies in two pages
    if (!host && !resolve(v, va, RV64_READ, &host, &v->device_pa))
        return false;
    *device = !host;
    if (host)
        *value = ram_read(host, size);
    return host;
}

bool rv64_store_ram(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t value, bool *device)
{
    if (rv64_crosses_page(va, size)) {
        uint8_t *parts[2];
        unsigned first;
        if (!split(v, va, RV64_WRITE, parts, &first))
            return false;
        copy_bytes(parts[0], (const uint8_t *)&value, first);
        copy_bytes(parts[1], (const uint8_t *)&value + first, size - first);
        return true;
    }
    uint8_t *host = rv64_tlb_hit(v->context, RV64_WRITE, va);
    if (!host && !resolve(v, va, RV64_WRITE, &host, &v->device_pa))
        return false;
    *device = !host;
    if (host)
        ram_write(host, size, value);
    return host;
}

bool rv64_load(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t *value)
{
    bool device = false;
    return rv64_load_ram(v, va, size, value, &device) || (device && rv64_load_device(v, va, size, value));
}

bool rv64_store(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t value)
{
    bool device = false;
    return rv64_store_ram(v, va, size, value, &device) || (device && rv64_store_device(v, va, size, value));
}

bool rv64_fill(struct rv64_vcpu *v, uint64_t va, enum rv64_access access)
{
    uint8_t *host;
    return !rv64_tlb_hit(v->context, access, va) && resolve(v, va, access, &host, &v->device_pa) && host;
}

uint8_t *rv64_locate(struct rv64_vcpu *v, uint64_t va, enum rv64_access access, bool *device)
{
    uint8_t *host = rv64_tlb_hit(v->context, access, va);
    *device = !host && resolve(v, va, access, &host, &v->device_pa) && !host;
    return host;
}

void *rv64_atomic(struct rv64_vcpu *v, uint64_t va, unsigned size, enum rv64_access access)
{
    if (va & (size - 1)) {
        v->trap_cause = access == RV64_READ ? RV64_CAUSE_LOAD_MISALIGNED : RV64_CAUSE_STORE_MISALIGNED;
        v->trap_value = va;
        return NULL;
    }
    return ram_at(v, va, access);
}

const uint8_t *rv64_fetch(struct rv64_vcpu *v, uint64_t va)
{
    return ram_at(v, va, RV64_EXECUTE);
}

bool rv64_cache_block(struct rv64_vcpu *v, uint64_t va, bool zero)
{
    uint64_t block = va & ~(RV64_CACHE_BLOCK_BYTES - 1ull);
    if (zero) {
        uint8_t *host = ram_at(v, block, RV64_WRITE);
        if (host)
            memset(host, 0, RV64_CACHE_BLOCK_BYTES);
        else
            v->trap_value = va;
        return host != NULL;
    }
    // Management needs permission to read or to write, and what lacks both faults as a store (CMO 1.0, 2.5).
    if (ram_at(v, block, RV64_READ))
        return true;
    if (ram_at(v, block, RV64_WRITE))
        return true;
    v->trap_value = va;
    return false;
}
