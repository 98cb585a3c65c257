// Floating point on the host's, in round-to-nearest and with the host collecting the flags; both formats are IEEE 754's, and the
// hosts' defaults (tininess after rounding, no flushing) are RISC-V's. What differs is put right here: NaNs are canonical, singles
// are NaN boxes. What is rare (other rounding modes, saturating conversions) is the interpreter's.
//
// v->fp_loaded says that the homes hold the registers, sstatus.FS is dirty and frm is round-to-nearest.
#include "machine/engine/rv64/x86_64/translate.h"

enum { XMM0, XMM1 };

// fa0..fa7 and ft0..ft4 have homes, xmm2 to xmm14.
int translate_fp_home(unsigned f)
{
    return f >= 10 && f <= 17 ? (int)f - 8 : f <= 4 ? (int)f + 10 : -1;
}

void translate_fp_need(struct translator *t, const struct rv64_insn *insn)
{
    if (t->fp_ready)
        return;
    x_mi(&t->x, G_CMP, false, RSP, VCPU(fp_loaded), 0);
    uint8_t *site = x_jcc(&t->x, CC_E);
    translate_cold(t, COLD_FP, site, insn);
    t->fp_ready = true;
}

static bool is_boxed(const struct translator *t, unsigned f)
{
    return t->boxed >> f & 1;
}

static void step_if(struct translator *t, unsigned cc, const struct rv64_insn *insn)
{
    translate_cold(t, COLD_STEP, x_jcc(&t->x, cc), insn);
}

// A single that is no NaN box counts as NaN: the interpreter's.
static void need_box(struct translator *t, unsigned f, const struct rv64_insn *insn)
{
    int home = translate_fp_home(f);
    if (is_boxed(t, f))
        return;
    if (home >= 0) {
        x_rr(&t->x, X_MOVQ_FROM_X, true, home, RAX);
        x_shift(&t->x, SH_SHR, true, RAX, 32);
        x_ri(&t->x, G_CMP, false, RAX, -1);
    } else {
        x_mi(&t->x, G_CMP, false, RSP, VCPU_F(f) + 4, -1);
    }
    step_if(t, CC_NE, insn);
    t->boxed |= 1u << f;
}

// An xmm register that holds f.
static int source(struct translator *t, unsigned f, int scratch)
{
    int home = translate_fp_home(f);
    if (home >= 0)
        return home;
    x_rm(&t->x, X_MOVQ_XM, false, scratch, RSP, VCPU_F(f));
    return scratch;
}

static void copy(struct translator *t, int to, int from)
{
    if (to != from)
        x_rr(&t->x, X_MOVAPS, false, to, from);
}

static void put(struct translator *t, unsigned f, int from, bool single)
{
    int home = translate_fp_home(f);
    if (home >= 0)
        copy(t, home, from);
    else
        x_rm(&t->x, X_MOVQ_MX, false, from, RSP, VCPU_F(f));
    if (single)
        t->boxed |= 1u << f;
    else
        t->boxed &= ~(1u << f);
}

static void put_integer(struct translator *t, unsigned f, int gpr, bool single)
{
    x_rr(&t->x, X_MOVQ_TO_X, true, XMM0, gpr);
    put(t, f, XMM0, single);
}

static void canonical(struct translator *t, int reg, bool single)
{
    x_rr(&t->x, single ? X_UCOMISS : X_UCOMISD, false, reg, reg);
    struct cold *c = translate_cold(t, COLD_NAN, x_jcc(&t->x, CC_P), NULL);
    c->reg = reg;
    c->target = single;
}

static bool nearest(const struct rv64_insn *insn)
{
    return RV64_INSN_RM(insn) == RV64_RNE || RV64_INSN_RM(insn) == RV64_DYN;
}

static unsigned scalar(unsigned op, bool single) // the opcode's prefix by format
{
    return (single ? 0xf30f00u : 0xf20f00u) | op;
}

static bool binary(struct translator *t, const struct rv64_insn *insn, unsigned op, bool single, bool commutes)
{
    if (!nearest(insn))
        return false;
    unsigned a = insn->rs1, b = insn->rs2;
    translate_fp_need(t, insn);
    if (single) {
        need_box(t, a, insn);
        need_box(t, b, insn);
    }
    if (commutes && insn->rd == b) {
        a = insn->rs2;
        b = insn->rs1;
    }
    int home = translate_fp_home(insn->rd);
    int target = home >= 0 && home != translate_fp_home(b) ? home : XMM0;
    if (a == b)
        target = home >= 0 ? home : XMM0;
    copy(t, target, source(t, a, target)); // a box stays one: scalar operations leave the upper half alone
    if (a == b)
        x_rr(&t->x, scalar(op, single), false, target, target);
    else if (translate_fp_home(b) >= 0)
        x_rr(&t->x, scalar(op, single), false, target, translate_fp_home(b));
    else
        x_rm(&t->x, scalar(op, single), false, target, RSP, VCPU_F(b));
    canonical(t, target, single);
    put(t, insn->rd, target, single);
    return true;
}

