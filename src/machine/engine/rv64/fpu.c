// IEEE 754 arithmetic as RISC-V wants it (fpu.h): add, subtract, multiply, divide, square root, fused multiply-add.
//
// One exact integer implementation serves both formats and every rounding mode; in front of it stand fast paths on the host's
// arithmetic for what programs do nearly always (see fpu_may_use_host). Pure functions, any thread.
#include "machine/engine/rv64/fpu.h"

#include "machine/engine/rv64/fpu_number.h"

#include <math.h>

typedef unsigned __int128 u128;

// The result of an operation with a NaN among its operands.
static uint64_t propagate_nan(const struct fpu_format *format, enum fpu_kind a, enum fpu_kind b, enum fpu_kind c, uint8_t *flags)
{
    if (a == FPU_SIGNALLING_NAN || b == FPU_SIGNALLING_NAN || c == FPU_SIGNALLING_NAN)
        *flags |= RV64_NV;
    return format->canonical;
}

static uint64_t invalid(const struct fpu_format *format, uint8_t *flags)
{
    *flags |= RV64_NV;
    return format->canonical;
}

static uint64_t infinity(const struct fpu_format *format, bool negative)
{
    return format->infinity | (negative ? format->sign : 0);
}

static uint64_t zero(const struct fpu_format *format, bool negative)
{
    return negative ? format->sign : 0;
}

// --- addition, also of an exact product

struct wide { // frac * 2^(exp - 127); 0, or bit 127 is set
    bool negative;
    int exp;
    u128 frac;
};

static u128 shift_jam_wide(u128 frac, int n)
{
    if (n == 0)
        return frac;
    return n > 127 ? frac != 0 : frac >> n | (frac << (128 - n) != 0);
}

static uint64_t round_wide(const struct fpu_format *format, const struct wide *w, unsigned rm, uint8_t *flags)
{
    struct fpu_number n = {.kind = FPU_FINITE, .negative = w->negative, .exp = w->exp};

    n.frac = (uint64_t)(w->frac >> 64) | ((uint64_t)w->frac != 0);
    return fpu_round(format, &n, rm, flags);
}

// Neither is zero. A product of two doubles has its 22 lowest bits clear and a single summand its 75, so the bit of headroom
// costs nothing, and alignment loses bits only where cancellation cannot bring them back above the rounding position.
static uint64_t add_wide(const struct fpu_format *format, struct wide x, struct wide y, unsigned rm, uint8_t *flags)
{
    struct wide sum;
    int shift;

    if (x.exp < y.exp || (x.exp == y.exp && x.frac < y.frac)) {
        struct wide t = x;
        x = y;
        y = t;
    }
    sum = x;
    x.frac >>= 1;
    y.frac = shift_jam_wide(y.frac >> 1, x.exp - y.exp);
    sum.frac = x.negative == y.negative ? x.frac + y.frac : x.frac - y.frac;
    if (sum.frac == 0) // x - x is +0, but for rounding down (IEEE 754-2019 section 6.3)
        return zero(format, rm == RV64_RDN);
    shift = sum.frac >> 64 ? __builtin_clzll((uint64_t)(sum.frac >> 64)) : 64 + __builtin_clzll((uint64_t)sum.frac);
    sum.frac <<= shift;
    sum.exp += 1 - shift;
    return round_wide(format, &sum, rm, flags);
}

static struct wide widen(const struct fpu_number *n)
{
    return (struct wide){.negative = n->negative, .exp = n->exp, .frac = (u128)n->frac << 64};
}

static struct wide multiply(const struct fpu_number *a, const struct fpu_number *b)
{
    struct wide w = {.negative = a->negative != b->negative, .exp = a->exp + b->exp + 1, .frac = (u128)a->frac * b->frac};

    if (!(w.frac >> 127)) {
        w.frac <<= 1;
        w.exp--;
    }
    return w;
}

static uint64_t add(const struct fpu_format *format, uint64_t a_bits, uint64_t b_bits, unsigned rm, uint8_t *flags)
{
    struct fpu_number a = fpu_unpack(format, a_bits), b = fpu_unpack(format, b_bits);

    if (fpu_is_nan(&a) || fpu_is_nan(&b))
        return propagate_nan(format, a.kind, b.kind, FPU_ZERO, flags);
    if (a.kind == FPU_INFINITE || b.kind == FPU_INFINITE) {
        if (a.kind == b.kind && a.negative != b.negative)
            return invalid(format, flags);
        return a.kind == FPU_INFINITE ? a_bits : b_bits;
    }
    if (a.kind == FPU_ZERO && b.kind == FPU_ZERO)
        return zero(format, a.negative == b.negative ? a.negative : rm == RV64_RDN);
    if (a.kind == FPU_ZERO || b.kind == FPU_ZERO)
        return a.kind == FPU_ZERO ? b_bits : a_bits;
    return add_wide(format, widen(&a), widen(&b), rm, flags);
}

