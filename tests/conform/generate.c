// The generator of the differential test. Pure but for the counters of rows; one thread.
#include "generate.h"

#include "machine/engine/rv64/decode.h"

#include <stdlib.h>
#include <string.h>

#define INSNS_MAX 80
#define UNITS_MAX 80
#define CSR_SSTATUS 0x100
#define CSR_SEPC 0x141
#define CSR_SCAUSE 0x142

struct item {
    uint32_t raw;
    uint8_t len_bytes;
    uint8_t target; // the unit a branch goes to, or NO_TARGET
    uint16_t row;
};
#define NO_TARGET 0xff

// A block in the making. Units are what a branch may go to: sequences that must run from their start.
struct block {
    struct item items[INSNS_MAX];
    unsigned n_items;
    uint8_t units[UNITS_MAX + 1]; // first item of each
    uint8_t scope_end[UNITS_MAX]; // branches out of this unit go no further than this one
    unsigned n_units;
    uint32_t flags;
};

// --- the rows

static const struct {
    const char *name;
    uint32_t match, mask;
    unsigned base; // what it stands for
} compressed[] = {
#define INSN(...)
#define COMPRESSED(name, match, mask, valid, base, ...) {#name, match, mask, RV64_OP_##base},
#include "machine/engine/rv64/insn.def"
#undef INSN
#undef COMPRESSED
};
#define N_COMPRESSED (sizeof compressed / sizeof compressed[0])
#define N_ROWS (RV64_OPS + N_COMPRESSED)

static unsigned long counts[N_ROWS];

unsigned generate_rows(void)
{
    return N_ROWS;
}

const char *generate_row_name(unsigned row)
{
    return row < RV64_OPS ? rv64_insn_table[row].name : compressed[row - RV64_OPS].name;
}

unsigned long generate_row_count(unsigned row)
{
    return counts[row];
}

bool generate_row_excluded(unsigned row)
{
    static const char *const absent[] = {"Zicond", "Zicbom", "Zicboz", "Zawrs"}; // from QEMU 7.2

    for (size_t i = 0; row < RV64_OPS && i < sizeof absent / sizeof absent[0]; i++)
        if (strcmp(rv64_insn_table[row].extension, absent[i]) == 0)
            return true;
    return false;
}

// --- random numbers

static uint64_t random_state;

static uint64_t rnd(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1d;
}

static unsigned below(unsigned n)
{
    return (unsigned)((rnd() >> 32) % n);
}

static const uint8_t pointers[] = IMAGE_POINTERS;

static bool is_pointer(unsigned reg)
{
    return memchr(pointers, (int)reg, sizeof pointers) != NULL;
}

static bool is_reserved(unsigned reg)
{
    return is_pointer(reg) || reg == IMAGE_LOOP_REGISTER;
}

static uint8_t random_target(void)
{
    uint8_t reg;

    do
        reg = (uint8_t)below(32);
    while (is_reserved(reg));
    return reg;
}

static uint8_t random_scratch(void) // not x0 either
{
    uint8_t reg;

    do
        reg = random_target();
    while (reg == 0);
    return reg;
}

static int32_t random_imm12(void)
{
    return (int32_t)(below(2) ? below(64) : below(4096)) - (below(2) ? 32 : 2048);
}

// --- putting a block together

static void append(struct block *b, uint32_t raw, unsigned row)
{
    b->items[b->n_items++] =
        (struct item){.raw = raw, .len_bytes = (uint8_t)rv64_length(raw), .target = NO_TARGET, .row = (uint16_t)row};
    counts[row]++;
}

static void append_insn(struct block *b, struct rv64_insn insn)
{
    append(b, rv64_encode(&insn), insn.op);
}

static void append_branch(struct block *b, uint32_t raw, unsigned row)
{
    append(b, raw, row);
    b->items[b->n_items - 1].target = 0; // chosen by resolve_branches()
}

static void begin_unit(struct block *b)
{
    b->units[b->n_units++] = (uint8_t)b->n_items;
}

static void load_constant(struct block *b, uint8_t reg, uint32_t value)
{
    append_insn(b, (struct rv64_insn){.op = RV64_OP_lui, .rd = reg, .imm = (int32_t)((value + 0x800) & 0xfffff000)});
    append_insn(b, (struct rv64_insn){.op = RV64_OP_addi, .rd = reg, .rs1 = reg, .imm = (int32_t)(value << 20) >> 20});
}

