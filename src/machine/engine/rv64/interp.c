// The interpreter: runs decoded blocks by the meanings in insn.def.
//
// Runs on the vcpu's thread. Within a block nothing is looked at but the instructions; between blocks, attention and every so often
// the timer. The guest's pc is the block's plus the instruction's offset, and is stored only where somebody needs it.
#include "machine/engine/rv64/blocks.h"
#include "machine/engine/rv64/fpu.h"
#include "machine/engine/rv64/mmu.h"

#include <sched.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

// Blocks between two looks at the timer: at most 64 instructions each, so well under a millisecond.
#define BLOCKS_PER_TIMER_CHECK 1024

#define SIGN32 0x80000000u
#define SIGN64 0x8000000000000000ull

// --- Meanings that are too long for the table

static uint64_t divide(uint64_t a, uint64_t b)
{
    if (b == 0)
        return ~0ull;
    if (b == ~0ull)
        return -a; // the overflow of INT64_MIN / -1 among them
    return (uint64_t)((int64_t)a / (int64_t)b);
}

static uint64_t remainder_of(uint64_t a, uint64_t b)
{
    if (b == 0)
        return a;
    if (b == ~0ull)
        return 0;
    return (uint64_t)((int64_t)a % (int64_t)b);
}

static uint64_t or_combine(uint64_t a)
{
    a |= a << 4 & 0xf0f0f0f0f0f0f0f0ull;
    a |= a >> 4 & 0x0f0f0f0f0f0f0f0full;
    a |= a << 2 & 0xccccccccccccccccull;
    a |= a >> 2 & 0x3333333333333333ull;
    a |= a << 1 & 0xaaaaaaaaaaaaaaaaull;
    a |= a >> 1 & 0x5555555555555555ull;
    return a;
}

static unsigned __int128 carryless_multiply(uint64_t a, uint64_t b)
{
    unsigned __int128 product = 0;
    for (; b; b &= b - 1)
        product ^= (unsigned __int128)a << __builtin_ctzll(b);
    return product;
}

static uint32_t unbox(uint64_t f)
{
    return f >> 32 == 0xffffffff ? (uint32_t)f : 0x7fc00000; // not a NaN box: the canonical NaN
}

static bool cache_management_allowed(const struct rv64_vcpu *v, uint64_t field)
{
    return v->priv == RV64_S || v->senvcfg & field;
}

static void fence_vma(struct rv64_vcpu *v, const struct rv64_insn *insn)
{
    struct rv64_fence fence = {.kind = insn->rs2 ? RV64_FENCE_VMA_ASID : RV64_FENCE_VMA};
    if (insn->rs1) {
        fence.start = v->x[insn->rs1] & RV64_PAGE_MASK;
        fence.size = RV64_PAGE_BYTES;
    }
    fence.asid = v->x[insn->rs2];
    rv64_fence_local(v, &fence);
}

static void fence_i(struct rv64_vcpu *v)
{
    rv64_fence_local(v, &(struct rv64_fence){.kind = RV64_FENCE_I});
}

// False: the call faulted on guest memory and is a trap instead.
static bool call_sbi(struct rv64_vcpu *v)
{
    if (setjmp(v->sbi_fault))
        return false;
    rv64_sbi_call(v);
    return true;
}

uint64_t rv64_load_supervisor(struct rv64_vcpu *v, uint64_t addr)
{
    uint64_t value;
    if (!rv64_load(v, addr, sizeof(value), &value))
        longjmp(v->sbi_fault, 1);
    return value;
}

// --- Guest memory: the cache hit here, all else in mmu.c. Accesses need not be aligned.

#define LOAD(type, address)                                                                                                        \
    ({                                                                                                                             \
        uint64_t va_ = (address);                                                                                                  \
        const struct rv64_unaligned_##type *host_ = rv64_tlb_hit(v->context, RV64_READ, va_);                                      \
        type value_;                                                                                                               \
        if (likely(host_ && !rv64_crosses_page(va_, sizeof(type)))) {                                                              \
            value_ = host_->value;                                                                                                 \
        } else {                                                                                                                   \
            uint64_t wide_;                                                                                                        \
            if (unlikely(!rv64_load(v, va_, sizeof(type), &wide_)))                                                                \
                goto trap;                                                                                                         \
            value_ = (type)wide_;                                                                                                  \
        }                                                                                                                          \
        value_;                                                                                                                    \
    })

