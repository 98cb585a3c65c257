// An assembler for what the translator emits: one function an instruction form, which appends to a buffer.
//
// The buffer is written at one address and executed at another (code.h); code refers to itself only relatively, so that only calls
// and jumps out of it have to know. Whoever emits makes sure that there is room. Reference: AMD64 Architecture Programmer's Manual,
// volume 3.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

// Condition codes, as in jcc, setcc and cmovcc.
enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

// Opcodes are written as 0xPPMMOO: mandatory prefix or 00; map 00, 0f, 38 (0f 38) or 3a (0f 3a); opcode.
enum {
    X_ADD = 0x03, // op reg, r/m
    X_OR = 0x0b,
    X_AND = 0x23,
    X_SUB = 0x2b,
    X_XOR = 0x33,
    X_CMP = 0x3b,
    X_MOV = 0x8b,
    X_MOVSXD = 0x63,
    X_TEST = 0x85,
    X_LEA = 0x8d,
    X_IMUL = 0x0faf,
    X_MOVZX8 = 0x0fb6,
    X_MOVZX16 = 0x0fb7,
    X_MOVSX8 = 0x0fbe,
    X_MOVSX16 = 0x0fbf,
    X_POPCNT = 0xf30fb8,
    X_TZCNT = 0xf30fbc,
    X_LZCNT = 0xf30fbd,
    X_CMOV = 0x0f40, // + condition
    X_ADD_TO = 0x01, // op r/m, reg
    X_MOV_TO = 0x89,
    X_MOV8_TO = 0x88,
    X_CMP_TO = 0x39,
    X_GROUP_I8 = 0x83, // r/m, imm8; which one is in reg
    X_XCHG = 0x87,
    X_XADD = 0x0fc1,
    X_CMPXCHG = 0x0fb1,
    X_PADDQ = 0x660fd4,
    X_MOVQ_TO_X = 0x660f6e, // movq xmm, r/m64 with w, movd without
    X_MOVQ_FROM_X = 0x660f7e,
    X_MOVQ_XM = 0xf30f7e, // movq xmm, xmm/m64
    X_MOVQ_MX = 0x660fd6, // movq m64, xmm
    X_MOVSS_LOAD = 0xf30f10,
    X_MOVAPS = 0x0f28,
    X_MOVAPS_TO = 0x0f29,
    X_XORPS = 0x0f57,
    X_ANDPS = 0x0f54,
    X_ANDNPS = 0x0f55,
    X_ORPS = 0x0f56,
    X_UCOMISD = 0x660f2e,
    X_UCOMISS = 0x0f2e,
    X_COMISD = 0x660f2f,
    X_COMISS = 0x0f2f,
};

// Immediate groups: the number in modrm.reg.
enum { G_ADD = 0, G_OR = 1, G_AND = 4, G_SUB = 5, G_XOR = 6, G_CMP = 7 };
enum { SH_ROL = 0, SH_ROR = 1, SH_SHL = 4, SH_SHR = 5, SH_SAR = 7 };

struct x86 {
    uint8_t *at;
};

static inline void x_byte(struct x86 *x, unsigned byte)
{
    *x->at++ = (uint8_t)byte;
}

static inline void x_dword(struct x86 *x, uint32_t value)
{
    memcpy(x->at, &value, 4);
    x->at += 4;
}

static inline void x_opcode(struct x86 *x, unsigned op, bool w, int reg, int index, int base, bool force_rex)
{
    unsigned prefix = op >> 16 & 0xff, map = op >> 8 & 0xff;
    unsigned rex = (w ? 8u : 0u) | (reg & 8 ? 4u : 0u) | (index & 8 ? 2u : 0u) | (base & 8 ? 1u : 0u);
    if (prefix)
        x_byte(x, prefix);
    if (rex || force_rex)
        x_byte(x, 0x40 | rex);
    if (map)
        x_byte(x, 0x0f);
    if (map == 0x38 || map == 0x3a)
        x_byte(x, map);
    x_byte(x, op & 0xff);
}

// op reg, rm (or rm, reg: the opcode tells).
static inline void x_rr(struct x86 *x, unsigned op, bool w, int reg, int rm)
{
    x_opcode(x, op, w, reg, 0, rm, false);
    x_byte(x, 0xc0u | (unsigned)(reg & 7) << 3 | (unsigned)(rm & 7));
}

