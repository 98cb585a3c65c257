// Loads, stores and atomics: the translation cache inline, the rest out of line.
#include "machine/engine/rv64/x86_64/translate.h"

#define TLB_INDEX_MASK ((RV64_TLB_ENTRIES - 1) * (int32_t)sizeof(struct rv64_tlb_entry))
_Static_assert(sizeof(struct rv64_tlb_entry) == 16, "a page number becomes an entry's offset by a shift of 8");

#define TAG(access) (CONTEXT_TLB(access) + (int32_t)offsetof(struct rv64_tlb_entry, tag))
#define ADDEND(access) (CONTEXT_TLB(access) + (int32_t)offsetof(struct rv64_tlb_entry, addend))

static unsigned log2_of(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

// Leaves the host's address of x[base] + imm in rax. The jump it returns is taken when the page is not known or the access crosses
// its end; the guest's address is in rax then.
static uint8_t *host_address(struct translator *t, unsigned base, int32_t imm, unsigned size, enum rv64_access access)
{
    struct x86 *x = &t->x;
    int b = translate_source(t, base, RCX);
    x_rm(x, X_LEA, true, RAX, b, imm);
    if (size > 1)
        x_rm(x, X_LEA, true, RDX, b, imm + (int32_t)size - 1);
    else
        x_rr(x, X_MOV, true, RDX, RAX);
    x_rr(x, X_MOV, false, RCX, RAX);
    x_shift(x, SH_SHR, false, RCX, 8);
    x_ri(x, G_AND, false, RCX, TLB_INDEX_MASK);
    x_ri(x, G_AND, true, RDX, -(int32_t)RV64_PAGE_BYTES);
    x_rx(x, X_CMP, true, RDX, R15, RCX, 0, TAG(access));
    uint8_t *unknown = x_jcc(x, CC_NE);
    x_rx(x, X_ADD, true, RAX, R15, RCX, 0, ADDEND(access));
    return unknown;
}

// What a load leaves in `target`, from memory or (slow) from rax.
static void load_value(struct x86 *x, int target, unsigned size, bool is_signed)
{
    static const unsigned ops[2][4] = {{X_MOVZX8, X_MOVZX16, X_MOV, X_MOV}, {X_MOVSX8, X_MOVSX16, X_MOVSXD, X_MOV}};
    bool w = size == 8 || is_signed;
    x_rm(x, ops[is_signed][log2_of(size)], w, target, RAX, 0);
}

static uint32_t properties_of(const struct rv64_insn *insn)
{
    return rv64_insn_table[insn->op].properties;
}

static void load(struct translator *t, const struct rv64_insn *insn)
{
    uint32_t properties = properties_of(insn);
    unsigned size = RV64_P_SIZE_OF(properties);
    uint8_t *unknown = host_address(t, insn->rs1, insn->imm, size, RV64_READ);
    struct cold *c = translate_cold(t, COLD_LOAD, unknown, insn);
    int target = translate_target(insn->rd);
    load_value(&t->x, target, size, properties & RV64_P_SIGNED);
    translate_put(t, insn->rd, target);
    c->back = t->x.at;
}

static void load_float(struct translator *t, const struct rv64_insn *insn)
{
    unsigned size = RV64_P_SIZE_OF(properties_of(insn));
    translate_fp_need(t, insn);
    uint8_t *unknown = host_address(t, insn->rs1, insn->imm, size, RV64_READ);
    struct cold *c = translate_cold(t, COLD_LOAD, unknown, insn);
    int home = translate_fp_home(insn->rd);
    if (size == 8 && home >= 0) {
        x_rm(&t->x, X_MOVQ_XM, false, home, RAX, 0);
    } else if (size == 8) {
        x_rm(&t->x, X_MOV, true, RAX, RAX, 0);
        x_rm(&t->x, X_MOV_TO, true, RAX, RSP, VCPU_F(insn->rd));
    } else {
        x_rm(&t->x, X_MOV, false, RAX, RAX, 0);
        x_mov_ri(&t->x, RDX, (int64_t)0xffffffff00000000ull);
        x_rr(&t->x, X_OR, true, RAX, RDX);
        if (home >= 0)
            x_rr(&t->x, X_MOVQ_TO_X, true, home, RAX);
        else
            x_rm(&t->x, X_MOV_TO, true, RAX, RSP, VCPU_F(insn->rd));
        t->boxed |= 1u << insn->rd;
    }
    if (size == 8)
        t->boxed &= ~(1u << insn->rd);
    c->back = t->x.at;
}

static void store_value(struct x86 *x, int value, unsigned size)
{
    if (size == 1) {
        x_rm8(x, X_MOV8_TO, value, RAX, 0);
        return;
    }
    if (size == 2)
        x_byte(x, 0x66);
    x_rm(x, X_MOV_TO, size == 8, value, RAX, 0);
}

static void store(struct translator *t, const struct rv64_insn *insn)
{
    unsigned size = RV64_P_SIZE_OF(properties_of(insn));
    uint8_t *unknown = host_address(t, insn->rs1, insn->imm, size, RV64_WRITE);
    struct cold *c = translate_cold(t, COLD_STORE, unknown, insn);
    store_value(&t->x, translate_source(t, insn->rs2, RCX), size);
    c->back = t->x.at;
}

static void store_float(struct translator *t, const struct rv64_insn *insn)
{
    unsigned size = RV64_P_SIZE_OF(properties_of(insn));
    translate_fp_need(t, insn);
    uint8_t *unknown = host_address(t, insn->rs1, insn->imm, size, RV64_WRITE);
    struct cold *c = translate_cold(t, COLD_STORE, unknown, insn);
    int home = translate_fp_home(insn->rs2);
    if (home >= 0) {
        x_rm(&t->x, size == 8 ? X_MOVQ_MX : 0x660f7e, false, home, RAX, 0);
    } else {
        x_rm(&t->x, X_MOV, true, RCX, RSP, VCPU_F(insn->rs2));
        store_value(&t->x, RCX, size);
    }
    c->back = t->x.at;
}

// --- Out of line

static void where(struct translator *t, const struct cold *c)
{
    x_mov_ri(&t->x, RDX, (int64_t)(c->insn->offset | c->pending << 16));
}

static bool is_float(const struct rv64_insn *insn)
{
    return properties_of(insn) & RV64_P_FP;
}

void translate_slow_load(struct translator *t, const struct cold *c)
{
    const struct rv64_insn *insn = c->insn;
    uint32_t properties = properties_of(insn);
    unsigned size = RV64_P_SIZE_OF(properties);
    where(t, c);
    translate_call(&t->x, t->code, t->code->thunks.load[log2_of(size)]); // zero-extended in rax
    if (is_float(insn)) {
        if (size == 4) {
            x_mov_ri(&t->x, RDX, (int64_t)0xffffffff00000000ull);
            x_rr(&t->x, X_OR, true, RAX, RDX);
        }
        if (translate_fp_home(insn->rd) >= 0)
            x_rr(&t->x, X_MOVQ_TO_X, true, translate_fp_home(insn->rd), RAX);
        else
            x_rm(&t->x, X_MOV_TO, true, RAX, RSP, VCPU_F(insn->rd));
        return;
    }
    if (properties & RV64_P_SIGNED && size < 8) {
        if (size == 1)
            x_opcode(&t->x, X_MOVSX8, true, RAX, 0, RAX, false), x_byte(&t->x, 0xc0);
        else
            x_rr(&t->x, size == 2 ? X_MOVSX16 : X_MOVSXD, true, RAX, RAX);
    }
    translate_put(t, insn->rd, RAX);
}

void translate_slow_store(struct translator *t, const struct cold *c)
{
    const struct rv64_insn *insn = c->insn;
    unsigned size = RV64_P_SIZE_OF(properties_of(insn));
    if (is_float(insn) && translate_fp_home(insn->rs2) >= 0) {
        x_rr(&t->x, X_MOVQ_FROM_X, true, translate_fp_home(insn->rs2), RCX);
    } else if (is_float(insn)) {
        x_rm(&t->x, X_MOV, true, RCX, RSP, VCPU_F(insn->rs2));
    } else {
        int value = translate_source(t, insn->rs2, RCX);
        if (value != RCX)
            x_rr(&t->x, X_MOV, true, RCX, value);
    }
    where(t, c);
    translate_call(&t->x, t->code, t->code->thunks.store[log2_of(size)]);
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
    a->unknown = host_address(t, a->insn->rs1, 0, a->size, access);
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

bool translate_memory(struct translator *t, const struct rv64_insn *insn)
{
    if (insn->op >= RV64_OPS)
        return false;
    uint32_t properties = properties_of(insn);
    if (properties & RV64_P_ATOMIC)
        return translate_atomic(t, insn);
    if (!(properties & RV64_P_MEMORY) || RV64_P_SIZE_OF(properties) == 0)
        return false; // cbo among them
    if (properties & RV64_P_FP)
        properties & RV64_P_LOAD ? load_float(t, insn) : store_float(t, insn);
    else
        properties & RV64_P_LOAD ? load(t, insn) : store(t, insn);
    return true;
}