// --- kinds of units

static uint8_t base_register(const struct block *b, bool aligned)
{
    if (b->flags & IMAGE_BLOCK_WILD && below(12) == 0)
        return (uint8_t)below(32);
    return aligned && below(8) ? pointers[sizeof pointers - 1 - below(2)] : pointers[below(sizeof pointers)];
}

static uint8_t random_rm(void)
{
    unsigned n = below(16);

    return (uint8_t)(n < 8 ? 7 : n < 15 ? n % 5 : 5 + below(2));
}

// A row with all its fields at random, but for reserved registers and addresses.
static struct rv64_insn random_insn(const struct block *b, unsigned op)
{
    const struct rv64_insn_info *info = &rv64_insn_table[op];
    struct rv64_insn insn = {.op = (uint16_t)op, .rs1 = (uint8_t)below(32), .rs2 = (uint8_t)below(32), .imm = random_imm12()};
    bool integer_target = strchr(info->operands, 'd') != NULL;

    insn.rd = integer_target ? random_target() : (uint8_t)below(32);
    insn.rs3_rm = (uint8_t)(below(32) << 3);
    if (strchr(info->operands, 'm'))
        insn.rs3_rm |= random_rm();
    if (strchr(info->operands, 'A'))
        insn.rs3_rm |= (uint8_t)below(4);
    if (info->properties & RV64_P_MEMORY)
        insn.rs1 = base_register(b, info->properties & RV64_P_ATOMIC);
    if (strchr(info->operands, 'u'))
        insn.imm = (int32_t)(rnd() & 0xfffff000);
    if (strchr(info->operands, '>'))
        insn.imm = (int32_t)below(64);
    if (strchr(info->operands, '<'))
        insn.imm = (int32_t)below(32);
    if (strpbrk(info->operands, "FN"))
        insn.imm = (int32_t)(rnd() & 0x1ffffff);
    return insn;
}

// auipc and a jump through the register, over the next unit or two.
static void jump_register(struct block *b, unsigned row)
{
    uint8_t reg = random_scratch();
    unsigned first = b->n_items;

    append_insn(b, (struct rv64_insn){.op = RV64_OP_auipc, .rd = reg});
    if (row == RV64_OP_jalr) {
        append_insn(b, (struct rv64_insn){.op = RV64_OP_jalr, .rd = random_target(), .rs1 = reg});
    } else {
        append_insn(b, (struct rv64_insn){.op = RV64_OP_addi, .rd = reg, .rs1 = reg});
        append(b, compressed[row - RV64_OPS].match | (uint32_t)reg << 7, row);
    }
    b->items[first + 1].target = 0; // its immediate is the distance from the auipc
}

// An LR and its SC. Aligned and readable or not, nothing stands between them.
static void load_reserved(struct block *b, bool word)
{
    uint8_t base = pointers[sizeof pointers - 1 - below(2)];
    struct rv64_insn lr = {.op = word ? RV64_OP_lr_w : RV64_OP_lr_d, .rd = random_target(), .rs1 = base};
    struct rv64_insn sc = {.op = word ? RV64_OP_sc_w : RV64_OP_sc_d, .rd = random_target(), .rs1 = base};

    lr.rs3_rm = (uint8_t)below(4);
    sc.rs3_rm = (uint8_t)below(4);
    sc.rs2 = (uint8_t)below(32);
    append_insn(b, lr);
    append_insn(b, sc);
}

// sstatus with FS either Off or Dirty: whether it is Dirty or Clean in between is not compared.
static void access_sstatus(struct block *b, unsigned op)
{
    uint8_t reg = random_scratch();
    uint32_t fs = below(4) && op != RV64_OP_csrrc ? 0x6000 : 0, value = (uint32_t)rnd() & 0xc0122;

    load_constant(b, reg, value | (op == RV64_OP_csrrw ? fs : below(8) == 0 ? 0x6000 : 0));
    append_insn(b, (struct rv64_insn){.op = (uint16_t)op, .rd = random_target(), .rs1 = reg, .imm = CSR_SSTATUS});
}

// The oracle keeps the lowest bit of sepc, which is always zero (docs/conformance.md).
static void make_even(struct block *b, struct rv64_insn *insn, bool immediate)
{
    uint8_t reg = random_scratch();

    if (immediate) {
        insn->rs1 &= 0x1e;
    } else {
        append_insn(b, (struct rv64_insn){.op = RV64_OP_andi, .rd = reg, .rs1 = insn->rs1, .imm = -2});
        insn->rs1 = reg;
    }
}

