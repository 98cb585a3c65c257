// A vcpu's view of guest memory: translation caches and the accesses through them. Owned by the vcpu's thread, but for
// rv64_mmu_log_flush(), which is called while no vcpu runs.
//
// There are three caches (read, write, execute), each direct-mapped by virtual page. A tag is the page's address with, in its low
// 12 bits, the context under which the entry was made: address space (a small number given to each satp mode and ASID), MXR, and
// the privilege with SUM. So a change of privilege, SUM or ASID needs no flush. An entry exists only for RAM, and in the write
// cache only for pages that are marked in the dirty log.
#pragma once

#include "machine/engine/rv64/rv64.h"

#define RV64_PAGE_BYTES 4096ull
#define RV64_PAGE_MASK (~(RV64_PAGE_BYTES - 1))
#define RV64_TLB_ENTRIES 512
#define RV64_TLB_SPACES 64

enum rv64_access { RV64_READ, RV64_WRITE, RV64_EXECUTE };

struct rv64_tlb_entry {
    uint64_t tag;
    uint64_t addend; // host address = guest virtual address + addend
};

struct rv64_tlb {
    uint64_t context[3];                                // by access; the low bits of tags
    struct rv64_tlb_entry entries[3][RV64_TLB_ENTRIES]; // by access
    uint64_t leaf_mask[3][RV64_TLB_ENTRIES];            // of the page-table leaf behind the entry: which address bits it maps
    bool has_superpages;                                // some leaf is bigger than a page
    uint64_t spaces[RV64_TLB_SPACES];                   // satp mode and ASID of each address space in use
    unsigned n_spaces, space;
};

static inline struct rv64_tlb_entry *rv64_tlb_entry(struct rv64_tlb *tlb, enum rv64_access access, uint64_t va)
{
    return &tlb->entries[access][(va / RV64_PAGE_BYTES) % RV64_TLB_ENTRIES];
}

// The host's address of a guest virtual one whose page is in the cache, or NULL. Not for what crosses the page's end.
static inline void *rv64_tlb_hit(struct rv64_tlb *tlb, enum rv64_access access, uint64_t va)
{
    const struct rv64_tlb_entry *e = rv64_tlb_entry(tlb, access, va);
    if (__builtin_expect(e->tag == ((va & RV64_PAGE_MASK) | tlb->context[access]), 1))
        return (void *)(uintptr_t)(va + e->addend);
    return NULL;
}

static inline bool rv64_crosses_page(uint64_t va, unsigned size)
{
    return (va & (RV64_PAGE_BYTES - 1)) > RV64_PAGE_BYTES - size;
}

// For functions that access guest memory: what harts race for there is the guest's own affair.
#define RV64_GUEST_RACES __attribute__((no_sanitize("thread")))

// Guest memory of any alignment, accessed once.
#define RV64_UNALIGNED(type)                                                                                                       \
    struct __attribute__((packed, may_alias)) rv64_unaligned_##type {                                                              \
        volatile type value;                                                                                                       \
    }
RV64_UNALIGNED(int8_t);
RV64_UNALIGNED(int16_t);
RV64_UNALIGNED(int32_t);
RV64_UNALIGNED(uint8_t);
RV64_UNALIGNED(uint16_t);
RV64_UNALIGNED(uint32_t);
RV64_UNALIGNED(uint64_t);
#undef RV64_UNALIGNED

struct rv64_tlb *rv64_tlb_create(void);
void rv64_tlb_destroy(struct rv64_tlb *tlb);
void rv64_tlb_flush(struct rv64_tlb *tlb);
void rv64_tlb_flush_writes(struct rv64_tlb *tlb);
void rv64_tlb_flush_page(struct rv64_tlb *tlb, uint64_t va);
void rv64_tlb_flush_asid(struct rv64_vcpu *v, uint64_t asid);
// After satp, privilege, SUM or MXR changed.
void rv64_mmu_context(struct rv64_vcpu *v);

// These return false (NULL) with trap_cause and trap_value set when the access faults.
bool rv64_load(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t *value);
bool rv64_store(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t value);
// RAM for an atomic access of `size` bytes; va must be aligned.
void *rv64_atomic(struct rv64_vcpu *v, uint64_t va, unsigned size, enum rv64_access access);
// RAM that holds the code at va.
const uint8_t *rv64_fetch(struct rv64_vcpu *v, uint64_t va);
// The cache block around va, for management (cbo.*): checks permission to read or write.
bool rv64_cache_block(struct rv64_vcpu *v, uint64_t va, bool zero);

// The RAM at a guest-physical address, all len_bytes in one region, or NULL.
uint8_t *rv64_ram(const struct rv64_engine *e, uint64_t pa, uint64_t len_bytes);
