// What translated code calls, and the way into it. On the vcpu's thread.
//
// "Light" functions are called with the guest's registers partly in the host's: they may not use vector registers (this file and
// what it calls there are compiled without), nor look at x or f.
#include "machine/engine/rv64/blocks.h"
#include "machine/engine/rv64/translator.h"
#include "machine/engine/rv64/x86_64/audit.h"
#include "machine/engine/rv64/x86_64/translate.h"

static uint16_t read_half(const uint8_t *guest)
{
    return *(const volatile uint16_t *)(const void *)guest;
}

static uint32_t raw_of(const uint8_t *copy)
{
    return copy[0] | (uint32_t)copy[1] << 8 | (uint32_t)copy[2] << 16 | (uint32_t)copy[3] << 24;
}

static bool crosses(uint64_t pc, const uint8_t *guest)
{
    return pc % RV64_PAGE_BYTES == RV64_PAGE_BYTES - 2 && rv64_length(read_half(guest)) == 4;
}

// The translator is not light, so the vector registers are put away meanwhile.
struct vector_registers {
    _Alignas(16) uint8_t image[512];
};

static inline void put_away(struct vector_registers *r)
{
    __asm__ volatile("fxsave64 %0" : "=m"(*r));
}

static inline void take_back(const struct vector_registers *r)
{
    __asm__ volatile("fxrstor64 %0" : : "m"(*r));
}

// A new block, or NULL, at v->pc. Not light.
static void tell_of_block(struct rv64_vcpu *v, const struct code_block *b)
{
    if (!b)
        return;
    rv64_count(&v->counters.blocks_decoded, 1);
    rv64_count(&v->counters.insns_decoded, b->n_insns);
    code_name_block(v->engine->code, b, v->pc);
}

static struct code_block cold_block; // stands for what is to be interpreted

// A new block at `guest`, or NULL: no room. With the lock held.
static struct code_block *new_block(struct rv64_vcpu *v, struct code_page *page, const uint8_t *guest, unsigned priv)
{
    struct vector_registers saved;
    put_away(&saved);
    struct code_block *b = translate(v->engine->code, page, guest, priv);
    tell_of_block(v, b);
    take_back(&saved);
    return b;
}

// The block at `guest`, checked or made; NULL: no room. With the lock held.
static struct code_block *block_at(struct rv64_vcpu *v, const uint8_t *guest, unsigned version)
{
    struct rv64_code *c = v->engine->code;
    enum engine_translate how = v->engine->config.translate;
    struct code_page *page = code_page(c, guest);
    struct code_block *b = NULL;
    if (page) {
        code_verify(c, page, v->code_fence);
        b = code_find(c, guest, v->priv | version);
        if (!b && how == ENGINE_TRANSLATE_BY_USE && c->chain && code_is_cold(c, guest)) // an audit is of translated code
            return &cold_block;
        if (!b)
            b = new_block(v, page, guest, v->priv | (version == 0 && how != ENGINE_TRANSLATE_FULL ? CODE_SMALL : version));
    }
    if (!b)
        atomic_store(&c->full, true);
    return b;
}

// The block at `guest`, if there is one that this hart may use without a further look at memory. Without the lock.
static struct code_block *known_block(const struct rv64_vcpu *v, const uint8_t *guest)
{
    const struct rv64_code *c = v->engine->code;
    struct code_block *b = code_find(c, guest, v->priv);
    const struct code_page *page = b ? code_note_at(c, b->page) : NULL;
    if (!page || atomic_load_explicit(&page->verified, memory_order_acquire) < v->code_fence)
        return NULL;
    return code_find(c, guest, v->priv); // again: it may just have been found to have changed
}

// Where the code at v->pc lies, after whatever traps it takes to get there. NULL: attention is set.
static const uint8_t *fetch(struct rv64_vcpu *v)
{
    const uint8_t *guest;
    while (!(guest = rv64_fetch(v, v->pc))) {
        if (atomic_load_explicit(&v->attention, memory_order_relaxed))
            return NULL;
        rv64_trap(v, v->trap_cause, v->trap_value);
    }
    return guest;
}