static void access_csr(struct block *b, unsigned op)
{
    static const uint16_t writable[] = {0x001, 0x002, 0x003, 0x104, 0x141, 0x142, 0x143, 0x144, 0x001, 0x002, 0x003};
    static const uint16_t readable[] = {0x140, 0x180, 0x105, 0x106};
    static const uint16_t discarded[] = {0xc00, 0xc01, 0xc02};
    static const uint16_t absent[] = {0x000, 0x004, 0x200, 0x300, 0x341, 0x680, 0x7a0, 0x7b0, 0x800, 0xb00, 0xf14, 0xda0};
    bool immediate = op >= RV64_OP_csrrwi;
    struct rv64_insn insn = {.op = (uint16_t)op, .rd = random_target(), .rs1 = (uint8_t)below(32)};

    switch (below(10)) {
    case 0:
        insn.imm = readable[below(4)];
        insn.op = immediate ? RV64_OP_csrrsi : RV64_OP_csrrs;
        insn.rs1 = 0;
        break;
    case 1: // their values are of time
        insn.imm = discarded[below(3)];
        insn.rd = 0;
        if (!immediate) // a write of zero to a read-only one is illegal too, but not for the oracle
            insn.rs1 = below(2) ? 0 : pointers[0];
        break;
    case 2:
        insn.imm = absent[below(sizeof absent / sizeof absent[0])];
        break;
    case 3:
        if (b->flags & IMAGE_BLOCK_FS_KNOWN && !immediate) {
            access_sstatus(b, op);
            return;
        }
        insn.imm = CSR_SCAUSE;
        break;
    default:
        insn.imm = writable[below(sizeof writable / sizeof writable[0])];
        break;
    }
    if (insn.imm == CSR_SEPC)
        make_even(b, &insn, immediate);
    append_insn(b, insn);
}

static bool touches_reserved(const struct block *b, const struct rv64_insn *insn)
{
    const struct rv64_insn_info *info = &rv64_insn_table[insn->op];

    if (strchr(info->operands, 'd') && is_reserved(insn->rd))
        return true;
    return info->properties & RV64_P_MEMORY && !is_pointer(insn->rs1) && !(b->flags & IMAGE_BLOCK_WILD);
}

static void random_compressed(struct block *b, unsigned row)
{
    unsigned index = row - RV64_OPS, base = compressed[index].base;
    struct rv64_insn insn;
    uint32_t raw;

    if (strcmp(compressed[index].name, "c_jr") == 0 || strcmp(compressed[index].name, "c_jalr") == 0) {
        jump_register(b, row);
        return;
    }
    if (strcmp(compressed[index].name, "c_addi16sp") == 0) { // there and back
        append(b, 0x6101 | 1 << 6, row);
        append(b, 0x6101 | 0x1000 | 3 << 3 | 1 << 5 | 1 << 2 | 1 << 6, row);
        return;
    }
    do
        raw = compressed[index].match | ((uint32_t)rnd() & 0xffff & ~compressed[index].mask);
    while (!rv64_decode(raw, &insn) || insn.op != base || touches_reserved(b, &insn));
    if (rv64_insn_table[base].properties & (RV64_P_BRANCH | RV64_P_JUMP))
        append_branch(b, raw, row);
    else
        append(b, raw, row);
}

static void random_full(struct block *b, unsigned op)
{
    const struct rv64_insn_info *info = &rv64_insn_table[op];
    struct rv64_insn insn = random_insn(b, op);

    if (info->properties & RV64_P_CSR) {
        access_csr(b, op);
    } else if (op == RV64_OP_jalr) {
        jump_register(b, op);
    } else if (op == RV64_OP_lr_w || op == RV64_OP_lr_d || op == RV64_OP_sc_w || op == RV64_OP_sc_d) {
        load_reserved(b, op == RV64_OP_lr_w || op == RV64_OP_sc_w);
    } else if (info->properties & (RV64_P_BRANCH | RV64_P_JUMP)) {
        insn.imm = 0;
        append_branch(b, rv64_encode(&insn), op);
    } else {
        if (op == RV64_OP_ctzw) { // of a zero word the oracle counts the upper half (docs/conformance.md)
            uint8_t reg = random_scratch();
            append_insn(b, (struct rv64_insn){.op = RV64_OP_bseti, .rd = reg, .rs1 = insn.rs1, .imm = 31});
            insn.rs1 = reg;
        }
        append_insn(b, insn);
    }
}