// Register operands of a byte, in both places.
static inline void x_rr8(struct x86 *x, unsigned op, int reg, int rm)
{
    x_opcode(x, op, false, reg, 0, rm, reg >= RSP || rm >= RSP); // else ah..bh stand for spl..dil
    x_byte(x, 0xc0u | (unsigned)(reg & 7) << 3 | (unsigned)(rm & 7));
}

static inline void x_modrm(struct x86 *x, int reg, int base, int32_t disp)
{
    unsigned mod = disp == 0 && (base & 7) != RBP ? 0u : disp >= -128 && disp < 128 ? 1u : 2u;
    x_byte(x, mod << 6 | (unsigned)(reg & 7) << 3 | (unsigned)(base & 7));
    if ((base & 7) == RSP)
        x_byte(x, 0x24);
    if (mod == 1)
        x_byte(x, (unsigned)(uint8_t)disp);
    else if (mod == 2)
        x_dword(x, (uint32_t)disp);
}

// op reg, [base + disp]
static inline void x_rm(struct x86 *x, unsigned op, bool w, int reg, int base, int32_t disp)
{
    x_opcode(x, op, w, reg, 0, base, false);
    x_modrm(x, reg, base, disp);
}

static inline void x_rm8(struct x86 *x, unsigned op, int reg, int base, int32_t disp)
{
    x_opcode(x, op, false, reg, 0, base, reg >= RSP);
    x_modrm(x, reg, base, disp);
}

static inline void x_sib(struct x86 *x, int reg, int base, int index, unsigned scale, int32_t disp)
{
    unsigned mod = disp == 0 && (base & 7) != RBP ? 0u : disp >= -128 && disp < 128 ? 1u : 2u;
    x_byte(x, mod << 6 | (unsigned)(reg & 7) << 3 | 4);
    x_byte(x, scale << 6 | (unsigned)(index & 7) << 3 | (unsigned)(base & 7));
    if (mod == 1)
        x_byte(x, (unsigned)(uint8_t)disp);
    else if (mod == 2)
        x_dword(x, (uint32_t)disp);
}

// op reg, [base + index * 2^scale + disp]; index is not RSP
static inline void x_rx(struct x86 *x, unsigned op, bool w, int reg, int base, int index, unsigned scale, int32_t disp)
{
    x_opcode(x, op, w, reg, index, base, false);
    x_sib(x, reg, base, index, scale, disp);
}

// add, or, and, sub, xor, cmp with an immediate
static inline void x_ri(struct x86 *x, unsigned group, bool w, int rm, int32_t imm)
{
    bool small = imm >= -128 && imm < 128;
    x_opcode(x, small ? 0x83 : 0x81, w, 0, 0, rm, false);
    x_byte(x, 0xc0u | group << 3 | (unsigned)(rm & 7));
    if (small)
        x_byte(x, (unsigned)(uint8_t)imm);
    else
        x_dword(x, (uint32_t)imm);
}

static inline void x_mi(struct x86 *x, unsigned group, bool w, int base, int32_t disp, int32_t imm)
{
    bool small = imm >= -128 && imm < 128;
    x_opcode(x, small ? 0x83 : 0x81, w, 0, 0, base, false);
    x_modrm(x, (int)group, base, disp);
    if (small)
        x_byte(x, (unsigned)(uint8_t)imm);
    else
        x_dword(x, (uint32_t)imm);
}

static inline void x_mov_mi(struct x86 *x, bool w, int base, int32_t disp, int32_t imm)
{
    x_opcode(x, 0xc7, w, 0, 0, base, false);
    x_modrm(x, 0, base, disp);
    x_dword(x, (uint32_t)imm);
}

static inline void x_shift(struct x86 *x, unsigned group, bool w, int rm, unsigned amount)
{
    x_opcode(x, 0xc1, w, 0, 0, rm, false);
    x_byte(x, 0xc0u | group << 3 | (unsigned)(rm & 7));
    x_byte(x, amount);
}

static inline void x_shift_cl(struct x86 *x, unsigned group, bool w, int rm)
{
    x_opcode(x, 0xd3, w, 0, 0, rm, false);
    x_byte(x, 0xc0u | group << 3 | (unsigned)(rm & 7));
}

