// A hart's S-level interrupt file (AIA 1.0, chapter 3). Any thread raises identities; all else is the hart's own.
#include "machine/engine/rv64/rv64.h"

enum { // siselect, AIA table 3
    SELECT_EIDELIVERY = 0x70,
    SELECT_EITHRESHOLD = 0x72,
    SELECT_EIP0 = 0x80,
    SELECT_EIE0 = 0xc0,
    SELECT_END = 0x100,
};

void rv64_imsic_raise(struct rv64_vcpu *v, uint32_t identity)
{
    if (identity == 0 || identity >= RV64_IMSIC_IDS)
        return;
    atomic_fetch_or(&v->imsic.eip[identity / 64], 1ull << (identity % 64));
    rv64_attention(v, RV64_ATTN_INTERRUPT);
}

uint32_t rv64_imsic_top(const struct rv64_vcpu *v)
{
    const struct rv64_imsic *m = &v->imsic;
    if (!atomic_load_explicit(&m->eidelivery, memory_order_relaxed))
        return 0;
    uint32_t threshold = atomic_load_explicit(&m->eithreshold, memory_order_relaxed);
    for (unsigned i = 0; i < RV64_IMSIC_IDS / 64; i++) {
        uint64_t ready = atomic_load_explicit(&m->eip[i], memory_order_acquire);
        ready &= atomic_load_explicit(&m->eie[i], memory_order_relaxed);
        if (!ready)
            continue;
        // The lowest number has the highest priority; a threshold of P shuts out P and above.
        uint32_t identity = i * 64 + (uint32_t)__builtin_ctzll(ready);
        return threshold == 0 || identity < threshold ? identity : 0;
    }
    return 0;
}

void rv64_imsic_claim(struct rv64_vcpu *v, uint32_t identity)
{
    if (identity)
        atomic_fetch_and(&v->imsic.eip[identity / 64], ~(1ull << (identity % 64)));
}

// The 64 identities behind an eip or eie register, or NULL: what lies beyond the last identity is read-only zero.
static _Atomic uint64_t *array_word(struct rv64_imsic *m, unsigned select)
{
    unsigned word = (select & 0x3f) / 2;
    if (word >= RV64_IMSIC_IDS / 64)
        return NULL;
    return select < SELECT_EIE0 ? &m->eip[word] : &m->eie[word];
}

static bool is_array(unsigned select)
{
    return select >= SELECT_EIP0 && select < SELECT_END && select % 2 == 0; // odd ones are RV32's
}

bool rv64_imsic_read(struct rv64_vcpu *v, unsigned select, uint64_t *value)
{
    struct rv64_imsic *m = &v->imsic;
    if (select == SELECT_EIDELIVERY) {
        *value = atomic_load(&m->eidelivery);
    } else if (select == SELECT_EITHRESHOLD) {
        *value = atomic_load(&m->eithreshold);
    } else if (is_array(select)) {
        const _Atomic uint64_t *word = array_word(m, select);
        *value = word ? atomic_load(word) : 0;
    } else {
        return select > SELECT_EIDELIVERY && select < SELECT_EIP0; // reserved: read-only zero, *value is that already
    }
    return true;
}

// Bits that devices set meanwhile must not get lost, so the arrays are changed bit by bit and never written back as a whole.
static void array_change(_Atomic uint64_t *word, uint64_t clear, uint64_t set)
{
    atomic_fetch_and(word, ~(clear & ~set));
    atomic_fetch_or(word, set);
}

bool rv64_imsic_change(struct rv64_vcpu *v, unsigned select, uint64_t clear, uint64_t set)
{
    struct rv64_imsic *m = &v->imsic;
    if (select == SELECT_EIDELIVERY) {
        uint64_t value = (atomic_load(&m->eidelivery) & ~clear) | set;
        if (value <= 1)
            atomic_store(&m->eidelivery, (uint32_t)value);
    } else if (select == SELECT_EITHRESHOLD) {
        uint64_t value = (atomic_load(&m->eithreshold) & ~clear) | set;
        atomic_store(&m->eithreshold, (uint32_t)(value % RV64_IMSIC_IDS));
    } else if (is_array(select)) {
        _Atomic uint64_t *word = array_word(m, select);
        if (word) // identity 0 does not exist
            array_change(word, clear, word == &m->eip[0] || word == &m->eie[0] ? set & ~1ull : set);
    } else {
        return select > SELECT_EIDELIVERY && select < SELECT_EIP0;
    }
    return true;
}

void rv64_imsic_reset(struct rv64_vcpu *v)
{
    for (unsigned i = 0; i < RV64_IMSIC_IDS / 64; i++) {
        atomic_store(&v->imsic.eip[i], 0);
        atomic_store(&v->imsic.eie[i], 0);
    }
    atomic_store(&v->imsic.eidelivery, 0);
    atomic_store(&v->imsic.eithreshold, 0);
}

int rv64_imsic_state(struct rv64_vcpu *v, struct state *s)
{
    struct rv64_imsic *m = &v->imsic;
    uint64_t eip[RV64_IMSIC_IDS / 64], eie[RV64_IMSIC_IDS / 64];
    uint32_t eidelivery = m->eidelivery, eithreshold = m->eithreshold;
    for (unsigned i = 0; i < RV64_IMSIC_IDS / 64; i++) {
        eip[i] = m->eip[i];
        eie[i] = m->eie[i];
    }
    state_section_begin(s, "imsic", 1);
    state_u64_array(s, "eip", eip, RV64_IMSIC_IDS / 64);
    state_u64_array(s, "eie", eie, RV64_IMSIC_IDS / 64);
    state_u32(s, "eidelivery", &eidelivery);
    state_u32(s, "eithreshold", &eithreshold);
    state_section_end(s);
    if (eidelivery > 1 || eithreshold >= RV64_IMSIC_IDS)
        state_fail(s, "imsic: eidelivery %u, eithreshold %u", eidelivery, eithreshold);
    if (!state_is_loading(s) || state_failed(s))
        return 0;
    for (unsigned i = 0; i < RV64_IMSIC_IDS / 64; i++) {
        m->eip[i] = i ? eip[i] : eip[i] & ~1ull;
        m->eie[i] = i ? eie[i] : eie[i] & ~1ull;
    }
    m->eidelivery = eidelivery;
    m->eithreshold = eithreshold;
    return 0;
}
