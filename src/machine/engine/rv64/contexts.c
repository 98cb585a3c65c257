// What a vcpu knows of its address spaces (mmu.h): contexts are taken, filled with jumps, emptied. On the vcpu's thread.
#include "machine/engine/rv64/mmu.h"

#include <sys/mman.h>

#define SATP_SPACE(satp) ((satp) >> 44) // mode and ASID
#define SPACE_ASID(space) ((space)&0xffff)
#define SPACE_MODE(space) ((space) >> 16)
#define EMPTY 0ull // tag

// An empty slot has a pc that is never looked for there, whatever its lowest bit: what belongs into the first, or the second.
static void empty_jump(struct rv64_context *c, size_t slot)
{
    c->jumps[slot].pc = slot == 0 ? 2 : 0;
}

static void flush_tlb(struct rv64_tlb *tlb)
{
    if (tlb->n_filled <= RV64_TLB_FILLED_MAX) {
        for (unsigned i = 0; i < tlb->n_filled; i++)
            tlb->entries[tlb->filled[i]].tag = EMPTY;
    } else {
        for (unsigned i = 0; i < RV64_TLB_ENTRIES; i++)
            tlb->entries[i].tag = EMPTY;
    }
    tlb->n_filled = 0;
    for (unsigned i = 0; tlb->superpage_shifts && i < RV64_SUPERPAGES / 64; i++)
        tlb->superpages[i] = 0;
    tlb->superpage_shifts = 0;
    tlb->has_local = false;
}

static void flush_jumps(struct rv64_mmu *mmu, struct rv64_context *c)
{
    for (unsigned i = 0; c->n_jumps > 0 && i < RV64_JUMP_PAGES / 64; i++)
        c->jump_pages[i] = 0;
    if (c->n_jumps <= RV64_JUMPS_FILLED_MAX) {
        for (unsigned i = 0; i < c->n_jumps; i++)
            empty_jump(c, c->filled_jumps[i]);
    } else {
        for (unsigned i = 0; i < mmu->n_jumps; i++)
            empty_jump(c, i);
    }
    c->n_jumps = 0;
    c->serial = ++mmu->serials;
}

static void flush_code(struct rv64_mmu *mmu, struct rv64_context *c)
{
    flush_tlb(&c->tlb[RV64_EXECUTE]);
    flush_jumps(mmu, c);
}

static void flush(struct rv64_mmu *mmu, struct rv64_context *c)
{
    flush_tlb(&c->tlb[RV64_READ]);
    flush_tlb(&c->tlb[RV64_WRITE]);
    flush_code(mmu, c);
}

static void flush_local(struct rv64_mmu *mmu, struct rv64_context *c)
{
    for (unsigned access = RV64_READ; access <= RV64_WRITE; access++)
        if (c->tlb[access].has_local)
            flush_tlb(&c->tlb[access]);
    if (c->tlb[RV64_EXECUTE].has_local)
        flush_code(mmu, c);
}

// A filter: which of its bits stands for a number. `bits` is a power of two.
static unsigned filter_bit(uint64_t number, unsigned bits)
{
    return (unsigned)(number * 0x9e3779b97f4a7c15ull >> 48) % bits;
}

static void filter_set(uint64_t *filter, unsigned bits, uint64_t number)
{
    unsigned bit = filter_bit(number, bits);
    filter[bit / 64] |= 1ull << bit % 64;
}

static bool filter_test(const uint64_t *filter, unsigned bits, uint64_t number)
{
    unsigned bit = filter_bit(number, bits);
    return filter[bit / 64] >> bit % 64 & 1;
}

static size_t jump_slot(const struct rv64_mmu *mmu, uint64_t pc)
{
    return pc / 2 % mmu->n_jumps;
}

struct rv64_mmu *rv64_mmu_create(unsigned n_jumps)
{
    size_t own = rv64_whole_pages(sizeof(struct rv64_mmu));
    size_t each = rv64_whole_pages(sizeof(struct rv64_context) + n_jumps * sizeof(struct rv64_jump)),
           bytes = own + RV64_CONTEXTS * each;
    // Pages of zeroes, so that what a vcpu does not use costs nothing.
    uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    struct rv64_mmu *mmu = (struct rv64_mmu *)(void *)at;
    mmu->bytes = bytes;
    mmu->n_jumps = n_jumps;
    for (unsigned i = 0; i < RV64_CONTEXTS; i++) {
        struct rv64_context *c = (struct rv64_context *)(void *)(at + own + i * each);
        empty_jump(c, 0);
        c->serial = ++mmu->serials;
        mmu->contexts[i] = c;
    }
    mmu->current_user = mmu->contexts[RV64_CONTEXT_U];
    return mmu;
}