static bool square_root(struct translator *t, const struct rv64_insn *insn, bool single)
{
    if (!nearest(insn))
        return false;
    translate_fp_need(t, insn);
    if (single)
        need_box(t, insn->rs1, insn);
    int s = source(t, insn->rs1, XMM1);
    copy(t, XMM0, s);
    x_rr(&t->x, scalar(0x51, single), false, XMM0, s);
    canonical(t, XMM0, single);
    put(t, insn->rd, XMM0, single);
    return true;
}

// op: of the form 213. A NaN is left to the interpreter, for the invalid product of zero and infinity raises NV even when the
// summand is a quiet NaN.
static bool fused(struct translator *t, const struct rv64_insn *insn, unsigned op, bool single)
{
    if (!nearest(insn) || !__builtin_cpu_supports("fma"))
        return false;
    unsigned c = RV64_INSN_RS3(insn);
    translate_fp_need(t, insn);
    if (single) {
        need_box(t, insn->rs1, insn);
        need_box(t, insn->rs2, insn);
        need_box(t, c, insn);
    }
    copy(t, XMM0, source(t, insn->rs1, XMM0));
    int b = source(t, insn->rs2, XMM1);
    if (translate_fp_home(c) >= 0) {
        x_vex(&t->x, 2, 1, !single, op, XMM0, b, translate_fp_home(c));
    } else { // vfmadd213 xmm0, b, [rsp + disp32]
        x_byte(&t->x, 0xc4);
        x_byte(&t->x, 0xe2);
        x_byte(&t->x, (single ? 0 : 0x80u) | (unsigned)(~b & 15) << 3 | 1);
        x_byte(&t->x, op);
        x_byte(&t->x, 0x84);
        x_byte(&t->x, 0x24);
        x_dword(&t->x, (uint32_t)VCPU_F(c));
    }
    x_rr(&t->x, single ? X_UCOMISS : X_UCOMISD, false, XMM0, XMM0);
    step_if(t, CC_P, insn);
    put(t, insn->rd, XMM0, single);
    return true;
}

static bool minimum(struct translator *t, const struct rv64_insn *insn, bool maximum, bool single)
{
    struct x86 *x = &t->x;
    translate_fp_need(t, insn);
    if (single) {
        need_box(t, insn->rs1, insn);
        need_box(t, insn->rs2, insn);
    }
    int a = source(t, insn->rs1, XMM0), b = source(t, insn->rs2, XMM1);
    x_rr(x, single ? X_UCOMISS : X_UCOMISD, false, a, b);
    step_if(t, CC_P, insn);
    copy(t, XMM0, a);
    uint8_t *differ = x_jcc8(x, CC_NE);
    x_rr(x, maximum ? X_ANDPS : X_ORPS, false, XMM0, b); // equal: but zeros have signs
    uint8_t *done = x_jmp8(x);
    x_patch8(x, differ);
    x_rr(x, scalar(maximum ? 0x5f : 0x5d, single), false, XMM0, b);
    x_patch8(x, done);
    put(t, insn->rd, XMM0, single);
    return true;
}

enum sign { SIGN_COPY, SIGN_NOT, SIGN_XOR };

static bool sign(struct translator *t, const struct rv64_insn *insn, enum sign kind, bool single)
{
    struct x86 *x = &t->x;
    unsigned bit = single ? 31 : 63;
    translate_fp_need(t, insn);
    if (single) {
        need_box(t, insn->rs1, insn);
        need_box(t, insn->rs2, insn);
    }
    int a = source(t, insn->rs1, XMM0);
    if (insn->rs1 == insn->rs2 && kind == SIGN_COPY) {
        put(t, insn->rd, a, single);
        return true;
    }
    x_rr(x, X_MOVQ_FROM_X, true, a, RAX);
    if (insn->rs1 == insn->rs2) {
        x_bt_imm(x, kind == SIGN_NOT ? 7 : 6, RAX, bit); // negated; absolute
    } else {
        x_rr(x, X_MOVQ_FROM_X, true, source(t, insn->rs2, XMM1), RCX);
        if (kind == SIGN_NOT)
            x_f7(x, 2, true, RCX);
        if (kind != SIGN_XOR)
            x_bt_imm(x, 6, RAX, bit);
        x_shift(x, SH_SHR, single ? false : true, RCX, bit);
        x_shift(x, SH_SHL, true, RCX, bit);
        x_rr(x, kind == SIGN_XOR ? X_XOR : X_OR, true, RAX, RCX);
    }
    put_integer(t, insn->rd, RAX, single);
    return true;
}

