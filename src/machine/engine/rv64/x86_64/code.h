// Translated code: the memory it lives in, how it is found, and how it is thrown away. One for all vcpus of an engine.
//
// The memory is mapped twice, once to write and once to execute, and never both at one address. A block of code is found by where
// the guest's instructions lie in RAM and by the privilege they run with; where they are mapped does not matter, since the code
// takes its own virtual address from the vcpu. Blocks within one guest page jump to each other directly. Into another page code
// goes by the jump table of the vcpu's context (mmu.h) and nothing else, so that what was reached by it is checked on the way in.
//
// Code goes stale as architecture allows: what a hart runs agreed with memory at some time since its last fence.i. That empties
// the hart's jump tables, and the first jump into a page compares all the page's blocks with memory again; the jumps to those that
// differ go back to where they went before, which looks for the block anew.
//
// When the memory is full everything is thrown away at once; no vcpu is in translated code then.
#pragma once

#include "machine/engine/rv64/decode.h"
#include "machine/engine/rv64/rv64.h"
#include "machine/engine/rv64/x86_64/asm.h"

#define CODE_PAGE_SLOTS 4096u
#define CODE_BLOCK_SLOTS 32768u
#define CODE_RUNS_BITS 16

// In priv: the block is one instruction that crosses the page's end; each access looks into the translation cache for itself.
enum { CODE_CROSSING = 2, CODE_PLAIN = 4 };

struct code_link { // a jump of another block's to this one
    struct code_link *next;
    uint8_t *site;       // where its distance stands, as written
    const uint8_t *stub; // where it went before
};

struct code_block {
    struct code_block *next;         // of the same hash
    struct code_block *next_in_page; // of the same guest page
    struct code_link *links;
    const uint8_t *guest; // where its instructions lie in RAM
    const uint8_t *entry; // by the jump table, with the virtual address in rax; as executed
    const uint8_t *body;  // from within the page; as executed
    const uint8_t *end;
    const uint16_t *starts; // of each instruction's code, from `entry` on, and of what is out of line; only without `chain`
    uint16_t guest_bytes, n_insns;
    uint8_t priv;   // enum rv64_priv, CODE_CROSSING, CODE_PLAIN
    uint8_t copy[]; // of the guest's instructions as they were
};

struct code_page {
    struct code_page *next; // of the same hash
    const uint8_t *guest;
    struct code_block *blocks;
    uint64_t verified; // its blocks agreed with memory at this fence.i of the count below, or later
};

struct code_thunks { // pieces of code that all blocks use, as executed; thunks.c
    const uint8_t *enter, *leave, *leave_at, *leave_counting, *jump, *miss, *link, *link_plain, *step, *cold, *light, *fp_load;
    const uint8_t *load[4], *store[4]; // by log2 of the size
    const uint8_t *fill[2];            // by enum rv64_access
};

struct rv64_code {
    uint8_t *write;         // the memory, as written
    const uint8_t *execute; // and as executed
    size_t bytes, used;
    size_t thunk_bytes; // at its beginning, never thrown away
    uint8_t *notes;     // blocks' and pages' descriptions, emptied together with the code
    size_t notes_bytes, notes_used;
    uint8_t runs[1 << CODE_RUNS_BITS]; // of code that is not translated, by a hash of where it lies
    struct code_block *blocks[CODE_BLOCK_SLOTS];
    struct code_page *pages[CODE_PAGE_SLOTS];
    pthread_mutex_t lock;    // all of the above, and patching
    pthread_rwlock_t in_use; // held for reading by a vcpu in translated code, for writing when code is thrown away
    _Atomic uint64_t fences; // fence.i executed by any hart
    _Atomic uint64_t epoch;  // how often everything was thrown away
    _Atomic bool full;
    // False for an audit: control leaves a block only by run_jump() and run_link(), which lead back to C. Nothing enters the jump
    // tables, and no jump of a block is made to go to another, nor to its own beginning.
    bool chain;
    struct code_thunks thunks;
    struct perf *perf; // borrowed; NULL: nobody wants names
};

// The address as executed of what stands at `write`, and the other way round.
static inline const uint8_t *code_executed(const struct rv64_code *c, const uint8_t *write)
{
    return c->execute + (write - c->write);
}

static inline uint8_t *code_written(const struct rv64_code *c, const uint8_t *executed)
{
    return c->write + (executed - c->execute);
}

struct code_page *code_page(struct rv64_code *c, const uint8_t *guest); // made if need be; NULL: full
// The block at `guest`, whose page was verified; NULL: there is none.
struct code_block *code_find(const struct rv64_code *c, const uint8_t *guest, unsigned priv);
// Compares the page's blocks with memory, if they were not since that fence.i, and forgets those that have changed.
void code_verify(struct rv64_code *c, struct code_page *page, uint64_t fence);
// Memory for notes, zeroed; NULL: full.
void *code_note(struct rv64_code *c, size_t bytes);
void code_add(struct rv64_code *c, struct code_page *page, struct code_block *b); // page: NULL for one that crosses its end
void code_forget(struct rv64_code *c, const struct code_block *b);
// Makes the jump whose distance stands at `site` go to the block; false: no room for the note of it.
bool code_link(struct rv64_code *c, struct code_block *b, uint8_t *site);

// --- names.c
void code_name_thunks(const struct rv64_code *c);
void code_name_block(const struct rv64_code *c, const struct code_block *b, uint64_t pc); // reached at the virtual address pc
