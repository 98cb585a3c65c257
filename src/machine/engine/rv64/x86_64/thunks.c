// Pieces of code that all blocks use: the way into translated code and out of it, and calls of C. Made once for an engine.
#include "machine/engine/rv64/x86_64/translate.h"

// Homes that a C function may change, as x registers.
static const uint8_t caller_saved[] = {10, 11, 12, 13, 14, 15};
static const uint8_t all_homes[] = {2, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};
static const uint8_t host_saved[] = {RBX, RBP, R12, R13, R14, R15};

struct maker {
    struct x86 x;
    struct rv64_code *code;
    int32_t pushed; // bytes between rsp and the vcpu
};

static const uint8_t *here(const struct maker *m)
{
    return code_executed(m->code, m->x.at);
}

static void registers(struct maker *m, unsigned op, const uint8_t *which, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x_rm(&m->x, op, true, translate_home(which[i]), RSP, VCPU_X(which[i]) + m->pushed);
}

static void save_some(struct maker *m)
{
    registers(m, X_MOV_TO, caller_saved, sizeof(caller_saved));
}

static void restore_some(struct maker *m)
{
    registers(m, X_MOV, caller_saved, sizeof(caller_saved));
}

static void floats(struct maker *m, unsigned op)
{
    for (unsigned f = 0; f < 32; f++)
        if (translate_fp_home(f) >= 0)
            x_rm(&m->x, op, false, translate_fp_home(f), RSP, VCPU_F(f) + m->pushed);
}

static void mxcsr(struct maker *m, unsigned group, int32_t field) // ldmxcsr 2, stmxcsr 3
{
    x_opcode(&m->x, 0x0fae, false, 0, 0, RSP, false);
    x_modrm(&m->x, (int)group, RSP, field + m->pushed);
}

// Everything into the vcpu, as C sees it. Changes rcx. fp_loaded stays as it is, and so do the registers.
static void save_all(struct maker *m)
{
    struct x86 *x = &m->x;
    registers(m, X_MOV_TO, all_homes, sizeof(all_homes));
    x_rm(x, X_MOVQ_MX, false, 15, RSP, VCPU(instret) + m->pushed);
    x_mi(x, G_CMP, false, RSP, VCPU(fp_loaded) + m->pushed, 0);
    uint8_t *not_loaded = x_jcc(x, CC_E);
    floats(m, X_MOVQ_MX);
    mxcsr(m, 3, VCPU(mxcsr));
    x_rm(x, X_MOV, false, RCX, RSP, VCPU(mxcsr) + m->pushed);
    x_ri(x, G_AND, false, RCX, 0x3f);
    x_rx(x, X_MOVZX8, false, RCX, RSP, RCX, 0, VCPU(fflags_of_mxcsr) + m->pushed);
    x_rm8(x, 0x08, RCX, RSP, VCPU(fflags) + m->pushed); // or byte
    x_patch(not_loaded, x->at);
}

static void restore_all(struct maker *m)
{
    registers(m, X_MOV, all_homes, sizeof(all_homes));
    x_rm(&m->x, X_MOVQ_XM, false, 15, RSP, VCPU(instret) + m->pushed);
    x_rm(&m->x, X_MOV, true, R15, RSP, VCPU(context) + m->pushed);
}

static void reload_floats(struct maker *m)
{
    x_mi(&m->x, G_CMP, false, RSP, VCPU(fp_loaded) + m->pushed, 0);
    uint8_t *not_loaded = x_jcc(&m->x, CC_E);
    floats(m, X_MOVQ_XM);
    mxcsr(m, 2, VCPU(mxcsr_clear));
    x_patch(not_loaded, m->x.at);
}