void rv64_mmu_destroy(struct rv64_mmu *mmu)
{
    if (mmu)
        munmap(mmu, mmu->bytes);
}

// --- Forgetting

void rv64_mmu_flush(struct rv64_vcpu *v)
{
    for (unsigned i = 0; i < RV64_CONTEXTS; i++)
        flush(v->mmu, v->mmu->contexts[i]);
}

void rv64_mmu_flush_writes(struct rv64_vcpu *v)
{
    for (unsigned i = 0; i < RV64_CONTEXTS; i++)
        flush_tlb(&v->mmu->contexts[i]->tlb[RV64_WRITE]);
}

void rv64_mmu_flush_jumps(struct rv64_vcpu *v)
{
    for (unsigned i = 0; i < RV64_CONTEXTS; i++)
        flush_jumps(v->mmu, v->mmu->contexts[i]);
}

static bool may_have_superpage(const struct rv64_tlb *tlb, uint64_t va)
{
    for (uint64_t left = tlb->superpage_shifts; left; left &= left - 1)
        if (filter_test(tlb->superpages, RV64_SUPERPAGES, va >> __builtin_ctzll(left)))
            return true;
    return false;
}

static void flush_tlb_page(struct rv64_context *c, enum rv64_access access, uint64_t va)
{
    struct rv64_tlb *tlb = &c->tlb[access];
    struct rv64_tlb_entry *e = rv64_tlb_entry(c, access, va);
    if (e->tag == (va | (RV64_PAGE_BYTES - 1)))
        e->tag = EMPTY;
    if (!may_have_superpage(tlb, va))
        return;
    // An entry is a fragment of a leaf, and all fragments of the leaf that maps va must go.
    for (unsigned i = 0; i < RV64_TLB_ENTRIES; i++)
        if ((tlb->entries[i].tag ^ va) >> tlb->leaf_shift[i] == 0)
            tlb->entries[i].tag = EMPTY;
}

static inline void flush_jump_to(struct rv64_context *c, size_t slot, uint64_t page)
{
    if (__builtin_expect((c->jumps[slot].pc & RV64_PAGE_MASK) == page, 0))
        empty_jump(c, slot);
}

// The jumps into the page of va, and into the instruction that begins in the page before and ends in this one.
static void flush_jumps_to(const struct rv64_mmu *mmu, struct rv64_context *c, uint64_t va)
{
    uint64_t page = va & RV64_PAGE_MASK;
    size_t first = jump_slot(mmu, page), before = jump_slot(mmu, page - 2);
    if (c->n_jumps <= RV64_JUMPS_FILLED_MAX) {
        for (unsigned i = 0; i < c->n_jumps; i++)
            flush_jump_to(c, c->filled_jumps[i], page);
    } else {
        for (size_t i = first; i < first + RV64_PAGE_BYTES / 2; i++)
            flush_jump_to(c, i, page);
    }
    if (c->jumps[before].pc == page - 2)
        empty_jump(c, before);
}
_Static_assert(RV64_JUMPS_MIN % (RV64_PAGE_BYTES / 2) == 0, "a page's jumps lie side by side");

// Forgets what maps va, in any address space: more than asked for is allowed.
void rv64_mmu_flush_page(struct rv64_vcpu *v, uint64_t va)
{
    for (unsigned i = 0; i < RV64_CONTEXTS; i++) {
        struct rv64_context *c = v->mmu->contexts[i];
        const struct rv64_tlb *code = &c->tlb[RV64_EXECUTE];
        bool superpage = may_have_superpage(code, va);
        for (unsigned access = RV64_READ; access <= RV64_EXECUTE; access++)
            flush_tlb_page(c, access, va);
        if (superpage) {
            flush_jumps(v->mmu, c);
            continue;
        }
        if (filter_test(c->jump_pages, RV64_JUMP_PAGES, va / RV64_PAGE_BYTES))
            flush_jumps_to(v->mmu, c, va);
        c->serial = ++v->mmu->serials;
    }
}