// An instruction that crosses the page's end: what it is depends on where the next page is mapped, so nothing but the jump table
// leads to it, which is flushed when either page is. NULL with the trap set when the second half cannot be fetched.
static const void *crossing(struct rv64_vcpu *v, const uint8_t *guest)
{
    struct rv64_code *c = v->engine->code;
    const uint8_t *high = rv64_fetch(v, v->pc + 2);
    if (!high)
        return NULL;
    uint32_t raw = read_half(guest) | (uint32_t)read_half(high) << 16;
    pthread_mutex_lock(&c->lock);
    struct code_block *b = code_find(c, guest, v->priv | CODE_CROSSING);
    if (b && raw_of(b->copy) != raw) {
        code_forget(c, b);
        b = NULL;
    }
    if (!b) {
        struct vector_registers saved;
        put_away(&saved);
        b = translate_crossing(c, guest, raw, v->priv);
        tell_of_block(v, b);
        take_back(&saved);
    }
    pthread_mutex_unlock(&c->lock);
    if (!b) {
        atomic_store(&c->full, true);
        return NULL;
    }
    if (c->chain) {
        rv64_mmu_add_jump(v, v->pc, code_entry(c, b));
        rv64_mmu_add_jump_page(v->context, v->pc + 2);
    }
    return code_entry(c, b);
}

const void *run_find(struct rv64_vcpu *v)
{
    struct rv64_code *c = v->engine->code;
    rv64_count(&v->counters.jump_misses, 1);
    const uint8_t *guest;
    while ((guest = fetch(v)) && crosses(v->pc, guest)) {
        const void *entry = crossing(v, guest);
        if (entry || atomic_load(&c->full))
            return entry;
        rv64_trap(v, v->trap_cause, v->trap_value);
    }
    if (!guest)
        return NULL;
    struct code_block *b = known_block(v, guest);
    if (!b) {
        pthread_mutex_lock(&c->lock);
        b = block_at(v, guest, 0);
        pthread_mutex_unlock(&c->lock);
    }
    if (!b)
        return NULL;
    if (b == &cold_block)
        return c->thunks.cold;
    if (c->chain)
        rv64_mmu_add_jump(v, v->pc, code_entry(c, b));
    return code_entry(c, b);
}

const void *run_jump(struct rv64_vcpu *v)
{
    return v->audit ? audit_entry(v->audit) : run_find(v);
}

// To within the page that runs, so that its code needs no look at the fetch side but for what a fence took away.
static const void *link_to(struct rv64_vcpu *v, const uint8_t *behind, unsigned version)
{
    struct rv64_code *c = v->engine->code;
    struct code_jump jump = *(const struct code_jump *)(const void *)behind;
    const void *entry = NULL;
    uint64_t pc = v->pc = v->page + jump.target;
    if (v->audit && version == 0)
        return NULL;
    const uint8_t *guest = fetch(v);
    if (!guest)
        return NULL;
    if (v->pc != pc) // a trap, as the page is no longer mapped
        return run_jump(v);
    pthread_mutex_lock(&c->lock);
    struct code_block *b = block_at(v, guest, version);
    if (b == &cold_block) {
        entry = c->thunks.cold;
    } else if (b) {
        if (!code_link(c, b, (uint32_t)(behind - c->execute) - jump.site))
            atomic_store(&c->full, true);
        rv64_count(&v->counters.links, 1);
        entry = code_entry(c, b);
    }
    pthread_mutex_unlock(&c->lock);
    return entry;
}

const void *run_link(struct rv64_vcpu *v, const uint8_t *behind)
{
    return link_to(v, behind, 0);
}

const void *run_link_plain(struct rv64_vcpu *v, const uint8_t *behind)
{
    return link_to(v, behind, CODE_PLAIN);
}

const void *run_hot(struct rv64_vcpu *v)
{
    struct rv64_code *c = v->engine->code;
    uint64_t pc = v->pc;
    const uint8_t *guest = fetch(v);
    if (!guest)
        return NULL;
    if (v->pc != pc) // as in link_to()
        return run_jump(v);
    pthread_mutex_lock(&c->lock);
    struct code_block *b = block_at(v, guest, 0);
    if (b && b->priv & CODE_SMALL && b != &cold_block) {
        struct code_page *page = code_page(c, guest);
        struct code_block *anew = new_block(v, page, guest, v->priv);
        if (anew)
            code_replace(c, page, b, anew);
        else
            atomic_store(&c->full, true);
        b = anew ? anew : b;
    }
    pthread_mutex_unlock(&c->lock);
    if (!b)
        return NULL;
    if (b == &cold_block)
        return c->thunks.cold;
    if (v->audit)
        audit_enter_anew(v->audit, code_entry(c, b));
    else
        rv64_mmu_add_jump(v, v->pc, code_entry(c, b));
    return code_entry(c, b);
}