static void random_illegal(struct block *b)
{
    struct rv64_insn insn;
    uint32_t raw;

    do
        raw = below(4) ? (uint32_t)rnd() : (uint32_t)rnd() & 0xffff;
    while (rv64_decode(raw, &insn));
    if (rv64_length(raw) == 2)
        raw &= 0xffff;
    b->items[b->n_items++] = (struct item){.raw = raw, .len_bytes = (uint8_t)rv64_length(raw), .target = NO_TARGET, .row = N_ROWS};
}

// What a row may need of the mode. Calls, returns and waits are only tried in U mode, where they trap.
static bool fits(const struct block *b, unsigned row)
{
    if (generate_row_excluded(row))
        return false;
    if (row == RV64_OP_ecall || row == RV64_OP_sret || row == RV64_OP_wfi)
        return b->flags & IMAGE_BLOCK_USER;
    if (row == RV64_OP_sfence_w_inval || row == RV64_OP_sfence_inval_ir)
        return b->flags & IMAGE_BLOCK_SUPERVISOR; // the oracle has them in U mode too (docs/conformance.md)
    return true;
}

static void random_unit(struct block *b)
{
    unsigned row;

    begin_unit(b);
    if (below(60) == 0) {
        random_illegal(b);
        return;
    }
    if (b->flags & IMAGE_BLOCK_WILD && below(100) == 0) { // anywhere, but not back: what is inverted is no address of code
        uint8_t reg = random_scratch();
        append_insn(b, (struct rv64_insn){.op = RV64_OP_xori, .rd = reg, .rs1 = (uint8_t)below(32), .imm = -1});
        append_insn(b, (struct rv64_insn){.op = RV64_OP_jalr, .rd = random_target(), .rs1 = reg, .imm = random_imm12()});
        return;
    }
    do
        row = below(N_ROWS);
    while (!fits(b, row));
    if (row < RV64_OPS)
        random_full(b, row);
    else
        random_compressed(b, row);
}

// A loop of a few units, run up to n times.
static void random_loop(struct block *b)
{
    unsigned first, start, n_units = 2 + below(6);
    int32_t distance = 0;

    begin_unit(b);
    append_insn(b, (struct rv64_insn){.op = RV64_OP_addi, .rd = IMAGE_LOOP_REGISTER, .imm = (int32_t)(2 + below(24))});
    first = b->n_units;
    start = b->n_items;
    for (unsigned i = 0; i < n_units; i++)
        random_unit(b);
    begin_unit(b);
    memset(&b->scope_end[first], (int)b->n_units - 1, b->n_units - first);
    append_insn(b, (struct rv64_insn){.op = RV64_OP_addi, .rd = IMAGE_LOOP_REGISTER, .rs1 = IMAGE_LOOP_REGISTER, .imm = -1});
    for (unsigned i = start; i < b->n_items; i++)
        distance -= b->items[i].len_bytes;
    append_insn(b, (struct rv64_insn){.op = RV64_OP_bne, .rs1 = IMAGE_LOOP_REGISTER, .imm = distance});
}

// --- branches

static int32_t distance(const struct block *b, unsigned from_item, unsigned to_item)
{
    int32_t bytes = 0;

    for (unsigned i = from_item; i < to_item; i++)
        bytes += b->items[i].len_bytes;
    return bytes;
}

static uint32_t encode_compressed(uint32_t raw, int32_t offset, bool jump)
{
    uint32_t o = (uint32_t)offset;

    if (jump) // offset[11|4|9:8|10|6|7|3:1|5]
        return (raw & 0xe003) | (o >> 11 & 1) << 12 | (o >> 4 & 1) << 11 | (o >> 8 & 3) << 9 | (o >> 10 & 1) << 8 |
               (o >> 6 & 1) << 7 | (o >> 7 & 1) << 6 | (o >> 1 & 7) << 3 | (o >> 5 & 1) << 2;
    return (raw & 0xe383) | (o >> 8 & 1) << 12 | (o >> 3 & 3) << 10 | (o >> 6 & 3) << 5 | (o >> 1 & 3) << 3 | (o >> 5 & 1) << 2;
}

