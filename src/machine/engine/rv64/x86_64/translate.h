// The translator: private header of this folder.
//
// asm.h        x86-64 instructions
// code.c       memory for translated code; finding blocks; stale code
// translate.c  a block: its instructions one after the other, its exits, what is out of line
// integer.c    integer instructions
// spans.c      which accesses one look at the translation cache can serve
// memory.c     loads, stores, atomics, through the translation cache
// float.c      floating point
// system.c     CSRs, traps, sret, sfence.vma
// thunks.c     what all blocks use: the way in and out, calls of C
// run.c        what translated code calls
// names.c      what code is called in a profile
// audit.c      comparing it with the interpreter (audit.h), audit_report.c
//
// Registers while translated code runs:
//   rsp        the vcpu. Below it there is a stack (vcpu.c), so that C can be called and signals taken as ever.
//   r15        the context in use (mmu.h)
//   xmm15      instructions retired
//   rax rcx rdx, xmm0 xmm1   scratch, dead between two guest instructions
//   the others hold guest registers, always the same (translate_home); what has no home is in the vcpu
// The floating-point registers are in their homes only while v->fp_loaded. An instruction's results are in place when the next one
// begins, so that every instruction is a precise place to trap.
#pragma once

#include "machine/engine/rv64/decode.h"
#include "machine/engine/rv64/mmu.h"
#include "machine/engine/rv64/x86_64/code.h"

#include <stddef.h>

#define TRANSLATE_INSNS_MAX 64
// An instruction has at most five parts out of line (a fused multiply-add of singles: the registers are not loaded, three operands
// are no boxes, the result is NaN); the block's beginning and end have one more.
#define TRANSLATE_COLD_MAX (TRANSLATE_INSNS_MAX * 5 + 2)
// What a block can take at most, hot and cold.
#define TRANSLATE_BYTES_MAX (TRANSLATE_INSNS_MAX * 448u)

#define VCPU(field) ((int32_t)offsetof(struct rv64_vcpu, field))
#define VCPU_X(r) (VCPU(x) + 8 * (int32_t)(r))
#define VCPU_F(r) (VCPU(f) + 8 * (int32_t)(r))
#define CONTEXT_TLB(access) ((int32_t)(offsetof(struct rv64_context, tlb) + (access) * sizeof(struct rv64_tlb)))
#define CONTEXT_JUMPS ((int32_t)offsetof(struct rv64_context, jumps))
#define TRANSLATE_TLB_INDEX_MASK ((RV64_TLB_ENTRIES - 1) * (int32_t)sizeof(struct rv64_tlb_entry))
_Static_assert(sizeof(struct rv64_tlb_entry) == 16, "a page number becomes an entry's offset by a shift of 8");
#define TRANSLATE_TAG(access) (CONTEXT_TLB(access) + (int32_t)offsetof(struct rv64_tlb_entry, tag))
#define TRANSLATE_ADDEND(access) (CONTEXT_TLB(access) + (int32_t)offsetof(struct rv64_tlb_entry, addend))

// Behind a call of the thunks link and link_plain.
struct __attribute__((packed)) code_jump {
    uint16_t target; // offset in the page
    uint16_t site;   // how far before this the jump's distance stands
};

// What goes on out of line, behind the block.
enum cold_kind {
    COLD_LINK,        // a direct jump whose target is not known yet
    COLD_POLL,        // attention is set before an instruction
    COLD_POLL_BEHIND, // or behind one
    COLD_ACCESS,      // the translation cache does not know the page
    COLD_PREDICT,     // the page is not in the entry where it was last time
    COLD_SPAN,        // the translation cache does not know all of a span's
    COLD_STEP,        // the interpreter carries out this one instruction
    COLD_FP,          // the floating-point registers are not loaded
    COLD_NAN,         // a result is NaN: the canonical one
    COLD_HOT,         // the block has run so often that it is to be translated anew
};

struct cold {
    enum cold_kind kind;
    uint8_t *site;                // the jump that comes here
    uint8_t *back;                // where to go on
    uint8_t *resume, *misaligned; // PREDICT: where the addend is in rcx; another jump that comes to the slow access
    const struct rv64_insn *insn;
    unsigned pending; // instructions before it that are not counted
    uint32_t target;  // LINK: offset in the page; NAN: whether a single
    int reg;
    int64_t first, last; // SPAN: of the base register
    bool fp_ready;       // what was known of floating point
};