// The vcpu is the first argument.
static void call_c(struct maker *m, const void *function)
{
    bool misaligned = m->pushed % 16 != 0;
    if (misaligned)
        x_ri(&m->x, G_SUB, true, RSP, 8);
    x_rm(&m->x, X_LEA, true, RDI, RSP, m->pushed + (misaligned ? 8 : 0));
    x_mov_ri(&m->x, RAX, (int64_t)(uintptr_t)function);
    x_byte(&m->x, 0xff); // call rax
    x_byte(&m->x, 0xd0);
    if (misaligned)
        x_ri(&m->x, G_ADD, true, RSP, 8);
}

static void pop_return(struct maker *m)
{
    if (m->pushed)
        x_ri(&m->x, G_ADD, true, RSP, m->pushed);
    m->pushed = 0;
}

// --- Jumps by the table

// The target's pc in rax, with a lowest bit that does not count: no pc in the table has it. Changes rcx.
void thunk_jump(struct x86 *x, const uint8_t *miss, const struct rv64_code *c)
{
    x_rr(x, X_MOV, false, RCX, RAX);
    x_ri(x, G_AND, false, RCX, (int32_t)(c->n_jumps - 1) * 2);
    x_rx(x, X_CMP, true, RAX, R15, RCX, 3, CONTEXT_JUMPS + (int32_t)offsetof(struct rv64_jump, pc));
    translate_jcc_to(x, c, CC_NE, miss);
    x_opcode(x, 0xff, false, 0, RCX, R15, false); // jmp [r15 + rcx * 8 + disp]
    x_byte(x, 0xa4);
    x_byte(x, 0xc0 | RCX << 3 | (R15 & 7));
    x_dword(x, (uint32_t)(CONTEXT_JUMPS + (int32_t)offsetof(struct rv64_jump, code)));
}
_Static_assert(sizeof(struct rv64_jump) == 16, "twice the halfword's number times eight");

static void return_to_c(struct maker *m)
{
    x_rm(&m->x, X_MOV, true, RSP, RSP, VCPU(host_stack));
    for (unsigned i = sizeof(host_saved); i-- > 0;)
        x_pop(&m->x, host_saved[i]);
    x_byte(&m->x, 0xc3);
}

static const uint8_t *make_leave(struct maker *m)
{
    const uint8_t *at = here(m);
    save_all(m);
    return_to_c(m);
    return at;
}

static const uint8_t *make_leave_at(struct maker *m)
{
    const uint8_t *at = here(m);
    x_rm(&m->x, X_MOV_TO, true, RAX, RSP, VCPU(pc));
    translate_jump_to(&m->x, m->code, m->code->thunks.leave);
    return at;
}

// An offset in the page and a count of instructions, as blocks give them in edx, made v->pc (and rax) and counted.
static void place_and_count(struct maker *m)
{
    struct x86 *x = &m->x;
    x_rr(x, X_MOVZX16, false, RAX, RDX);
    x_rm(x, X_ADD, true, RAX, RSP, VCPU(page));
    x_rm(x, X_MOV_TO, true, RAX, RSP, VCPU(pc));
    x_shift(x, SH_SHR, false, RDX, 16);
    x_shift(x, SH_SHL, false, RDX, 4);
    x_opcode(x, X_PADDQ, false, 15, RDX, RSP, false);
    x_byte(x, 0xbc); // [rsp + rdx + disp32], xmm15
    x_byte(x, 0x14);
    x_dword(x, (uint32_t)VCPU(counts));
}

static const uint8_t *make_leave_counting(struct maker *m)
{
    const uint8_t *at = here(m);
    place_and_count(m);
    translate_jump_to(&m->x, m->code, m->code->thunks.leave);
    return at;
}

// To where C says (rax), or out.
static void jump_or_leave(struct maker *m)
{
    struct x86 *x = &m->x;
    restore_some(m);
    x_rr(x, X_TEST, true, RAX, RAX);
    translate_jcc_to(x, m->code, CC_E, m->code->thunks.leave);
    x_rm(x, X_MOV, true, R15, RSP, VCPU(context));
    x_rr(x, X_MOV, true, RCX, RAX);
    x_rm(x, X_MOV, true, RAX, RSP, VCPU(pc));
    x_byte(x, 0xff); // jmp rcx
    x_byte(x, 0xe1);
}

