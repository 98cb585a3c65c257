// The audit: translator and interpreter side by side, on one vcpu.
//
// Translated code is left at each jump (code.h, `chain`). Before it is entered the interpreter runs the same stretch of guest code
// from the same state: up to a jump that is taken, a trap, an access to a device or an instruction that must not happen twice. It
// reads memory and writes to copies of pages, so that nobody sees what it does; the translation cache's entries are put back.
// Then the translated code runs for good, and at the stretch's end registers and what was stored are compared. Where translated
// code stops earlier (at a block's end, when attention is set), the interpreter repeats the stretch so far.
//
// Devices write to memory while the vcpu runs. A difference counts for nothing when something the interpreter has loaded is
// another value by now.
//
// What translated code does of system instructions itself is compared as well. The interpreter's `time` is the translated code's,
// and of a fence it does nothing but go on.
//
// Not compared: other system instructions and cache management, device accesses and what follows them in their block, what
// translated code leaves to the interpreter as a whole (interpret_blocks), and whether sstatus.FS says Initial, Clean or Dirty.
#pragma once

#include "machine/engine/rv64/decode.h"
#include "machine/engine/rv64/mmu.h"
#include "machine/engine/rv64/x86_64/code.h"

// More than a block has, even when it goes on in its other version.
#define AUDIT_INSNS_MAX 256
#define AUDIT_PARTS_MAX (AUDIT_INSNS_MAX * 2) // of accesses: two when a page's end is crossed

struct audit_state { // what an instruction may change, before and after
    uint64_t x[32], f[32];
    uint64_t pc, instret, sstatus, sscratch, sepc, scause, stval, reserved_addr, reserved_value;
    uint8_t fflags, frm, priv;
};

struct audit_access {
    uint64_t va;
    uint8_t *host;  // in RAM
    uint8_t *copy;  // of what was stored; NULL: a load
    uint64_t value; // that was there before
    unsigned size;
};

struct audit_entry { // of a translation cache, as it was
    struct rv64_tlb *tlb;
    unsigned i;
    struct rv64_tlb_entry entry;
    uint8_t leaf_shift;
    const struct rv64_context *context;
    uint64_t serial; // of the context, then
};

struct rv64_audit {
    const void *entry; // where translated code is to be entered; NULL: it is to be left
    const void *entered;
    bool active;           // a stretch is to be compared
    uint64_t instructions; // to be compared, at least
    uint64_t compared, stretches, repeated, excused;
    struct audit_state start, expected, found;
    bool trapped; // the interpreter's stretch ended so
    uint64_t n;   // its instructions
    unsigned n_accesses, n_pages, n_entries;
    uint64_t times[AUDIT_INSNS_MAX]; // that the stretch read
    unsigned n_times, times_known, next_time;
    struct audit_access accesses[AUDIT_PARTS_MAX];
    uint8_t *pages[AUDIT_PARTS_MAX]; // of RAM, those there are copies of
    struct audit_entry entries[AUDIT_PARTS_MAX];
    uint8_t *copies; // of the pages
    char *text;      // of the report
    char *difference;
};

// For run_jump(): once where audit_run() says, then out.
static inline const void *audit_entry(struct rv64_audit *a)
{
    const void *entry = a->entry;
    a->entry = NULL;
    return entry;
}

// For run_hot(): the block that was entered gives way to another.
static inline void audit_enter_anew(struct rv64_audit *a, const void *entry)
{
    a->entered = entry;
}

// For run_time().
static inline uint64_t audit_time(struct rv64_vcpu *v)
{
    struct rv64_audit *a = v->audit;
    return a->active && a->next_time < a->times_known ? a->times[a->next_time++] : rv64_time(v->engine);
}

bool audit_is_apart(const struct rv64_insn *insn, unsigned priv); // happens once, by the translated side
void audit_run(struct rv64_vcpu *v);
// A stretch begins and ends at v->pc, everything is in the vcpu.
void audit_begin(struct rv64_vcpu *v);
void audit_end(struct rv64_vcpu *v);
void audit_end_at_access(struct rv64_vcpu *v); // as v->access_at says

// audit_report.c: what differs between a->expected and a->found, and the code. Ends the machine.
void audit_report_difference(struct rv64_vcpu *v, uint64_t n);
bool audit_states_agree(const struct audit_state *expected, const struct audit_state *found);
bool audit_access_agrees(const struct audit_access *access); // of a store
