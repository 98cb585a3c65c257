// The instruction table: that its rows do not contradict each other, and that decoding, encoding and printing agree.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "machine/engine/rv64/decode.h"

// SplitMix64: the same words in every run.
static uint64_t next_random(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static void test_rows_are_sound(void **state)
{
    (void)state;
    for (unsigned op = 0; op < RV64_OPS; op++) {
        const struct rv64_insn_info *a = &rv64_insn_table[op];
        assert_int_equal(a->match & ~a->mask, 0);
        assert_int_equal(a->match & 3, 3);
        for (unsigned later = op + 1; later < RV64_OPS; later++) {
            const struct rv64_insn_info *b = &rv64_insn_table[later];
            if (((a->match ^ b->match) & a->mask & b->mask) != 0)
                continue;
            // They overlap: the first must be a special case of the second, as pause is of fence.
            if ((a->mask & b->mask) != b->mask)
                fail_msg("%s and %s overlap", a->name, b->name);
        }
    }
}

static void test_every_row_round_trip(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (unsigned op = 0; op < RV64_OPS; op++) {
        const struct rv64_insn_info *info = &rv64_insn_table[op];
        unsigned decoded = 0;
        for (unsigned i = 0; i < 2000; i++) {
            uint32_t raw = ((uint32_t)next_random(&seed) & ~info->mask) | info->match;
            struct rv64_insn insn;
            if (!rv64_decode(raw, &insn) || insn.op != op)
                continue; // a reserved rounding mode, or a special case that has its own row
            decoded++;
            if (rv64_encode(&insn) != raw)
                fail_msg("%s: %08x was encoded as %08x", info->name, raw, rv64_encode(&insn));
        }
        if (decoded < 1000)
            fail_msg("%s: only %u of 2000 words decode", info->name, decoded);
    }
}

static void test_every_compressed_has_a_full_form(void **state)
{
    (void)state;
    unsigned valid = 0;
    for (uint32_t raw = 0; raw < 0x10000; raw++) {
        struct rv64_insn half, full;
        if ((raw & 3) == 3 || !rv64_decode(raw, &half))
            continue;
        valid++;
        assert_int_equal(half.raw, raw);
        assert_true(rv64_decode(rv64_encode(&half), &full));
        if (full.op != half.op || full.rd != half.rd || full.rs1 != half.rs1 || full.rs2 != half.rs2 || full.imm != half.imm)
            fail_msg("%04x is not what its full form %08x is", raw, rv64_encode(&half));
    }
    // The three quadrants without what is reserved: addi4spn of 0; funct3 4 in quadrant 0; addiw x0; lui and addi16sp of 0; funct2
    // 2 and 3 of the arithmetic with bit 12; lwsp and ldsp to x0; jr x0.
    unsigned reserved = 8 + 2048 + 64 + 32 + 128 + 64 + 64 + 1;
    assert_int_equal(valid, 3 * 0x4000 - reserved);
}

static bool decodes(uint32_t raw)
{
    struct rv64_insn insn;
    return rv64_decode(raw, &insn);
}

static void test_reserved(void **state)
{
    (void)state;
    static const uint32_t reserved[] = {
        0x0000,                // defined to be illegal
        0x0004,                // c.addi4spn with 0
        0x8000,                // quadrant 0, funct3 4: Zcb
        0x2001,                // c.addiw x0
        0x6101,                // c.addi16sp with 0
        0x6081,                // c.lui x1, 0
        0x9c41,                // quadrant 1, where Zcb is
        0x4002,                // c.lwsp x0
        0x6002,                // c.ldsp x0
        0x8002,                // c.jr x0
        0x00000000,            // all zeroes
        0xffffffff,            // all ones
        0x02005013 | 1u << 26, // srli with a seventh bit
        0x0200101b,            // slliw by 32
        0x00005053,            // fadd.s with rounding mode 5
        0x00006053,            // and 6
        0x30200073,            // mret
        0x00200073,            // uret
        0x02000057,            // a vector instruction
        0x00007063 ^ 0x5000,   // branch with funct3 2
        0x0000007f,            // longer than 32 bits
        0x1012a02f | 1u << 20, // lr.w with rs2
    };
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        if (decodes(reserved[i]))
            fail_msg("%08x is reserved but decodes", reserved[i]);
    assert_true(decodes(0x0001)); // c.nop
    assert_true(decodes(0x0085)); // c.addi
    assert_true(decodes(0x6005)); // c.lui x0: a hint
    assert_true(decodes(0x8002 | 1 << 7));
    assert_true(decodes(0x00007053)); // dynamic rounding
}

static void test_print(void **state)
{
    (void)state;
    static const struct {
        uint32_t raw;
        const char *text;
    } cases[] = {
        {0x00c58533, "add a0,a1,a2"},
        {0xff010113, "addi sp,sp,-16"},
        {0x00813423, "sd s0,8(sp)"},
        {0xfe0518e3, "bne a0,zero,0xff0"},
        {0x0040006f, "jal zero,0x1004"},
        {0x12345537, "lui a0,0x12345"},
        {0x02051513, "slli a0,a0,32"},
        {0x10051073, "csrrw zero,0x100,a0"},
        {0x30029073 ^ 0x4000, "csrrwi zero,0x300,5"},
        {0x02c5f553, "fadd.d fa0,fa1,fa2,dyn"},
        {0x6ac5f543, "fmadd.d fa0,fa1,fa2,fa3,dyn"},
        {0x0ef52aaf, "amoswap.w.aqrl s5,a5,(a0)"},
        {0x0ff0000f, "fence iorw,iorw"},
        {0x0100000f, "pause"},
        {0x0000100f, "fence.i"},
        {0x12b50073, "sfence.vma a0,a1"},
        {0x8082, "jalr zero,0(ra)"},
        {0x9002, "ebreak"},
        {0x0000, "illegal 0x0"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rv64_insn insn;
        char text[64];
        rv64_decode(cases[i].raw, &insn);
        int n = rv64_disassemble(&insn, 0x1000, text, sizeof(text));
        assert_string_equal(text, cases[i].text);
        assert_int_equal(n, strlen(text));
        char cut[5];
        assert_int_equal(rv64_disassemble(&insn, 0x1000, cut, sizeof(cut)), n);
        assert_memory_equal(cut, text, 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_sound),
        cmocka_unit_test(test_every_row_round_trip),
        cmocka_unit_test(test_every_compressed_has_a_full_form),
        cmocka_unit_test(test_reserved),
        cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