static void set_offset(const struct block *b, struct item *item, unsigned index, unsigned to)
{
    struct rv64_insn insn;

    rv64_decode(item->raw, &insn);
    if (item->len_bytes == 2) {
        item->raw = encode_compressed(item->raw, distance(b, index, to), insn.op == RV64_OP_jal);
        return;
    }
    // jalr and addi count from the auipc before them.
    insn.imm = insn.op == RV64_OP_jalr || insn.op == RV64_OP_addi ? distance(b, index - 1, to) : distance(b, index, to);
    item->raw = rv64_encode(&insn);
}

// The end of a loop is a unit of its own scope: top-level units may go on behind loops, but never into one.
static void resolve_branches(struct block *b)
{
    for (unsigned unit = 0; unit < b->n_units; unit++)
        for (unsigned i = b->units[unit]; i < b->units[unit + 1]; i++) {
            struct item *item = &b->items[i];
            unsigned to;
            if (item->target == NO_TARGET)
                continue;
            do
                to = unit + 1 + below(8);
            while (to > b->n_units || to > b->scope_end[unit] || (to < b->n_units && b->scope_end[to] != b->scope_end[unit]));
            set_offset(b, item, i, b->units[to]);
        }
}

static void make_block(struct block *b)
{
    unsigned target = 16 + below(32);

    *b = (struct block){.flags = below(4) ? IMAGE_BLOCK_WILD : 0};
    memset(b->scope_end, UNITS_MAX, sizeof b->scope_end);
    switch (below(4)) {
    case 0:
        b->flags |= IMAGE_BLOCK_USER;
        break;
    case 1:
        b->flags |= IMAGE_BLOCK_SUPERVISOR | IMAGE_BLOCK_FS_KNOWN;
        break;
    default:
        break;
    }
    while (b->n_items < target) {
        if (below(12) == 0)
            random_loop(b);
        else
            random_unit(b);
    }
    b->units[b->n_units] = (uint8_t)b->n_items; // the end
    resolve_branches(b);
}

uint8_t *generate_program(const struct generate_options *options, size_t *len_bytes)
{
    uint8_t *program = calloc(1, IMAGE_PROGRAM_SIZE);
    struct image_header *header = (struct image_header *)program;
    size_t at = sizeof *header;

    if (!program)
        return NULL;
    *header = (struct image_header){
        .magic = IMAGE_MAGIC,
        .seed = options->seed,
        .n_blocks = options->n_blocks,
        .n_runs = options->n_runs,
        .verbose_first = options->verbose_first,
        .verbose_last = options->verbose_last,
        .on_oracle = options->on_oracle,
    };
    random_state = options->seed * 0x9e3779b97f4a7c15 | 1;
    for (unsigned n = 0; n < options->n_blocks; n++) {
        struct block b;
        const uint32_t ebreak = rv64_encode(&(struct rv64_insn){.op = RV64_OP_ebreak});
        make_block(&b);
        at = (at + 7) & ~(size_t)7;
        header->blocks[n] = (struct image_block){.offset_bytes = (uint32_t)at, .flags = b.flags};
        for (unsigned i = 0; i < b.n_items; i++) {
            memcpy(program + at, &b.items[i].raw, b.items[i].len_bytes);
            at += b.items[i].len_bytes;
        }
        header->blocks[n].len_bytes = (uint32_t)at - header->blocks[n].offset_bytes;
        memcpy(program + at, &ebreak, 4);
        at += 4;
    }
    *len_bytes = at;
    return program;
}

void generate_disassemble(const uint8_t *program, unsigned block, FILE *out)
{
    const struct image_header *header = (const struct image_header *)program;
    const struct image_block *b = &header->blocks[block];

    for (uint32_t at = 0; at < b->len_bytes + 4;) {
        uint64_t pc = IMAGE_PROGRAM + b->offset_bytes + at;
        char text[80] = "(illegal)";
        struct rv64_insn insn;
        uint32_t raw;
        memcpy(&raw, program + b->offset_bytes + at, 4);
        if (rv64_decode(raw, &insn))
            rv64_disassemble(&insn, pc, text, sizeof text);
        if (rv64_length(raw) == 2)
            fprintf(out, "  %08llx:     %04x  %s\n", (unsigned long long)pc, raw & 0xffff, text);
        else
            fprintf(out, "  %08llx: %08x  %s\n", (unsigned long long)pc, raw, text);
        at += rv64_length(raw);
    }
}
