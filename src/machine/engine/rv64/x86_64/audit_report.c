// What an audit reports: the difference, the guest's instructions and the host's code; or how much was compared.
#include "machine/engine/rv64/translator.h"
#include "machine/engine/rv64/x86_64/audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_PER_LINE 24

// One register of the state.
struct field {
    const char *name;
    size_t offset;
};
#define FIELD(name)                                                                                                                \
    {                                                                                                                              \
#name, offsetof(struct audit_state, name)                                                                                  \
    }
static const struct field fields[] = {
    FIELD(pc), FIELD(instret), FIELD(sstatus), FIELD(sscratch), FIELD(sepc), FIELD(scause), FIELD(stval), FIELD(reserved_addr),
};

static const char *const x_names[32] = {"zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "s0", "s1", "a0",
                                        "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
                                        "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"};

static uint64_t field_of(const struct audit_state *s, const struct field *f)
{
    uint64_t value;
    memcpy(&value, (const uint8_t *)s + f->offset, sizeof(value));
    return value;
}

// Off, or on.
static uint64_t comparable(const struct field *f, uint64_t value)
{
    return f->offset == offsetof(struct audit_state, sstatus) && value & RV64_SSTATUS_FS ? value | RV64_SSTATUS_FS : value;
}

static bool field_agrees(const struct field *f, const struct audit_state *expected, const struct audit_state *found)
{
    return comparable(f, field_of(expected, f)) == comparable(f, field_of(found, f));
}

bool audit_states_agree(const struct audit_state *expected, const struct audit_state *found)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (!field_agrees(&fields[i], expected, found))
            return false;
    return memcmp(expected->x, found->x, sizeof(found->x)) == 0 && memcmp(expected->f, found->f, sizeof(found->f)) == 0 &&
           expected->fflags == found->fflags && expected->frm == found->frm && expected->priv == found->priv &&
           (found->reserved_addr == ~0ull || expected->reserved_value == found->reserved_value);
}

RV64_GUEST_RACES bool audit_access_agrees(const struct audit_access *access)
{
    return !access->copy || memcmp(access->copy, access->host, access->size) == 0;
}

// --- What differs

static void line(FILE *out, const char *name, uint64_t before, uint64_t expected, uint64_t found)
{
    fprintf(out, "  %-18s %016" PRIx64 "   %016" PRIx64 "   %016" PRIx64 "\n", name, before, expected, found);
}

static void print_registers(FILE *out, const struct rv64_audit *a)
{
    char name[32];
    for (unsigned i = 0; i < 32; i++)
        if (a->expected.x[i] != a->found.x[i]) {
            snprintf(name, sizeof(name), "x%u (%s)", i, x_names[i]);
            line(out, name, a->start.x[i], a->expected.x[i], a->found.x[i]);
        }
    for (unsigned i = 0; i < 32; i++)
        if (a->expected.f[i] != a->found.f[i]) {
            snprintf(name, sizeof(name), "f%u", i);
            line(out, name, a->start.f[i], a->expected.f[i], a->found.f[i]);
        }
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (!field_agrees(&fields[i], &a->expected, &a->found))
            line(out, fields[i].name, field_of(&a->start, &fields[i]), field_of(&a->expected, &fields[i]),
                 field_of(&a->found, &fields[i]));
    const struct {
        const char *name;
        uint64_t before, expected, found;
    } rest[] = {{"fflags", a->start.fflags, a->expected.fflags, a->found.fflags},
                {"frm", a->start.frm, a->expected.frm, a->found.frm},
                {"privilege", a->start.priv, a->expected.priv, a->found.priv},
                {"reserved value", a->start.reserved_value, a->expected.reserved_value, a->found.reserved_value}};
    for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++)
        if (rest[i].expected != rest[i].found)
            line(out, rest[i].name, rest[i].before, rest[i].expected, rest[i].found);
}

static void print_stores(FILE *out, const struct rv64_audit *a)
{
    for (unsigned i = 0; i < a->n_accesses; i++) {
        const struct audit_access *s = &a->accesses[i];
        uint64_t expected = 0, found = 0;
        char name[32];
        if (audit_access_agrees(s))
            continue;
        memcpy(&expected, s->copy, s->size);
        memcpy(&found, s->host, s->size);
        snprintf(name, sizeof(name), "%" PRIx64 ":%u", s->va, s->size);
        line(out, name, s->value, expected, found);
    }
}

// --- The code

