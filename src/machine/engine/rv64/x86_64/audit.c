// The audit (audit.h): stretches of guest code, run twice and compared. On the vcpu's thread.
#include "machine/engine/rv64/x86_64/audit.h"
#include "machine/engine/rv64/blocks.h"
#include "machine/engine/rv64/translator.h"
#include "machine/engine/rv64/x86_64/translate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define COPIES_BYTES (AUDIT_PARTS_MAX * RV64_PAGE_BYTES)

int rv64_audit_create(struct rv64_audit **out, struct rv64_code *c, uint64_t instructions, struct tv_error *err)
{
    if (!c)
        return tv_error_set(err, -EINVAL,
                            "an audit compares the translator with the interpreter, and this engine has no translator");
    struct rv64_audit *a = calloc(1, sizeof(*a));
    void *copies = mmap(NULL, COPIES_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!a || copies == MAP_FAILED) {
        free(a);
        return tv_error_set(err, -ENOMEM, "no memory for an audit");
    }
    a->copies = copies;
    a->instructions = instructions;
    c->chain = false;
    *out = a;
    return 0;
}

void rv64_audit_destroy(struct rv64_audit *a)
{
    if (!a)
        return;
    munmap(a->copies, COPIES_BYTES);
    free(a->text);
    free(a->difference);
    free(a);
}

static uint32_t properties_of(const struct rv64_insn *insn)
{
    return insn->op < RV64_OPS ? rv64_insn_table[insn->op].properties : 0;
}

bool audit_is_apart(const struct rv64_insn *insn, unsigned priv)
{
    uint32_t properties = properties_of(insn);
    bool is_cbo = properties & RV64_P_MEMORY && RV64_P_SIZE_OF(properties) == 0;
    return (properties & RV64_P_SYSTEM && !translate_is_own_system(insn, priv)) || is_cbo;
}

// --- The vcpu's state

static void take_state(const struct rv64_vcpu *v, struct audit_state *s)
{
    memcpy(s->x, v->x, sizeof(s->x));
    memcpy(s->f, v->f, sizeof(s->f));
    s->pc = v->pc;
    s->instret = v->instret;
    s->sstatus = v->sstatus;
    s->sscratch = v->sscratch;
    s->sepc = v->sepc;
    s->scause = v->scause;
    s->stval = v->stval;
    s->reserved_addr = v->reserved_addr;
    s->reserved_value = v->reserved_value;
    s->fflags = v->fflags;
    s->frm = v->frm;
    s->priv = v->priv;
}

static void put_state(struct rv64_vcpu *v, const struct audit_state *s)
{
    bool other_rights = v->priv != s->priv || (v->sstatus ^ s->sstatus) & (RV64_SSTATUS_SUM | RV64_SSTATUS_MXR);
    memcpy(v->x, s->x, sizeof(s->x));
    memcpy(v->f, s->f, sizeof(s->f));
    v->pc = s->pc;
    v->instret = s->instret;
    v->sstatus = s->sstatus;
    v->sscratch = s->sscratch;
    v->sepc = s->sepc;
    v->scause = s->scause;
    v->stval = s->stval;
    v->reserved_addr = s->reserved_addr;
    v->reserved_value = s->reserved_value;
    v->fflags = s->fflags;
    v->frm = s->frm;
    v->priv = s->priv;
    if (other_rights)
        rv64_mmu_context(v);
}

// --- Copies of pages

static uint8_t *copy_of(const struct rv64_audit *a, unsigned page)
{
    return a->copies + page * RV64_PAGE_BYTES;
}

static bool is_copy(const struct rv64_audit *a, uint64_t host)
{
    return host - (uint64_t)(uintptr_t)a->copies < COPIES_BYTES;
}

// What is reserved is known by its host address.
static void reserve_copy(struct rv64_audit *a, struct rv64_vcpu *v, unsigned page)
{
    if ((v->reserved_addr & RV64_PAGE_MASK) == (uint64_t)(uintptr_t)a->pages[page])
        v->reserved_addr = (uint64_t)(uintptr_t)copy_of(a, page) | (v->reserved_addr & ~RV64_PAGE_MASK);
}

static void reserve_original(struct rv64_audit *a, struct rv64_vcpu *v)
{
    if (!is_copy(a, v->reserved_addr))
        return;
    uint64_t offset = v->reserved_addr - (uint64_t)(uintptr_t)a->copies;
    v->reserved_addr = (uint64_t)(uintptr_t)a->pages[offset / RV64_PAGE_BYTES] + offset % RV64_PAGE_BYTES;
}

static RV64_GUEST_RACES void copy_page(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from, RV64_PAGE_BYTES);
}

// The copy of a page of RAM; -1: there is none, and none is to be made.
static int page_copy(struct rv64_audit *a, struct rv64_vcpu *v, uint8_t *host, bool make)
{
    for (unsigned i = 0; i < a->n_pages; i++)
        if (a->pages[i] == host)
            return (int)i;
    if (!make)
        return -1;
    unsigned i = a->n_pages++;
    a->pages[i] = host;
    copy_page(copy_of(a, i), host);
    reserve_copy(a, v, i);
    return (int)i;
}