uint64_t run_span(struct rv64_vcpu *v, uint64_t first, uint64_t last, enum rv64_access access)
{
    if ((first ^ last) & RV64_PAGE_MASK || !rv64_fill(v, first, access))
        return 0;
    return rv64_tlb_entry(v->context, access, first)->addend;
}

void run_trap(struct rv64_vcpu *v)
{
    rv64_trap(v, v->trap_cause, v->trap_value);
}

// --- System instructions

void run_user_call(struct rv64_vcpu *v)
{
    rv64_trap(v, RV64_CAUSE_ECALL_U, 0);
}

void run_sret(struct rv64_vcpu *v)
{
    rv64_sret(v);
}

uint64_t run_time(struct rv64_vcpu *v)
{
    return v->audit ? audit_time(v) : rv64_time(v->engine);
}

uint64_t run_status_read(struct rv64_vcpu *v)
{
    return rv64_sstatus_read(v);
}

// Floating point is turned off: the registers leave their homes, or the next instruction would find them there.
static void put_floats(struct rv64_vcpu *v)
{
    uint64_t *f = v->f;
    __asm__ volatile("movq %%xmm10, 0(%0)\n movq %%xmm11, 8(%0)\n movq %%xmm12, 16(%0)\n movq %%xmm13, 24(%0)\n"
                     "movq %%xmm14, 32(%0)\n movq %%xmm2, 80(%0)\n movq %%xmm3, 88(%0)\n movq %%xmm4, 96(%0)\n"
                     "movq %%xmm5, 104(%0)\n movq %%xmm6, 112(%0)\n movq %%xmm7, 120(%0)\n movq %%xmm8, 128(%0)\n"
                     "movq %%xmm9, 136(%0)\n stmxcsr %1\n"
                     :
                     : "r"(f), "m"(v->mxcsr)
                     : "memory");
    v->fflags |= v->fflags_of_mxcsr[v->mxcsr & 63];
    v->fp_loaded = 0;
}

static uint64_t change_status(struct rv64_vcpu *v, uint64_t clear, uint64_t set)
{
    uint64_t old = rv64_sstatus_read(v);
    rv64_sstatus_write(v, (old & ~clear) | set);
    if (v->fp_loaded && !(v->sstatus & RV64_SSTATUS_FS))
        put_floats(v);
    return old;
}

uint64_t run_status_write(struct rv64_vcpu *v, uint64_t operand)
{
    return change_status(v, ~0ull, operand);
}

uint64_t run_status_set(struct rv64_vcpu *v, uint64_t operand)
{
    return change_status(v, 0, operand);
}

uint64_t run_status_clear(struct rv64_vcpu *v, uint64_t operand)
{
    return change_status(v, operand, 0);
}

void run_fence_all(struct rv64_vcpu *v)
{
    rv64_fence_local(v, &(struct rv64_fence){.kind = RV64_FENCE_VMA});
}

void run_fence_asid(struct rv64_vcpu *v)
{
    rv64_fence_local(v, &(struct rv64_fence){.kind = RV64_FENCE_VMA_ASID, .asid = v->access_value});
}

void run_fence_page(struct rv64_vcpu *v)
{
    uint64_t start = v->access_va & RV64_PAGE_MASK;
    rv64_fence_local(v, &(struct rv64_fence){.kind = RV64_FENCE_VMA, .start = start, .size = RV64_PAGE_BYTES});
}

// --- Memory

struct run_loaded run_load(struct rv64_vcpu *v, uint64_t va, unsigned size)
{
    struct run_loaded r = {0, ACCESS_DONE};
    bool device = false;
    if (!rv64_load_ram(v, va, size, &r.value, &device))
        r.status = device ? ACCESS_DEVICE : ACCESS_FAULT;
    return r;
}