static const uint8_t *make_miss(struct maker *m)
{
    const uint8_t *at = here(m);
    x_ri(&m->x, G_AND, true, RAX, -2);
    x_rm(&m->x, X_MOV_TO, true, RAX, RSP, VCPU(pc));
    save_some(m);
    call_c(m, (const void *)run_jump);
    jump_or_leave(m);
    return at;
}

static const uint8_t *make_jump(struct maker *m)
{
    const uint8_t *at = here(m);
    thunk_jump(&m->x, m->code->thunks.miss, m->code);
    return at;
}

// void enter(struct rv64_vcpu *v): from C. Goes on at v->pc.
static const uint8_t *make_enter(struct maker *m)
{
    const uint8_t *at = here(m);
    for (unsigned i = 0; i < sizeof(host_saved); i++)
        x_push(&m->x, host_saved[i]);
    x_rm(&m->x, X_MOV_TO, true, RSP, RDI, VCPU(host_stack));
    x_rr(&m->x, X_MOV, true, RSP, RDI);
    x_mov_mi(&m->x, false, RSP, VCPU(fp_loaded), 0);
    restore_all(m);
    x_rm(&m->x, X_MOV, true, RAX, RSP, VCPU(pc));
    translate_jump_to(&m->x, m->code, m->code->thunks.jump);
    return at;
}

// Behind the call stands which jump it is: struct code_jump.
static const uint8_t *make_link(struct maker *m, const void *function)
{
    const uint8_t *at = here(m);
    struct x86 *x = &m->x;
    x_pop(x, RCX);
    save_some(m);
    x_rr(x, X_MOV, true, RSI, RCX);
    call_c(m, function);
    jump_or_leave(m);
    return at;
}

// Behind the call stands the block's offset in the page.
static const uint8_t *make_hot(struct maker *m)
{
    const uint8_t *at = here(m);
    struct x86 *x = &m->x;
    x_pop(x, RCX);
    x_rm(x, X_MOVZX16, false, RAX, RCX, 0);
    x_rm(x, X_ADD, true, RAX, RSP, VCPU(page));
    x_rm(x, X_MOV_TO, true, RAX, RSP, VCPU(pc));
    save_some(m);
    call_c(m, (const void *)run_hot);
    jump_or_leave(m);
    return at;
}

// --- One instruction by the interpreter

static void after_step(struct maker *m)
{
    struct x86 *x = &m->x;
    x_ri(x, G_CMP, false, RAX, RUN_JUMP);
    uint8_t *leave = x_jcc(x, CC_A);
    restore_all(m);
    uint8_t *jump = x_jcc(x, CC_E);
    x_byte(x, 0xc3); // RUN_NEXT: back into the block
    x_patch(jump, x->at);
    int32_t pushed = m->pushed;
    pop_return(m);
    x_rm(x, X_MOV, true, RAX, RSP, VCPU(pc));
    translate_jump_to(x, m->code, m->code->thunks.jump);
    m->pushed = pushed;
    x_patch(leave, x->at);
    pop_return(m);
    return_to_c(m);
}

// Called with the instruction's offset in the page in eax and its description in rdx.
static const uint8_t *make_step(struct maker *m)
{
    const uint8_t *at = here(m);
    struct x86 *x = &m->x;
    m->pushed = 8;
    x_rm(x, X_ADD, true, RAX, RSP, VCPU(page) + m->pushed);
    x_rm(x, X_MOV_TO, true, RAX, RSP, VCPU(pc) + m->pushed);
    save_all(m);
    x_mov_mi(x, false, RSP, VCPU(fp_loaded) + m->pushed, 0);
    x_rr(x, X_MOV, true, RSI, RDX);
    call_c(m, (const void *)run_step);
    after_step(m);
    return at;
}

