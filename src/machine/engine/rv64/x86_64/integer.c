// Integer instructions. An operand without a home is read from the vcpu where it is needed.
#include "machine/engine/rv64/x86_64/translate.h"

#include <cpuid.h>

// op target, x[r]
static void with_register(struct translator *t, unsigned op, bool w, int target, unsigned r)
{
    int host = translate_home(r);
    if (host >= 0)
        x_rr(&t->x, op, w, target, host);
    else
        x_rm(&t->x, op, w, target, RSP, VCPU_X(r));
}

static void move_to(struct translator *t, int target, unsigned r)
{
    int host = translate_source(t, r, target);
    if (host != target)
        x_rr(&t->x, X_MOV, true, target, host);
}

static void move(struct translator *t, unsigned rd, unsigned rs)
{
    int d = translate_home(rd);
    if (rd == 0 || rd == rs)
        return;
    if (rs == 0 && d < 0)
        x_mov_mi(&t->x, true, RSP, VCPU_X(rd), 0);
    else if (d >= 0)
        move_to(t, d, rs);
    else
        translate_put(t, rd, translate_source(t, rs, RAX));
}

static void sign_extend_word(struct translator *t, int target)
{
    x_rr(&t->x, X_MOVSXD, true, target, target);
}

// rd = rs1 op rs2, of 64 or 32 bits
static void binary(struct translator *t, const struct rv64_insn *insn, unsigned op, bool w, bool commutes)
{
    unsigned a = insn->rs1, b = insn->rs2;
    int d = translate_target(insn->rd);
    if (commutes && insn->rd == b && a != b) {
        a = insn->rs2;
        b = insn->rs1;
    }
    int target = d != RAX && translate_home(b) == d && a != b ? RAX : d;
    move_to(t, target, a);
    if (b == 0)
        x_ri(&t->x, op == X_AND ? G_AND : G_ADD, w, target, 0);
    else
        with_register(t, op, w, target, b);
    if (!w)
        sign_extend_word(t, target);
    translate_put(t, insn->rd, target);
}

static void add(struct translator *t, const struct rv64_insn *insn)
{
    int a = translate_home(insn->rs1), b = translate_home(insn->rs2), d = translate_home(insn->rd);
    if (insn->rs1 == 0 || insn->rs2 == 0)
        move(t, insn->rd, insn->rs1 == 0 ? insn->rs2 : insn->rs1);
    else if (a >= 0 && b >= 0 && d >= 0 && d != a && d != b)
        x_rx(&t->x, X_LEA, true, d, a, b, 0, 0);
    else
        binary(t, insn, X_ADD, true, true);
}

static void add_immediate(struct translator *t, const struct rv64_insn *insn)
{
    int s = translate_home(insn->rs1), d = translate_home(insn->rd);
    if (insn->imm == 0) {
        move(t, insn->rd, insn->rs1);
    } else if (insn->rs1 == 0) {
        if (d >= 0)
            x_mov_ri(&t->x, d, insn->imm);
        else
            x_mov_mi(&t->x, true, RSP, VCPU_X(insn->rd), insn->imm);
    } else if (insn->rd == insn->rs1) {
        if (d >= 0)
            x_ri(&t->x, G_ADD, true, d, insn->imm);
        else
            x_mi(&t->x, G_ADD, true, RSP, VCPU_X(insn->rd), insn->imm);
    } else {
        int target = translate_target(insn->rd);
        s = translate_source(t, insn->rs1, RAX);
        x_rm(&t->x, X_LEA, true, target, s, insn->imm);
        translate_put(t, insn->rd, target);
    }
}

static void immediate(struct translator *t, const struct rv64_insn *insn, unsigned group, bool w)
{
    int target = translate_target(insn->rd);
    move_to(t, target, insn->rs1);
    if (w || insn->imm != 0)
        x_ri(&t->x, group, w, target, insn->imm);
    if (!w)
        sign_extend_word(t, target);
    translate_put(t, insn->rd, target);
}