uint64_t run_store(struct rv64_vcpu *v, uint64_t va, uint64_t value, unsigned size)
{
    bool device = false;
    if (rv64_store_ram(v, va, size, value, &device))
        return ACCESS_DONE;
    return device ? ACCESS_DEVICE : ACCESS_FAULT;
}

struct run_loaded run_device_load(struct rv64_vcpu *v, uint64_t va, unsigned size)
{
    struct run_loaded r = {0, ACCESS_DONE};
    if (v->audit)
        audit_end_at_access(v);
    if (!rv64_load_device(v, va, size, &r.value))
        r.status = ACCESS_FAULT;
    return r;
}

uint64_t run_device_store(struct rv64_vcpu *v, uint64_t va, uint64_t value, unsigned size)
{
    if (v->audit)
        audit_end_at_access(v);
    return rv64_store_device(v, va, size, value) ? ACCESS_DONE : ACCESS_FAULT;
}

// --- One instruction

static enum run_next next_after(struct rv64_vcpu *v, bool waits)
{
    if (waits)
        v->waits = true;
    if (waits || atomic_load_explicit(&v->hart_state, memory_order_relaxed) != RV64_HART_STARTED ||
        atomic_load_explicit(&v->attention, memory_order_relaxed))
        return RUN_LEAVE;
    return RUN_JUMP;
}

enum run_next run_step(struct rv64_vcpu *v, const struct rv64_insn *insn)
{
    bool apart = v->audit && audit_is_apart(insn, v->priv);
    if (apart)
        audit_end(v);
    uint64_t serial = v->context->serial, next = v->pc + rv64_length(insn->raw);
    rv64_count(&v->counters.steps, 1);
    bool waits = rv64_interpret_one(v, insn);
    if (v->pc == next && serial == v->context->serial && !waits && !atomic_load_explicit(&v->attention, memory_order_relaxed) &&
        atomic_load_explicit(&v->hart_state, memory_order_relaxed) == RV64_HART_STARTED) {
        if (apart)
            audit_begin(v);
        return RUN_NEXT;
    }
    return next_after(v, waits);
}

// Places that gave up get another chance, as what they do may have changed.
#define PREDICTIONS_AGE 64
#define PREDICTIONS_CHANGES 512

static void renew_predictions(struct rv64_vcpu *v)
{
    if (v->predictions_age-- > 0)
        return;
    v->predictions_age = PREDICTIONS_AGE;
    for (unsigned i = 0; i < RV64_PREDICTIONS; i++)
        v->predictions[i].changes = PREDICTIONS_CHANGES;
}

// Code that is full is seen first: who makes room for more asks the others out as if for an interrupt.
static enum engine_left why_left(struct rv64_vcpu *v)
{
    uint32_t bits = atomic_load_explicit(&v->attention, memory_order_relaxed);
    if (v->waits)
        return ENGINE_LEFT_WFI;
    if (v->interpret_blocks)
        return ENGINE_LEFT_FLOAT;
    if (atomic_load_explicit(&v->engine->code->full, memory_order_relaxed))
        return ENGINE_LEFT_FULL;
    if (bits & (RV64_ATTN_KICK | RV64_ATTN_STOP))
        return ENGINE_LEFT_KICK;
    if (bits & RV64_ATTN_FENCE)
        return ENGINE_LEFT_FENCE;
    return bits & RV64_ATTN_INTERRUPT ? ENGINE_LEFT_INTERRUPT : ENGINE_LEFT_STOPPED;
}

enum run_next run_cold(struct rv64_vcpu *v)
{
    return next_after(v, rv64_interpret(v, 1));
}

void run_enter(struct rv64_vcpu *v)
{
    void (*enter)(struct rv64_vcpu *) = (void (*)(struct rv64_vcpu *))(uintptr_t)v->engine->code->thunks.enter;
    enter(v);
}

bool rv64_run_translated(struct rv64_vcpu *v)
{
    renew_predictions(v);
    struct rv64_code *c = v->engine->code;
    uint64_t epoch = atomic_load(&c->epoch);
    if (v->code_epoch != epoch)
        rv64_mmu_flush_jumps(v);
    v->code_epoch = epoch;
    v->waits = false;
    if (v->audit)
        audit_run(v);
    else
        run_enter(v);
    rv64_count(&v->counters.left[why_left(v)], 1);
    return v->waits;
}