// Jumped to with v->pc set.
static const uint8_t *make_cold(struct maker *m)
{
    const uint8_t *at = here(m);
    save_all(m);
    x_mov_mi(&m->x, false, RSP, VCPU(fp_loaded), 0);
    call_c(m, (const void *)run_cold);
    after_step(m); // never RUN_NEXT
    return at;
}

// Calls a light C function: its address in rax, its second argument in rcx.
static const uint8_t *make_light(struct maker *m)
{
    const uint8_t *at = here(m);
    struct x86 *x = &m->x;
    m->pushed = 8;
    save_some(m);
    x_rr(x, X_MOV, true, RSI, RCX);
    x_ri(x, G_SUB, true, RSP, 8);
    x_rm(x, X_LEA, true, RDI, RSP, 16);
    x_byte(x, 0xff); // call rax
    x_byte(x, 0xd0);
    x_ri(x, G_ADD, true, RSP, 8);
    restore_some(m);
    x_byte(x, 0xc3);
    m->pushed = 0;
    return at;
}

// --- Floating point

// Called when the homes do not hold the registers. Not zero: they do now; zero: floating point is off, or rounds otherwise.
static const uint8_t *make_fp_load(struct maker *m)
{
    const uint8_t *at = here(m);
    struct x86 *x = &m->x;
    m->pushed = 8;
    x_rm(x, X_MOV, false, RAX, RSP, VCPU(sstatus) + m->pushed);
    x_ri(x, G_AND, false, RAX, (int32_t)RV64_SSTATUS_FS);
    uint8_t *off = x_jcc(x, CC_E);
    x_rm(x, X_MOVZX8, false, RAX, RSP, VCPU(frm) + m->pushed);
    x_rr(x, X_TEST, false, RAX, RAX);
    uint8_t *other = x_jcc(x, CC_NE);
    floats(m, X_MOVQ_XM);
    mxcsr(m, 2, VCPU(mxcsr_clear));
    x_mi(x, G_OR, true, RSP, VCPU(sstatus) + m->pushed, (int32_t)RV64_SSTATUS_FS);
    x_mov_mi(x, false, RSP, VCPU(fp_loaded) + m->pushed, 1);
    x_ri(x, G_CMP, true, RSP, 0); // not equal
    x_byte(x, 0xc3);
    x_patch(other, x->at);
    x_rr(x, X_XOR, false, RAX, RAX); // equal
    x_patch(off, x->at);
    x_byte(x, 0xc3);
    m->pushed = 0;
    return at;
}

// --- Memory, when the translation cache does not know

// The fault: edx as the block gave it, in v->access_at.
static void make_fault(struct maker *m)
{
    struct x86 *x = &m->x;
    pop_return(m);
    x_rm(x, X_MOV, false, RDX, RSP, VCPU(access_at));
    place_and_count(m);
    save_some(m);
    call_c(m, (const void *)run_trap);
    restore_some(m);
    x_rm(x, X_MOV, true, R15, RSP, VCPU(context));
    x_rm(x, X_MOV, true, RAX, RSP, VCPU(pc));
    translate_jump_to(x, m->code, m->code->thunks.jump);
}

// The access itself, where the translation cache knows the page; returns the jump that is taken when not.
static uint8_t *access_known(struct maker *m, unsigned log2, bool is_store, bool is_signed)
{
    struct x86 *x = &m->x;
    enum rv64_access access = is_store ? RV64_WRITE : RV64_READ;
    if (is_store)
        x_rm(x, X_MOV_TO, true, RCX, RSP, VCPU(access_value) + m->pushed);
    x_rr(x, X_MOV, false, RCX, RAX);
    translate_tlb_index(x, RCX);
    x_rm(x, X_LEA, true, RDX, RAX, (1 << log2) - 1);
    translate_tlb_compare(x, RCX, access);
    uint8_t *unknown = x_jcc(x, CC_NE);
    x_rx(x, X_MOV, true, RCX, R15, RCX, 0, TRANSLATE_ADDEND(access));
    if (!is_store) {
        x_rx(x, translate_load_op(is_signed, log2), log2 == 3 || is_signed, RAX, RAX, RCX, 0, 0);
    } else {
        x_rm(x, X_MOV, true, RDX, RSP, VCPU(access_value) + m->pushed);
        if (log2 == 1)
            x_byte(x, 0x66);
        x_rx(x, log2 == 0 ? X_MOV8_TO : X_MOV_TO, log2 == 3, RDX, RAX, RCX, 0, 0);
    }
    x_byte(x, 0xc3);
    return unknown;
}