void rv64_mmu_flush_asid(struct rv64_vcpu *v, uint64_t asid)
{
    for (unsigned i = 0; i < RV64_CONTEXTS; i++) {
        struct rv64_context *c = v->mmu->contexts[i];
        if (SPACE_ASID(c->space) == (asid & 0xffff))
            flush_local(v->mmu, c);
    }
}

// --- Filling

void rv64_mmu_add_jump_page(struct rv64_context *c, uint64_t va)
{
    filter_set(c->jump_pages, RV64_JUMP_PAGES, va / RV64_PAGE_BYTES);
}

void rv64_mmu_add_jump(struct rv64_vcpu *v, uint64_t pc, const void *code)
{
    struct rv64_context *c = v->context;
    size_t slot = jump_slot(v->mmu, pc);
    rv64_mmu_add_jump_page(c, pc);
    c->jumps[slot] = (struct rv64_jump){.pc = pc, .code = code};
    if (c->n_jumps < RV64_JUMPS_FILLED_MAX)
        c->filled_jumps[c->n_jumps] = (uint16_t)slot;
    if (c->n_jumps <= RV64_JUMPS_FILLED_MAX)
        c->n_jumps++;
}

void rv64_mmu_add_page(struct rv64_context *c, enum rv64_access access, uint64_t va, uint8_t *host, unsigned leaf_shift,
                       bool global)
{
    struct rv64_tlb *tlb = &c->tlb[access];
    unsigned i = (unsigned)(rv64_tlb_entry(c, access, va) - tlb->entries);
    tlb->entries[i] =
        (struct rv64_tlb_entry){.tag = va | (RV64_PAGE_BYTES - 1), .addend = (uint64_t)(uintptr_t)host - (va & RV64_PAGE_MASK)};
    tlb->leaf_shift[i] = (uint8_t)leaf_shift;
    if (tlb->n_filled < RV64_TLB_FILLED_MAX)
        tlb->filled[tlb->n_filled] = (uint16_t)i;
    if (tlb->n_filled <= RV64_TLB_FILLED_MAX)
        tlb->n_filled++;
    tlb->has_local |= !global;
    if (leaf_shift > 12) {
        tlb->superpage_shifts |= 1ull << leaf_shift;
        filter_set(tlb->superpages, RV64_SUPERPAGES, va >> leaf_shift);
    }
}

// --- Taking

static void take(struct rv64_vcpu *v, struct rv64_context *c, uint64_t space)
{
    if (c->space != space) {
        if (SPACE_MODE(c->space) != SPACE_MODE(space))
            flush(v->mmu, c); // what is global is so among spaces of one mode
        else
            flush_local(v->mmu, c);
        c->space = space;
    }
    v->context = c;
}

static struct rv64_context *user_context(struct rv64_mmu *mmu, uint64_t space)
{
    struct rv64_context *oldest = mmu->contexts[RV64_CONTEXT_U];
    if (mmu->current_user->space == space)
        return mmu->current_user;
    for (unsigned i = RV64_CONTEXT_U; i < RV64_CONTEXTS; i++) {
        struct rv64_context *c = mmu->contexts[i];
        if (c->space == space) {
            oldest = c;
            break;
        }
        if (c->used < oldest->used)
            oldest = c;
    }
    oldest->used = ++mmu->uses;
    mmu->current_user = oldest;
    return oldest;
}

void rv64_mmu_context(struct rv64_vcpu *v)
{
    struct rv64_mmu *mmu = v->mmu;
    uint64_t space = SATP_SPACE(v->satp) >> 16 ? SATP_SPACE(v->satp) : 0;
    bool sum = v->sstatus & RV64_SSTATUS_SUM;
    if (v->sstatus & RV64_SSTATUS_MXR) {
        unsigned rights = v->priv == RV64_U ? 0 : sum ? 2 : 1;
        if (mmu->odd_rights != rights)
            flush(mmu, mmu->contexts[RV64_CONTEXT_ODD]);
        mmu->odd_rights = rights;
        take(v, mmu->contexts[RV64_CONTEXT_ODD], space);
    } else if (v->priv == RV64_U) {
        take(v, user_context(mmu, space), space);
    } else {
        take(v, mmu->contexts[sum ? RV64_CONTEXT_S_SUM : RV64_CONTEXT_S], space);
    }
}
