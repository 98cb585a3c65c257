// Exceptions, interrupts and the return from them (Privileged ISA, chapter 10). All traps go to S mode. On the vcpu's thread.
#include "machine/engine/rv64/mmu.h"

static void enter_supervisor(struct rv64_vcpu *v, uint64_t cause, uint64_t value, uint64_t handler)
{
    v->sepc = v->pc;
    v->scause = cause;
    v->stval = value;
    uint64_t status = v->sstatus & ~(RV64_SSTATUS_SPIE | RV64_SSTATUS_SIE | RV64_SSTATUS_SPP);
    if (v->sstatus & RV64_SSTATUS_SIE)
        status |= RV64_SSTATUS_SPIE;
    if (v->priv == RV64_S)
        status |= RV64_SSTATUS_SPP;
    v->sstatus = status;
    v->priv = RV64_S;
    v->pc = handler;
    v->reserved_addr = ~0ull;
    rv64_mmu_context(v);
}

void rv64_trap(struct rv64_vcpu *v, uint64_t cause, uint64_t value)
{
    rv64_count(&v->counters.traps, 1);
    rv64_count(&v->counters.trap_causes[cause % ENGINE_TRAP_CAUSES], 1);
    enter_supervisor(v, cause, value, v->stvec & ~3ull);
}

void rv64_sret(struct rv64_vcpu *v)
{
    uint64_t status = v->sstatus & ~(RV64_SSTATUS_SIE | RV64_SSTATUS_SPP);
    if (v->sstatus & RV64_SSTATUS_SPIE)
        status |= RV64_SSTATUS_SIE;
    v->priv = v->sstatus & RV64_SSTATUS_SPP ? RV64_S : RV64_U;
    v->sstatus = status | RV64_SSTATUS_SPIE;
    v->pc = v->sepc;
    v->reserved_addr = ~0ull;
    rv64_mmu_context(v);
    rv64_interrupts_changed(v);
}

void rv64_interrupts_changed(struct rv64_vcpu *v)
{
    if ((v->priv == RV64_U || v->sstatus & RV64_SSTATUS_SIE) && rv64_interrupt_top(v))
        atomic_fetch_or_explicit(&v->attention, RV64_ATTN_INTERRUPT, memory_order_relaxed);
}

#define SSTATUS_WRITABLE                                                                                                           \
    (RV64_SSTATUS_SIE | RV64_SSTATUS_SPIE | RV64_SSTATUS_SPP | RV64_SSTATUS_FS | RV64_SSTATUS_SUM | RV64_SSTATUS_MXR)

uint64_t rv64_sstatus_read(const struct rv64_vcpu *v)
{
    return v->sstatus | ((v->sstatus & RV64_SSTATUS_FS) == RV64_SSTATUS_FS ? RV64_SSTATUS_SD : 0);
}

void rv64_sstatus_write(struct rv64_vcpu *v, uint64_t value)
{
    v->sstatus = (value & SSTATUS_WRITABLE) | RV64_SSTATUS_UXL_64;
    rv64_mmu_context(v);
    rv64_interrupts_changed(v);
}

// Those of `mask` that pend. While the host's timer is set for stimecmp or earlier the clock need not be looked at.
static uint64_t pending_of(const struct rv64_vcpu *v, uint64_t mask)
{
    uint64_t pending = atomic_load_explicit(&v->sip, memory_order_acquire);
    bool timer_to_come = atomic_load_explicit(&v->timer_until_ns, memory_order_relaxed) != UINT64_MAX;
    if (mask & 1ull << RV64_IRQ_TIMER && !timer_to_come && rv64_time(v->engine) >= v->stimecmp)
        pending |= 1ull << RV64_IRQ_TIMER;
    if (mask & 1ull << RV64_IRQ_EXTERNAL && rv64_imsic_top(v))
        pending |= 1ull << RV64_IRQ_EXTERNAL;
    return pending & mask;
}

uint64_t rv64_pending(const struct rv64_vcpu *v)
{
    uint64_t pending = pending_of(v, ~(1ull << RV64_IRQ_TIMER));
    if (rv64_time(v->engine) >= v->stimecmp)
        pending |= 1ull << RV64_IRQ_TIMER;
    return pending;
}

// By the default order of AIA table 8; priorities cannot be changed (iprio reads as zero).
unsigned rv64_interrupt_top(const struct rv64_vcpu *v)
{
    uint64_t ready = pending_of(v, v->sie);
    static const uint8_t order[] = {RV64_IRQ_EXTERNAL, RV64_IRQ_SOFTWARE, RV64_IRQ_TIMER};
    for (unsigned i = 0; i < sizeof(order); i++)
        if (ready & 1ull << order[i])
            return order[i];
    return 0;
}

bool rv64_interrupt_take(struct rv64_vcpu *v)
{
    if (v->priv == RV64_S && !(v->sstatus & RV64_SSTATUS_SIE))
        return false;
    unsigned irq = rv64_interrupt_top(v);
    if (!irq)
        return false;
    rv64_count(&v->counters.interrupts, 1);
    uint64_t offset = v->stvec & 1 ? 4ull * irq : 0;
    enter_supervisor(v, RV64_CAUSE_INTERRUPT | irq, 0, (v->stvec & ~3ull) + offset);
    return true;
}