static void extend_loaded(struct maker *m, unsigned log2, bool is_signed)
{
    if (is_signed)
        x_rr(&m->x, translate_load_op(true, log2), true, RAX, RAX);
    x_byte(&m->x, 0xc3);
}

// Called with the guest's address in rax, in edx the offset and the count, a store's value in rcx; back with the value in rax.
static const uint8_t *make_access(struct maker *m, unsigned log2, bool is_store, bool is_signed)
{
    const uint8_t *at = here(m);
    struct x86 *x = &m->x;
    int status = is_store ? RAX : RDX;
    int64_t size = 1 << log2;
    m->pushed = 8;
    x_rm(x, X_MOV_TO, false, RDX, RSP, VCPU(access_at) + m->pushed);
    uint8_t *unknown = access_known(m, log2, is_store, is_signed);
    x_patch(unknown, x->at);
    x_rm(x, X_MOV_TO, true, RAX, RSP, VCPU(access_va) + m->pushed);
    save_some(m);
    x_rr(x, X_MOV, true, RSI, RAX);
    if (is_store)
        x_rm(x, X_MOV, true, RDX, RSP, VCPU(access_value) + m->pushed);
    x_mov_ri(x, is_store ? RCX : RDX, size);
    call_c(m, is_store ? (const void *)run_store : (const void *)run_load);
    restore_some(m);
    x_ri(x, G_CMP, false, status, ACCESS_FAULT);
    uint8_t *fault = x_jcc(x, CC_E);
    uint8_t *device = x_jcc(x, CC_A);
    extend_loaded(m, log2, is_signed);

    x_patch(device, x->at);
    save_all(m);
    x_rm(x, X_MOV, true, RSI, RSP, VCPU(access_va) + m->pushed);
    if (is_store)
        x_rm(x, X_MOV, true, RDX, RSP, VCPU(access_value) + m->pushed);
    x_mov_ri(x, is_store ? RCX : RDX, size);
    call_c(m, is_store ? (const void *)run_device_store : (const void *)run_device_load);
    restore_all(m);
    reload_floats(m);
    x_ri(x, G_CMP, false, status, ACCESS_FAULT);
    uint8_t *device_fault = x_jcc(x, CC_E);
    extend_loaded(m, log2, is_signed);

    x_patch(fault, x->at);
    x_patch(device_fault, x->at);
    make_fault(m);
    m->pushed = 0;
    return at;
}

// Called with the guest's address in rdx and the prediction (its offset in the vcpu) in ecx, when the page is not in the entry that
// was foretold. Equal: it is in the cache, the addend is in rcx, and that entry is foretold from now on, unless it changed too
// often.
static const uint8_t *make_search(struct maker *m, unsigned log2, enum rv64_access access)
{
    const uint8_t *at = here(m);
    struct x86 *x = &m->x;
    int32_t entry = (int32_t)offsetof(struct rv64_prediction, entry), changes = (int32_t)offsetof(struct rv64_prediction, changes);
    m->pushed = 8;
    x_push(x, RBX);
    m->pushed += 8;
    x_rr(x, X_MOV, false, RBX, RDX);
    translate_tlb_index(x, RBX);
    x_rm(x, X_LEA, true, RDX, RDX, (1 << log2) - 1);
    translate_tlb_compare(x, RBX, access);
    uint8_t *unknown = x_jcc8(x, CC_NE);
    x_byte(x, 0x66);
    x_rx(x, X_GROUP_I8, false, G_CMP, RSP, RCX, 0, changes + m->pushed);
    x_byte(x, 0);
    uint8_t *given_up = x_jcc8(x, CC_E);
    x_byte(x, 0x66);
    x_rx(x, X_GROUP_I8, false, G_SUB, RSP, RCX, 0, changes + m->pushed);
    x_byte(x, 1);
    x_byte(x, 0x66);
    x_rx(x, X_MOV_TO, false, RBX, RSP, RCX, 0, entry + m->pushed);
    x_patch8(x, given_up);
    x_rx(x, X_MOV, true, RCX, R15, RBX, 0, TRANSLATE_ADDEND(access));
    x_rr(x, X_CMP, false, RAX, RAX); // equal
    x_patch8(x, unknown);
    x_pop(x, RBX);
    x_byte(x, 0xc3);
    m->pushed = 0;
    return at;
}