static void add_immediate_word(struct translator *t, const struct rv64_insn *insn)
{
    int target = translate_target(insn->rd), s = translate_source(t, insn->rs1, RAX);
    if (insn->imm == 0) {
        x_rr(&t->x, X_MOVSXD, true, target, s);
    } else {
        x_rm(&t->x, X_LEA, false, target, s, insn->imm);
        sign_extend_word(t, target);
    }
    translate_put(t, insn->rd, target);
}

static void add_word(struct translator *t, const struct rv64_insn *insn)
{
    int a = translate_home(insn->rs1), b = translate_home(insn->rs2);
    if (a < 0 || b < 0) {
        binary(t, insn, X_ADD, false, true);
        return;
    }
    int target = translate_target(insn->rd);
    x_rx(&t->x, X_LEA, false, target, a, b, 0, 0);
    sign_extend_word(t, target);
    translate_put(t, insn->rd, target);
}

static void shift_immediate(struct translator *t, const struct rv64_insn *insn, unsigned group, bool w)
{
    int target = translate_target(insn->rd);
    move_to(t, target, insn->rs1);
    if (insn->imm != 0)
        x_shift(&t->x, group, w, target, (unsigned)insn->imm);
    if (!w)
        sign_extend_word(t, target);
    translate_put(t, insn->rd, target);
}

static void shift(struct translator *t, const struct rv64_insn *insn, unsigned group, bool w)
{
    move_to(t, RCX, insn->rs2);
    int target = translate_target(insn->rd);
    move_to(t, target, insn->rs1);
    x_shift_cl(&t->x, group, w, target);
    if (!w)
        sign_extend_word(t, target);
    translate_put(t, insn->rd, target);
}

static void set_condition(struct translator *t, const struct rv64_insn *insn, unsigned cc, bool with_immediate)
{
    int a = translate_source(t, insn->rs1, RAX);
    if (with_immediate)
        x_ri(&t->x, G_CMP, true, a, insn->imm);
    else if (insn->rs2 == 0)
        x_ri(&t->x, G_CMP, true, a, 0);
    else
        with_register(t, X_CMP, true, a, insn->rs2);
    x_setcc(&t->x, cc, RAX);
    int target = translate_target(insn->rd);
    x_rr8(&t->x, X_MOVZX8, target, RAX);
    translate_put(t, insn->rd, target);
}

static void constant(struct translator *t, const struct rv64_insn *insn)
{
    int d = translate_home(insn->rd);
    if (insn->rd == 0)
        return;
    if (d >= 0)
        x_mov_ri(&t->x, d, insn->imm);
    else
        x_mov_mi(&t->x, true, RSP, VCPU_X(insn->rd), insn->imm);
}

static void add_pc(struct translator *t, const struct rv64_insn *insn)
{
    int64_t distance = (int64_t)insn->imm + insn->offset;
    int target = translate_target(insn->rd);
    x_rm(&t->x, X_MOV, true, target, RSP, VCPU(page));
    if (distance <= INT32_MAX) {
        x_ri(&t->x, G_ADD, true, target, (int32_t)distance);
    } else {
        x_ri(&t->x, G_ADD, true, target, insn->imm);
        x_ri(&t->x, G_ADD, true, target, insn->offset);
    }
    translate_put(t, insn->rd, target);
}

// --- M

static void multiply(struct translator *t, const struct rv64_insn *insn, bool w)
{
    if (insn->rs1 == 0 || insn->rs2 == 0)
        move(t, insn->rd, 0);
    else
        binary(t, insn, X_IMUL, w, true);
}

// The upper half of the product. kind: f7's group: 4 unsigned, 5 signed; 6: signed by unsigned
static void multiply_high(struct translator *t, const struct rv64_insn *insn, unsigned kind)
{
    move_to(t, RAX, insn->rs1);
    int b = translate_source(t, insn->rs2, RCX);
    x_f7(&t->x, kind == 5 ? 5 : 4, true, b);
    if (kind == 6) { // a negative rs1 was taken for 2^64 more
        int a = translate_source(t, insn->rs1, RAX);
        if (a != RAX)
            x_rr(&t->x, X_MOV, true, RAX, a);
        x_shift(&t->x, SH_SAR, true, RAX, 63);
        x_rr(&t->x, X_AND, true, RAX, b);
        x_rr(&t->x, X_SUB, true, RDX, RAX);
    }
    translate_put(t, insn->rd, RDX);
}