static uint64_t mul(const struct fpu_format *format, uint64_t a_bits, uint64_t b_bits, unsigned rm, uint8_t *flags)
{
    struct fpu_number a = fpu_unpack(format, a_bits), b = fpu_unpack(format, b_bits);
    bool negative = a.negative != b.negative;
    struct wide product;

    if (fpu_is_nan(&a) || fpu_is_nan(&b))
        return propagate_nan(format, a.kind, b.kind, FPU_ZERO, flags);
    if (a.kind == FPU_INFINITE || b.kind == FPU_INFINITE) {
        if (a.kind == FPU_ZERO || b.kind == FPU_ZERO)
            return invalid(format, flags);
        return infinity(format, negative);
    }
    if (a.kind == FPU_ZERO || b.kind == FPU_ZERO)
        return zero(format, negative);
    product = multiply(&a, &b);
    return round_wide(format, &product, rm, flags);
}

static uint64_t fma_exact(const struct fpu_format *format, const uint64_t bits[static 3], unsigned rm, uint8_t *flags)
{
    struct fpu_number a = fpu_unpack(format, bits[0]), b = fpu_unpack(format, bits[1]), c = fpu_unpack(format, bits[2]);
    bool negative = a.negative != b.negative;
    struct wide product;

    // Infinity times zero is invalid even if the addend is a quiet NaN (20.6).
    if ((a.kind == FPU_INFINITE && b.kind == FPU_ZERO) || (a.kind == FPU_ZERO && b.kind == FPU_INFINITE))
        return invalid(format, flags);
    if (fpu_is_nan(&a) || fpu_is_nan(&b) || fpu_is_nan(&c))
        return propagate_nan(format, a.kind, b.kind, c.kind, flags);
    if (a.kind == FPU_INFINITE || b.kind == FPU_INFINITE) {
        if (c.kind == FPU_INFINITE && c.negative != negative)
            return invalid(format, flags);
        return infinity(format, negative);
    }
    if (c.kind == FPU_INFINITE)
        return bits[2];
    if (a.kind == FPU_ZERO || b.kind == FPU_ZERO) {
        if (c.kind == FPU_ZERO)
            return zero(format, c.negative == negative ? negative : rm == RV64_RDN);
        return bits[2];
    }
    product = multiply(&a, &b);
    if (c.kind == FPU_ZERO)
        return round_wide(format, &product, rm, flags);
    return add_wide(format, product, widen(&c), rm, flags);
}

// --- division and square root

static uint64_t divide(const struct fpu_format *format, uint64_t a_bits, uint64_t b_bits, unsigned rm, uint8_t *flags)
{
    struct fpu_number a = fpu_unpack(format, a_bits), b = fpu_unpack(format, b_bits);
    struct fpu_number q = {.kind = FPU_FINITE, .negative = a.negative != b.negative, .exp = a.exp - b.exp};
    u128 dividend;

    if (fpu_is_nan(&a) || fpu_is_nan(&b))
        return propagate_nan(format, a.kind, b.kind, FPU_ZERO, flags);
    if (a.kind == b.kind && a.kind != FPU_FINITE) // 0 / 0, inf / inf
        return invalid(format, flags);
    if (a.kind == FPU_INFINITE)
        return infinity(format, q.negative);
    if (a.kind == FPU_ZERO || b.kind == FPU_INFINITE)
        return zero(format, q.negative);
    if (b.kind == FPU_ZERO) {
        *flags |= RV64_DZ;
        return infinity(format, q.negative);
    }
    dividend = (u128)a.frac << 63; // a.frac / b.frac is between 1/2 and 2: the quotient has 63 or 64 bits
    q.frac = (uint64_t)(dividend / b.frac);
    if (!(q.frac >> 63)) {
        q.frac <<= 1;
        q.exp--;
    }
    q.frac |= dividend % b.frac != 0;
    return fpu_round(format, &q, rm, flags);
}

// The integer square root, digit by digit; *exact tells whether nothing remained.
static uint64_t root_of(u128 square, bool *exact)
{
    uint64_t root = 0;

    for (int bit = 63; bit >= 0; bit--) {
        uint64_t candidate = root | (uint64_t)1 << bit;
        if ((u128)candidate * candidate <= square)
            root = candidate;
    }
    *exact = (u128)root * root == square;
    return root;
}

