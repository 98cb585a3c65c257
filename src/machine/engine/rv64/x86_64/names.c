// What translated code is called in the files for perf(1): a thunk by what it does, a block by its privilege and by the virtual
// address that it was first reached at (it may be mapped at others as well).
#include "machine/engine/perf.h"
#include "machine/engine/rv64/x86_64/translate.h"

#include <inttypes.h>
#include <stdio.h>

#define THUNK(member)                                                                                                              \
    {                                                                                                                              \
        "rv64_" #member, offsetof(struct code_thunks, member)                                                                      \
    }
static const struct {
    const char *name;
    size_t offset;
} thunks[] = {
    THUNK(enter),
    THUNK(leave),
    THUNK(leave_at),
    THUNK(leave_counting),
    THUNK(jump),
    THUNK(miss),
    THUNK(link),
    THUNK(link_plain),
    THUNK(step),
    THUNK(cold),
    THUNK(light),
    THUNK(fp_load),
    THUNK(hot),
    {"rv64_load8", offsetof(struct code_thunks, load[0][0])},
    {"rv64_load16", offsetof(struct code_thunks, load[0][1])},
    {"rv64_load32", offsetof(struct code_thunks, load[0][2])},
    {"rv64_load64", offsetof(struct code_thunks, load[0][3])},
    {"rv64_load8_signed", offsetof(struct code_thunks, load[1][0])},
    {"rv64_load16_signed", offsetof(struct code_thunks, load[1][1])},
    {"rv64_load32_signed", offsetof(struct code_thunks, load[1][2])},
    {"rv64_load64_signed", offsetof(struct code_thunks, load[1][3])},
    {"rv64_store8", offsetof(struct code_thunks, store[0])},
    {"rv64_store16", offsetof(struct code_thunks, store[1])},
    {"rv64_store32", offsetof(struct code_thunks, store[2])},
    {"rv64_store64", offsetof(struct code_thunks, store[3])},
    {"rv64_search_read8", offsetof(struct code_thunks, search[0][0])},
    {"rv64_search_read16", offsetof(struct code_thunks, search[0][1])},
    {"rv64_search_read32", offsetof(struct code_thunks, search[0][2])},
    {"rv64_search_read64", offsetof(struct code_thunks, search[0][3])},
    {"rv64_search_write8", offsetof(struct code_thunks, search[1][0])},
    {"rv64_search_write16", offsetof(struct code_thunks, search[1][1])},
    {"rv64_search_write32", offsetof(struct code_thunks, search[1][2])},
    {"rv64_search_write64", offsetof(struct code_thunks, search[1][3])},
    {"rv64_span_read", offsetof(struct code_thunks, span[0])},
    {"rv64_span_write", offsetof(struct code_thunks, span[1])},
};
#define N_THUNKS (sizeof(thunks) / sizeof(thunks[0]))

static const uint8_t *thunk(const struct rv64_code *c, size_t i)
{
    return *(const uint8_t *const *)(const void *)((const char *)&c->thunks + thunks[i].offset);
}

// The thunk that begins next at or behind `at`, or N_THUNKS.
static size_t next_thunk(const struct rv64_code *c, const uint8_t *at)
{
    size_t next = N_THUNKS;
    for (size_t i = 0; i < N_THUNKS; i++)
        if (thunk(c, i) >= at && (next == N_THUNKS || thunk(c, i) < thunk(c, next)))
            next = i;
    return next;
}

// Each goes on up to the next one.
void code_name_thunks(const struct rv64_code *c)
{
    if (!c->perf)
        return;
    for (size_t i = next_thunk(c, c->execute); i < N_THUNKS;) {
        size_t next = next_thunk(c, thunk(c, i) + 1);
        const uint8_t *end = next < N_THUNKS ? thunk(c, next) : c->execute + c->thunk_bytes;
        perf_add(c->perf, thunk(c, i), (size_t)(end - thunk(c, i)), thunks[i].name, true);
        i = next;
    }
}

void code_name_block(const struct rv64_code *c, const struct code_block *b, uint64_t pc)
{
    char name[PERF_NAME_MAX];
    if (!c->perf)
        return;
    const char *version = b->priv & CODE_SMALL ? "_small" : b->priv & CODE_PLAIN ? "_plain" : "";
    snprintf(name, sizeof(name), "rv64_%c_%016" PRIx64 "%s", b->priv & RV64_S ? 'S' : 'U', pc, version);
    perf_add(c->perf, code_entry(c, b), b->code_bytes, name, false);
}
