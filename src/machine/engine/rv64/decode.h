// Instructions: what the table (insn.def) says, and decoding, encoding and printing by it. Pure; any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Which bits of an encoding are fixed.
#define RV64_MASK_OPCODE 0x0000007fu
#define RV64_MASK_FUNCT3 0x0000707fu
#define RV64_MASK_FUNCT7 0xfe00707fu
#define RV64_MASK_FUNCT12 0xfff0707fu
#define RV64_MASK_SHIFT6 0xfc00707fu
#define RV64_MASK_FUNCT7_RD 0xfe007fffu
#define RV64_MASK_CBO 0xfff07fffu
#define RV64_MASK_AMO 0xf800707fu
#define RV64_MASK_AMO1 0xf9f0707fu
#define RV64_MASK_FP 0xfe00007fu
#define RV64_MASK_FP1 0xfff0007fu
#define RV64_MASK_FP1_FUNCT3 0xfff0707fu
#define RV64_MASK_FUSED 0x0600007fu
#define RV64_MASK_ALL 0xffffffffu

// Properties.
enum {
    RV64_P_SIZE_SHIFT = 0, // bits 3..0: bytes of a memory access
    RV64_P_LOAD = 1 << 4,
    RV64_P_STORE = 1 << 5,
    RV64_P_SIGNED = 1 << 6, // what is loaded is sign-extended
    RV64_P_ATOMIC = 1 << 7,
    RV64_P_FP = 1 << 8,             // illegal while sstatus.FS is off
    RV64_P_FP_DIRTY = 1 << 9,       // leaves sstatus.FS dirty
    RV64_P_RM = 1 << 10,            // has a rounding mode; illegal when it resolves to a reserved one
    RV64_P_BRANCH = 1 << 11,        // ends a block: two successors known
    RV64_P_JUMP = 1 << 12,          // ends a block: one successor known
    RV64_P_JUMP_REGISTER = 1 << 13, // ends a block
    RV64_P_SYSTEM = 1 << 14,        // ends a block: may change anything but goes on behind itself unless it traps
    RV64_P_CSR = 1 << 15,
    RV64_P_PRIVILEGED = 1 << 16, // illegal in U mode
};
#define RV64_P_SIZE(bytes) ((bytes) << RV64_P_SIZE_SHIFT)
#define RV64_P_SIZE_OF(properties) ((properties)&15)
#define RV64_P_MEMORY (RV64_P_LOAD | RV64_P_STORE)
#define RV64_P_ENDS_BLOCK (RV64_P_BRANCH | RV64_P_JUMP | RV64_P_JUMP_REGISTER | RV64_P_SYSTEM)

enum rv64_op {
#define INSN(name, ...) RV64_OP_##name,
#define COMPRESSED(...)
#include "machine/engine/rv64/insn.def"
#undef INSN
#undef COMPRESSED
    RV64_OPS,
    // Not in the table; what the interpreter's blocks need besides.
    RV64_OP_illegal = RV64_OPS,
    RV64_OP_end, // behind the last instruction of a block that does not end in a jump
    RV64_OPS_ALL,
};

// A decoded instruction. A compressed one has the form of what it stands for; only `raw` tells.
struct rv64_insn {
    uint16_t op;     // enum rv64_op
    uint16_t offset; // bytes from the start of its block: the block builder's
    uint8_t rd, rs1, rs2;
    uint8_t rs3_rm; // rounding mode in bits 2..0 (or the aq and rl bits in 1..0), rs3 in bits 7..3
    int32_t imm;
    uint32_t raw; // the instruction's bits
};

#define RV64_INSN_RM(insn) ((insn)->rs3_rm & 7)
#define RV64_INSN_RS3(insn) ((insn)->rs3_rm >> 3)

// Length by the lowest bits; what would be longer than 32 bits is illegal, whatever its length.
static inline unsigned rv64_length(uint32_t raw)
{
    return (raw & 3) == 3 ? 4 : 2;
}

struct rv64_insn_info {
    const char *name; // with '_' for '.'
    const char *extension;
    uint32_t match, mask;
    const char *operands;
    uint32_t properties;
};

extern const struct rv64_insn_info rv64_insn_table[RV64_OPS];

// Decodes the lowest 16 or 32 bits of raw. False, with op = RV64_OP_illegal and raw cut to its length, when it is reserved.
bool rv64_decode(uint32_t raw, struct rv64_insn *insn);
// The 32-bit encoding of a decoded instruction (of a compressed one: of what it stands for).
uint32_t rv64_encode(const struct rv64_insn *insn);
// As assembly, "addi a0,sp,16"; pc makes targets absolute. Cut to size like snprintf(), whose result it returns.
int rv64_disassemble(const struct rv64_insn *insn, uint64_t pc, char *buf, size_t size);