#define STORE(type, address, data)                                                                                                 \
    do {                                                                                                                           \
        uint64_t va_ = (address);                                                                                                  \
        struct rv64_unaligned_##type *host_ = rv64_tlb_hit(v->context, RV64_WRITE, va_);                                           \
        if (likely(host_ && !rv64_crosses_page(va_, sizeof(type))))                                                                \
            host_->value = (type)(data);                                                                                           \
        else if (unlikely(!rv64_store(v, va_, sizeof(type), (type)(data))))                                                        \
            goto trap;                                                                                                             \
    } while (0)

#define ATOMIC(type, access)                                                                                                       \
    ({                                                                                                                             \
        type *host_ = (RS1 & (sizeof(type) - 1)) ? NULL : rv64_tlb_hit(v->context, access, RS1);                                   \
        if (unlikely(!host_)) {                                                                                                    \
            host_ = rv64_atomic(v, RS1, sizeof(type), access);                                                                     \
            if (!host_)                                                                                                            \
                goto trap;                                                                                                         \
        }                                                                                                                          \
        host_;                                                                                                                     \
    })

#define EXTEND(type, value) (sizeof(type) == 4 ? W(value) : (uint64_t)(value))

#define AMO(type, operation)                                                                                                       \
    type *host = ATOMIC(type, RV64_WRITE);                                                                                         \
    type old = operation(host, (type)RS2, __ATOMIC_SEQ_CST);                                                                       \
    RD(EXTEND(type, old))

#define AMO_IF(type, condition)                                                                                                    \
    type *host = ATOMIC(type, RV64_WRITE);                                                                                         \
    type operand = (type)RS2;                                                                                                      \
    type old = __atomic_load_n(host, __ATOMIC_SEQ_CST);                                                                            \
    while (!__atomic_compare_exchange_n(host, &old, (condition) ? operand : old, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))        \
        ;                                                                                                                          \
    RD(EXTEND(type, old))

#define RESERVATION(type, host) ((uint64_t)(uintptr_t)(host) | (sizeof(type) == 8))

#define LOAD_RESERVED(type)                                                                                                        \
    type *host = ATOMIC(type, RV64_READ);                                                                                          \
    type value = __atomic_load_n(host, __ATOMIC_SEQ_CST);                                                                          \
    v->reserved_addr = RESERVATION(type, host);                                                                                    \
    v->reserved_value = value;                                                                                                     \
    RD(EXTEND(type, value))