// Accesses that one look at the translation cache serves (spans.c). When it fails, control goes on in another version of the
// block from there on, in which each access looks for itself. A small block looks that way for larger groups only.
#define SPAN_OF_SMALL_MIN 3
#define SPAN_NONE 255u
struct span {
    unsigned root;       // the value that all of them go by
    int64_t first, last; // distance from that value of the first and last byte
    enum rv64_access access;
    unsigned n_accesses;
    bool apart; // other instructions stand between two of them
    int slot;   // where the addend is kept then, in v->addends; -1: nowhere
    bool looked_up;
};

struct translator {
    struct x86 x;
    struct rv64_code *code;
    struct code_block *block;      // that it is to be
    const struct rv64_insn *insns; // their `offset` counts from the page's beginning
    unsigned n_insns;
    unsigned n_round; // a loop that stands here several times over: how many instructions a round has; 0: none
    unsigned pending; // instructions done and not yet counted
    unsigned priv;
    uint32_t start; // offset in the page of the first
    uint8_t *body;
    bool no_room;                                   // for a note: the block is not to be used
    const uint8_t *starts[TRANSLATE_INSNS_MAX + 1]; // of each instruction's code, and of what is out of line
    bool ended;                                     // control does not go on behind the last instruction
    bool fp_ready;                                  // known to be loaded here
    uint32_t boxed;                                 // floating-point registers known to hold a single
    struct span spans[TRANSLATE_INSNS_MAX];
    unsigned n_spans;
    uint8_t span_of[TRANSLATE_INSNS_MAX];     // by instruction
    int64_t base_offset[TRANSLATE_INSNS_MAX]; // of an access's base register from the span's value
    bool base_loaded[TRANSLATE_INSNS_MAX];    // an access's base register was computed from something that the block loaded
    unsigned held[2];                         // the spans whose addends are in rcx and in rax, or SPAN_NONE
    struct cold cold[TRANSLATE_COLD_MAX];
    unsigned n_cold;
};

// The block at `guest`, made. NULL: no room.
struct code_block *translate(struct rv64_code *c, struct code_page *page, const uint8_t *guest, unsigned priv);
// The one instruction at `guest`, a page's last halfword, whose second half is elsewhere.
struct code_block *translate_crossing(struct rv64_code *c, const uint8_t *guest, uint32_t raw, unsigned priv);
// The look into the translation cache, in parts. Makes an address in `at` the offset of the entry that its page would have;
void translate_tlb_index(struct x86 *x, int at);
// and compares the page of the address in rdx with the entry at `index`: equal when it is there. Changes rdx.
void translate_tlb_compare(struct x86 *x, int index, enum rv64_access access);
unsigned translate_load_op(bool is_signed, unsigned log2); // mov, or what extends
// Emit an instruction; false: not by this function.
bool translate_integer(struct translator *t, const struct rv64_insn *insn);
bool translate_memory(struct translator *t, const struct rv64_insn *insn);
bool translate_float(struct translator *t, const struct rv64_insn *insn);
bool translate_system(struct translator *t, const struct rv64_insn *insn); // and counts it
// Which of them it emits; the others are steps of the interpreter's.
bool translate_is_own_system(const struct rv64_insn *insn, unsigned priv);
bool translate_is_time(const struct rv64_insn *insn); // reads `time`

