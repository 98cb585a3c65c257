// Any words as instructions: decoding takes or refuses them, and what it took encodes to the same word (a compressed one to its
// full form, which decodes alike) and prints within its buffer. Input: the words.
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "machine/engine/rv64/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(uint32_t word)
{
    struct rv64_insn insn, again;
    char text[80], small[8];
    bool ok = rv64_decode(word, &insn);
    int n = rv64_disassemble(&insn, word, text, sizeof(text));
    assert(n > 0 && (size_t)n < sizeof(text) && strlen(text) == (size_t)n);
    assert(rv64_disassemble(&insn, word, small, sizeof(small)) == n && strlen(small) < sizeof(small));
    assert(ok == (insn.op < RV64_OPS) && ok == (strncmp(text, "illegal", 7) != 0));
    if (!ok)
        return;
    assert(insn.rd < 32 && insn.rs1 < 32 && insn.rs2 < 32);
    uint32_t full = rv64_encode(&insn);
    if (rv64_length(word) == 4)
        assert(full == word);
    assert(rv64_decode(full, &again));
    again.raw = insn.raw;
    assert(memcmp(&insn, &again, sizeof(insn)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (uint32_t word; size >= sizeof(word); data += sizeof(word), size -= sizeof(word)) {
        memcpy(&word, data, sizeof(word));
        check(word);
    }
    return 0;
}