// By address and value: a store that put the same value back in between is not noticed, and need not be by any program that uses
// the pair as intended.
#define STORE_CONDITIONAL(type)                                                                                                    \
    type *host = ATOMIC(type, RV64_WRITE);                                                                                         \
    type expected = (type)v->reserved_value;                                                                                       \
    bool done = v->reserved_addr == RESERVATION(type, host) &&                                                                     \
                __atomic_compare_exchange_n(host, &expected, (type)RS2, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                \
    v->reserved_addr = ~0ull;                                                                                                      \
    RD(!done)

// --- The table's words

#define RS1 (v->x[insn->rs1])
#define RS2 (v->x[insn->rs2])
#define RD(value) (v->x[insn->rd] = (uint64_t)(value))
#define IMM ((uint64_t)(int64_t)insn->imm)
#define ZIMM (insn->rs1)
#define W(value) ((uint64_t)(int64_t)(int32_t)(uint32_t)(value))
#define PC (base + insn->offset)
#define NEXT_PC (base + insn->offset + rv64_length(insn->raw))
#define F1 (v->f[insn->rs1])
#define F2 (v->f[insn->rs2])
#define F3 (v->f[RV64_INSN_RS3(insn)])
#define FS1 unbox(F1)
#define FS2 unbox(F2)
#define FS3 unbox(F3)
#define FS(value) (v->f[insn->rd] = 0xffffffff00000000ull | (uint32_t)(value))
#define FD(value) (v->f[insn->rd] = (value))
#define RM rm
#define FLAGS (&v->fflags)

// Instructions since `first` are not yet counted.
#define COUNT(n) rv64_count(&v->instret, (uint64_t)(insn - first) + (n))
// For what reads the vcpu's pc or instret.
#define SYNC()                                                                                                                     \
    do {                                                                                                                           \
        v->pc = PC;                                                                                                                \
        COUNT(0);                                                                                                                  \
        first = insn;                                                                                                              \
    } while (0)
#define TRAP(cause, value)                                                                                                         \
    do {                                                                                                                           \
        v->trap_cause = (cause);                                                                                                   \
        v->trap_value = (value);                                                                                                   \
        goto trap;                                                                                                                 \
    } while (0)
#define JUMP(target)                                                                                                               \
    do {                                                                                                                           \
        v->pc = (target);                                                                                                          \
        link = 1;                                                                                                                  \
        goto linked;                                                                                                               \
    } while (0)
#define JUMP_REGISTER(target)                                                                                                      \
    do {                                                                                                                           \
        v->pc = (target);                                                                                                          \
        COUNT(1);                                                                                                                  \
        goto lookup;                                                                                                               \
    } while (0)
#define BRANCH(condition)                                                                                                          \
    do {                                                                                                                           \
        link = (condition);                                                                                                        \
        v->pc = link ? PC + IMM : NEXT_PC;                                                                                         \
        goto linked;                                                                                                               \
    } while (0)
// The host orders all but loads behind earlier stores (and the compiler keeps to that: guest memory is volatile).
#define FENCE()                                                                                                                    \
    do {                                                                                                                           \
        bool stores_before = insn->imm & 5 << 17, loads_after = insn->imm & 10 << 13;                                              \
        if (stores_before && loads_after)                                                                                          \
            atomic_thread_fence(memory_order_seq_cst);                                                                             \
        else                                                                                                                       \
            atomic_signal_fence(memory_order_seq_cst);                                                                             \
    } while (0)
#define ECALL()                                                                                                                    \
    do {                                                                                                                           \
        if (v->priv == RV64_U)                                                                                                     \
            TRAP(RV64_CAUSE_ECALL_U, 0);                                                                                           \
        SYNC();                                                                                                                    \
        if (!call_sbi(v))                                                                                                          \
            goto trap;                                                                                                             \
    } while (0)
#define SRET()                                                                                                                     \
    do {                                                                                                                           \
        COUNT(1);                                                                                                                  \
        rv64_sret(v);                                                                                                              \
        goto lookup;                                                                                                               \
    } while (0)
#define WFI()                                                                                                                      \
    do {                                                                                                                           \
        v->pc = NEXT_PC;                                                                                                           \
        COUNT(1);                                                                                                                  \
        return true;                                                                                                               \
    } while (0)
#define SFENCE() fence_vma(v, insn)
#define CSR(operation, operand, write)                                                                                             \
    uint64_t old = 0;                                                                                                              \
    SYNC();                                                                                                                        \
    bool read = (operation) != RV64_CSR_WRITE || insn->rd != 32;                                                                   \
    if (!rv64_csr_access(v, (unsigned)insn->imm, operation, operand, read, write, &old))                                           \
        goto op_illegal;                                                                                                           \
    RD(old)
#define CBO(field)                                                                                                                 \
    if (!cache_management_allowed(v, field))                                                                                       \
        goto op_illegal;                                                                                                           \
    if (!rv64_cache_block(v, RS1, false))                                                                                          \
    goto trap
#define CBO_ZERO()                                                                                                                 \
    if (!cache_management_allowed(v, RV64_SENVCFG_CBZE))                                                                           \
        goto op_illegal;                                                                                                           \
    if (!rv64_cache_block(v, RS1, true))                                                                                           \
    goto trap

static void check_timer(struct rv64_vcpu *v)
{
    if (rv64_pending(v) & v->sie)
        atomic_fetch_or_explicit(&v->attention, RV64_ATTN_INTERRUPT, memory_order_relaxed);
}

// What stands before and after each meaning follows from its properties, which are constants: the compiler leaves out what does not
// apply.
#define INSN(name, extension, match, mask, operands, properties, ...)                                                              \
    op_##name:                                                                                                                     \
    {                                                                                                                              \
        if (((properties)&RV64_P_FP) && unlikely(!(v->sstatus & RV64_SSTATUS_FS)))                                                 \
            goto op_illegal;                                                                                                       \
        if (((properties)&RV64_P_PRIVILEGED) && v->priv == RV64_U)                                                                 \
            goto op_illegal;                                                                                                       \
        unsigned rm = RV64_INSN_RM(insn);                                                                                          \
        if ((properties)&RV64_P_RM) {                                                                                              \
            if (rm == RV64_DYN)                                                                                                    \
                rm = v->frm;                                                                                                       \
            if (unlikely(rm > RV64_RMM))                                                                                           \
                goto op_illegal;                                                                                                   \
        }                                                                                                                          \
        (void)rm;                                                                                                                  \
        __VA_ARGS__;                                                                                                               \
        if ((properties)&RV64_P_FP_DIRTY)                                                                                          \
            v->sstatus |= RV64_SSTATUS_FS;                                                                                         \
        if ((properties)&RV64_P_SYSTEM)                                                                                            \
            goto system_done;                                                                                                      \
        insn++;                                                                                                                    \
        goto *labels[insn->op];                                                                                                    \
    }

// `only`: that one instruction, which is at v->pc, and RV64_OP_end behind it; NULL: block after block.
static RV64_GUEST_RACES bool interpret(struct rv64_vcpu *v, const struct rv64_insn *only, unsigned blocks)
{
    static const void *const labels[RV64_OPS_ALL] = {
#define COMPRESSED(...)
#pragma push_macro("INSN")
#undef INSN
#define INSN(name, ...) &&op_##name,
#include "machine/engine/rv64/insn.def"
#pragma pop_macro("INSN")
        &&op_illegal,
        &&op_end,
    };

    const struct rv64_block_cache *cache = v->blocks;
    struct rv64_block *block = NULL;
    const struct rv64_insn *insn, *first;
    uint64_t base, context;
    unsigned link, budget = BLOCKS_PER_TIMER_CHECK;
    bool bounded = blocks != 0;

    if (only) {
        base = v->pc;
        context = v->context->serial;
        insn = first = only;
        goto *labels[insn->op];
    }
lookup:
    if (unlikely(only))
        return false;
    if (unlikely(--budget == 0)) {
        budget = BLOCKS_PER_TIMER_CHECK;
        check_timer(v);
    }
    if (unlikely(atomic_load_explicit(&v->attention, memory_order_relaxed)))
        return false;
    block = rv64_block_find(v, v->pc);
    if (unlikely(!block)) {
        rv64_trap(v, v->trap_cause, v->trap_value);
        goto lookup;
    }
enter:
    if (unlikely(bounded) && blocks-- == 0)
        return false;
    base = v->pc;
    context = v->context->serial;
    insn = first = block->insns;
    goto *labels[insn->op];

#include "machine/engine/rv64/insn.def"

op_end: // the block's last instruction was an ordinary one
    v->pc = PC;
    COUNT(0);
    link = 0;
    goto linked_counted;

op_illegal:
    v->trap_cause = RV64_CAUSE_ILLEGAL;
    v->trap_value = insn->raw;
trap:
    v->pc = PC;
    COUNT(0);
    rv64_trap(v, v->trap_cause, v->trap_value);
    goto lookup;

system_done:
    v->pc = NEXT_PC;
    COUNT(1);
    if (unlikely(atomic_load_explicit(&v->hart_state, memory_order_relaxed) != RV64_HART_STARTED))
        return false;
    if (context != v->context->serial)
        goto lookup; // the page may be another one now
    link = 0;
    goto linked_counted;

linked:
    COUNT(1);
linked_counted:
    if (unlikely(only))
        return false;
    if (unlikely(--budget == 0)) {
        budget = BLOCKS_PER_TIMER_CHECK;
        check_timer(v);
    }
    if (unlikely(atomic_load_explicit(&v->attention, memory_order_relaxed)))
        return false;
    struct rv64_block *next = block->link[link];
    if (likely(next && next->generation == cache->generation)) {
        block = next;
        goto enter;
    }
    block = rv64_block_find_next(v, base, block, link);
    if (likely(block))
        goto enter;
    rv64_trap(v, v->trap_cause, v->trap_value);
    goto lookup;
}

bool rv64_interpret(struct rv64_vcpu *v, unsigned blocks)
{
    return interpret(v, NULL, blocks);
}

bool rv64_interpret_one(struct rv64_vcpu *v, const struct rv64_insn *insn)
{
    struct rv64_insn pair[2] = {*insn, {.op = RV64_OP_end, .offset = (uint16_t)rv64_length(insn->raw)}};
    pair[0].offset = 0;
    if (insn->op < RV64_OPS && rv64_insn_table[insn->op].operands[0] == 'd' && insn->rd == 0)
        pair[0].rd = 32; // see decode_at() of blocks.c
    return interpret(v, pair, 0);
}
