// Unpacking, rounding and packing of IEEE 754 numbers, for fpu.c and fpu_convert.c. Pure functions, any thread.
#include "machine/engine/rv64/fpu_number.h"

#include <assert.h>

const struct fpu_format fpu_single = {
    .frac_bits = 23,
    .emin = -126,
    .emax = 127,
    .sign = 0x80000000,
    .infinity = 0x7f800000,
    .quiet = 0x00400000,
    .canonical = 0x7fc00000,
};

const struct fpu_format fpu_double = {
    .frac_bits = 52,
    .emin = -1022,
    .emax = 1023,
    .sign = 0x8000000000000000,
    .infinity = 0x7ff0000000000000,
    .quiet = 0x0008000000000000,
    .canonical = 0x7ff8000000000000,
};

struct fpu_number fpu_unpack(const struct fpu_format *format, uint64_t bits)
{
    uint64_t magnitude = bits & (format->sign - 1);
    uint64_t frac = magnitude & (((uint64_t)1 << format->frac_bits) - 1);
    int biased = (int)(magnitude >> format->frac_bits);
    struct fpu_number n = {.kind = FPU_FINITE, .negative = (bits & format->sign) != 0};

    if (magnitude == 0) {
        n.kind = FPU_ZERO;
    } else if (magnitude > format->infinity) {
        n.kind = bits & format->quiet ? FPU_QUIET_NAN : FPU_SIGNALLING_NAN;
    } else if (magnitude == format->infinity) {
        n.kind = FPU_INFINITE;
    } else if (biased == 0) {
        int shift = __builtin_clzll(frac);
        n.frac = frac << shift;
        n.exp = format->emin - shift + (63 - format->frac_bits);
    } else {
        n.frac = (uint64_t)1 << 63 | frac << (63 - format->frac_bits);
        n.exp = biased - 1 + format->emin;
    }
    return n;
}

static uint64_t overflow(const struct fpu_format *format, bool negative, unsigned rm, uint8_t *flags)
{
    bool to_infinity = rm == RV64_RNE || rm == RV64_RMM || (rm == RV64_RUP && !negative) || (rm == RV64_RDN && negative);

    *flags |= RV64_OF | RV64_NX;
    return format->infinity - !to_infinity; // the pattern before infinity is the largest finite number
}

static uint64_t round_subnormal(const struct fpu_format *format, const struct fpu_number *n, unsigned rm, uint8_t *flags)
{
    int drop = 63 - format->frac_bits;
    // Tiny after rounding: the number, rounded as if exponents had no bound, is still below the smallest normal one.
    uint64_t unbounded = n->frac + fpu_rounding_increment(n->frac, drop, n->negative, rm);
    bool carries = unbounded < n->frac;
    bool tiny = n->exp < format->emin - 1 || !carries;
    uint64_t frac = fpu_shift_jam(n->frac, format->emin - n->exp);

    if (frac << (64 - drop))
        *flags |= tiny ? RV64_UF | RV64_NX : RV64_NX;
    // Rounded up to the smallest normal number, the carry is the exponent field's 1.
    return (frac + fpu_rounding_increment(frac, drop, n->negative, rm)) >> drop;
}

uint64_t fpu_round(const struct fpu_format *format, const struct fpu_number *n, unsigned rm, uint8_t *flags)
{
    int drop = 63 - format->frac_bits, exp = n->exp;
    uint64_t sign = n->negative ? format->sign : 0, frac;

    assert(n->frac >> 63);
    if (exp < format->emin)
        return sign | round_subnormal(format, n, rm, flags);
    frac = n->frac + fpu_rounding_increment(n->frac, drop, n->negative, rm);
    if (frac < n->frac) { // carried out of bit 63: all bits that stay are zero
        frac >>= 1;
        exp++;
    }
    if (exp > format->emax)
        return sign | overflow(format, n->negative, rm, flags);
    if (n->frac << (64 - drop))
        *flags |= RV64_NX;
    frac = frac >> drop & (((uint64_t)1 << format->frac_bits) - 1);
    return sign | (uint64_t)(exp - format->emin + 1) << format->frac_bits | frac;
}