static uint64_t square_root(const struct fpu_format *format, uint64_t bits, unsigned rm, uint8_t *flags)
{
    struct fpu_number n = fpu_unpack(format, bits);
    bool odd = n.exp & 1, exact;

    if (fpu_is_nan(&n))
        return propagate_nan(format, n.kind, FPU_ZERO, FPU_ZERO, flags);
    if (n.kind == FPU_ZERO)
        return bits;
    if (n.negative)
        return invalid(format, flags);
    if (n.kind == FPU_INFINITE)
        return bits;
    n.frac = root_of((u128)n.frac << (odd ? 64 : 63), &exact);
    n.frac |= !exact;
    n.exp = (n.exp - odd) / 2;
    return fpu_round(format, &n, rm, flags);
}

// --- the functions of fpu.h: first the host, then exactly

uint32_t fpu_add_s(uint32_t a, uint32_t b, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint32_t sum = fpu_from_float(fpu_to_float(a) + fpu_to_float(b));
        if (fpu_is_plain_single(sum))
            return sum;
    }
    return (uint32_t)add(&fpu_single, a, b, rm, flags);
}

uint64_t fpu_add_d(uint64_t a, uint64_t b, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint64_t sum = fpu_from_double(fpu_to_double(a) + fpu_to_double(b));
        if (fpu_is_plain_double(sum))
            return sum;
    }
    return add(&fpu_double, a, b, rm, flags);
}

uint32_t fpu_sub_s(uint32_t a, uint32_t b, unsigned rm, uint8_t *flags)
{
    return fpu_add_s(a, b ^ (uint32_t)fpu_single.sign, rm, flags); // a NaN's sign does not count
}

uint64_t fpu_sub_d(uint64_t a, uint64_t b, unsigned rm, uint8_t *flags)
{
    return fpu_add_d(a, b ^ fpu_double.sign, rm, flags);
}

uint32_t fpu_mul_s(uint32_t a, uint32_t b, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint32_t product = fpu_from_float(fpu_to_float(a) * fpu_to_float(b));
        if (fpu_is_plain_single(product))
            return product;
    }
    return (uint32_t)mul(&fpu_single, a, b, rm, flags);
}

uint64_t fpu_mul_d(uint64_t a, uint64_t b, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint64_t product = fpu_from_double(fpu_to_double(a) * fpu_to_double(b));
        if (fpu_is_plain_double(product))
            return product;
    }
    return mul(&fpu_double, a, b, rm, flags);
}

uint32_t fpu_div_s(uint32_t a, uint32_t b, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint32_t quotient = fpu_from_float(fpu_to_float(a) / fpu_to_float(b));
        if (fpu_is_plain_single(quotient))
            return quotient;
    }
    return (uint32_t)divide(&fpu_single, a, b, rm, flags);
}

uint64_t fpu_div_d(uint64_t a, uint64_t b, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint64_t quotient = fpu_from_double(fpu_to_double(a) / fpu_to_double(b));
        if (fpu_is_plain_double(quotient))
            return quotient;
    }
    return divide(&fpu_double, a, b, rm, flags);
}

uint32_t fpu_sqrt_s(uint32_t a, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint32_t root = fpu_from_float(sqrtf(fpu_to_float(a)));
        if (fpu_is_plain_single(root))
            return root;
    }
    return (uint32_t)square_root(&fpu_single, a, rm, flags);
}

uint64_t fpu_sqrt_d(uint64_t a, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint64_t root = fpu_from_double(sqrt(fpu_to_double(a)));
        if (fpu_is_plain_double(root))
            return root;
    }
    return square_root(&fpu_double, a, rm, flags);
}

// The C library's fma rounds once on every host: by the instruction where there is one, else in software.
uint32_t fpu_fma_s(uint32_t a, uint32_t b, uint32_t c, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint32_t sum = fpu_from_float(fmaf(fpu_to_float(a), fpu_to_float(b), fpu_to_float(c)));
        if (fpu_is_plain_single(sum))
            return sum;
    }
    return (uint32_t)fma_exact(&fpu_single, (uint64_t[]){a, b, c}, rm, flags);
}

uint64_t fpu_fma_d(uint64_t a, uint64_t b, uint64_t c, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint64_t sum = fpu_from_double(fma(fpu_to_double(a), fpu_to_double(b), fpu_to_double(c)));
        if (fpu_is_plain_double(sum))
            return sum;
    }
    return fma_exact(&fpu_double, (uint64_t[]){a, b, c}, rm, flags);
}