enum comparison { COMPARE_EQ, COMPARE_LT, COMPARE_LE };

static bool comparison(struct translator *t, const struct rv64_insn *insn, enum comparison kind, bool single)
{
    struct x86 *x = &t->x;
    translate_fp_need(t, insn);
    if (single) {
        need_box(t, insn->rs1, insn);
        need_box(t, insn->rs2, insn);
    }
    int a = source(t, insn->rs1, XMM0), b = source(t, insn->rs2, XMM1);
    if (kind == COMPARE_EQ) {
        x_rr(x, single ? X_UCOMISS : X_UCOMISD, false, a, b);
        x_setcc(x, CC_NP, RCX);
        x_setcc(x, CC_E, RAX);
        x_rr(x, X_AND, false, RAX, RCX);
    } else {
        x_rr(x, single ? X_COMISS : X_COMISD, false, b, a);
        x_setcc(x, kind == COMPARE_LT ? CC_A : CC_AE, RAX);
    }
    x_rr8(x, X_MOVZX8, RAX, RAX);
    translate_put(t, insn->rd, RAX);
    return true;
}

// To a signed integer. The host gives the smallest one for what does not fit.
static bool to_integer(struct translator *t, const struct rv64_insn *insn, bool w, bool single)
{
    bool truncates = RV64_INSN_RM(insn) == RV64_RTZ;
    if (!truncates && !nearest(insn))
        return false;
    translate_fp_need(t, insn);
    if (single)
        need_box(t, insn->rs1, insn);
    x_rr(&t->x, scalar(truncates ? 0x2c : 0x2d, single), w, RAX, source(t, insn->rs1, XMM0));
    x_ri(&t->x, G_CMP, w, RAX, 1);
    step_if(t, CC_O, insn);
    if (!w)
        x_rr(&t->x, X_MOVSXD, true, RAX, RAX);
    translate_put(t, insn->rd, RAX);
    return true;
}

static bool from_integer(struct translator *t, const struct rv64_insn *insn, bool w, bool is_signed, bool single)
{
    struct x86 *x = &t->x;
    bool exact = !single && !w; // whatever the rounding mode, as long as it is one
    if (!nearest(insn) && !(exact && RV64_INSN_RM(insn) <= RV64_RMM))
        return false;
    translate_fp_need(t, insn);
    int s = translate_source(t, insn->rs1, RAX);
    if (!is_signed && w) {
        x_rr(x, X_TEST, true, s, s);
        step_if(t, CC_S, insn);
    } else if (!is_signed) {
        x_rr(x, X_MOV, false, RAX, s);
        s = RAX;
        w = true;
    }
    x_rr(x, 0x660f76, false, XMM0, XMM0); // pcmpeqd: all ones, for a single's box
    x_rr(x, scalar(0x2a, single), w, XMM0, s);
    put(t, insn->rd, XMM0, single);
    return true;
}

static bool convert(struct translator *t, const struct rv64_insn *insn, bool to_single)
{
    if (!nearest(insn) && (to_single || RV64_INSN_RM(insn) > RV64_RMM))
        return false;
    translate_fp_need(t, insn);
    if (!to_single)
        need_box(t, insn->rs1, insn);
    int s = source(t, insn->rs1, XMM1);
    x_rr(&t->x, 0x660f76, false, XMM0, XMM0);
    x_rr(&t->x, scalar(0x5a, !to_single), false, XMM0, s);
    canonical(t, XMM0, to_single);
    put(t, insn->rd, XMM0, to_single);
    return true;
}

static bool move_to_integer(struct translator *t, const struct rv64_insn *insn, bool single)
{
    translate_fp_need(t, insn);
    int target = translate_target(insn->rd);
    x_rr(&t->x, X_MOVQ_FROM_X, true, source(t, insn->rs1, XMM0), target);
    if (single)
        x_rr(&t->x, X_MOVSXD, true, target, target);
    translate_put(t, insn->rd, target);
    return true;
}

