// The saved state of a vcpu. Called while it does not run. Its caches are not part of it, nor is a reservation: a store-conditional
// may always fail.
#include "machine/engine/rv64/mmu.h"

static void registers_state(struct rv64_vcpu *v, struct state *s)
{
    state_u64_array(s, "x", v->x, 32);
    state_u64_array(s, "f", v->f, 32);
    state_u64(s, "pc", &v->pc);
    state_u8(s, "fflags", &v->fflags);
    state_u8(s, "frm", &v->frm);
    state_u8(s, "priv", &v->priv);
    state_u64(s, "instret", &v->instret);
}

static void csrs_state(struct rv64_vcpu *v, struct state *s)
{
    uint64_t sip = atomic_load(&v->sip);
    state_u64(s, "sstatus", &v->sstatus);
    state_u64(s, "stvec", &v->stvec);
    state_u64(s, "sscratch", &v->sscratch);
    state_u64(s, "sepc", &v->sepc);
    state_u64(s, "scause", &v->scause);
    state_u64(s, "stval", &v->stval);
    state_u64(s, "satp", &v->satp);
    state_u64(s, "sie", &v->sie);
    state_u64(s, "sip", &sip);
    state_u64(s, "scounteren", &v->scounteren);
    state_u64(s, "senvcfg", &v->senvcfg);
    state_u64(s, "stimecmp", &v->stimecmp);
    state_u64(s, "siselect", &v->siselect);
    if (state_is_loading(s))
        atomic_store(&v->sip, sip);
}

// What the engine relies on, whoever wrote the stream.
static void check(const struct rv64_vcpu *v, struct state *s)
{
    uint64_t mode = v->satp >> 60;
    if (v->x[0] != 0 || v->pc & 1)
        state_fail(s, "hart %u: x0 is not 0 or pc is odd", v->id);
    if (v->fflags > 31 || v->frm > 7 || v->priv > RV64_S)
        state_fail(s, "hart %u: fflags %u, frm %u, privilege %u", v->id, v->fflags, v->frm, v->priv);
    if (mode != 0 && (mode < 8 || mode > 10))
        state_fail(s, "hart %u: no translation mode %u", v->id, (unsigned)mode);
}

int rv64_vcpu_state(struct rv64_vcpu *v, struct state *s)
{
    state_section_begin(s, "hart", 1);
    registers_state(v, s);
    csrs_state(v, s);
    check(v, s);
    rv64_imsic_state(v, s);
    rv64_sbi_state(v, s);
    state_section_end(s);
    if (!state_is_loading(s))
        return 0;
    if (state_failed(s))
        v->satp = v->priv = 0; // harmless until it is thrown away
    v->reserved_addr = ~0ull;
    rv64_mmu_flush(v);
    rv64_blocks_flush(v->blocks);
    rv64_mmu_context(v);
    atomic_fetch_or(&v->attention, RV64_ATTN_INTERRUPT);
    return 0;
}
