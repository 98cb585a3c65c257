// Decoding, encoding and printing of instructions, all by the table in insn.def. See decode.h.
#include "machine/engine/rv64/decode.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct rv64_insn_info rv64_insn_table[RV64_OPS] = {
#define INSN(name, extension, match, mask, operands, properties, ...)                                                              \
    {#name, #extension, match, mask, operands, (uint32_t)(properties)},
#define COMPRESSED(...)
#include "machine/engine/rv64/insn.def"
#undef INSN
#undef COMPRESSED
};

static uint32_t bits(uint32_t raw, unsigned high, unsigned low)
{
    return (raw >> low) & ((1u << (high - low + 1)) - 1);
}

static int32_t sign_extend(uint32_t value, unsigned n_bits)
{
    return (int32_t)(value << (32 - n_bits)) >> (32 - n_bits);
}

// --- Immediates of 32-bit instructions (Unprivileged ISA, 2.3), both ways.

static int32_t imm_s(uint32_t raw)
{
    return sign_extend(bits(raw, 31, 25) << 5 | bits(raw, 11, 7), 12);
}

static int32_t imm_b(uint32_t raw)
{
    return sign_extend(bits(raw, 31, 31) << 12 | bits(raw, 7, 7) << 11 | bits(raw, 30, 25) << 5 | bits(raw, 11, 8) << 1, 13);
}

static int32_t imm_j(uint32_t raw)
{
    return sign_extend(bits(raw, 31, 31) << 20 | bits(raw, 19, 12) << 12 | bits(raw, 20, 20) << 11 | bits(raw, 30, 21) << 1, 21);
}

static uint32_t encode_s(uint32_t imm)
{
    return bits(imm, 11, 5) << 25 | bits(imm, 4, 0) << 7;
}

static uint32_t encode_b(uint32_t imm)
{
    return bits(imm, 12, 12) << 31 | bits(imm, 10, 5) << 25 | bits(imm, 4, 1) << 8 | bits(imm, 11, 11) << 7;
}

static uint32_t encode_j(uint32_t imm)
{
    return bits(imm, 20, 20) << 31 | bits(imm, 10, 1) << 21 | bits(imm, 11, 11) << 20 | bits(imm, 19, 12) << 12;
}

// --- Operands.

static bool decode_operands(const char *operands, uint32_t raw, struct rv64_insn *insn)
{
    for (const char *o = operands; *o; o++) {
        switch (*o) {
        case 'd':
        case 'D':
            insn->rd = (uint8_t)bits(raw, 11, 7);
            break;
        case 's':
        case 'S':
        case 'Z':
            insn->rs1 = (uint8_t)bits(raw, 19, 15);
            break;
        case 't':
        case 'T':
            insn->rs2 = (uint8_t)bits(raw, 24, 20);
            break;
        case 'R':
            insn->rs3_rm |= (uint8_t)(bits(raw, 31, 27) << 3);
            break;
        case 'm':
            insn->rs3_rm |= (uint8_t)bits(raw, 14, 12);
            if (RV64_INSN_RM(insn) == 5 || RV64_INSN_RM(insn) == 6)
                return false; // reserved rounding modes
            break;
        case 'A':
            insn->rs3_rm = (uint8_t)bits(raw, 26, 25);
            break;
        case 'j':
            insn->imm = (int32_t)raw >> 20;
            break;
        case 'q':
            insn->imm = imm_s(raw);
            break;
        case 'p':
            insn->imm = imm_b(raw);
            break;
        case 'a':
            insn->imm = imm_j(raw);
            break;
        case 'u':
            insn->imm = (int32_t)(raw & 0xfffff000);
            break;
        case '>':
            insn->imm = (int32_t)bits(raw, 25, 20);
            break;
        case '<':
            insn->imm = (int32_t)bits(raw, 24, 20);
            break;
        case 'E':
            insn->imm = (int32_t)bits(raw, 31, 20);
            break;
        case 'F':
        case 'N':
            insn->imm = (int32_t)bits(raw, 31, 7);
            break;
        default:
            break;
        }
    }
    return true;
}

static uint32_t encode_operand(char operand, const struct rv64_insn *insn)
{
    uint32_t imm = (uint32_t)insn->imm;
    switch (operand) {
    case 'd':
    case 'D':
        return (uint32_t)insn->rd << 7;
    case 's':
    case 'S':
    case 'Z':
        return (uint32_t)insn->rs1 << 15;
    case 't':
    case 'T':
        return (uint32_t)insn->rs2 << 20;
    case 'R':
        return (uint32_t)RV64_INSN_RS3(insn) << 27;
    case 'm':
        return (uint32_t)RV64_INSN_RM(insn) << 12;
    case 'A':
        return (uint32_t)RV64_INSN_RM(insn) << 25;
    case 'j':
    case 'E':
        return imm << 20;
    case 'q':
        return encode_s(imm);
    case 'p':
        return encode_b(imm);
    case 'a':
        return encode_j(imm);
    case 'u':
        return imm & 0xfffff000;
    case '>':
    case '<':
        return imm << 20;
    case 'F':
    case 'N':
        // funct3 lies among the ignored bits and belongs to the match.
        return imm << 7 & ~RV64_MASK_FUNCT3;
    default:
        return 0;
    }
}

