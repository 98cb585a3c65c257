// Which accesses of a block one look at the translation cache can serve: those that go by the same value, however many registers
// it went through by addi, between two places where the translation may change. A branch that is not taken is none, so a look may
// be at more than comes to be used. See translate.h.
#include "machine/engine/rv64/x86_64/translate.h"

// How far a span may reach: the further, the more often it lies in two pages.
#define SPAN_BYTES_MAX 512

struct value { // of a register: what it was derived from, and how far it is from that
    unsigned root;
    int64_t offset;
    bool loaded; // computed from something that this block loaded
};

struct finder {
    struct value values[32];
    unsigned n_roots;
    struct translator *t;
    unsigned first_span; // of this stretch of the block
};

static void new_value(struct finder *f, unsigned x, bool loaded)
{
    f->values[x] = (struct value){.root = f->n_roots++, .loaded = loaded};
}

static void new_stretch(struct finder *f)
{
    f->first_span = f->t->n_spans;
}

static uint32_t properties_of(const struct rv64_insn *insn)
{
    return insn->op < RV64_OPS ? rv64_insn_table[insn->op].properties : RV64_P_SYSTEM;
}

static unsigned span_for(struct finder *f, unsigned root, int64_t first, int64_t last)
{
    struct translator *t = f->t;
    for (unsigned i = f->first_span; i < t->n_spans; i++) {
        struct span *s = &t->spans[i];
        int64_t low = first < s->first ? first : s->first, high = last > s->last ? last : s->last;
        if (s->root == root && high - low < SPAN_BYTES_MAX) {
            s->first = low;
            s->last = high;
            return i;
        }
    }
    t->spans[t->n_spans] = (struct span){.root = root, .first = first, .last = last, .slot = -1};
    return t->n_spans++;
}

static void add_access(struct finder *f, unsigned i)
{
    struct translator *t = f->t;
    const struct rv64_insn *insn = &t->insns[i];
    const struct value *base = &f->values[insn->rs1];
    int64_t first = base->offset + insn->imm, last = first + RV64_P_SIZE_OF(properties_of(insn)) - 1;
    unsigned n = span_for(f, base->root, first, last);
    struct span *s = &t->spans[n];
    if (properties_of(insn) & RV64_P_STORE)
        s->access = RV64_WRITE; // what can be written can be read
    if (s->n_accesses > 0 && t->span_of[i - 1] != n)
        s->apart = true;
    s->n_accesses++;
    t->span_of[i] = (uint8_t)n;
    t->base_offset[i] = base->offset;
    t->base_loaded[i] = base->loaded;
}

static bool writes_x(const struct rv64_insn *insn)
{
    return insn->op < RV64_OPS && rv64_insn_table[insn->op].operands[0] == 'd' && insn->rd != 0;
}

void translate_find_spans(struct translator *t)
{
    struct finder f = {.t = t};
    for (unsigned x = 0; x < 32; x++)
        new_value(&f, x, false);
    for (unsigned i = 0; i < t->n_insns; i++) {
        const struct rv64_insn *insn = &t->insns[i];
        t->span_of[i] = SPAN_NONE;
        if (translate_is_access(insn))
            add_access(&f, i);
        else if (properties_of(insn) & (RV64_P_SYSTEM | RV64_P_ATOMIC))
            new_stretch(&f);
        if (!writes_x(insn))
            continue;
        struct value from = f.values[insn->rs1];
        if (insn->op == RV64_OP_addi) {
            from.offset += insn->imm;
            f.values[insn->rd] = from;
        } else if (insn->op == RV64_OP_add && (insn->rs1 == 0 || insn->rs2 == 0)) {
            f.values[insn->rd] = f.values[insn->rs1 == 0 ? insn->rs2 : insn->rs1];
        } else {
            bool loaded = properties_of(insn) & RV64_P_LOAD || from.loaded || (insn->rs2 < 32 && f.values[insn->rs2].loaded);
            new_value(&f, insn->rd, loaded);
        }
    }
    // Where the addend is kept until the span's next access.
    int slots = 0;
    for (unsigned i = 0; i < t->n_spans; i++)
        if (t->spans[i].apart)
            t->spans[i].slot = slots++ % RV64_ADDENDS;
}
