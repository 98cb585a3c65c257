// The RV64 software engine: private header of this folder.
//
// insn.def     the instruction table: encoding, operands, properties and meaning of every instruction, once
// decode.c     table -> decoded instruction; compressed instructions are decoded to their full counterparts
// blocks.c     the cache of decoded blocks
// interp.c     runs decoded blocks by the table's meanings
// mmu.c        Sv39, Sv48, Sv57 page walks; the vcpu's translation caches; guest memory access (mmu.h)
// contexts.c   what is known of each address space
// translator.h translated code, in x86_64/
// timer.c      the guest's clock, the host's timer behind stimecmp
// fence.c      fences on this hart and on others
// csr.c        control and status registers
// trap.c       exceptions, interrupts, sret
// fpu.c        IEEE 754 arithmetic with RISC-V's flags, roundings and NaNs
// imsic.c      a hart's interrupt file (AIA)
// sbi.c        the supervisor binary interface, served by the machine itself
// pmu.c        its performance counters
// vcpu.c       engine_ops: creation, running, kicks, clock; waiting
// save.c       the saved state of a vcpu
// describe.c   the device tree's /cpus node
//
// References: "RISC-V Unprivileged ISA" and "Privileged Architecture" 20240411, "AIA" 1.0, "SBI" 2.0.
#pragma once

#include "machine/engine/engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <time.h>

#define RV64_TIMEBASE_HZ 10000000u // one tick of `time` is 100 ns
#define RV64_NS_PER_TICK 100u

enum rv64_priv { RV64_U = 0, RV64_S = 1 };

// Bits of rv64_vcpu.attention: reasons for a running vcpu to leave its blocks and look. Set with release, read at block boundaries.
enum {
    RV64_ATTN_KICK = 1u << 0,      // engine_ops.kick
    RV64_ATTN_INTERRUPT = 1u << 1, // something pending may have changed: recompute
    RV64_ATTN_FENCE = 1u << 2,     // a remote fence waits (fence_* below)
    RV64_ATTN_STOP = 1u << 3,      // the machine ends or resets
};

// HSM states of a hart, SBI 2.0 section 9.
enum rv64_hart_state {
    RV64_HART_STARTED = 0,
    RV64_HART_STOPPED = 1,
    RV64_HART_START_PENDING = 2,
    RV64_HART_STOP_PENDING = 3,
    RV64_HART_SUSPENDED = 4,
    RV64_HART_SUSPEND_PENDING = 5,
    RV64_HART_RESUME_PENDING = 6,
};

// Flags as in fcsr.fflags.
enum { RV64_NX = 1, RV64_UF = 2, RV64_OF = 4, RV64_DZ = 8, RV64_NV = 16 };
// Rounding modes as in fcsr.frm.
enum { RV64_RNE = 0, RV64_RTZ = 1, RV64_RDN = 2, RV64_RUP = 3, RV64_RMM = 4, RV64_DYN = 7 };

// Exception causes, Privileged ISA table 22 (scause), and the interrupts' numbers, which are the bit numbers in sip and sie as
// well.
enum {
    RV64_CAUSE_FETCH_ACCESS = 1,
    RV64_CAUSE_ILLEGAL = 2,
    RV64_CAUSE_BREAKPOINT = 3,
    RV64_CAUSE_LOAD_MISALIGNED = 4,
    RV64_CAUSE_LOAD_ACCESS = 5,
    RV64_CAUSE_STORE_MISALIGNED = 6,
    RV64_CAUSE_STORE_ACCESS = 7,
    RV64_CAUSE_ECALL_U = 8,
    RV64_CAUSE_FETCH_PAGE = 12,
    RV64_CAUSE_LOAD_PAGE = 13,
    RV64_CAUSE_STORE_PAGE = 15,
};
enum { RV64_IRQ_SOFTWARE = 1, RV64_IRQ_TIMER = 5, RV64_IRQ_EXTERNAL = 9 };
#define RV64_CAUSE_INTERRUPT (1ull << 63)

// sstatus, Privileged ISA 10.1.1.
#define RV64_SSTATUS_SIE (1ull << 1)
#define RV64_SSTATUS_SPIE (1ull << 5)
#define RV64_SSTATUS_SPP (1ull << 8)
#define RV64_SSTATUS_FS (3ull << 13)
#define RV64_SSTATUS_SUM (1ull << 18)
#define RV64_SSTATUS_MXR (1ull << 19)
#define RV64_SSTATUS_UXL_64 (2ull << 32)
#define RV64_SSTATUS_SD (1ull << 63) // computed when read

