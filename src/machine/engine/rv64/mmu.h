// A vcpu's view of guest memory: translation caches and the accesses through them. Owned by the vcpu's thread, but for
// rv64_mmu_flush_writes(), which is called while no vcpu runs.
//
// What is known is kept by context: an address space seen with one set of rights. A change of privilege, SUM or ASID takes another
// context and forgets nothing. A context has three translation caches (read, write, execute), each direct-mapped by virtual page,
// and the jump table of the translator, which leads from a virtual address to translated code. An entry exists only for RAM, and in
// the write cache only for pages that are marked in the dirty log.
//
// There is one context for S mode, whatever the address space, and one for S mode with SUM: kernels map themselves globally. What
// is in them and is not global is forgotten when the address space changes. U mode has a few contexts, taken in turn. Whatever has
// MXR shares one, which is emptied at each change.
#pragma once

#include "machine/engine/rv64/rv64.h"

#define RV64_PAGE_BYTES 4096ull
#define RV64_PAGE_MASK (~(RV64_PAGE_BYTES - 1))
#define RV64_TLB_ENTRIES 1024

enum rv64_access { RV64_READ, RV64_WRITE, RV64_EXECUTE };

struct rv64_tlb_entry {
    uint64_t tag;    // the page's last virtual address; 0: empty
    uint64_t addend; // host address = guest virtual address + addend
};

struct rv64_jump { // see translate.h
    uint64_t pc;
    const void *code;
};

#define RV64_TLB_FILLED_MAX 128
#define RV64_SUPERPAGES 4096
struct rv64_tlb { // one of the three
    struct rv64_tlb_entry entries[RV64_TLB_ENTRIES];
    uint8_t leaf_shift[RV64_TLB_ENTRIES]; // of the page-table leaf behind the entry: log2 of the bytes it maps
    uint16_t filled[RV64_TLB_FILLED_MAX]; // entries that are not empty, when there are no more than this
    unsigned n_filled;
    uint64_t superpages[RV64_SUPERPAGES / 64]; // a bit for each leaf bigger than a page (by a hash of its address)
    uint64_t superpage_shifts;                 // a bit for each leaf_shift that such leaves have
    bool has_local;                            // some leaf is not global
};

#define RV64_JUMPS_MIN 4096
#define RV64_JUMPS_FILLED_MAX 512
#define RV64_JUMP_PAGES 8192
struct rv64_context {
    struct rv64_tlb tlb[3];                       // by enum rv64_access
    uint16_t filled_jumps[RV64_JUMPS_FILLED_MAX]; // as a cache's `filled`
    unsigned n_jumps;
    uint64_t jump_pages[RV64_JUMP_PAGES / 64]; // a bit for each page (by a hash) that some jump leads to
    uint64_t space;                            // satp's mode and ASID
    uint64_t serial;                           // of what is known of code: another one whenever some of that is forgotten
    uint64_t used;                             // when it was last taken
    struct rv64_jump jumps[];                  // as many as the engine says: by the halfword of the pc
};

enum { RV64_CONTEXT_S, RV64_CONTEXT_S_SUM, RV64_CONTEXT_ODD, RV64_CONTEXT_U, RV64_CONTEXTS = RV64_CONTEXT_U + 4 }; // ODD: with MXR
struct rv64_mmu {
    struct rv64_context *contexts[RV64_CONTEXTS];
    struct rv64_context *current_user;
    unsigned odd_rights; // with which that of MXR was filled
    unsigned n_jumps;    // of each context; a power of two
    uint64_t serials, uses;
    size_t bytes; // of all this
};

static inline struct rv64_tlb_entry *rv64_tlb_entry(struct rv64_context *c, enum rv64_access access, uint64_t va)
{
    return &c->tlb[access].entries[(va / RV64_PAGE_BYTES) % RV64_TLB_ENTRIES];
}

// The host's address of a guest virtual one whose page is in the cache, or NULL. Not for what crosses the page's end.
static inline void *rv64_tlb_hit(struct rv64_context *c, enum rv64_access access, uint64_t va)
{
    const struct rv64_tlb_entry *e = rv64_tlb_entry(c, access, va);
    if (__builtin_expect(e->tag == (va | (RV64_PAGE_BYTES - 1)), 1))
        return (void *)(uintptr_t)(va + e->addend);
    return NULL;
}

static inline size_t rv64_whole_pages(size_t bytes)
{
    return (bytes + RV64_PAGE_BYTES - 1) & RV64_PAGE_MASK;
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

struct rv64_mmu *rv64_mmu_create(unsigned n_jumps); // a power of two, RV64_JUMPS_MIN at least
void rv64_mmu_destroy(struct rv64_mmu *mmu);
void rv64_mmu_flush(struct rv64_vcpu *v);
void rv64_mmu_flush_writes(struct rv64_vcpu *v);
void rv64_mmu_flush_page(struct rv64_vcpu *v, uint64_t va);
void rv64_mmu_flush_asid(struct rv64_vcpu *v, uint64_t asid);
void rv64_mmu_flush_jumps(struct rv64_vcpu *v); // translated code was thrown away, or is to be compared with memory
void rv64_mmu_add_jump(struct rv64_vcpu *v, uint64_t pc, const void *code); // in the context in use
void rv64_mmu_add_jump_page(struct rv64_context *c, uint64_t va);           // some jump depends on this page besides its own
void rv64_mmu_add_page(struct rv64_context *c, enum rv64_access access, uint64_t va, uint8_t *host, unsigned leaf_shift,
                       bool global);
// After satp, privilege, SUM or MXR changed: takes the context that fits.
void rv64_mmu_context(struct rv64_vcpu *v);

// These return false (NULL) with trap_cause and trap_value set when the access faults.
bool rv64_load(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t *value);
bool rv64_store(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t value);
// The same in two parts: what is RAM, and when `*device` was set, the device behind v->device_pa.
bool rv64_load_ram(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t *value, bool *device);
bool rv64_store_ram(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t value, bool *device);
bool rv64_load_device(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t *value);
bool rv64_store_device(struct rv64_vcpu *v, uint64_t va, unsigned size, uint64_t value);
// The page at va into the translation cache; false: it may not be accessed so, or is no RAM. No trap.
bool rv64_fill(struct rv64_vcpu *v, uint64_t va, enum rv64_access access);
// The host's address of where an access that does not cross a page's end goes, in the cache then. NULL: *device, or the trap is
// set.
uint8_t *rv64_locate(struct rv64_vcpu *v, uint64_t va, enum rv64_access access, bool *device);
// RAM for an atomic access of `size` bytes; va must be aligned.
void *rv64_atomic(struct rv64_vcpu *v, uint64_t va, unsigned size, enum rv64_access access);
// RAM that holds the code at va.
const uint8_t *rv64_fetch(struct rv64_vcpu *v, uint64_t va);
// The cache block around va, for management (cbo.*): checks permission to read or write.
bool rv64_cache_block(struct rv64_vcpu *v, uint64_t va, bool zero);

// The RAM at a guest-physical address, all len_bytes in one region, or NULL.
uint8_t *rv64_ram(const struct rv64_engine *e, uint64_t pa, uint64_t len_bytes);