// --- translate.c: words for the others
struct cold *translate_cold(struct translator *t, enum cold_kind kind, uint8_t *site, const struct rv64_insn *insn);
int translate_home(unsigned x);                                      // the host register of an integer register, or -1
int translate_source(struct translator *t, unsigned x, int scratch); // a host register that holds it
int translate_target(unsigned x);                                    // its home, or RAX
void translate_put(struct translator *t, unsigned x, int host);      // into x, wherever it is
bool translate_goes_round(const struct translator *t, const struct rv64_insn *insn); // a branch behind which the next round stands
void translate_hold_nothing(struct translator *t);
void translate_count(struct translator *t);                                     // the pending instructions
void translate_poll_behind(struct translator *t, const struct rv64_insn *insn); // leaves behind it when attention is set
void translate_step(struct translator *t, const struct rv64_insn *insn);
void translate_call(struct x86 *x, const struct rv64_code *c, const uint8_t *thunk);
void translate_jump_to(struct x86 *x, const struct rv64_code *c, const uint8_t *thunk);
void translate_jcc_to(struct x86 *x, const struct rv64_code *c, unsigned cc, const uint8_t *thunk);
bool translate_is_small(const struct translator *t);                    // few bytes come before speed
void translate_slow_access(struct translator *t, const struct cold *c); // memory.c
void translate_search(struct translator *t, const struct cold *c);
void translate_slow_span(struct translator *t, const struct cold *c); // goes on behind it when it fails
bool translate_is_access(const struct rv64_insn *insn);               // a load or store, of integers or floating point, not atomic
void translate_find_spans(struct translator *t);                      // spans.c

int translate_fp_home(unsigned f); // the xmm register of a floating-point register, or -1
void translate_fp_need(struct translator *t, const struct rv64_insn *insn);

// --- thunks.c
void code_make_thunks(struct rv64_code *c);
void thunk_jump(struct x86 *x, const uint8_t *miss_executed, const struct rv64_code *c); // with the pc in rax

// --- run.c
// Where translated code is to go on at v->pc, made if need be, after whatever traps it takes. NULL: back to the vcpu's loop.
const void *run_find(struct rv64_vcpu *v);
void run_enter(struct rv64_vcpu *v); // translated code from v->pc on, until it comes back to C

// Called from translated code. "Light" ones may not use vector registers, nor look at x or f.
enum run_next { RUN_NEXT, RUN_JUMP, RUN_LEAVE };
const void *run_jump(struct rv64_vcpu *v);                              // light: the code at v->pc; NULL: leave
const void *run_link(struct rv64_vcpu *v, const uint8_t *behind);       // light: the same, and makes the jump go there (code_jump)
const void *run_link_plain(struct rv64_vcpu *v, const uint8_t *behind); // light: to the version of the block without spans
const void *run_hot(struct rv64_vcpu *v);                               // light: the block at v->pc is small and runs often
// light: the addend of the page in which `first` to `last` lie; 0: there are two, or it is no RAM that may be accessed so.
uint64_t run_span(struct rv64_vcpu *v, uint64_t first, uint64_t last, enum rv64_access access);
void run_trap(struct rv64_vcpu *v); // light, as all of system.c's:
void run_user_call(struct rv64_vcpu *v);
void run_sret(struct rv64_vcpu *v);
uint64_t run_time(struct rv64_vcpu *v);
uint64_t run_status_read(struct rv64_vcpu *v);
uint64_t run_status_write(struct rv64_vcpu *v, uint64_t operand);
uint64_t run_status_set(struct rv64_vcpu *v, uint64_t operand);
uint64_t run_status_clear(struct rv64_vcpu *v, uint64_t operand);
void run_fence_all(struct rv64_vcpu *v);
void run_fence_asid(struct rv64_vcpu *v);    // of access_value
void run_fence_page(struct rv64_vcpu *v);    // of access_va, whatever the ASID
enum run_next run_cold(struct rv64_vcpu *v); // the code at v->pc, up to the block's end, by the interpreter
enum run_next run_step(struct rv64_vcpu *v, const struct rv64_insn *insn);

struct run_loaded {
    uint64_t value;
    uint64_t status;
};
enum { ACCESS_DONE, ACCESS_FAULT, ACCESS_DEVICE }; // DEVICE: not RAM, to be asked for by the function that is not light
struct run_loaded run_load(struct rv64_vcpu *v, uint64_t va, unsigned size); // light
uint64_t run_store(struct rv64_vcpu *v, uint64_t va, uint64_t value, unsigned size);
struct run_loaded run_device_load(struct rv64_vcpu *v, uint64_t va, unsigned size);
uint64_t run_device_store(struct rv64_vcpu *v, uint64_t va, uint64_t value, unsigned size);