// senvcfg, Privileged ISA 10.1.10.
#define RV64_SENVCFG_FIOM (1ull << 0)
#define RV64_SENVCFG_CBIE (3ull << 4)
#define RV64_SENVCFG_CBCFE (1ull << 6)
#define RV64_SENVCFG_CBZE (1ull << 7)

#define RV64_CACHE_BLOCK_BYTES 64

struct rv64_engine;
struct rv64_block_cache; // blocks.c
struct rv64_code;        // x86_64/code.h
struct rv64_audit;       // x86_64/audit.h
struct rv64_mmu;         // mmu.h
struct rv64_context;

struct rv64_fence { // what a hart is asked to forget
    enum { RV64_FENCE_I, RV64_FENCE_VMA, RV64_FENCE_VMA_ASID } kind;
    uint64_t start, size; // both 0, or size ~0: everything
    uint64_t asid;
};

#define RV64_FENCES_PENDING_MAX 8
struct rv64_fence_queue { // guarded by the vcpu's lock
    struct rv64_fence pending[RV64_FENCES_PENDING_MAX];
    unsigned n_pending;
    bool overflow;              // more than fits: everything is to be forgotten
    bool in_guest;              // the hart may be using what it knows; it serves the queue before this becomes true
    uint64_t requested, served; // tickets
    pthread_cond_t done;        // served or in_guest changed
};

#define RV64_IMSIC_IDS 256 // identities 1..255
struct rv64_imsic {        // one S-level interrupt file; eip is set by any thread, the rest belongs to the hart
    _Atomic uint64_t eip[RV64_IMSIC_IDS / 64];
    _Atomic uint64_t eie[RV64_IMSIC_IDS / 64];
    _Atomic uint32_t eidelivery, eithreshold;
};

#define RV64_COUNTS_MAX 65
#define RV64_ADDENDS 64

// Which entry of the translation cache an access tries first: x86_64/memory.c.
#define RV64_PREDICTIONS 1024
struct rv64_prediction {
    uint16_t entry;   // its offset in bytes
    uint16_t changes; // how often it may still change before that is given up for a while
};

struct rv64_vcpu {
    // Hot: what instructions touch.
    // What translated code names most comes first, where a byte says how far it is.
    _Alignas(64) _Atomic uint32_t attention;
    uint32_t fp_loaded; // translated code's own, as `page`: x86_64/translate.h
    uint64_t page;      // virtual address of the page whose code runs
    uint64_t x[33];     // x[0] is always 0; x[32] swallows what instructions write to x0
    uint64_t f[32];     // NaN-boxed when single
    uint64_t pc;
    uint8_t fflags, frm;
    uint8_t priv;           // enum rv64_priv
    _Atomic bool running;   // within engine_ops.run
    uint64_t reserved_addr; // host address of the reservation, its lowest bit set for a doubleword; or ~0
    uint64_t reserved_value;
    uint64_t instret;                // instructions retired
    uint64_t trap_cause, trap_value; // of the exception that a failed access asks for
    uint64_t device_pa;              // where the last access went that was not to RAM
    // Translated code's own: x86_64/translate.h.
    uint64_t host_stack; // C's, while translated code runs
    uint32_t mxcsr, mxcsr_clear;
    uint32_t access_at;
    uint64_t access_va, access_value;
    uint64_t addends[RV64_ADDENDS]; // of spans
    struct rv64_prediction predictions[RV64_PREDICTIONS];
    unsigned predictions_age;
    uint32_t interpret_blocks; // left to the interpreter before translated code goes on
    bool waits;
    uint64_t code_fence, code_epoch;
    uint8_t fflags_of_mxcsr[64];
    _Alignas(16) uint64_t box[2];                         // what makes a single a NaN box
    _Alignas(16) uint64_t counts[RV64_COUNTS_MAX + 1][2]; // {n, 0}
    // Supervisor registers.
    uint64_t sstatus, stvec, sscratch, sepc, scause, stval, satp, sie, scounteren, senvcfg, stimecmp, siselect;
    _Atomic uint64_t sip; // software and (without AIA) external bits set by others; the timer bit is computed from stimecmp
    struct rv64_imsic imsic;