uint32_t rv64_encode(const struct rv64_insn *insn)
{
    if (insn->op >= RV64_OPS)
        return insn->raw;
    const struct rv64_insn_info *info = &rv64_insn_table[insn->op];
    uint32_t raw = info->match;
    for (const char *o = info->operands; *o; o++)
        raw |= encode_operand(*o, insn);
    return raw;
}

// --- Compressed instructions (Unprivileged ISA, chapter 26): the columns of COMPRESSED, over `raw`.

#define C_RD ((uint8_t)bits(raw, 11, 7))
#define C_RS2 ((uint8_t)bits(raw, 6, 2))
#define C_LOW ((uint8_t)(8 + bits(raw, 4, 2)))
#define C_HIGH ((uint8_t)(8 + bits(raw, 9, 7)))
#define C_SHIFT ((int32_t)(bits(raw, 12, 12) << 5 | bits(raw, 6, 2)))
#define C_IMM sign_extend(bits(raw, 12, 12) << 5 | bits(raw, 6, 2), 6)
#define C_IMM_ADDI4SPN ((int32_t)(bits(raw, 12, 11) << 4 | bits(raw, 10, 7) << 6 | bits(raw, 6, 6) << 2 | bits(raw, 5, 5) << 3))
#define C_IMM_ADDI16SP                                                                                                             \
    sign_extend(                                                                                                                   \
        bits(raw, 12, 12) << 9 | bits(raw, 4, 3) << 7 | bits(raw, 5, 5) << 6 | bits(raw, 2, 2) << 5 | bits(raw, 6, 6) << 4, 10)
#define C_IMM_W ((int32_t)(bits(raw, 12, 10) << 3 | bits(raw, 6, 6) << 2 | bits(raw, 5, 5) << 6))
#define C_IMM_D ((int32_t)(bits(raw, 12, 10) << 3 | bits(raw, 6, 5) << 6))
#define C_IMM_LWSP ((int32_t)(bits(raw, 12, 12) << 5 | bits(raw, 6, 4) << 2 | bits(raw, 3, 2) << 6))
#define C_IMM_LDSP ((int32_t)(bits(raw, 12, 12) << 5 | bits(raw, 6, 5) << 3 | bits(raw, 4, 2) << 6))
#define C_IMM_SWSP ((int32_t)(bits(raw, 12, 9) << 2 | bits(raw, 8, 7) << 6))
#define C_IMM_SDSP ((int32_t)(bits(raw, 12, 10) << 3 | bits(raw, 9, 7) << 6))
#define C_IMM_J                                                                                                                    \
    sign_extend(bits(raw, 12, 12) << 11 | bits(raw, 8, 8) << 10 | bits(raw, 10, 9) << 8 | bits(raw, 6, 6) << 7 |                   \
                    bits(raw, 7, 7) << 6 | bits(raw, 2, 2) << 5 | bits(raw, 11, 11) << 4 | bits(raw, 5, 3) << 1,                   \
                12)
#define C_IMM_B                                                                                                                    \
    sign_extend(                                                                                                                   \
        bits(raw, 12, 12) << 8 | bits(raw, 6, 5) << 6 | bits(raw, 2, 2) << 5 | bits(raw, 11, 10) << 3 | bits(raw, 4, 3) << 1, 9)

static bool decode_compressed(uint32_t raw, struct rv64_insn *insn)
{
#define INSN(...)
#define COMPRESSED(name, match, mask, valid, base, d, s, t, immediate)                                                             \
    if ((raw & (mask)) == (match) && (valid)) {                                                                                    \
        *insn = (struct rv64_insn){.op = RV64_OP_##base, .rd = d, .rs1 = s, .rs2 = t, .imm = immediate, .raw = raw};               \
        return true;                                                                                                               \
    }
#include "machine/engine/rv64/insn.def"
#undef INSN
#undef COMPRESSED
    return false;
}

// --- 32-bit instructions are found by opcode and funct3 first. A row whose mask leaves funct3 open stands in all eight lists.

#define BUCKETS 256   // opcode bits 6..2, funct3
#define LIST_MAX 1024 // rows in all lists together

static uint16_t bucket_start[BUCKETS + 1];
static uint16_t bucket_rows[LIST_MAX];
static pthread_once_t buckets_made = PTHREAD_ONCE_INIT;

static unsigned bucket_of(uint32_t raw)
{
    return bits(raw, 6, 2) << 3 | bits(raw, 14, 12);
}

static void make_buckets(void)
{
    unsigned n = 0;
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        uint32_t sample = bits(bucket, 7, 3) << 2 | 3 | bits(bucket, 2, 0) << 12;
        bucket_start[bucket] = (uint16_t)n;
        for (unsigned op = 0; op < RV64_OPS && n < LIST_MAX; op++) {
            const struct rv64_insn_info *info = &rv64_insn_table[op];
            if (((sample ^ info->match) & info->mask & RV64_MASK_FUNCT3) == 0)
                bucket_rows[n++] = (uint16_t)op;
        }
    }
    bucket_start[BUCKETS] = (uint16_t)n;
}