// Called with the guest's addresses of a span's first and last byte in rcx and rdx. Equal: the addend of both is in rcx. Keeps rax.
static const uint8_t *make_span(struct maker *m, enum rv64_access access)
{
    const uint8_t *at = here(m);
    struct x86 *x = &m->x;
    m->pushed = 8;
    x_rm(x, X_MOV_TO, true, RCX, RSP, VCPU(access_va) + m->pushed);
    translate_tlb_index(x, RCX);
    translate_tlb_compare(x, RCX, access);
    uint8_t *unknown = x_jcc8(x, CC_NE);
    x_rx(x, X_MOV, true, RCX, R15, RCX, 0, TRANSLATE_ADDEND(access));
    x_byte(x, 0xc3);

    x_patch8(x, unknown);
    x_rm(x, X_MOV_TO, true, RAX, RSP, VCPU(access_value) + m->pushed);
    save_some(m);
    x_rm(x, X_MOV, true, RSI, RSP, VCPU(access_va) + m->pushed);
    x_mov_ri(x, RCX, access);
    call_c(m, (const void *)run_span); // its third argument is in rdx, but for the low bits, which do not matter
    restore_some(m);
    x_rr(x, X_MOV, true, RCX, RAX);
    x_rm(x, X_MOV, true, RAX, RSP, VCPU(access_value) + m->pushed);
    x_rr(x, X_TEST, true, RCX, RCX);
    x_setcc(x, CC_E, RDX);
    x_rr8(x, X_TEST - 1, RDX, RDX); // equal when there is one
    x_byte(x, 0xc3);
    m->pushed = 0;
    return at;
}

void code_make_thunks(struct rv64_code *c)
{
    struct maker m = {.x.at = c->write, .code = c};
    struct code_thunks *t = &c->thunks;
    t->leave = make_leave(&m);
    t->leave_at = make_leave_at(&m);
    t->leave_counting = make_leave_counting(&m);
    t->miss = make_miss(&m);
    t->jump = make_jump(&m);
    t->enter = make_enter(&m);
    t->link = make_link(&m, (const void *)run_link);
    t->link_plain = make_link(&m, (const void *)run_link_plain);
    t->step = make_step(&m);
    t->cold = make_cold(&m);
    t->light = make_light(&m);
    t->fp_load = make_fp_load(&m);
    t->hot = make_hot(&m);
    for (unsigned i = 0; i < 4; i++) {
        t->load[false][i] = make_access(&m, i, false, false);
        t->load[true][i] = make_access(&m, i, false, true);
        t->store[i] = make_access(&m, i, true, false);
        t->search[RV64_READ][i] = make_search(&m, i, RV64_READ);
        t->search[RV64_WRITE][i] = make_search(&m, i, RV64_WRITE);
    }
    t->span[RV64_READ] = make_span(&m, RV64_READ);
    t->span[RV64_WRITE] = make_span(&m, RV64_WRITE);
    c->thunk_bytes = c->used = (size_t)(m.x.at - c->write + 63) & ~63ull;
}