// Division by zero gives all ones and the dividend; the overflow, the dividend and zero (Unprivileged ISA, table 11).
static void divide(struct translator *t, const struct rv64_insn *insn, bool is_signed, bool w, bool remainder)
{
    struct x86 *x = &t->x;
    int result = remainder ? RDX : RAX;
    uint8_t *minus_one = NULL, *done_minus_one = NULL;
    move_to(t, RCX, insn->rs2);
    move_to(t, RAX, insn->rs1);
    x_rr(x, X_TEST, w, RCX, RCX);
    uint8_t *by_zero = x_jcc8(x, CC_E);
    if (is_signed) {
        x_ri(x, G_CMP, w, RCX, -1);
        minus_one = x_jcc8(x, CC_E);
        if (w)
            x_byte(x, 0x48);
        x_byte(x, 0x99); // cqo, cdq
    } else {
        x_rr(x, X_XOR, false, RDX, RDX);
    }
    x_f7(x, is_signed ? 7 : 6, w, RCX);
    uint8_t *done = x_jmp8(x);
    if (is_signed) {
        x_patch8(x, minus_one);
        if (remainder)
            x_rr(x, X_XOR, false, RDX, RDX);
        else
            x_f7(x, 3, w, RAX);
        done_minus_one = x_jmp8(x);
    }
    x_patch8(x, by_zero);
    if (remainder)
        x_rr(x, X_MOV, true, RDX, RAX);
    else
        x_mov_ri(x, RAX, -1);
    x_patch8(x, done);
    if (is_signed)
        x_patch8(x, done_minus_one);
    if (!w)
        sign_extend_word(t, result);
    translate_put(t, insn->rd, result);
}

// --- Zba, Zbb, Zbs, Zicond

static void shift_add(struct translator *t, const struct rv64_insn *insn, unsigned amount, bool word)
{
    int a = translate_source(t, insn->rs1, RAX);
    if (word) {
        x_rr(&t->x, X_MOV, false, RAX, a);
        a = RAX;
    }
    int b = translate_source(t, insn->rs2, RCX), target = translate_target(insn->rd);
    x_rx(&t->x, X_LEA, true, target, b, a, amount, 0);
    translate_put(t, insn->rd, target);
}

static void shift_word_immediate(struct translator *t, const struct rv64_insn *insn)
{
    int target = translate_target(insn->rd), s = translate_source(t, insn->rs1, RAX);
    x_rr(&t->x, X_MOV, false, target, s);
    if (insn->imm != 0)
        x_shift(&t->x, SH_SHL, true, target, (unsigned)insn->imm);
    translate_put(t, insn->rd, target);
}

// rs1 op ~rs2; xnor: ~(rs1 ^ rs2)
static void with_complement(struct translator *t, const struct rv64_insn *insn, unsigned op)
{
    move_to(t, RAX, insn->rs2);
    x_f7(&t->x, 2, true, RAX);
    if (insn->rs1 == 0)
        x_ri(&t->x, op == X_AND ? G_AND : G_OR, true, RAX, 0);
    else
        with_register(t, op, true, RAX, insn->rs1);
    translate_put(t, insn->rd, RAX);
}

static void unary(struct translator *t, const struct rv64_insn *insn, unsigned op, bool w)
{
    int target = translate_target(insn->rd), s = translate_source(t, insn->rs1, RAX);
    x_rr(&t->x, op, w, target, s);
    translate_put(t, insn->rd, target);
}

static void extend(struct translator *t, const struct rv64_insn *insn, unsigned op)
{
    int target = translate_target(insn->rd), s = translate_source(t, insn->rs1, RAX);
    if (op == X_MOVSX8) {
        x_rr8(&t->x, op, target, s);
        sign_extend_word(t, target);
    } else {
        x_rr(&t->x, op, op == X_MOVSX16, target, s);
    }
    translate_put(t, insn->rd, target);
}