static bool decode_full(uint32_t raw, struct rv64_insn *insn)
{
    pthread_once(&buckets_made, make_buckets);
    unsigned bucket = bucket_of(raw);
    for (unsigned i = bucket_start[bucket]; i < bucket_start[bucket + 1]; i++) {
        const struct rv64_insn_info *info = &rv64_insn_table[bucket_rows[i]];
        if ((raw & info->mask) != info->match)
            continue;
        *insn = (struct rv64_insn){.op = bucket_rows[i], .raw = raw};
        return decode_operands(info->operands, raw, insn);
    }
    return false;
}

bool rv64_decode(uint32_t raw, struct rv64_insn *insn)
{
    bool ok;
    if (rv64_length(raw) == 2) {
        raw &= 0xffff;
        ok = decode_compressed(raw, insn);
    } else {
        ok = decode_full(raw, insn);
    }
    if (!ok)
        *insn = (struct rv64_insn){.op = RV64_OP_illegal, .raw = raw};
    return ok;
}

// --- Printing.

static const char *const x_names[32] = {"zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "s0", "s1", "a0",
                                        "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
                                        "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"};
static const char *const f_names[32] = {"ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1", "fa0",
                                        "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4", "fs5",
                                        "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11"};
static const char *const rm_names[8] = {"rne", "rtz", "rdn", "rup", "rmm", "rm5", "rm6", "dyn"};
static const char *const order_names[4] = {"", ".rl", ".aq", ".aqrl"};

struct text {
    char *buf;
    size_t size;
    int used; // what there is or would be, as snprintf() counts
};

static void __attribute__((format(printf, 2, 3))) text_add(struct text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t at = (size_t)t->used < t->size ? (size_t)t->used : t->size;
    t->used += vsnprintf(t->buf ? t->buf + at : NULL, t->size - at, format, args);
    va_end(args);
}

static void print_fence_set(struct text *t, unsigned set)
{
    text_add(t, "%s%s%s%s%s", set & 8 ? "i" : "", set & 4 ? "o" : "", set & 2 ? "r" : "", set & 1 ? "w" : "", set ? "" : "0");
}

static void print_operand(struct text *t, char operand, const struct rv64_insn *insn, uint64_t pc)
{
    switch (operand) {
    case 'd':
        text_add(t, "%s", x_names[insn->rd & 31]);
        break;
    case 's':
        text_add(t, "%s", x_names[insn->rs1 & 31]);
        break;
    case 't':
        text_add(t, "%s", x_names[insn->rs2 & 31]);
        break;
    case 'D':
        text_add(t, "%s", f_names[insn->rd & 31]);
        break;
    case 'S':
        text_add(t, "%s", f_names[insn->rs1 & 31]);
        break;
    case 'T':
        text_add(t, "%s", f_names[insn->rs2 & 31]);
        break;
    case 'R':
        text_add(t, "%s", f_names[RV64_INSN_RS3(insn)]);
        break;
    case 'm':
        text_add(t, "%s", rm_names[RV64_INSN_RM(insn)]);
        break;
    case 'Z':
        text_add(t, "%u", insn->rs1);
        break;
    case 'E':
        text_add(t, "0x%x", (unsigned)insn->imm);
        break;
    case 'u':
        text_add(t, "0x%x", (uint32_t)insn->imm >> 12);
        break;
    case 'p':
    case 'a':
        text_add(t, "0x%llx", (unsigned long long)(pc + (uint64_t)(int64_t)insn->imm));
        break;
    case 'F':
        print_fence_set(t, bits((uint32_t)insn->imm, 20, 17));
        text_add(t, ",");
        print_fence_set(t, bits((uint32_t)insn->imm, 16, 13));
        break;
    case 'j':
    case 'q':
    case '>':
    case '<':
        text_add(t, "%d", insn->imm);
        break;
    case 'A': // printed with the name
    case 'N':
        break;
    default:
        text_add(t, "%c", operand);
        break;
    }
}

int rv64_disassemble(const struct rv64_insn *insn, uint64_t pc, char *buf, size_t size)
{
    struct text t = {buf, size, 0};
    if (insn->op >= RV64_OPS) {
        text_add(&t, "illegal 0x%x", insn->raw);
        return t.used;
    }
    const struct rv64_insn_info *info = &rv64_insn_table[insn->op];
    for (const char *c = info->name; *c; c++)
        text_add(&t, "%c", *c == '_' ? '.' : *c);
    if (strchr(info->operands, 'A'))
        text_add(&t, "%s", order_names[RV64_INSN_RM(insn) & 3]);
    for (const char *o = info->operands; *o; o++) {
        if (o == info->operands && *o != 'N')
            text_add(&t, " ");
        print_operand(&t, *o, insn, pc);
    }
    return t.used;
}
