// Loads, stores and atomics: the translation cache inline, the rest out of line.
#include "machine/engine/rv64/x86_64/translate.h"

void translate_tlb_index(struct x86 *x, int at)
{
    x_shift(x, SH_SHR, false, at, 8);
    x_ri(x, G_AND, false, at, TRANSLATE_TLB_INDEX_MASK);
}

void translate_tlb_compare(struct x86 *x, int index, enum rv64_access access)
{
    x_ri(x, G_OR, true, RDX, (int32_t)RV64_PAGE_BYTES - 1);
    x_rx(x, X_CMP, true, RDX, R15, index, 0, TRANSLATE_TAG(access));
}

unsigned translate_load_op(bool is_signed, unsigned log2)
{
    static const unsigned ops[2][4] = {{X_MOVZX8, X_MOVZX16, X_MOV, X_MOV}, {X_MOVSX8, X_MOVSX16, X_MOVSXD, X_MOV}};
    return ops[is_signed][log2];
}

static unsigned log2_of(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

// Looks up the page of what lies from x[base] + first to x[base] + last; the addend is in rcx then. The jump it returns is taken
// when the page is not known, or there are two. Changes rdx, and rax when the base has no home.
static uint8_t *look_up(struct translator *t, unsigned base, int32_t first, int32_t last, enum rv64_access access, int *host_base)
{
    struct x86 *x = &t->x;
    int b = translate_source(t, base, RAX);
    if (first == 0)
        x_rr(x, X_MOV, false, RCX, b);
    else
        x_rm(x, X_LEA, false, RCX, b, first);
    if (last == 0)
        x_rr(x, X_MOV, true, RDX, b);
    else
        x_rm(x, X_LEA, true, RDX, b, last);
    translate_tlb_index(x, RCX);
    translate_tlb_compare(x, RCX, access);
    uint8_t *unknown = x_jcc(x, CC_NE);
    x_rx(x, X_MOV, true, RCX, R15, RCX, 0, TRANSLATE_ADDEND(access));
    *host_base = b;
    return unknown;
}

static uint32_t properties_of(const struct rv64_insn *insn)
{
    return rv64_insn_table[insn->op].properties;
}

static unsigned size_of(const struct rv64_insn *insn)
{
    return RV64_P_SIZE_OF(properties_of(insn));
}

static bool is_float(const struct rv64_insn *insn)
{
    return properties_of(insn) & RV64_P_FP;
}

#define BOX ((int64_t)0xffffffff00000000ull)

static void load_integer(struct translator *t, const struct rv64_insn *insn, int base, int addend)
{
    unsigned size = size_of(insn);
    bool is_signed = properties_of(insn) & RV64_P_SIGNED;
    int home = translate_home(insn->rd), target = home >= 0 ? home : RDX;
    x_rx(&t->x, translate_load_op(is_signed, log2_of(size)), size == 8 || is_signed, target, base, addend, 0, insn->imm);
    translate_put(t, insn->rd, target);
}

static void load_float(struct translator *t, const struct rv64_insn *insn, int base, int addend)
{
    int home = translate_fp_home(insn->rd);
    if (size_of(insn) == 8 && home >= 0) {
        x_rx(&t->x, X_MOVQ_XM, false, home, base, addend, 0, insn->imm);
    } else if (size_of(insn) == 8) {
        x_rx(&t->x, X_MOV, true, RDX, base, addend, 0, insn->imm);
        x_rm(&t->x, X_MOV_TO, true, RDX, RSP, VCPU_F(insn->rd));
    } else { // a NaN box: movd, and all ones above
        int xmm = home >= 0 ? home : 0;
        x_rx(&t->x, 0x660f6e, false, xmm, base, addend, 0, insn->imm);
        x_rm(&t->x, X_ORPS, false, xmm, RSP, VCPU(box));
        if (home < 0)
            x_rm(&t->x, X_MOVQ_MX, false, 0, RSP, VCPU_F(insn->rd));
    }
}

static void store_integer(struct translator *t, const struct rv64_insn *insn, int base, int addend)
{
    unsigned size = size_of(insn);
    int value = translate_source(t, insn->rs2, RDX);
    if (size == 2)
        x_byte(&t->x, 0x66);
    if (size == 1) {
        x_opcode(&t->x, X_MOV8_TO, false, value, addend, base, value >= RSP);
        x_sib(&t->x, value, base, addend, 0, insn->imm);
    } else {
        x_rx(&t->x, X_MOV_TO, size == 8, value, base, addend, 0, insn->imm);
    }
}

static void store_float(struct translator *t, const struct rv64_insn *insn, int base, int addend)
{
    unsigned size = size_of(insn);
    int home = translate_fp_home(insn->rs2);
    if (home >= 0) {
        x_rx(&t->x, size == 8 ? X_MOVQ_MX : X_MOVQ_FROM_X, false, home, base, addend, 0, insn->imm);
    } else {
        x_rm(&t->x, X_MOV, true, RDX, RSP, VCPU_F(insn->rs2));
        x_rx(&t->x, X_MOV_TO, size == 8, RDX, base, addend, 0, insn->imm);
    }
}

// What is known of floating-point registers after a load.
static void note_load(struct translator *t, const struct rv64_insn *insn)
{
    if (!is_float(insn) || properties_of(insn) & RV64_P_STORE)
        return;
    if (size_of(insn) == 4)
        t->boxed |= 1u << insn->rd;
    else
        t->boxed &= ~(1u << insn->rd);
}

// addend: the register that holds it
static void access_at(struct translator *t, const struct rv64_insn *insn, int base, int addend)
{
    bool is_store = properties_of(insn) & RV64_P_STORE;
    if (is_float(insn))
        is_store ? store_float(t, insn, base, addend) : load_float(t, insn, base, addend);
    else
        is_store ? store_integer(t, insn, base, addend) : load_integer(t, insn, base, addend);
    note_load(t, insn);
}

bool translate_is_access(const struct rv64_insn *insn)
{
    if (insn->op >= RV64_OPS)
        return false;
    uint32_t properties = properties_of(insn);
    return properties & RV64_P_MEMORY && !(properties & RV64_P_ATOMIC) && RV64_P_SIZE_OF(properties) != 0; // no cbo
}

static void single_access(struct translator *t, const struct rv64_insn *insn)
{
    enum rv64_access access = properties_of(insn) & RV64_P_STORE ? RV64_WRITE : RV64_READ;
    int base;
    uint8_t *unknown = look_up(t, insn->rs1, insn->imm, insn->imm + (int32_t)size_of(insn) - 1, access, &base);
    struct cold *c = translate_cold(t, COLD_ACCESS, unknown, insn);
    access_at(t, insn, base, RCX);
    c->back = t->x.at;
    translate_hold_nothing(t);
}

// An access whose address comes late, since it was computed from something just loaded, must not wait for the search as well: it
// tries the entry of the translation cache that served it last time, which does not depend on the address. Places whose pages are
// hard to foretell give that up for a while (v->predictions).
static int32_t prediction_of(const struct translator *t, const struct rv64_insn *insn)
{
    size_t place = (size_t)(insn - t->insns) * 7 + (size_t)t->start / 2 + t->code->notes_used / 16;
    return VCPU(predictions) + (int32_t)(place % RV64_PREDICTIONS) * (int32_t)sizeof(struct rv64_prediction);
}

// Compares the page of the access with the entry at rcx. What is misaligned may lie in two pages: *misaligned, if that can be.
static uint8_t *page_differs(struct translator *t, const struct rv64_insn *insn, int base, enum rv64_access access,
                             uint8_t **misaligned)
{
    unsigned size = size_of(insn);
    if (insn->imm == 0)
        x_rr(&t->x, X_MOV, true, RDX, base);
    else
        x_rm(&t->x, X_LEA, true, RDX, base, insn->imm);
    *misaligned = NULL;
    if (size > 1) {
        x_byte(&t->x, 0xf6); // test dl, size - 1
        x_byte(&t->x, 0xc0 | RDX);
        x_byte(&t->x, size - 1);
        *misaligned = x_jcc(&t->x, CC_NE);
    }
    translate_tlb_compare(&t->x, RCX, access);
    return x_jcc(&t->x, CC_NE);
}

static void predicted_access(struct translator *t, const struct rv64_insn *insn)
{
    enum rv64_access access = properties_of(insn) & RV64_P_STORE ? RV64_WRITE : RV64_READ;
    int base = translate_source(t, insn->rs1, RAX);
    int32_t prediction = prediction_of(t, insn);
    x_rm(&t->x, X_MOVZX16, false, RCX, RSP, prediction + (int32_t)offsetof(struct rv64_prediction, entry));
    uint8_t *misaligned, *differs = page_differs(t, insn, base, access, &misaligned);
    struct cold *c = translate_cold(t, COLD_PREDICT, differs, insn);
    c->misaligned = misaligned;
    c->target = (uint32_t)prediction;
    x_rx(&t->x, X_MOV, true, RCX, R15, RCX, 0, TRANSLATE_ADDEND(access));
    c->resume = t->x.at;
    access_at(t, insn, base, RCX);
    c->back = t->x.at;
    translate_hold_nothing(t);
}

void translate_search(struct translator *t, const struct cold *c)
{
    struct x86 *x = &t->x;
    const struct rv64_insn *insn = c->insn;
    enum rv64_access access = properties_of(insn) & RV64_P_STORE ? RV64_WRITE : RV64_READ;
    int base = translate_home(insn->rs1) >= 0 ? translate_home(insn->rs1) : RAX;
    x_rm(x, X_LEA, true, RDX, base, insn->imm);
    x_mov_ri(x, RCX, c->target);
    translate_call(x, t->code, t->code->thunks.search[access][log2_of(size_of(insn))]);
    uint8_t *known = x_jcc(x, CC_E);
    x_patch(known, c->resume);
    if (c->misaligned)
        x_patch(c->misaligned, x->at);
    translate_slow_access(t, c);
}

// The addend of a span's page into rcx; the jump it returns is taken when there is none, or there are two pages.
static uint8_t *find_addend(struct translator *t, int base, int64_t first, int64_t last, enum rv64_access access)
{
    x_rm(&t->x, X_LEA, true, RCX, base, (int32_t)first);
    x_rm(&t->x, X_LEA, true, RDX, base, (int32_t)last);
    translate_call(&t->x, t->code, t->code->thunks.span[access]);
    return x_jcc(&t->x, CC_NE);
}

// The first of a span.
static void leading_access(struct translator *t, const struct rv64_insn *insn, struct span *s, int64_t base_offset)
{
    int64_t first = s->first - base_offset, last = s->last - base_offset;
    int base;
    uint8_t *unknown;
    if (translate_is_small(t)) {
        base = translate_source(t, insn->rs1, RAX);
        unknown = find_addend(t, base, first, last, s->access);
    } else {
        unknown = look_up(t, insn->rs1, (int32_t)first, (int32_t)last, s->access, &base);
    }
    struct cold *c = translate_cold(t, COLD_SPAN, unknown, insn);
    c->first = first;
    c->last = last;
    c->reg = (int)s->access;
    if (s->slot >= 0)
        x_rm(&t->x, X_MOV_TO, true, RCX, RSP, VCPU(addends) + 8 * s->slot);
    access_at(t, insn, base, RCX);
    s->looked_up = true;
    t->held[0] = (unsigned)(s - t->spans);
    if (base == RAX)
        t->held[1] = SPAN_NONE;
}

// rcx and rax hold the addends of two spans, if the base needs no scratch register, so that a copy from one to the other has both.
static void following_access(struct translator *t, const struct rv64_insn *insn, const struct span *s, unsigned n)
{
    int base = translate_source(t, insn->rs1, RAX);
    if (base == RAX)
        t->held[1] = SPAN_NONE;
    unsigned in_rax = t->held[1] == n || (t->held[0] != n && t->held[0] != SPAN_NONE && base != RAX);
    int addend = in_rax ? RAX : RCX;
    if (t->held[in_rax] != n)
        x_rm(&t->x, X_MOV, true, addend, RSP, VCPU(addends) + 8 * s->slot);
    t->held[in_rax] = n;
    access_at(t, insn, base, addend);
}

// --- Out of line

static void where(struct translator *t, const struct rv64_insn *insn, unsigned pending)
{
    x_mov_ri(&t->x, RDX, (int64_t)(insn->offset | pending << 16));
}

static void address(struct translator *t, const struct rv64_insn *insn)
{
    int b = translate_source(t, insn->rs1, RAX);
    if (insn->imm != 0)
        x_rm(&t->x, X_LEA, true, RAX, b, insn->imm);
    else if (b != RAX)
        x_rr(&t->x, X_MOV, true, RAX, b);
}

static void slow_load(struct translator *t, const struct rv64_insn *insn, unsigned pending)
{
    unsigned size = size_of(insn);
    address(t, insn);
    where(t, insn, pending);
    bool is_signed = !is_float(insn) && properties_of(insn) & RV64_P_SIGNED && size < 8;
    translate_call(&t->x, t->code, t->code->thunks.load[is_signed][log2_of(size)]);
    if (is_float(insn)) {
        if (size == 4) {
            x_mov_ri(&t->x, RDX, BOX);
            x_rr(&t->x, X_OR, true, RAX, RDX);
        }
        if (translate_fp_home(insn->rd) >= 0)
            x_rr(&t->x, X_MOVQ_TO_X, true, translate_fp_home(insn->rd), RAX);
        else
            x_rm(&t->x, X_MOV_TO, true, RAX, RSP, VCPU_F(insn->rd));
        return;
    }
    translate_put(t, insn->rd, RAX);
}

static void slow_store(struct translator *t, const struct rv64_insn *insn, unsigned pending)
{
    address(t, insn);
    if (is_float(insn) && translate_fp_home(insn->rs2) >= 0) {
        x_rr(&t->x, X_MOVQ_FROM_X, true, translate_fp_home(insn->rs2), RCX);
    } else if (is_float(insn)) {
        x_rm(&t->x, X_MOV, true, RCX, RSP, VCPU_F(insn->rs2));
    } else {
        int value = translate_source(t, insn->rs2, RCX);
        if (value != RCX)
            x_rr(&t->x, X_MOV, true, RCX, value);
    }
    where(t, insn, pending);
    translate_call(&t->x, t->code, t->code->thunks.store[log2_of(size_of(insn))]);
}

static void slow_access(struct translator *t, const struct rv64_insn *insn, unsigned pending)
{
    if (properties_of(insn) & RV64_P_STORE)
        slow_store(t, insn, pending);
    else
        slow_load(t, insn, pending);
}

void translate_slow_access(struct translator *t, const struct cold *c)
{
    slow_access(t, c->insn, c->pending);
}

void translate_slow_span(struct translator *t, const struct cold *c)
{
    if (translate_is_small(t))
        return;
    int base = translate_home(c->insn->rs1) >= 0 ? translate_home(c->insn->rs1) : RAX;
    uint8_t *none = find_addend(t, base, c->first, c->last, (enum rv64_access)c->reg);
    uint8_t *found = x_jmp(&t->x);
    x_patch(found, c->back);
    x_patch(none, t->x.at);
}

// --- Atomics. What is not aligned or not in the cache is the interpreter's.

struct atomic {
    struct translator *t;
    const struct rv64_insn *insn;
    unsigned size;
    uint8_t *misaligned, *unknown;
};

// The host's address in rax.
static void atomic_begin(struct atomic *a, enum rv64_access access)
{
    struct translator *t = a->t;
    int b = translate_source(t, a->insn->rs1, RCX);
    x_opcode(&t->x, 0xf6, false, 0, 0, b, b >= RSP); // test b, size - 1
    x_byte(&t->x, 0xc0u | (unsigned)(b & 7));
    x_byte(&t->x, a->size - 1);
    a->misaligned = x_jcc(&t->x, CC_NE);
    int base;
    a->unknown = look_up(t, a->insn->rs1, 0, (int32_t)a->size - 1, access, &base);
    x_rx(&t->x, X_LEA, true, RAX, base, RCX, 0, 0);
}

static void atomic_end(struct atomic *a)
{
    struct translator *t = a->t;
    translate_cold(t, COLD_STEP, a->misaligned, a->insn);
    translate_cold(t, COLD_STEP, a->unknown, a->insn);
}

static void extend_old(struct atomic *a, int old)
{
    if (a->size == 4)
        x_rr(&a->t->x, X_MOVSXD, true, old, old);
    translate_put(a->t, a->insn->rd, old);
}

static void move_operand(struct atomic *a, int to)
{
    int s = translate_source(a->t, a->insn->rs2, to);
    if (s != to)
        x_rr(&a->t->x, X_MOV, true, to, s);
}

static void exchange(struct atomic *a, bool add)
{
    struct x86 *x = &a->t->x;
    move_operand(a, RCX);
    if (add)
        x_byte(x, 0xf0);
    x_rm(x, add ? X_XADD : X_XCHG, a->size == 8, RCX, RAX, 0);
    extend_old(a, RCX);
}

static void combine(struct atomic *a, unsigned op)
{
    struct x86 *x = &a->t->x;
    bool w = a->size == 8;
    x_rr(x, X_MOV, true, RCX, RAX);
    x_rm(x, X_MOV, w, RAX, RCX, 0);
    uint8_t *again = x->at;
    x_rr(x, X_MOV, true, RDX, RAX);
    int s = translate_home(a->insn->rs2);
    if (s >= 0)
        x_rr(x, op, w, RDX, s);
    else if (a->insn->rs2 == 0)
        x_ri(x, op == X_AND ? G_AND : G_OR, w, RDX, 0);
    else
        x_rm(x, op, w, RDX, RSP, VCPU_X(a->insn->rs2));
    x_byte(x, 0xf0);
    x_rm(x, X_CMPXCHG, w, RDX, RCX, 0);
    uint8_t *failed = x_jcc(x, CC_NE);
    x_patch(failed, again);
    extend_old(a, RAX);
}

static void load_reserved(struct atomic *a)
{
    struct x86 *x = &a->t->x;
    x_rm(x, X_MOV, a->size == 8, RCX, RAX, 0);
    if (a->size == 8)
        x_ri(x, G_OR, true, RAX, 1);
    x_rm(x, X_MOV_TO, true, RAX, RSP, VCPU(reserved_addr));
    x_rm(x, X_MOV_TO, true, RCX, RSP, VCPU(reserved_value));
    extend_old(a, RCX);
}

static void store_conditional(struct atomic *a)
{
    struct x86 *x = &a->t->x;
    x_rr(x, X_MOV, true, RCX, RAX);
    if (a->size == 8)
        x_ri(x, G_OR, true, RAX, 1);
    x_rm(x, X_CMP, true, RAX, RSP, VCPU(reserved_addr));
    x_mov_mi(x, true, RSP, VCPU(reserved_addr), -1); // leaves the flags alone
    uint8_t *failed = x_jcc8(x, CC_NE);
    x_rm(x, X_MOV, true, RAX, RSP, VCPU(reserved_value));
    int s = translate_home(a->insn->rs2);
    if (s < 0) {
        s = RDX;
        if (a->insn->rs2 == 0)
            x_mov_ri(x, RDX, 0);
        else
            x_rm(x, X_MOV, true, RDX, RSP, VCPU_X(a->insn->rs2));
    }
    x_byte(x, 0xf0);
    x_rm(x, X_CMPXCHG, a->size == 8, s, RCX, 0);
    x_patch8(x, failed);
    x_setcc(x, CC_NE, RAX);
    x_rr8(x, X_MOVZX8, RAX, RAX);
    translate_put(a->t, a->insn->rd, RAX);
}

static bool translate_atomic(struct translator *t, const struct rv64_insn *insn)
{
    struct atomic a = {.t = t, .insn = insn, .size = RV64_P_SIZE_OF(properties_of(insn))};
    switch (insn->op) {
    case RV64_OP_lr_w:
    case RV64_OP_lr_d:
        atomic_begin(&a, RV64_READ);
        load_reserved(&a);
        break;
    case RV64_OP_sc_w:
    case RV64_OP_sc_d:
        atomic_begin(&a, RV64_WRITE);
        store_conditional(&a);
        break;
    case RV64_OP_amoswap_w:
    case RV64_OP_amoswap_d:
    case RV64_OP_amoadd_w:
    case RV64_OP_amoadd_d:
        atomic_begin(&a, RV64_WRITE);
        exchange(&a, insn->op == RV64_OP_amoadd_w || insn->op == RV64_OP_amoadd_d);
        break;
    case RV64_OP_amoxor_w:
    case RV64_OP_amoxor_d:
        atomic_begin(&a, RV64_WRITE);
        combine(&a, X_XOR);
        break;
    case RV64_OP_amoand_w:
    case RV64_OP_amoand_d:
        atomic_begin(&a, RV64_WRITE);
        combine(&a, X_AND);
        break;
    case RV64_OP_amoor_w:
    case RV64_OP_amoor_d:
        atomic_begin(&a, RV64_WRITE);
        combine(&a, X_OR);
        break;
    default:
        return false; // minimum and maximum
    }
    atomic_end(&a);
    return true;
}

// cbo.zero, by which kernels clear pages. What is not in the cache, what U mode may only by leave, and what an audit has apart is
// the interpreter's.
static bool translate_zero(struct translator *t, const struct rv64_insn *insn)
{
    struct x86 *x = &t->x;
    if (insn->op != RV64_OP_cbo_zero || !(t->priv & RV64_S) || !t->code->chain)
        return false;
    int b = translate_source(t, insn->rs1, RAX);
    if (b != RAX)
        x_rr(x, X_MOV, true, RAX, b);
    x_ri(x, G_AND, true, RAX, -RV64_CACHE_BLOCK_BYTES);
    x_rr(x, X_MOV, false, RCX, RAX);
    translate_tlb_index(x, RCX);
    x_rr(x, X_MOV, true, RDX, RAX);
    translate_tlb_compare(x, RCX, RV64_WRITE);
    uint8_t *unknown = x_jcc(x, CC_NE);
    struct cold *c = translate_cold(t, COLD_STEP, unknown, insn);
    x_rx(x, X_MOV, true, RCX, R15, RCX, 0, TRANSLATE_ADDEND(RV64_WRITE));
    x_rr(x, X_XORPS, false, 0, 0);
    for (int32_t at = 0; at < RV64_CACHE_BLOCK_BYTES; at += 16)
        x_rx(x, X_MOVAPS_TO, false, 0, RAX, RCX, 0, at);
    c->back = x->at;
    return true;
}

bool translate_memory(struct translator *t, const struct rv64_insn *insn)
{
    if (insn->op < RV64_OPS && properties_of(insn) & RV64_P_ATOMIC)
        return translate_atomic(t, insn);
    if (translate_zero(t, insn)) {
        translate_hold_nothing(t);
        return true;
    }
    if (!translate_is_access(insn))
        return false;
    size_t i = (size_t)(insn - t->insns);
    unsigned n = t->span_of[i];
    struct span *s = n == SPAN_NONE ? NULL : &t->spans[n];
    if (is_float(insn)) {
        if (!t->fp_ready)
            t->held[1] = SPAN_NONE;
        translate_fp_need(t, insn);
    }
    if (translate_is_small(t) && (!s || s->n_accesses < SPAN_OF_SMALL_MIN)) {
        slow_access(t, insn, t->pending);
        note_load(t, insn);
        translate_hold_nothing(t);
        return true;
    }
    if (!s || s->n_accesses == 1) {
        if (s && t->base_loaded[i])
            predicted_access(t, insn);
        else
            single_access(t, insn);
        return true;
    }
    if (s->looked_up)
        following_access(t, insn, s, n);
    else
        leading_access(t, insn, s, t->base_offset[i]);
    return true;
}