    struct rv64_engine *engine;
    unsigned id; // = hartid
    struct rv64_mmu *mmu;
    struct rv64_context *context; // of mmu: the one in use
    struct rv64_block_cache *blocks;
    struct rv64_audit *audit; // NULL: translated code runs unwatched

    // Waiting (wfi, stopped, suspended): `lock` and `wake` guard what follows but where it is atomic.
    pthread_mutex_t lock;
    pthread_cond_t wake; // CLOCK_MONOTONIC
    // enum rv64_hart_state. From SUSPENDED the hart wakes when an interrupt that sie enables pends: behind the ecall when the
    // suspend is retentive, else as from START_PENDING.
    _Atomic int hart_state;
    uint64_t start_addr, start_opaque; // for START_PENDING and SUSPENDED
    bool suspend_retentive;            // while SUSPENDED: go on where it stood, do not start anew at start_addr
    struct rv64_fence_queue fences;

    // The host's timer for stimecmp: timer.c.
    timer_t timer;
    pid_t timer_thread; // whom it interrupts; 0: there is none yet
    _Atomic uint64_t timer_until_ns;
    jmp_buf sbi_fault; // where rv64_load_supervisor() goes when an access of rv64_sbi_call() faults
    // Counters of the performance monitoring extension, SBI 2.0 section 11: pmu.c.
    struct rv64_pmu *pmu;
    struct engine_counters counters;
};

struct rv64_engine {
    struct engine engine; // first
    struct engine_config config;
    struct rv64_vcpu *vcpus[ENGINE_VCPUS_MAX];
    struct rv64_code *code; // translated code; NULL: the interpreter runs everything
    unsigned n_jumps;       // of each context's jump table (mmu.h)
    // Guest time = host monotonic time + time_offset_ns while the clock runs, else time_stopped_ns.
    uint64_t time_offset_ns, time_stopped_ns;
    _Atomic bool time_running;
    _Atomic uint64_t *dirty[GUEST_REGIONS_MAX]; // the dirty log: one bit a page of each region; NULL until it starts
    char failure[256];
    // How the machine ends: an enum engine_exit other than KICK, or -1 while it goes on. First writer wins.
    _Atomic int outcome;
};