// --- What the interpreter is going to access

enum place { PLACE_RAM, PLACE_DEVICE, PLACE_FAULT };

static RV64_GUEST_RACES uint64_t read_bytes(const uint8_t *host, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, host, size);
    return value;
}

// Finds the page, leads the translation cache to its copy if there is or must be one, and notes the access.
static enum place prepare_part(struct rv64_audit *a, struct rv64_vcpu *v, uint64_t va, unsigned size, enum rv64_access access)
{
    struct rv64_tlb *tlb = &v->context->tlb[access];
    struct rv64_tlb_entry *e = rv64_tlb_entry(v->context, access, va);
    unsigned i = (unsigned)(e - tlb->entries);
    struct audit_entry before = {tlb, i, *e, tlb->leaf_shift[i], v->context, v->context->serial};
    bool device;
    uint8_t *host = rv64_locate(v, va, access, &device);
    if (!host)
        return device ? PLACE_DEVICE : PLACE_FAULT;
    unsigned offset = (unsigned)(va % RV64_PAGE_BYTES);
    struct audit_access *access_note = &a->accesses[a->n_accesses++];
    *access_note = (struct audit_access){.va = va, .size = size, .value = read_bytes(host, size)};
    if (is_copy(a, (uint64_t)(uintptr_t)host)) {
        access_note->host = a->pages[(size_t)(host - a->copies) / RV64_PAGE_BYTES] + offset;
    } else {
        access_note->host = host;
        int page = page_copy(a, v, host - offset, access == RV64_WRITE);
        if (page >= 0) {
            host = copy_of(a, (unsigned)page) + offset;
            e->addend = (uint64_t)(uintptr_t)host - va;
            access_note->value = read_bytes(host, size);
        }
    }
    if (access == RV64_WRITE)
        access_note->copy = host;
    if (e->tag != before.entry.tag || e->addend != before.entry.addend)
        a->entries[a->n_entries++] = before;
    return PLACE_RAM;
}

// Accesses that fault are the interpreter's to find out.
static enum place prepare(struct rv64_audit *a, struct rv64_vcpu *v, const struct rv64_insn *insn)
{
    uint32_t properties = properties_of(insn);
    if (!(properties & RV64_P_MEMORY))
        return PLACE_RAM;
    bool atomic = properties & RV64_P_ATOMIC;
    unsigned size = RV64_P_SIZE_OF(properties);
    uint64_t va = v->x[insn->rs1] + (atomic ? 0 : (uint64_t)(int64_t)insn->imm);
    enum rv64_access access = properties & RV64_P_STORE ? RV64_WRITE : RV64_READ;
    if (!rv64_crosses_page(va, size)) {
        enum place place = prepare_part(a, v, va, size, access);
        return atomic && place == PLACE_DEVICE ? PLACE_FAULT : place;
    }
    unsigned first = (unsigned)(RV64_PAGE_BYTES - va % RV64_PAGE_BYTES);
    if (!atomic && prepare_part(a, v, va, first, access) == PLACE_RAM)
        prepare_part(a, v, va + first, size - first, access);
    return PLACE_RAM;
}

// A context that was emptied meanwhile (that of MXR is, at each change of rights) stays so.
static void put_entries_back(struct rv64_audit *a)
{
    while (a->n_entries > 0) {
        const struct audit_entry *e = &a->entries[--a->n_entries];
        if (e->context->serial != e->serial)
            continue;
        e->tlb->entries[e->i] = e->entry;
        e->tlb->leaf_shift[e->i] = e->leaf_shift;
    }
}

// --- The interpreter's side

static bool is_fence(const struct rv64_insn *insn)
{
    return insn->op == RV64_OP_sfence_vma || insn->op == RV64_OP_sinval_vma;
}

// The time that was just read is the one for the other side as well, and when the stretch is repeated.
static void keep_time(struct rv64_audit *a, uint64_t *time)
{
    if (a->n_times < a->times_known)
        *time = a->times[a->n_times++];
    else
        a->times[a->n_times++] = *time;
}

// The translated side forgets, and ends its block.
static bool pass_fence(struct rv64_audit *a, struct rv64_vcpu *v, const struct rv64_insn *insn)
{
    if (!is_fence(insn))
        return false;
    v->pc += rv64_length(insn->raw);
    v->instret++;
    a->n++;
    return true;
}

