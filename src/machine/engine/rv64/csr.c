// Control and status registers that S and U mode have; all others are illegal. On the vcpu's thread.
//
// References: Privileged ISA chapter 10 (supervisor), 11.4 (Sstc); Unprivileged ISA chapters 7 (counters) and 20.2 (fcsr); AIA 1.0
// chapters 2 and 5 (siselect, sireg, stopei, stopi).
#include "machine/engine/rv64/mmu.h"

#include <errno.h>

enum {
    CSR_FFLAGS = 0x001,
    CSR_FRM = 0x002,
    CSR_FCSR = 0x003,
    CSR_SSTATUS = 0x100,
    CSR_SIE = 0x104,
    CSR_STVEC = 0x105,
    CSR_SCOUNTEREN = 0x106,
    CSR_SENVCFG = 0x10a,
    CSR_SSCRATCH = 0x140,
    CSR_SEPC = 0x141,
    CSR_SCAUSE = 0x142,
    CSR_STVAL = 0x143,
    CSR_SIP = 0x144,
    CSR_STIMECMP = 0x14d,
    CSR_SISELECT = 0x150,
    CSR_SIREG = 0x151,
    CSR_STOPEI = 0x15c,
    CSR_SATP = 0x180,
    CSR_CYCLE = 0xc00,
    CSR_TIME = 0xc01,
    CSR_HPMCOUNTER31 = 0xc1f,
    CSR_STOPI = 0xdb0,
};

#define SIE_WRITABLE (1ull << RV64_IRQ_SOFTWARE | 1ull << RV64_IRQ_TIMER | 1ull << RV64_IRQ_EXTERNAL)
#define SENVCFG_WRITABLE (RV64_SENVCFG_FIOM | RV64_SENVCFG_CBIE | RV64_SENVCFG_CBCFE | RV64_SENVCFG_CBZE)
#define SATP_WRITABLE_MODES (1u << 0 | 1u << 8 | 1u << 9 | 1u << 10) // Bare, Sv39, Sv48, Sv57
#define SELECT_MAX 0xfffu
#define SELECT_IPRIO0 0x30u
#define SELECT_IPRIO15 0x3fu

static bool fp_enabled(const struct rv64_vcpu *v)
{
    return v->sstatus & RV64_SSTATUS_FS;
}

static bool is_fp(unsigned csr)
{
    return csr >= CSR_FFLAGS && csr <= CSR_FCSR;
}

static bool is_counter(unsigned csr)
{
    return csr >= CSR_CYCLE && csr <= CSR_HPMCOUNTER31;
}

static bool counter_read(struct rv64_vcpu *v, unsigned csr, uint64_t *value)
{
    if (v->priv == RV64_U && !(v->scounteren >> (csr - CSR_CYCLE) & 1))
        return false;
    if (csr == CSR_TIME) {
        *value = rv64_time(v->engine);
        return true;
    }
    return rv64_pmu_read(v, csr - CSR_CYCLE, value) == 0;
}

// AIA 5.4.2: the number in bits 27..16; as no priorities can be set the lower part is always 1.
static uint64_t stopi_read(const struct rv64_vcpu *v)
{
    unsigned top = rv64_interrupt_top(v);
    return top ? (uint64_t)top << 16 | 1 : 0;
}

static bool sireg_read(struct rv64_vcpu *v, uint64_t *value)
{
    if (v->siselect >= SELECT_IPRIO0 && v->siselect <= SELECT_IPRIO15)
        return v->siselect % 2 == 0; // read-only zero
    return rv64_imsic_read(v, (unsigned)v->siselect, value);
}

static bool sireg_change(struct rv64_vcpu *v, uint64_t clear, uint64_t set)
{
    if (v->siselect >= SELECT_IPRIO0 && v->siselect <= SELECT_IPRIO15)
        return v->siselect % 2 == 0;
    return rv64_imsic_change(v, (unsigned)v->siselect, clear, set);
}

static bool csr_read(struct rv64_vcpu *v, unsigned csr, uint64_t *value)
{
    *value = 0;
    switch (csr) {
    case CSR_FFLAGS:
        *value = v->fflags;
        return true;
    case CSR_FRM:
        *value = v->frm;
        return true;
    case CSR_FCSR:
        *value = (uint64_t)v->frm << 5 | v->fflags;
        return true;
    case CSR_SSTATUS:
        *value = rv64_sstatus_read(v);
        return true;
    case CSR_SIE:
        *value = v->sie;
        return true;
    case CSR_STVEC:
        *value = v->stvec;
        return true;
    case CSR_SCOUNTEREN:
        *value = v->scounteren;
        return true;
    case CSR_SENVCFG:
        *value = v->senvcfg;
        return true;
    case CSR_SSCRATCH:
        *value = v->sscratch;
        return true;
    case CSR_SEPC:
        *value = v->sepc;
        return true;
    case CSR_SCAUSE:
        *value = v->scause;
        return true;
    case CSR_STVAL:
        *value = v->stval;
        return true;
    case CSR_SIP:
        *value = rv64_pending(v);
        return true;
    case CSR_STIMECMP:
        *value = v->stimecmp;
        return true;
    case CSR_SISELECT:
        *value = v->siselect;
        return true;
    case CSR_SIREG:
        return sireg_read(v, value);
    case CSR_STOPEI: {
        uint64_t identity = rv64_imsic_top(v);
        *value = identity << 16 | identity;
        return true;
    }
    case CSR_STOPI:
        *value = stopi_read(v);
        return true;
    case CSR_SATP:
        *value = v->satp;
        return true;
    default:
        return is_counter(csr) && counter_read(v, csr, value);
    }
}