// The group of f7: not 2, neg 3, mul 4, imul 5, div 6, idiv 7
static inline void x_f7(struct x86 *x, unsigned group, bool w, int rm)
{
    x_opcode(x, 0xf7, w, 0, 0, rm, false);
    x_byte(x, 0xc0u | group << 3 | (unsigned)(rm & 7));
}

static inline void x_bt_imm(struct x86 *x, unsigned group, int rm, unsigned bit) // bt 4, bts 5, btr 6, btc 7
{
    x_opcode(x, 0x0fba, true, 0, 0, rm, false);
    x_byte(x, 0xc0u | group << 3 | (unsigned)(rm & 7));
    x_byte(x, bit);
}

// Any constant, by the shortest form.
static inline void x_mov_ri(struct x86 *x, int reg, int64_t imm)
{
    if (imm == 0) {
        x_rr(x, X_XOR, false, reg, reg); // changes the flags
    } else if (imm > 0 && imm <= UINT32_MAX) {
        if (reg & 8)
            x_byte(x, 0x41);
        x_byte(x, 0xb8u | (unsigned)(reg & 7));
        x_dword(x, (uint32_t)imm);
    } else if (imm >= INT32_MIN && imm < 0) {
        x_opcode(x, 0xc7, true, 0, 0, reg, false);
        x_byte(x, 0xc0u | (unsigned)(reg & 7));
        x_dword(x, (uint32_t)imm);
    } else {
        x_byte(x, 0x48u | (reg & 8 ? 1u : 0u));
        x_byte(x, 0xb8u | (unsigned)(reg & 7));
        memcpy(x->at, &imm, 8);
        x->at += 8;
    }
}

static inline void x_setcc(struct x86 *x, unsigned cc, int reg)
{
    x_opcode(x, 0x0f90 | cc, false, 0, 0, reg, reg >= RSP);
    x_byte(x, 0xc0u | (unsigned)(reg & 7));
}

// --- Jumps: where the 32-bit distance stands is what they return.
static inline uint8_t *x_jcc(struct x86 *x, unsigned cc)
{
    x_byte(x, 0x0f);
    x_byte(x, 0x80 | cc);
    x_dword(x, 0);
    return x->at - 4;
}

static inline uint8_t *x_jmp(struct x86 *x)
{
    x_byte(x, 0xe9);
    x_dword(x, 0);
    return x->at - 4;
}

static inline uint8_t *x_call(struct x86 *x)
{
    x_byte(x, 0xe8);
    x_dword(x, 0);
    return x->at - 4;
}

// Makes the jump or call whose distance stands at `site` go to `target`; both in the buffer, as written.
static inline void x_patch(uint8_t *site, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (site + 4));
    memcpy(site, &distance, 4);
}

static inline uint8_t *x_jcc8(struct x86 *x, unsigned cc)
{
    x_byte(x, 0x70 | cc);
    x_byte(x, 0);
    return x->at - 1;
}

static inline uint8_t *x_jmp8(struct x86 *x)
{
    x_byte(x, 0xeb);
    x_byte(x, 0);
    return x->at - 1;
}

static inline void x_patch8(struct x86 *x, uint8_t *site)
{
    assert(x->at - (site + 1) < 128);
    *site = (uint8_t)(x->at - (site + 1));
}

static inline void x_push(struct x86 *x, int reg)
{
    if (reg & 8)
        x_byte(x, 0x41);
    x_byte(x, 0x50u | (unsigned)(reg & 7));
}

static inline void x_pop(struct x86 *x, int reg)
{
    if (reg & 8)
        x_byte(x, 0x41);
    x_byte(x, 0x58u | (unsigned)(reg & 7));
}

// VEX-coded: op reg, vvvv, rm (BMI2, FMA). map 1: 0f, 2: 0f 38; pp 0: none, 1: 66, 2: f3, 3: f2.
static inline void x_vex(struct x86 *x, unsigned map, unsigned pp, bool w, unsigned op, int reg, int vvvv, int rm)
{
    x_byte(x, 0xc4);
    x_byte(x, (reg & 8 ? 0u : 0x80u) | 0x40u | (rm & 8 ? 0u : 0x20u) | map);
    x_byte(x, (w ? 0x80u : 0u) | (unsigned)(~vvvv & 15) << 3 | pp);
    x_byte(x, op);
    x_byte(x, 0xc0u | (unsigned)(reg & 7) << 3 | (unsigned)(rm & 7));
}