// Counters are written by the vcpu's thread alone and read by any.
static inline void rv64_count(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

// --- vcpu.c
void rv64_attention(struct rv64_vcpu *v, uint32_t bits); // sets bits and wakes the vcpu if it waits
// Ends the machine: all vcpus leave run() with this exit. reason may be NULL.
void rv64_end(struct rv64_engine *e, enum engine_exit exit, const char *reason);

bool rv64_wait(struct rv64_vcpu *v); // until an interrupt pends that sie enables (true) or attention is set (false)

// --- timer.c
uint64_t rv64_time(const struct rv64_engine *e); // the `time` CSR, in ticks
uint64_t rv64_time_ns(const struct rv64_engine *e);
int rv64_timers_init(struct tv_error *err);
void rv64_timer_begin(struct rv64_vcpu *v);
void rv64_timer_update(struct rv64_vcpu *v); // stimecmp or sie changed, or the timer may have come
void rv64_timer_fini(struct rv64_vcpu *v);

// --- save.c
int rv64_vcpu_state(struct rv64_vcpu *v, struct state *s);

// --- describe.c
int rv64_describe(const struct engine *e, void *fdt, uint32_t cpu_phandle_base);

// --- blocks.c
struct rv64_block_cache *rv64_blocks_create(unsigned n_vcpus, size_t arena_bytes); // 0: by the number of vcpus
void rv64_blocks_destroy(struct rv64_block_cache *c);
void rv64_blocks_fence(struct rv64_block_cache *c); // fence.i: code is compared with memory before it is used again
void rv64_blocks_flush(struct rv64_block_cache *c);

// --- interp.c
// Runs the guest until attention is set, the hart waits (wfi) or its hart_state is no longer STARTED. True: it waits.
// `blocks`: at most about so many blocks; 0: no bound.
bool rv64_interpret(struct rv64_vcpu *v, unsigned blocks);
// The instruction at v->pc alone. True: the hart waits.
struct rv64_insn;
bool rv64_interpret_one(struct rv64_vcpu *v, const struct rv64_insn *insn);

// --- csr.c
enum rv64_csr_op { RV64_CSR_WRITE, RV64_CSR_SET, RV64_CSR_CLEAR };
// One Zicsr instruction: *old gets the former value unless `read` is false. False: illegal instruction.
bool rv64_csr_access(struct rv64_vcpu *v, unsigned csr, enum rv64_csr_op op, uint64_t operand, bool read, bool write,
                     uint64_t *old);

// --- trap.c
void rv64_trap(struct rv64_vcpu *v, uint64_t cause, uint64_t value); // pc is where it happened
void rv64_sret(struct rv64_vcpu *v);
uint64_t rv64_pending(const struct rv64_vcpu *v);       // sip as the guest reads it
unsigned rv64_interrupt_top(const struct rv64_vcpu *v); // the enabled pending interrupt of highest priority, or 0
void rv64_interrupts_changed(struct rv64_vcpu *v);      // sets attention when one is to be taken
uint64_t rv64_sstatus_read(const struct rv64_vcpu *v);  // the CSR
void rv64_sstatus_write(struct rv64_vcpu *v, uint64_t value);
bool rv64_interrupt_take(struct rv64_vcpu *v); // takes one if there is one and it is enabled

// --- sbi.c
// Serves an ecall from S mode: a7 extension, a6 function, a0..a5 arguments; leaves a0 (error) and a1 (value). pc is moved by the
// caller. May change hart_state; the caller looks at it afterwards: START_PENDING (also of another hart) starts it at start_addr
// with a0 = hartid, a1 = start_opaque, satp = 0 and sstatus.SIE = 0; SUSPENDED waits until an interrupt that sie enables is
// pending. v->instret must count all instructions before the ecall.
void rv64_sbi_call(struct rv64_vcpu *v);
int rv64_sbi_state(struct rv64_vcpu *v, struct state *s); // hart_state, what belongs to it, the PMU; after instret and the clock
int rv64_sbi_init(struct rv64_vcpu *v);                   // also resets
void rv64_sbi_fini(struct rv64_vcpu *v);
void rv64_sbi_reset(struct rv64_vcpu *v); // STOPPED, counters as after power-on
// --- pmu.c
// Reads of the counters cycle, instret and hpmcounter (CSR 0xc00 + counter, not time); -EINVAL: illegal instruction. The guest
// stops and sets them by SBI, so their CSRs have to be read here.
int rv64_pmu_read(struct rv64_vcpu *v, unsigned counter, uint64_t *value);

// --- mmu.c
// Guest memory is about to be written, or was, other than by an instruction: for the dirty log. Any thread.
void rv64_mark_dirty(const struct rv64_engine *e, uint64_t pa, uint64_t len_bytes);

// --- fence.c
// Makes each hart of the mask forget and waits until it has (one that is not running the guest has at once). The caller's own queue
// is served before it runs the guest again, so that two harts may fence each other.
void rv64_fence_remote(struct rv64_vcpu *from, const uint64_t hart_mask, const struct rv64_fence *fence);
void rv64_fence_serve(struct rv64_vcpu *v); // on the vcpu's thread, when RV64_ATTN_FENCE is set
void rv64_fence_local(struct rv64_vcpu *v, const struct rv64_fence *fence);
void rv64_guest_enter(struct rv64_vcpu *v); // serves the queue first
void rv64_guest_leave(struct rv64_vcpu *v); // from here on nobody waits for this hart
// 8 bytes at a virtual address, as a load in S mode at v->pc reads them: does not return when that traps.
uint64_t rv64_load_supervisor(struct rv64_vcpu *v, uint64_t addr);

// --- imsic.c
void rv64_imsic_raise(struct rv64_vcpu *v, uint32_t identity);               // any thread; 0 and unknown identities are ignored
uint32_t rv64_imsic_top(const struct rv64_vcpu *v);                          // highest-priority pending and enabled identity, or 0
bool rv64_imsic_read(struct rv64_vcpu *v, unsigned select, uint64_t *value); // by siselect; false: no such register
bool rv64_imsic_change(struct rv64_vcpu *v, unsigned select, uint64_t clear, uint64_t set); // register = register & ~clear | set
void rv64_imsic_claim(struct rv64_vcpu *v, uint32_t identity); // stopei: the top identity, whose pending bit is cleared
void rv64_imsic_reset(struct rv64_vcpu *v);
int rv64_imsic_state(struct rv64_vcpu *v, struct state *s);