static bool move_from_integer(struct translator *t, const struct rv64_insn *insn, bool single)
{
    translate_fp_need(t, insn);
    int s = translate_source(t, insn->rs1, RAX);
    if (single) {
        x_rr(&t->x, X_MOV, false, RAX, s);
        x_mov_ri(&t->x, RCX, (int64_t)0xffffffff00000000ull);
        x_rr(&t->x, X_OR, true, RAX, RCX);
        s = RAX;
    }
    put_integer(t, insn->rd, s, single);
    return true;
}

#define BOTH(name, call_s, call_d)                                                                                                 \
    case RV64_OP_##name##_s:                                                                                                       \
        return call_s;                                                                                                             \
    case RV64_OP_##name##_d:                                                                                                       \
        return call_d

bool translate_float(struct translator *t, const struct rv64_insn *insn)
{
    switch (insn->op) {
        BOTH(fadd, binary(t, insn, 0x58, true, true), binary(t, insn, 0x58, false, true));
        BOTH(fmul, binary(t, insn, 0x59, true, true), binary(t, insn, 0x59, false, true));
        BOTH(fsub, binary(t, insn, 0x5c, true, false), binary(t, insn, 0x5c, false, false));
        BOTH(fdiv, binary(t, insn, 0x5e, true, false), binary(t, insn, 0x5e, false, false));
        BOTH(fsqrt, square_root(t, insn, true), square_root(t, insn, false));
        BOTH(fmadd, fused(t, insn, 0xa9, true), fused(t, insn, 0xa9, false));
        BOTH(fmsub, fused(t, insn, 0xab, true), fused(t, insn, 0xab, false));
        BOTH(fnmsub, fused(t, insn, 0xad, true), fused(t, insn, 0xad, false));
        BOTH(fnmadd, fused(t, insn, 0xaf, true), fused(t, insn, 0xaf, false));
        BOTH(fmin, minimum(t, insn, false, true), minimum(t, insn, false, false));
        BOTH(fmax, minimum(t, insn, true, true), minimum(t, insn, true, false));
        BOTH(fsgnj, sign(t, insn, SIGN_COPY, true), sign(t, insn, SIGN_COPY, false));
        BOTH(fsgnjn, sign(t, insn, SIGN_NOT, true), sign(t, insn, SIGN_NOT, false));
        BOTH(fsgnjx, sign(t, insn, SIGN_XOR, true), sign(t, insn, SIGN_XOR, false));
        BOTH(feq, comparison(t, insn, COMPARE_EQ, true), comparison(t, insn, COMPARE_EQ, false));
        BOTH(flt, comparison(t, insn, COMPARE_LT, true), comparison(t, insn, COMPARE_LT, false));
        BOTH(fle, comparison(t, insn, COMPARE_LE, true), comparison(t, insn, COMPARE_LE, false));
        BOTH(fcvt_w, to_integer(t, insn, false, true), to_integer(t, insn, false, false));
        BOTH(fcvt_l, to_integer(t, insn, true, true), to_integer(t, insn, true, false));
    case RV64_OP_fcvt_s_w:
        return from_integer(t, insn, false, true, true);
    case RV64_OP_fcvt_s_wu:
        return from_integer(t, insn, false, false, true);
    case RV64_OP_fcvt_s_l:
        return from_integer(t, insn, true, true, true);
    case RV64_OP_fcvt_s_lu:
        return from_integer(t, insn, true, false, true);
    case RV64_OP_fcvt_d_w:
        return from_integer(t, insn, false, true, false);
    case RV64_OP_fcvt_d_wu:
        return from_integer(t, insn, false, false, false);
    case RV64_OP_fcvt_d_l:
        return from_integer(t, insn, true, true, false);
    case RV64_OP_fcvt_d_lu:
        return from_integer(t, insn, true, false, false);
    case RV64_OP_fcvt_s_d:
        return convert(t, insn, true);
    case RV64_OP_fcvt_d_s:
        return convert(t, insn, false);
    case RV64_OP_fmv_x_w:
        return move_to_integer(t, insn, true);
    case RV64_OP_fmv_x_d:
        return move_to_integer(t, insn, false);
    case RV64_OP_fmv_w_x:
        return move_from_integer(t, insn, true);
    case RV64_OP_fmv_d_x:
        return move_from_integer(t, insn, false);
    default:
        return false;
    }
}