// One block of the interpreter's; true: the stretch goes on behind it.
static bool interpret_block(struct rv64_audit *a, struct rv64_vcpu *v, const struct rv64_block *block, uint64_t limit)
{
    for (unsigned i = 0; i < block->n_insns && a->n < limit; i++) {
        const struct rv64_insn *insn = &block->insns[i];
        uint64_t next = v->pc + rv64_length(insn->raw), instret = v->instret;
        if (audit_is_apart(insn, v->priv) || pass_fence(a, v, insn) || prepare(a, v, insn) == PLACE_DEVICE)
            return false;
        rv64_interpret_one(v, insn);
        a->trapped = v->instret == instret;
        if (a->trapped)
            return false;
        a->n++;
        if (translate_is_time(insn))
            keep_time(a, &v->x[insn->rd]);
        if (v->pc != next || insn->op == RV64_OP_sret)
            return false;
    }
    return a->n < limit;
}

// From a->start, at most so many instructions, into a->expected. Leaves the vcpu elsewhere.
static void interpret_stretch(struct rv64_audit *a, struct rv64_vcpu *v, uint64_t limit)
{
    uint64_t sie = v->sie;
    a->n = 0;
    a->trapped = false;
    a->n_accesses = a->n_times = 0;
    v->sie = 0; // so that nothing is found to pend
    for (unsigned i = 0; i < a->n_pages; i++)
        reserve_copy(a, v, i);
    const struct rv64_block *block;
    uint64_t page = v->pc & RV64_PAGE_MASK;
    while (limit > 0 && (v->pc & RV64_PAGE_MASK) == page && (block = rv64_block_find(v, v->pc)) &&
           interpret_block(a, v, block, limit))
        ;
    v->sie = sie;
    reserve_original(a, v);
    put_entries_back(a);
    take_state(v, &a->expected);
}

void audit_begin(struct rv64_vcpu *v)
{
    struct rv64_audit *a = v->audit;
    a->active = true;
    a->n_pages = a->times_known = a->next_time = 0;
    take_state(v, &a->start);
    interpret_stretch(a, v, AUDIT_INSNS_MAX);
    put_state(v, &a->start);
    a->times_known = a->n_times;
}

// The stretch once more, n instructions of it. Its copies of pages are brought back to how they were.
static void repeat(struct rv64_audit *a, struct rv64_vcpu *v, uint64_t n)
{
    unsigned n_accesses = a->n_accesses;
    for (unsigned i = n_accesses; i-- > 0;)
        if (a->accesses[i].copy)
            memcpy(a->accesses[i].copy, &a->accesses[i].value, a->accesses[i].size);
    put_state(v, &a->start);
    interpret_stretch(a, v, n);
    put_state(v, &a->found);
    a->n_accesses = n_accesses; // what it did not come to again was to stay as it was
    a->repeated++;
}

// --- Comparing

static bool agrees(const struct rv64_audit *a)
{
    for (unsigned i = 0; i < a->n_accesses; i++)
        if (!audit_access_agrees(&a->accesses[i]))
            return false;
    return audit_states_agree(&a->expected, &a->found);
}

static bool overlap(const struct audit_access *one, const struct audit_access *other)
{
    return one->host < other->host + other->size && other->host < one->host + one->size;
}

static bool is_stored(const struct rv64_audit *a, const struct audit_access *load)
{
    for (unsigned i = 0; i < a->n_accesses; i++)
        if (a->accesses[i].copy && overlap(&a->accesses[i], load))
            return true;
    return false;
}

// Somebody else has written to what was loaded.
static bool memory_changed(const struct rv64_audit *a)
{
    for (unsigned i = 0; i < a->n_accesses; i++) {
        const struct audit_access *load = &a->accesses[i];
        if (!load->copy && read_bytes(load->host, load->size) != load->value && !is_stored(a, load))
            return true;
    }
    return false;
}

void audit_end(struct rv64_vcpu *v)
{
    struct rv64_audit *a = v->audit;
    if (!a->active)
        return;
    a->active = false;
    a->stretches++;
    take_state(v, &a->found);
    uint64_t n = a->found.instret - a->start.instret;
    bool good = n == a->n && agrees(a);
    if (!good && n <= a->n) {
        repeat(a, v, n);
        good = agrees(a);
    }
    if (!good && memory_changed(a)) {
        a->excused++;
        return;
    }
    if (!good) {
        audit_report_difference(v, n);
        return;
    }
    a->compared += n;
    if (a->compared >= a->instructions)
        rv64_end(v->engine, ENGINE_EXIT_SHUTDOWN, NULL);
}

void audit_end_at_access(struct rv64_vcpu *v)
{
    uint64_t pc = v->pc, instret = v->instret;
    v->pc = v->page + (v->access_at & 0xffff);
    v->instret += v->access_at >> 16;
    audit_end(v);
    v->pc = pc;
    v->instret = instret;
}

// --- The translated side

void audit_run(struct rv64_vcpu *v)
{
    struct rv64_audit *a = v->audit;
    do {
        a->entry = a->entered = run_find(v);
        if (!a->entry)
            return;
        audit_begin(v);
        run_enter(v);
        audit_end(v);
    } while (!v->waits && !v->interpret_blocks && atomic_load_explicit(&v->hart_state, memory_order_relaxed) == RV64_HART_STARTED &&
             !atomic_load_explicit(&v->attention, memory_order_relaxed));
}
