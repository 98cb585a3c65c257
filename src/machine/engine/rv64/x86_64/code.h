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
// Code that has run a few times is translated so that it takes little room, and what turns out to run often once more, so that it
// runs fast: a large program's code fits, and does not crowd the processor's caches.
//
// When the memory is full everything is thrown away at once; no vcpu is in translated code then.
#pragma once

#include "machine/engine/rv64/decode.h"
#include "machine/engine/rv64/rv64.h"
#include "machine/engine/rv64/x86_64/asm.h"

// In priv. CROSSING: the block is one instruction that crosses the page's end. PLAIN: each access looks into the translation cache
// for itself. SMALL: the first translation, which takes little room; it counts how often it runs, and gives way to another one.
enum { CODE_CROSSING = 2, CODE_PLAIN = 4, CODE_SMALL = 8 };

// Blocks, pages and links are notes: described by where they lie among the notes, in bytes, 0 for none. Places in code are bytes
// from its beginning.
struct code_link { // a jump of another block's to this one
    uint32_t next;
    uint32_t site; // where its distance stands
    uint32_t stub; // where it went before
};

struct code_block {
    const uint8_t *guest;  // where its instructions lie in RAM
    _Atomic uint32_t next; // of the same hash
    uint32_t page;         // 0 for one that crosses its end
    uint32_t entry;        // by the jump table, with the virtual address in rax
    uint8_t priv;          // enum rv64_priv, and the above
    uint8_t body;          // from within the page, from `entry` on
    uint16_t heat;         // SMALL: how often it still runs before it is translated anew
    uint32_t next_in_page; // of the same guest page
    uint32_t links;
    uint32_t starts; // note: uint16_t of each instruction's code, from `entry` on, and of what is out of line; only without `chain`
    uint16_t code_bytes;
    uint8_t guest_halves; // how long the guest's instructions are, in halfwords
    uint8_t n_insns;
    uint8_t copy[]; // of the guest's instructions as they were
};

struct code_page {
    uint32_t next; // of the same hash
    uint32_t blocks;
    const uint8_t *guest;
    _Atomic uint64_t verified; // its blocks agreed with memory at this fence.i of the count below, or later
};

struct code_thunks { // pieces of code that all blocks use, as executed; thunks.c
    const uint8_t *enter, *leave, *leave_at, *leave_counting, *jump, *miss, *link, *link_plain, *hot, *step, *cold, *light,
        *fp_load;
    const uint8_t *search[2][4];          // by enum rv64_access and log2 of the size
    const uint8_t *load[2][4], *store[4]; // by whether it is signed, and log2 of the size
    const uint8_t *span[2];               // by enum rv64_access
};

struct rv64_code {
    uint8_t *write;         // the memory, as written
    const uint8_t *execute; // and as executed
    size_t bytes, used;
    size_t thunk_bytes; // at its beginning, never thrown away
    // Blocks' and pages' descriptions, emptied together with the code. They lie just behind `execute`, so that code reaches them.
    uint8_t *notes;
    size_t notes_bytes, notes_used;
    // Hashes of where in RAM something lies: a power of two of each.
    _Atomic uint32_t *blocks;
    uint32_t *pages;
    uint8_t *runs; // how often code ran that is not translated
    unsigned n_blocks, n_pages, n_runs;
    unsigned n_jumps; // of a context's jump table
    // All of the above, and patching. Without it, blocks may be searched by the hash: what is found there stays as it is until
    // everything is thrown away.
    pthread_mutex_t lock;
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

static inline void *code_note_at(const struct rv64_code *c, uint32_t note) // NULL for 0
{
    return note ? c->notes + note : NULL;
}

static inline uint32_t code_note_of(const struct rv64_code *c, const void *note)
{
    return (uint32_t)((const uint8_t *)note - c->notes);
}

static inline const uint8_t *code_entry(const struct rv64_code *c, const struct code_block *b) // as executed
{
    return c->execute + b->entry;
}

struct code_page *code_page(struct rv64_code *c, const uint8_t *guest); // made if need be; NULL: full
// The block at `guest`, small or not; NULL: there is none. It is for who has verified its page. Needs no lock.
struct code_block *code_find(const struct rv64_code *c, const uint8_t *guest, unsigned priv);
// Compares the page's blocks with memory, if they were not since that fence.i, and forgets those that have changed.
void code_verify(struct rv64_code *c, struct code_page *page, uint64_t fence);
// Memory for notes, zeroed; NULL: full.
void *code_note(struct rv64_code *c, size_t bytes);
void code_add(struct rv64_code *c, struct code_page *page, struct code_block *b); // page: NULL for one that crosses its end
void code_forget(struct rv64_code *c, struct code_block *b);
// `by` is the same instructions translated anew: the jumps to b go to it from now on.
void code_replace(struct rv64_code *c, struct code_page *page, struct code_block *b, struct code_block *by);
// Makes the jump whose distance stands at `site` go to the block; false: no room for the note of it.
bool code_link(struct rv64_code *c, struct code_block *b, uint32_t site);
// Whether what is at `guest` has not run so often yet that it is to be translated; counts it.
bool code_is_cold(struct rv64_code *c, const uint8_t *guest);

// --- names.c
void code_name_thunks(const struct rv64_code *c);
void code_name_block(const struct rv64_code *c, const struct code_block *b, uint64_t pc); // reached at the virtual address pc