static void satp_write(struct rv64_vcpu *v, uint64_t value)
{
    if (!(SATP_WRITABLE_MODES >> (value >> 60) & 1))
        return; // an unknown mode: the write has no effect
    v->satp = value;
    rv64_mmu_context(v);
}

// CBIE = 2 is reserved: what was there stays.
static uint64_t senvcfg_legal(uint64_t old, uint64_t value)
{
    value &= SENVCFG_WRITABLE;
    if ((value & RV64_SENVCFG_CBIE) == 2ull << 4)
        value = (value & ~RV64_SENVCFG_CBIE) | (old & RV64_SENVCFG_CBIE);
    return value;
}

static void set_fp(struct rv64_vcpu *v, uint64_t frm, uint64_t fflags)
{
    v->frm = (uint8_t)(frm & 7);
    v->fflags = (uint8_t)(fflags & 31);
    v->sstatus |= RV64_SSTATUS_FS;
}

static bool csr_write(struct rv64_vcpu *v, unsigned csr, uint64_t value)
{
    switch (csr) {
    case CSR_FFLAGS:
        set_fp(v, v->frm, value);
        return true;
    case CSR_FRM:
        set_fp(v, value, v->fflags);
        return true;
    case CSR_FCSR:
        set_fp(v, value >> 5, value);
        return true;
    case CSR_SSTATUS:
        rv64_sstatus_write(v, value);
        return true;
    case CSR_SIE:
        v->sie = value & SIE_WRITABLE;
        rv64_timer_update(v);
        rv64_interrupts_changed(v);
        return true;
    case CSR_STVEC:
        v->stvec = value & ~2ull; // modes 0 and 1
        return true;
    case CSR_SCOUNTEREN:
        v->scounteren = (uint32_t)value;
        return true;
    case CSR_SENVCFG:
        v->senvcfg = senvcfg_legal(v->senvcfg, value);
        return true;
    case CSR_SSCRATCH:
        v->sscratch = value;
        return true;
    case CSR_SEPC:
        v->sepc = value & ~1ull;
        return true;
    case CSR_SCAUSE:
        v->scause = value;
        return true;
    case CSR_STVAL:
        v->stval = value;
        return true;
    case CSR_STIMECMP:
        v->stimecmp = value;
        rv64_timer_update(v);
        rv64_interrupts_changed(v);
        return true;
    case CSR_SISELECT:
        v->siselect = value & SELECT_MAX;
        return true;
    case CSR_STOPEI:
        rv64_imsic_claim(v, rv64_imsic_top(v));
        return true;
    case CSR_SATP:
        satp_write(v, value);
        return true;
    default:
        return false;
    }
}

// Registers that others write as well: nothing is read first and written back later.
static bool csr_change_shared(struct rv64_vcpu *v, unsigned csr, uint64_t clear, uint64_t set)
{
    bool ok = true;
    if (csr == CSR_SIP) {
        uint64_t writable = 1ull << RV64_IRQ_SOFTWARE;
        atomic_fetch_and(&v->sip, ~(clear & ~set & writable));
        atomic_fetch_or(&v->sip, set & writable);
    } else {
        ok = sireg_change(v, clear, set);
    }
    rv64_interrupts_changed(v);
    return ok;
}

bool rv64_csr_access(struct rv64_vcpu *v, unsigned csr, enum rv64_csr_op op, uint64_t operand, bool read, bool write, uint64_t *old)
{
    unsigned privilege = csr >> 8 & 3, read_only = csr >> 10 == 3;
    if (privilege > v->priv || (write && read_only) || (is_fp(csr) && !fp_enabled(v)))
        return false;
    uint64_t value = 0;
    if ((read || op != RV64_CSR_WRITE) && !csr_read(v, csr, &value))
        return false;
    *old = value;
    if (!write)
        return true;
    uint64_t clear = op == RV64_CSR_WRITE ? ~0ull : op == RV64_CSR_CLEAR ? operand : 0;
    uint64_t set = op == RV64_CSR_CLEAR ? 0 : operand;
    if (csr == CSR_SIP || csr == CSR_SIREG)
        return csr_change_shared(v, csr, clear, set);
    if (csr == CSR_STOPEI && read) { // claims what the read has told, and nothing that came since
        rv64_imsic_claim(v, (uint32_t)(value >> 16));
        return true;
    }
    return csr_write(v, csr, (value & ~clear) | set);
}