static void choose(struct translator *t, const struct rv64_insn *insn, unsigned cc)
{
    move_to(t, RAX, insn->rs1);
    int b = translate_source(t, insn->rs2, RCX);
    x_rr(&t->x, X_CMP, true, RAX, b);
    x_rr(&t->x, X_CMOV | cc, true, RAX, b);
    translate_put(t, insn->rd, RAX);
}

static void zero_if(struct translator *t, const struct rv64_insn *insn, unsigned cc)
{
    move_to(t, RAX, insn->rs1);
    x_rr(&t->x, X_XOR, false, RCX, RCX);
    int b = translate_source(t, insn->rs2, RDX);
    x_rr(&t->x, X_TEST, true, b, b);
    x_rr(&t->x, X_CMOV | cc, true, RAX, RCX);
    translate_put(t, insn->rd, RAX);
}

// Bits of an immediate or register number. group: bts 5, btr 6, btc 7
static void bit_immediate(struct translator *t, const struct rv64_insn *insn, unsigned group)
{
    int target = translate_target(insn->rd);
    move_to(t, target, insn->rs1);
    x_bt_imm(&t->x, group, target, (unsigned)insn->imm);
    translate_put(t, insn->rd, target);
}

static void bit_register(struct translator *t, const struct rv64_insn *insn, unsigned op)
{
    move_to(t, RAX, insn->rs1);
    int b = translate_source(t, insn->rs2, RCX);
    x_rr(&t->x, op, true, b, RAX); // bts, btr, btc r/m, reg: modulo 64
    translate_put(t, insn->rd, RAX);
}

static void bit_extract(struct translator *t, const struct rv64_insn *insn, bool with_immediate)
{
    if (with_immediate) {
        move_to(t, RAX, insn->rs1);
        x_shift(&t->x, SH_SHR, true, RAX, (unsigned)insn->imm);
    } else {
        move_to(t, RCX, insn->rs2);
        move_to(t, RAX, insn->rs1);
        x_shift_cl(&t->x, SH_SHR, true, RAX);
    }
    x_ri(&t->x, G_AND, false, RAX, 1);
    translate_put(t, insn->rd, RAX);
}

static void byte_reverse(struct translator *t, const struct rv64_insn *insn)
{
    int target = translate_target(insn->rd);
    move_to(t, target, insn->rs1);
    x_byte(&t->x, 0x48u | (target & 8 ? 1u : 0u));
    x_byte(&t->x, 0x0f);
    x_byte(&t->x, 0xc8u | (unsigned)(target & 7));
    translate_put(t, insn->rd, target);
}

// Each byte that is not zero becomes all ones.
static void or_combine(struct translator *t, const struct rv64_insn *insn)
{
    int s = translate_source(t, insn->rs1, RAX);
    x_rr(&t->x, X_MOVQ_TO_X, true, 0, s);
    x_rr(&t->x, X_XORPS, false, 1, 1);
    x_rr(&t->x, 0x660f74, false, 0, 1); // pcmpeqb
    x_rr(&t->x, X_MOVQ_FROM_X, true, 0, RAX);
    x_f7(&t->x, 2, true, RAX);
    translate_put(t, insn->rd, RAX);
}

static void fence(struct translator *t, const struct rv64_insn *insn)
{
    // The host orders all but loads behind earlier stores.
    if (insn->imm & 5 << 17 && insn->imm & 10 << 13) {
        x_byte(&t->x, 0xf0); // lock or dword [rsp + scratch], 0
        x_mi(&t->x, G_OR, false, RSP, VCPU(host_stack), 0);
    }
}

// Some compilers cannot ask for lzcnt by name. Asked once, since cpuid takes long in a virtual machine.
static bool has_lzcnt(void)
{
    static _Atomic int known = -1;
    int has = atomic_load_explicit(&known, memory_order_relaxed);
    if (has < 0) {
        unsigned a, b, c, d;
        has = __get_cpuid(0x80000001, &a, &b, &c, &d) && c & bit_LZCNT;
        atomic_store_explicit(&known, has, memory_order_relaxed);
    }
    return has;
}

static bool has_bit_counts(void)
{
    return __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") && has_lzcnt();
}

