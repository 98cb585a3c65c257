// Decoded blocks of one vcpu: straight runs of instructions, each within a page, found by where their code lies in RAM. Owned by
// the vcpu's thread.
//
// Blocks live in an arena that is emptied as a whole when it is full. A block may be stale once fence.i was executed; it is
// compared with memory before it runs again.
#pragma once

#include "machine/engine/rv64/decode.h"
#include "machine/engine/rv64/rv64.h"

#define RV64_BLOCK_INSNS_MAX 64

struct rv64_block {
    const uint8_t *code;     // where it was decoded from
    uint64_t generation;     // it agreed with memory at this fence.i; only that of the cache makes it usable
    struct rv64_block *next; // of the same hash
    // Successors within the same page: [0] behind the block's end, [1] where its jump goes. NULL when not yet known.
    struct rv64_block *link[2];
    uint32_t n_insns;
    uint32_t bytes;
    struct rv64_insn insns[]; // n_insns, and RV64_OP_end unless the last one ends blocks anyway
};

#define RV64_LOOKUP_SLOTS 2048u

struct rv64_block_lookup { // by virtual address, valid while the context's serial is this
    uint64_t pc;
    uint64_t context;
    struct rv64_block *block;
};

struct rv64_block_cache {
    uint64_t generation; // counts fence.i
    uint64_t flushes;    // of the arena
    uint8_t *arena;
    size_t arena_bytes, used_bytes;
    struct rv64_block **hash;
    // One instruction that crosses a page's end: its halves may be anywhere, so it is never found again, nor linked to.
    struct rv64_block *crossing;
    struct rv64_block_lookup lookup[RV64_LOOKUP_SLOTS];
};

// The block at pc, decoded if need be. NULL with trap_cause and trap_value set when fetching faults.
struct rv64_block *rv64_block_find(struct rv64_vcpu *v, uint64_t pc);
// The block at v->pc, to which `from`, run at from_pc, went by its link. Remembered there if that may be.
struct rv64_block *rv64_block_find_next(struct rv64_vcpu *v, uint64_t from_pc, struct rv64_block *from, unsigned link);