static void print_bytes(FILE *out, const uint8_t *entry, size_t from, size_t to)
{
    for (size_t at = from; at < to; at += BYTES_PER_LINE) {
        fprintf(out, "        +%04zx ", at);
        for (size_t i = at; i < at + BYTES_PER_LINE && i < to; i++)
            fprintf(out, " %02x", entry[i]);
        fputc('\n', out);
    }
}

static void print_block(FILE *out, const struct rv64_code *c, const struct code_block *b, uint64_t pc)
{
    unsigned offset = 0;
    const uint8_t *entry = code_entry(c, b);
    const uint16_t *starts = code_note_at(c, b->starts);
    fprintf(out, "block at %016" PRIx64 " (%s mode%s), %u instructions, host code at %p:\n", pc, b->priv & RV64_S ? "S" : "U",
            b->priv & CODE_PLAIN   ? ", the version without spans"
            : b->priv & CODE_SMALL ? ", the small version"
                                   : "",
            b->n_insns, (const void *)entry);
    if (starts)
        print_bytes(out, entry, 0, starts[0]);
    for (unsigned i = 0; i < b->n_insns; i++) {
        struct rv64_insn insn;
        uint32_t raw = 0;
        char text[64];
        memcpy(&raw, b->copy + offset, 2);
        unsigned length = rv64_length(raw);
        if (length == 4)
            memcpy((uint8_t *)&raw + 2, b->copy + offset + 2, 2);
        rv64_decode(raw, &insn);
        rv64_disassemble(&insn, pc + offset, text, sizeof(text));
        fprintf(out, "    %016" PRIx64 "  %0*x%*s  %s\n", pc + offset, (int)(2 * length), raw, (int)(8 - 2 * length), "", text);
        if (starts)
            print_bytes(out, entry, starts[i], starts[i + 1]);
        offset += length;
    }
    fprintf(out, "    out of line:\n");
    print_bytes(out, entry, starts ? starts[b->n_insns] : 0, b->code_bytes);
}

static const struct code_block *entered_block(const struct rv64_code *c, const void *entry)
{
    for (unsigned i = 0; i < c->n_blocks; i++)
        for (const struct code_block *b = code_note_at(c, c->blocks[i]); b; b = code_note_at(c, b->next))
            if (code_entry(c, b) == entry)
                return b;
    return NULL;
}

// Code went on in the other version of the block where that exists, so it is printed as well.
static void print_code(FILE *out, const struct rv64_code *c, const struct rv64_audit *a)
{
    const struct code_block *b = entered_block(c, a->entered);
    if (!b)
        return;
    uint64_t page = a->start.pc & RV64_PAGE_MASK;
    uint64_t pc = page | ((uintptr_t)b->guest & (RV64_PAGE_BYTES - 1));
    print_block(out, c, b, pc);
    for (unsigned at = 2; at < b->guest_halves * 2u && !(b->priv & CODE_CROSSING); at += 2) {
        const struct code_block *plain = code_find(c, b->guest + at, (b->priv & RV64_S) | CODE_PLAIN);
        if (plain)
            print_block(out, c, plain, pc + at);
    }
}

// --- The report

void audit_report_difference(struct rv64_vcpu *v, uint64_t n)
{
    struct rv64_audit *a = v->audit;
    size_t size;
    char reason[160];
    snprintf(reason, sizeof(reason),
             "translator and interpreter differ behind pc %" PRIx64 ", after %" PRIu64 " instructions compared", a->start.pc,
             a->compared);
    FILE *out = open_memstream(&a->difference, &size);
    if (out) {
        fprintf(out, "audit: %s\n", reason);
        fprintf(out, "the translator did %" PRIu64 " instructions, the interpreter %" PRIu64 "%s; from pc %016" PRIx64 ":\n", n,
                a->n, a->trapped ? " and then a trap" : "", a->start.pc);
        fprintf(out, "  %-18s %-16s   %-16s   %-16s\n", "", "before", "interpreter", "translator");
        print_registers(out, a);
        print_stores(out, a);
        print_code(out, v->engine->code, a);
        fclose(out);
    }
    rv64_end(v->engine, ENGINE_EXIT_FAILURE, reason);
}

const char *rv64_audit_report(struct rv64_audit *a, uint64_t instructions)
{
    size_t size;
    free(a->text);
    a->text = NULL;
    FILE *out = open_memstream(&a->text, &size);
    if (!out)
        return a->difference;
    fprintf(out,
            "%saudit: %" PRIu64 " instructions compared in %" PRIu64 " stretches, %" PRIu64 " not (%" PRIu64
            " stretches read what devices wrote meanwhile)\n",
            a->difference ? a->difference : "", a->compared, a->stretches, instructions - a->compared, a->excused);
    fclose(out);
    return a->text;
}