static bool translate_bits(struct translator *t, const struct rv64_insn *insn)
{
    switch (insn->op) {
    case RV64_OP_add_uw:
        return shift_add(t, insn, 0, true), true;
    case RV64_OP_sh1add:
        return shift_add(t, insn, 1, false), true;
    case RV64_OP_sh2add:
        return shift_add(t, insn, 2, false), true;
    case RV64_OP_sh3add:
        return shift_add(t, insn, 3, false), true;
    case RV64_OP_sh1add_uw:
        return shift_add(t, insn, 1, true), true;
    case RV64_OP_sh2add_uw:
        return shift_add(t, insn, 2, true), true;
    case RV64_OP_sh3add_uw:
        return shift_add(t, insn, 3, true), true;
    case RV64_OP_slli_uw:
        return shift_word_immediate(t, insn), true;
    case RV64_OP_andn:
        return with_complement(t, insn, X_AND), true;
    case RV64_OP_orn:
        return with_complement(t, insn, X_OR), true;
    case RV64_OP_xnor:
        return with_complement(t, insn, X_XOR), true;
    case RV64_OP_clz:
        return has_bit_counts() && (unary(t, insn, X_LZCNT, true), true);
    case RV64_OP_clzw:
        return has_bit_counts() && (unary(t, insn, X_LZCNT, false), true);
    case RV64_OP_ctz:
        return has_bit_counts() && (unary(t, insn, X_TZCNT, true), true);
    case RV64_OP_ctzw:
        return has_bit_counts() && (unary(t, insn, X_TZCNT, false), true);
    case RV64_OP_cpop:
        return has_bit_counts() && (unary(t, insn, X_POPCNT, true), true);
    case RV64_OP_cpopw:
        return has_bit_counts() && (unary(t, insn, X_POPCNT, false), true);
    case RV64_OP_sext_b:
        return extend(t, insn, X_MOVSX8), true;
    case RV64_OP_sext_h:
        return extend(t, insn, X_MOVSX16), true;
    case RV64_OP_zext_h:
        return extend(t, insn, X_MOVZX16), true;
    case RV64_OP_min:
        return choose(t, insn, CC_G), true;
    case RV64_OP_minu:
        return choose(t, insn, CC_A), true;
    case RV64_OP_max:
        return choose(t, insn, CC_L), true;
    case RV64_OP_maxu:
        return choose(t, insn, CC_B), true;
    case RV64_OP_rol:
        return shift(t, insn, SH_ROL, true), true;
    case RV64_OP_ror:
        return shift(t, insn, SH_ROR, true), true;
    case RV64_OP_rolw:
        return shift(t, insn, SH_ROL, false), true;
    case RV64_OP_rorw:
        return shift(t, insn, SH_ROR, false), true;
    case RV64_OP_rori:
        return shift_immediate(t, insn, SH_ROR, true), true;
    case RV64_OP_roriw:
        return shift_immediate(t, insn, SH_ROR, false), true;
    case RV64_OP_orc_b:
        return or_combine(t, insn), true;
    case RV64_OP_rev8:
        return byte_reverse(t, insn), true;
    case RV64_OP_bclri:
        return bit_immediate(t, insn, 6), true;
    case RV64_OP_bseti:
        return bit_immediate(t, insn, 5), true;
    case RV64_OP_binvi:
        return bit_immediate(t, insn, 7), true;
    case RV64_OP_bexti:
        return bit_extract(t, insn, true), true;
    case RV64_OP_bclr:
        return bit_register(t, insn, 0x0fb3), true;
    case RV64_OP_bset:
        return bit_register(t, insn, 0x0fab), true;
    case RV64_OP_binv:
        return bit_register(t, insn, 0x0fbb), true;
    case RV64_OP_bext:
        return bit_extract(t, insn, false), true;
    case RV64_OP_czero_eqz:
        return zero_if(t, insn, CC_E), true;
    case RV64_OP_czero_nez:
        return zero_if(t, insn, CC_NE), true;
    default:
        return false;
    }
}

static bool translate_multiply(struct translator *t, const struct rv64_insn *insn)
{
    switch (insn->op) {
    case RV64_OP_mul:
        return multiply(t, insn, true), true;
    case RV64_OP_mulw:
        return multiply(t, insn, false), true;
    case RV64_OP_mulh:
        return multiply_high(t, insn, 5), true;
    case RV64_OP_mulhu:
        return multiply_high(t, insn, 4), true;
    case RV64_OP_mulhsu:
        return multiply_high(t, insn, 6), true;
    case RV64_OP_div:
        return divide(t, insn, true, true, false), true;
    case RV64_OP_divu:
        return divide(t, insn, false, true, false), true;
    case RV64_OP_rem:
        return divide(t, insn, true, true, true), true;
    case RV64_OP_remu:
        return divide(t, insn, false, true, true), true;
    case RV64_OP_divw:
        return divide(t, insn, true, false, false), true;
    case RV64_OP_divuw:
        return divide(t, insn, false, false, false), true;
    case RV64_OP_remw:
        return divide(t, insn, true, false, true), true;
    case RV64_OP_remuw:
        return divide(t, insn, false, false, true), true;
    default:
        return false;
    }
}

static bool translate_basic(struct translator *t, const struct rv64_insn *insn)
{
    switch (insn->op) {
    case RV64_OP_lui:
        return constant(t, insn), true;
    case RV64_OP_auipc:
        return add_pc(t, insn), true;
    case RV64_OP_addi:
        return add_immediate(t, insn), true;
    case RV64_OP_slti:
        return set_condition(t, insn, CC_L, true), true;
    case RV64_OP_sltiu:
        return set_condition(t, insn, CC_B, true), true;
    case RV64_OP_xori:
        return immediate(t, insn, G_XOR, true), true;
    case RV64_OP_ori:
        return immediate(t, insn, G_OR, true), true;
    case RV64_OP_andi:
        return immediate(t, insn, G_AND, true), true;
    case RV64_OP_slli:
        return shift_immediate(t, insn, SH_SHL, true), true;
    case RV64_OP_srli:
        return shift_immediate(t, insn, SH_SHR, true), true;
    case RV64_OP_srai:
        return shift_immediate(t, insn, SH_SAR, true), true;
    case RV64_OP_add:
        return add(t, insn), true;
    case RV64_OP_sub:
        return binary(t, insn, X_SUB, true, false), true;
    case RV64_OP_sll:
        return shift(t, insn, SH_SHL, true), true;
    case RV64_OP_slt:
        return set_condition(t, insn, CC_L, false), true;
    case RV64_OP_sltu:
        return set_condition(t, insn, CC_B, false), true;
    case RV64_OP_xor:
        return binary(t, insn, X_XOR, true, true), true;
    case RV64_OP_srl:
        return shift(t, insn, SH_SHR, true), true;
    case RV64_OP_sra:
        return shift(t, insn, SH_SAR, true), true;
    case RV64_OP_or:
        return binary(t, insn, X_OR, true, true), true;
    case RV64_OP_and:
        return binary(t, insn, X_AND, true, true), true;
    case RV64_OP_addiw:
        return add_immediate_word(t, insn), true;
    case RV64_OP_slliw:
        return shift_immediate(t, insn, SH_SHL, false), true;
    case RV64_OP_srliw:
        return shift_immediate(t, insn, SH_SHR, false), true;
    case RV64_OP_sraiw:
        return shift_immediate(t, insn, SH_SAR, false), true;
    case RV64_OP_addw:
        return add_word(t, insn), true;
    case RV64_OP_subw:
        return binary(t, insn, X_SUB, false, false), true;
    case RV64_OP_sllw:
        return shift(t, insn, SH_SHL, false), true;
    case RV64_OP_srlw:
        return shift(t, insn, SH_SHR, false), true;
    case RV64_OP_sraw:
        return shift(t, insn, SH_SAR, false), true;
    default:
        return false;
    }
}

bool translate_integer(struct translator *t, const struct rv64_insn *insn)
{
    if (insn->op == RV64_OP_fence)
        return fence(t, insn), true;
    uint32_t properties = insn->op < RV64_OPS ? rv64_insn_table[insn->op].properties : RV64_P_SYSTEM;
    if (properties != 0)
        return false;
    if (insn->rd == 0)
        return true; // writes nothing and can do nothing else
    return translate_basic(t, insn) || translate_multiply(t, insn) || translate_bits(t, insn);
}
